package plugin

import (
	"slices"
	"strconv"
	"strings"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
)

// Asks lists what a package asks for, one thing an entry, as an operator sees it
// before it is installed and as the row and the record keep it: a word that says
// what, and the thing. Sorted.
func Asks(m manifest.Manifest) []string {
	out := []string{"effects " + m.Effects}
	add := func(what string, list ...string) {
		for _, v := range list {
			out = append(out, what+" "+v)
		}
	}
	add("role", m.Roles...)
	add("kind", m.Kinds...)
	add("kbs", kbsAsks(m.KBS)...)
	add("network", m.Capabilities.Network...)
	add("files", m.Capabilities.Files...)
	add("environment", m.Capabilities.Environment...)
	add("session", m.Capabilities.Scopes...)
	for _, c := range m.CommandList() {
		add("command", c.Name)
	}
	if e := m.Extension; e != nil {
		if e.Prefix != "" {
			add("routes", "/api/v1/"+e.Prefix)
		}
		if len(e.Migrations) > 0 {
			add("tables", manifest.TablePrefix+"*")
		}
		add("hook", e.Hooks...)
		add("gate", e.Gates...)
	}
	if v := m.Capabilities.Messages; v != "" && v != "none" {
		add("messages", v)
	}
	if n := m.Capabilities.MemoryMB; n > 0 {
		add("memory", strconv.Itoa(n)+" MB")
	}
	if n := m.Capabilities.Processes; n > 0 {
		add("processes", strconv.Itoa(n))
	}
	if m.Run != nil && m.Run.Interpreter != "" {
		add("interpreter", m.Run.Interpreter)
	}
	slices.Sort(out)
	return out
}

// kbsAsks are the floors of a package with role kbs.
func kbsAsks(k *manifest.KBS) []string {
	if k == nil {
		return nil
	}
	var out []string
	for _, r := range k.Routes {
		methods := "every method"
		if len(r.Methods) > 0 {
			methods = strings.Join(r.Methods, ",")
		}
		out = append(out, r.Floor+" "+methods+" /"+r.Path)
	}
	if k.Encrypt != "" {
		out = append(out, "encrypt "+k.Encrypt)
	}
	return out
}

// NewAsks are the entries that a package has and the accepted list has not.
func NewAsks(asks, accepted []string) []string {
	var out []string
	for _, a := range asks {
		if !slices.Contains(accepted, a) {
			out = append(out, a)
		}
	}
	return out
}
