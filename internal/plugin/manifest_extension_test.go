package plugin

import (
	"strings"
	"testing"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// tags is the extension of the guide: the table has the name of the seed's example.
func tags() *manifest.Extension {
	return &manifest.Extension{
		Prefix: "myext",
		Routes: []manifest.Route{
			{Path: "/machines/{machine_id}/tags", Methods: []string{"GET", "POST"}},
			{Path: "/machines/{machine_id}/tags/{tag_id}", Methods: []string{"DELETE"}},
		},
		Migrations: []manifest.Migration{{Name: "0001_tags", SQL: "CREATE TABLE extension_myext_tags (tag_id INTEGER PRIMARY KEY)"}},
		Hooks:      []string{"grant.issued", "subject.*"},
		Gates:      []string{"release"},
	}
}

func extensionManifest(name string) manifest.Manifest {
	m := withFile(testManifest(name))
	m.Roles, m.Kinds, m.Params, m.Extension = []string{manifest.RoleExtension}, nil, nil, tags()
	return m
}

func TestManifest_RefusesExtension(t *testing.T) {
	if err := extensionManifest("x").Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*manifest.Extension){
		"nothing":               func(e *manifest.Extension) { *e = manifest.Extension{} },
		"prefix of the core":    func(e *manifest.Extension) { e.Prefix = "machines" },
		"prefix with a slash":   func(e *manifest.Extension) { e.Prefix = "a/b" },
		"prefix in upper case":  func(e *manifest.Extension) { e.Prefix = "A" },
		"prefix without routes": func(e *manifest.Extension) { e.Routes = nil },
		"routes without prefix": func(e *manifest.Extension) { e.Prefix = "" },
		"relative path":         func(e *manifest.Extension) { e.Routes[0].Path = "x" },
		"path upwards":          func(e *manifest.Extension) { e.Routes[0].Path = "/../x" },
		"empty segment":         func(e *manifest.Extension) { e.Routes[0].Path = "/a//b" },
		"escape in path":        func(e *manifest.Extension) { e.Routes[0].Path = "/%2e" },
		"rest in the middle":    func(e *manifest.Extension) { e.Routes[0].Path = "/{a...}/b" },
		"name twice":            func(e *manifest.Extension) { e.Routes[0].Path = "/{a}/{a}" },
		"same route":            func(e *manifest.Extension) { e.Routes[0].Path = "/machines/{m}/tags/{t}" },
		"no method":             func(e *manifest.Extension) { e.Routes[0].Methods = nil },
		"other method":          func(e *manifest.Extension) { e.Routes[0].Methods = []string{"CONNECT"} },
		"hook":                  func(e *manifest.Extension) { e.Hooks = []string{"grant"} },
		"hook twice":            func(e *manifest.Extension) { e.Hooks = []string{"*", "*"} },
		"gate":                  func(e *manifest.Extension) { e.Gates = []string{"observe"} },
		"name of migration":     func(e *manifest.Extension) { e.Migrations[0].Name = "tags" },
		"order of migrations":   func(e *manifest.Extension) { e.Migrations = append(e.Migrations, e.Migrations[0]) },
		"no text":               func(e *manifest.Extension) { e.Migrations[0].SQL = "" },
		"half a text":           func(e *manifest.Extension) { e.Migrations[0].SQL, e.Migrations[0].SQLite = "", "x" },
		"two texts":             func(e *manifest.Extension) { e.Migrations[0].SQLite, e.Migrations[0].Postgres = "x", "x" },
		"long text":             func(e *manifest.Extension) { e.Migrations[0].SQL = strings.Repeat("x", 1<<20) },
	} {
		m := extensionManifest("x")
		change(m.Extension)
		if err := m.Validate(); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	m := extensionManifest("x")
	if m.Extension = nil; m.Validate() == nil {
		t.Error("the role without an extension is accepted")
	}
	m = extensionManifest("x")
	if m.Roles, m.Kinds = []string{manifest.RoleRevoker}, []string{"a"}; m.Validate() == nil {
		t.Error("an extension without the role is accepted")
	}
}

func TestRoute_Match(t *testing.T) {
	for path, cases := range map[string]map[string]bool{
		"/":                  {"": true, "a": false},
		"/tags":              {"tags": true, "tags/": false, "Tags": false, "": false},
		"/m/{id}/tags":       {"m/1/tags": true, "m//tags": false, "m/1/2/tags": false, "m/1": false, "m/a b/tags": true},
		"/files/{rest...}":   {"files/": true, "files/a/b": true, "files": true, "file/a": false},
		"/m/{id}/{rest...}":  {"m/1/x/y": true, "m//x": false},
		"/m/{id}/tags/{tag}": {"m/1/tags/": false, "m/1/tags/2": true},
	} {
		for text, want := range cases {
			if got := (manifest.Route{Path: path}).Match(strings.Split(text, "/")); got != want {
				t.Errorf("%s matches %q: %v", path, text, got)
			}
		}
	}
}

// Two packages may not answer below the same prefix, whichever comes second.
func TestCheckRoles_Prefix(t *testing.T) {
	first := Installed{Name: "one", State: Active, Offer: offerOf(extensionManifest("one"))}
	err := CheckRoles([]Installed{first}, "two", offerOf(extensionManifest("two")))
	if !fault.Is(err, fault.Conflict) || !strings.Contains(fault.Public(err), "one") || !strings.Contains(fault.Public(err), "two") ||
		!strings.Contains(fault.Public(err), "/api/v1/myext") {
		t.Errorf("the second one: %v", err)
	}
	if err := CheckRoles([]Installed{first}, "one", first.Offer); err != nil {
		t.Errorf("its own next version: %v", err)
	}
}
