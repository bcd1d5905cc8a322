package plugin

import (
	"slices"
	"strconv"
	"strings"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
)

// Asks lists what a package asks for on one side, [manifest.ForServer] or
// [manifest.ForCLI], one thing an entry, as an operator sees it before it is
// installed and as the row and the record keep it: a word that says what, and the
// thing. Sorted.
func Asks(m manifest.Manifest, side string) []string {
	l := asked{}
	l.add("role", m.RolesFor(side)...)
	l.add("network", m.Capabilities.Network...)
	l.add("files", m.Capabilities.Files...)
	l.add("environment", m.Capabilities.Environment...)
	if m.MinSecureVersion != "" {
		l.add("lowest version", m.MinSecureVersion+" from now on, for good")
	}
	if m.Run != nil && m.Run.Interpreter != "" {
		l.add("interpreter", m.Run.Interpreter)
	}
	if side == manifest.ForCLI {
		l.add("session", m.Capabilities.Scopes...)
		for _, c := range m.CommandList() {
			l.add("command", c.Name)
		}
	} else {
		l.server(m)
	}
	slices.Sort(l)
	return l
}

type asked []string

func (l *asked) add(what string, list ...string) {
	for _, v := range list {
		*l = append(*l, what+" "+v)
	}
}

// server adds what concerns a server alone.
func (l *asked) server(m manifest.Manifest) {
	l.add("effects", m.Effects)
	l.add("kind", m.Kinds...)
	l.add("kbs", kbsAsks(m.KBS)...)
	if e := m.Extension; e != nil {
		if e.Prefix != "" {
			l.add("routes", "/api/v1/"+e.Prefix)
		}
		if len(e.Migrations) > 0 {
			l.add("tables", manifest.TablePrefix+"*")
		}
		l.add("hook", e.Hooks...)
		l.add("gate", e.Gates...)
	}
	l.add("evidence", m.Evidence...)
	for _, s := range m.Capabilities.Services.Names() {
		if s != manifest.ServiceVend {
			l.add("service", s)
		}
	}
	l.add("vend", m.Capabilities.Services.VendKinds()...)
	if m.Revocation.Needs == manifest.NeedsValue {
		l.add("keeps", "credentials, to revoke them")
	}
	if v := m.Capabilities.Messages; v != "" && v != "none" {
		l.add("messages", v)
	}
	if n := m.Capabilities.MemoryMB; n > 0 {
		l.add("memory", strconv.Itoa(n)+" MB")
	}
	if n := m.Capabilities.Processes; n > 0 {
		l.add("processes", strconv.Itoa(n))
	}
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
