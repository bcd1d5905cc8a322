package plugin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// interpreted is a manifest of many files; the digests are of nothing.
func interpreted() manifest.Manifest {
	m := testManifest("py")
	m.Run = &manifest.Run{Interpreter: "python3", Command: "main.py", SearchPath: []string{"lib", "."}}
	for _, p := range []string{"main.py", "lib/a/__init__.py", "lib/a/_native.cpython-313-x86_64-linux-gnu.so"} {
		m.Files = append(m.Files, manifest.File{Path: p, SHA256: Digest(nil)[len(digestPrefix):]})
	}
	m.EntryPoints = map[string]map[string]string{manifest.GroupExtensions: {"hello": "a.plugin:Hello"}}
	m.Roles = append(m.Roles, manifest.RoleExtension)
	m.MinSecureVersion = "1.0.0-rc.1"
	m.Provenance = &manifest.Provenance{Source: "https://example.org/x.git", Revision: strings.Repeat("a1", 20)}
	m.Capabilities = manifest.Capabilities{Network: []string{"*:443", "[::1]:80", "vault.internal:8200"}, MemoryMB: 64, Processes: 4}
	return m
}

func TestManifest_ManyFiles(t *testing.T) {
	data, err := encodeManifest(interpreted())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseManifest(data); err != nil {
		t.Fatal(err)
	}
	digest := interpreted().Files[0].SHA256
	for name, change := range map[string]func(*manifest.Manifest){
		"no command":        func(m *manifest.Manifest) { m.Run.Command = "other.py" },
		"not executable":    func(m *manifest.Manifest) { m.Run.Interpreter = "" },
		"interpreter path":  func(m *manifest.Manifest) { m.Run.Interpreter = "/usr/bin/python3" },
		"interpreter up":    func(m *manifest.Manifest) { m.Run.Interpreter = ".." },
		"argument":          func(m *manifest.Manifest) { m.Run.Args = []string{"a\x00b"} },
		"search path":       func(m *manifest.Manifest) { m.Run.SearchPath = []string{"main.py"} },
		"search path up":    func(m *manifest.Manifest) { m.Run.SearchPath = []string{"lib/.."} },
		"search path root":  func(m *manifest.Manifest) { m.Run.SearchPath = []string{"/"} },
		"search path split": func(m *manifest.Manifest) { m.Run.SearchPath = []string{"lib:/tmp"} },
		"same name":         func(m *manifest.Manifest) { m.Files = append(m.Files, m.Files[1]) },
		"case twin": func(m *manifest.Manifest) {
			m.Files = append(m.Files, manifest.File{Path: "Main.py", SHA256: digest})
		},
		"case twin of a folder": func(m *manifest.Manifest) {
			m.Files = append(m.Files, manifest.File{Path: "LIB/b", SHA256: digest})
		},
		"folder and file": func(m *manifest.Manifest) {
			m.Files = append(m.Files, manifest.File{Path: "lib/a", SHA256: digest})
		},
		"file and folder": func(m *manifest.Manifest) {
			m.Files = append(m.Files, manifest.File{Path: "main.py/x", SHA256: digest})
		},
		"group": func(m *manifest.Manifest) {
			m.EntryPoints["console_scripts"] = map[string]string{"a": "a:b"}
		},
		"group without role": func(m *manifest.Manifest) {
			m.EntryPoints[manifest.GroupCLI] = map[string]string{"a": "a:b"}
		},
		"entry point": func(m *manifest.Manifest) {
			m.EntryPoints[manifest.GroupExtensions]["hello"] = "import os; os.system"
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := interpreted()
			change(&m)
			data, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := ParseManifest(data); !fault.Is(err, fault.Invalid) {
				t.Fatalf("got %v", err)
			}
		})
	}
}

func TestValidPath_Table(t *testing.T) {
	long := strings.Repeat("a", 60)
	for path, want := range map[string]bool{
		"a": true, "_a/b-c/d+e.py": true, "A.B": true, "numpy.libs/x.so.1": true,
		"": false, "/a": false, "a/": false, "a//b": false, ".": false, "..": false, "a/../b": false, "a/./b": false, ".a": false, "-a": false,
		"a..b": false, "a.": false, "a b": false, "a\\b": false, "a:b": false, "\u00e4": false, "a\x00": false, "a\n": false,
		"manifest.json": false, "Signature.dat": false, "a/manifest.json": true,
		strings.Repeat("a/", 11) + "a": true, strings.Repeat("a/", 12) + "a": false,
		strings.Repeat("a", 100): true, strings.Repeat("a", 101): false,
		long + "/" + long + "/" + long: true, strings.Repeat("b", 50) + "/" + strings.Repeat("a", 101): false,
		long + "/" + long + "/" + long + "/" + long: false,
	} {
		if got := manifest.ValidPath(path); got != want {
			t.Errorf("%q: %v", path, got)
		}
	}
}

// Every path that a manifest may have can stand in an archive.
func TestValidPath_FitsTheArchive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		path := rapid.StringMatching(`[A-Za-z0-9_][A-Za-z0-9._+-]{0,60}(/[A-Za-z0-9_][A-Za-z0-9._+-]{0,60}){0,5}`).Draw(t, "path")
		if !manifest.ValidPath(path) {
			return
		}
		if _, err := header(path, plainMode, 1); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
	})
}

func TestCompareVersions_Order(t *testing.T) {
	// Section 11 of semver 2.0.0, and numbers that text would order wrongly.
	order := []string{
		"0.9.0", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.2", "1.0.0-alpha.10", "1.0.0-alpha.beta", "1.0.0-beta",
		"1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0-rc-1", "1.0.0", "1.0.1", "1.2.0", "1.10.0", "2.0.0",
	}
	for i, a := range order {
		for j, b := range order {
			if got := manifest.CompareVersions(a, b); (got < 0) != (i < j) || (got == 0) != (i == j) {
				t.Errorf("%s %s: %d", a, b, got)
			}
		}
	}
	if manifest.CompareVersions("1.0.0+a", "1.0.0+b-1") != 0 {
		t.Error("build metadata has no order")
	}
}

func TestValidDestination_Table(t *testing.T) {
	for s, want := range map[string]bool{
		"a:1": true, "*:443": true, "a.b-c.d:65535": true, "10.0.0.1:80": true, "[::1]:80": true,
		"": false, "a": false, "a:": false, "a:0": false, "a:080": false, "a:65536": false, "a:-1": false, ":1": false, "*.a:1": false,
		"A:1": false, "a b:1": false, "http://a:1": false, "::1:80": false, "[::1%eth0]:80": false, "[1.2.3.4]:80": false, "[::01]:80": false, "a.:1": false,
	} {
		if got := manifest.ValidDestination(s); got != want {
			t.Errorf("%q: %v", s, got)
		}
	}
}

func TestManifest_Tree(t *testing.T) {
	m := interpreted()
	m.Files = append(m.Files, manifest.File{Path: "cli.py", For: manifest.ForCLI, SHA256: m.Files[0].SHA256})
	if !m.Runs("linux", "arm64", manifest.ForServer) {
		t.Error("without a platform in its files a package runs everywhere")
	}
	m.Files[2].OS, m.Files[2].Arch = "linux", "amd64"
	if m.Runs("linux", "arm64", manifest.ForServer) || !m.Runs("linux", "amd64", manifest.ForServer) {
		t.Error("a package runs on the platforms that its files name")
	}
	for want, got := range map[string][]manifest.File{
		"main.py lib/a/__init__.py lib/a/_native.cpython-313-x86_64-linux-gnu.so": m.Tree("linux", "amd64", manifest.ForServer),
		"main.py lib/a/__init__.py cli.py":                                        m.Tree("darwin", "arm64", manifest.ForCLI),
	} {
		var paths []string
		for _, f := range got {
			paths = append(paths, f.Path)
		}
		if strings.Join(paths, " ") != want {
			t.Errorf("%v", paths)
		}
	}
}

func TestManifest_Limits(t *testing.T) {
	m := interpreted()
	for i := range manifest.MaxFiles - len(m.Files) {
		m.Files = append(m.Files, manifest.File{Path: fmt.Sprintf("lib/%d", i), Size: 1 << 10, SHA256: m.Files[0].SHA256})
	}
	data, err := json.Marshal(m)
	if err != nil || len(data) > manifest.MaxBytes {
		t.Fatalf("a manifest with the most files has %d bytes: %v", len(data), err)
	}
	if _, err := ParseManifest(data); err != nil {
		t.Fatal(err)
	}
	m.Files = append(m.Files, manifest.File{Path: "one-more", SHA256: m.Files[0].SHA256})
	if err := m.Validate(); err == nil || !bytes.Contains([]byte(err.Error()), []byte("4096")) {
		t.Errorf("%v", err)
	}
}
