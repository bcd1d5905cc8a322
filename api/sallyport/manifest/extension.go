package manifest

import (
	"fmt"
	"slices"
	"strings"
)

// Extension is what role extension adds: routes below /api/v1/<prefix>/, tables in
// a database of its own, hooks that are told of events, and gates that are asked
// before decisions. Each of them may be absent.
type Extension struct {
	// Prefix is the name below /api/v1/ that routes have. It is unique among
	// installed packages and none of [ReservedPrefixes].
	Prefix string  `json:"prefix,omitempty"`
	Routes []Route `json:"routes,omitempty"`
	// Migrations make the tables, in this order. One that was applied somewhere
	// never changes again.
	Migrations []Migration `json:"migrations,omitempty"`
	// Hooks name the events that the extension is told of: grant.issued, all of a
	// noun with grant.*, or * for every event.
	Hooks []string `json:"hooks,omitempty"`
	// Gates are the decisions that it can be asked about; of [Gates]. It is asked
	// only where the operator has switched that on.
	Gates []string `json:"gates,omitempty"`
}

// Route is one path below the prefix with its methods. Everything else is answered
// by the host, with 404 or 405.
type Route struct {
	// Path begins with a slash. A segment in braces, {machine_id}, stands for any
	// one segment, and {rest...} as the last one for any number of them.
	Path    string   `json:"path"`
	Methods []string `json:"methods"`
}

// Migration is one step of the extension's schema: one text for both engines, or
// one for each.
type Migration struct {
	Name     string `json:"name"` // ordered by it: 0001_tags
	SQL      string `json:"sql,omitempty"`
	SQLite   string `json:"sqlite,omitempty"`
	Postgres string `json:"postgres,omitempty"`
}

// TablePrefix begins the names of all tables and views of extensions.
const TablePrefix = "extension_"

// The gates, named by the verbs whose decisions they are asked about.
const (
	GateRelease = "release" // before a credential is made
	GateAdmit   = "admit"   // before a newcomer is enrolled, and before a session is opened
)

// Gates lists the gates that exist.
func Gates() []string { return []string{GateRelease, GateAdmit} }

// ReservedPrefixes are the names below /api/v1/ that belong to the host.
func ReservedPrefixes() []string {
	return []string{
		"attest", "attestations", "audit", "auth", "clusters", "config", "device", "events", "extensions", "health", "machines", "metrics",
		"nodes", "openapi", "operators", "plugins", "policies", "reference-values", "register", "secrets", "self-register", "shared-secrets",
		"status", "version", "webhooks",
	}
}

// The limits of an extension.
const (
	maxRoutes       = 64
	maxMigrations   = 256
	maxMigrationSQL = 256 << 10
)

var (
	prefixPattern    = expression{text: `^[a-z][a-z0-9_-]{0,40}$`}
	migrationPattern = expression{text: `^[0-9]{4}_[a-z0-9_]{1,60}$`}
	hookPattern      = expression{text: `^(\*|[a-z][a-z0-9_-]{0,40}(\.[a-z0-9_-]{1,64}){0,4}\.(\*|[a-z0-9_-]{1,64}))$`}
	literalPattern   = expression{text: `^[A-Za-z0-9._~-]{1,64}$`}
	wildcardPattern  = expression{text: `^\{[a-z][a-z0-9_]{0,31}(\.\.\.)?\}$`}
)

// Text is the SQL for an engine, sqlite or postgres.
func (m Migration) Text(engine string) string {
	switch {
	case m.SQL != "":
		return m.SQL
	case engine == "postgres":
		return m.Postgres
	default:
		return m.SQLite
	}
}

func (e *Extension) validate() error {
	if e == nil {
		return nil
	}
	switch {
	case (e.Prefix == "") != (len(e.Routes) == 0):
		return fmt.Errorf("extension: prefix and routes belong together")
	case e.Prefix != "" && !prefixPattern.MatchString(e.Prefix):
		return fmt.Errorf("extension.prefix must be lower-case letters, digits, underscores and hyphens, at most 41, and begin with a letter")
	case slices.Contains(ReservedPrefixes(), e.Prefix):
		return fmt.Errorf("extension.prefix %q belongs to the host; choose another", e.Prefix)
	case len(e.Hooks) > maxList || twice(e.Hooks) || twice(e.Gates):
		return fmt.Errorf("extension.hooks and gates must have at most %d entries, none twice", maxList)
	case e.Prefix == "" && len(e.Migrations) == 0 && len(e.Hooks) == 0 && len(e.Gates) == 0:
		return fmt.Errorf("extension must have routes, migrations, hooks or gates")
	}
	for _, h := range e.Hooks {
		if !hookPattern.MatchString(h) {
			return fmt.Errorf("extension.hooks: %s must be an event such as grant.issued, grant.* or *", clip(h))
		}
	}
	for _, g := range e.Gates {
		if !contains(Gates(), g) {
			return fmt.Errorf("extension.gates: %s is not known; known are %v", clip(g), Gates())
		}
	}
	if err := e.validateRoutes(); err != nil {
		return err
	}
	return e.validateMigrations()
}

func (e *Extension) validateRoutes() error {
	if len(e.Routes) > maxRoutes {
		return fmt.Errorf("extension.routes must have at most %d entries", maxRoutes)
	}
	seen := map[string]bool{}
	for _, r := range e.Routes {
		if err := r.validate(); err != nil {
			return err
		}
		if seen[r.shape()] {
			return fmt.Errorf("extension.routes: %s stands twice, perhaps with another name in braces", clip(r.Path))
		}
		seen[r.shape()] = true
	}
	return nil
}

func (r Route) validate() error {
	segments := strings.Split(strings.TrimPrefix(r.Path, "/"), "/")
	if !strings.HasPrefix(r.Path, "/") || len(segments) > 16 {
		return fmt.Errorf("extension.routes: path %s must begin with a slash and have at most 16 segments", clip(r.Path))
	}
	names := map[string]bool{}
	for n, s := range segments {
		last := n == len(segments)-1
		switch {
		case r.Path == "/":
		case s == "." || s == "..":
			return fmt.Errorf("extension.routes: path %s must not have dots as segments", clip(r.Path))
		case literalPattern.MatchString(s):
		case !wildcardPattern.MatchString(s) || strings.HasSuffix(s, "...}") && !last || names[s]:
			return fmt.Errorf("extension.routes: path %s must have segments of letters, digits and ._~-, or {names}, none twice, and {rest...} only at its end", clip(r.Path))
		default:
			names[s] = true
		}
	}
	if len(r.Methods) == 0 || twice(r.Methods) {
		return fmt.Errorf("extension.routes: path %s must name its methods, none twice", clip(r.Path))
	}
	for _, m := range r.Methods {
		if !contains([]string{"GET", "POST", "PUT", "PATCH", "DELETE"}, m) {
			return fmt.Errorf("extension.routes: method %s of path %s is not one of GET, POST, PUT, PATCH, DELETE", clip(m), clip(r.Path))
		}
	}
	return nil
}

// shape is the path without the names of its wildcards.
func (r Route) shape() string {
	segments := strings.Split(r.Path, "/")
	for n, s := range segments {
		if strings.HasPrefix(s, "{") {
			segments[n] = "{}"
			if strings.HasSuffix(s, "...}") {
				segments[n] = "{...}"
			}
		}
	}
	return strings.Join(segments, "/")
}

// Match reports whether a path below the prefix, decoded into its segments, is
// this route's.
func (r Route) Match(segments []string) bool {
	pattern := strings.Split(strings.TrimPrefix(r.Path, "/"), "/")
	for n, p := range pattern {
		switch {
		case strings.HasSuffix(p, "...}"):
			return true
		case n >= len(segments) || strings.HasPrefix(p, "{") && segments[n] == "" || !strings.HasPrefix(p, "{") && p != segments[n]:
			return false
		}
	}
	return len(pattern) == len(segments)
}

func (e *Extension) validateMigrations() error {
	if len(e.Migrations) > maxMigrations {
		return fmt.Errorf("extension.migrations must have at most %d entries", maxMigrations)
	}
	before := ""
	for _, m := range e.Migrations {
		switch {
		case !migrationPattern.MatchString(m.Name):
			return fmt.Errorf("extension.migrations: name %s must be four digits, an underscore, and lower-case letters, digits and underscores", clip(m.Name))
		case before != "" && m.Name[:4] <= before[:4]:
			return fmt.Errorf("extension.migrations: %s must have a higher number than %s before it", clip(m.Name), clip(before))
		case (m.SQL == "") == (m.SQLite == "" && m.Postgres == "") || (m.SQLite == "") != (m.Postgres == ""):
			return fmt.Errorf("extension.migrations: %s must have sql, or both sqlite and postgres", clip(m.Name))
		case len(m.SQL)+len(m.SQLite)+len(m.Postgres) > maxMigrationSQL:
			return fmt.Errorf("extension.migrations: %s must have at most %d bytes", clip(m.Name), maxMigrationSQL)
		}
		before = m.Name
	}
	return nil
}
