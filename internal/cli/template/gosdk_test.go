package template

import (
	"go/format"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/plugin"
)

// written makes a project in a folder inside of this module, where the go command
// finds the SDK without a network.
func written(t *testing.T, p Project) (string, []File) {
	t.Helper()
	files, err := p.Files()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(".", "_project")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	for _, f := range files {
		if f.Path == "go.mod" {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, f.Path), f.Text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir, files
}

// Each role in Go, and all that go together, is a project whose manifest a host
// reads and whose tests pass.
func TestProject_InGo(t *testing.T) {
	sets := [][]string{goRoles, {manifest.RoleCLI}, {manifest.RoleKBS}}
	for _, roles := range sets {
		t.Run(strings.Join(roles, ","), func(t *testing.T) {
			dir, files := written(t, Project{Name: "my-plugin", Publisher: "acme", Kind: "my.token", Language: Go, Roles: roles})
			for _, f := range files {
				if strings.Contains(string(f.Text), "[[") || strings.Contains(string(f.Text), "<no value>") {
					t.Errorf("%s is not rendered:\n%s", f.Path, f.Text)
				}
				if nice, err := format.Source(f.Text); strings.HasSuffix(f.Path, ".go") && (err != nil || string(nice) != string(f.Text)) {
					t.Errorf("%s is not formatted: %v", f.Path, err)
				}
				if f.Path == "plugin.json" {
					if _, err := plugin.ReadSpec(f.Text); err != nil {
						t.Errorf("plugin.json: %v\n%s", err, f.Text)
					}
				}
			}
			sources, err := filepath.Glob(filepath.Join(dir, "*.go"))
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), "go", append([]string{"test", "-trimpath"}, sources...)...)
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // as programs are built, so that only these files are compiled
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.HasPrefix(string(out), "ok") {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// A hello world has at most 40 lines in Go and 20 in Python, blank ones left out:
// what an author writes of the program, without its tests.
func TestProject_HelloWorldIsShort(t *testing.T) {
	most := map[string]int{Go: 40, Python: 20}
	for _, lang := range []string{Go, Python} {
		for _, role := range append(slices.Clone(sdkRoles[1:]), manifest.RoleKBS) {
			files, err := Project{Name: "my-plugin", Publisher: "acme", Kind: "my.token", Language: lang, Roles: []string{role}}.Files()
			if err != nil {
				t.Fatal(err)
			}
			lines := 0
			for _, f := range files {
				program := strings.HasSuffix(f.Path, ".go") && !strings.HasSuffix(f.Path, "_test.go") ||
					strings.HasSuffix(f.Path, ".py") && !strings.HasPrefix(f.Path, "test_")
				if program {
					lines += sourceLines(string(f.Text))
				}
			}
			if lines == 0 || lines > most[lang] {
				t.Errorf("%s in %s has %d lines, at most %d are allowed", role, lang, lines, most[lang])
			}
		}
	}
}

// sourceLines counts lines that are not blank. Comments and the text of a module's
// or class's documentation are what an author may leave out.
func sourceLines(text string) int {
	n, documented := 0, false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if quotes := strings.Count(line, `"""`); quotes > 0 || documented {
			documented = documented != (quotes == 1)
			continue
		}
		if line != "" && !strings.HasPrefix(line, "//") && !strings.HasPrefix(line, "#") {
			n++
		}
	}
	return n
}
