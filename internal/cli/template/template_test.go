package template

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// every calls f with each language and each set of roles.
func every(t *testing.T, f func(t *testing.T, p Project)) {
	t.Helper()
	for _, lang := range []string{Go, Python} {
		for set := 1; set < 1<<len(served); set++ {
			p := Project{Name: "my-plugin", Publisher: "acme", Kind: "my.token", Language: lang}
			for i, r := range served {
				if set&(1<<i) != 0 {
					p.Roles = append(p.Roles, r)
				}
			}
			t.Run(lang+" "+strings.Join(p.Roles, ","), func(t *testing.T) { f(t, p) })
		}
	}
}

func TestProject_FilesMakesAValidManifest(t *testing.T) {
	every(t, func(t *testing.T, p Project) {
		files, err := p.Files()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if strings.Contains(string(f.Text), "[[") || strings.Contains(string(f.Text), "<no value>") {
				t.Errorf("%s is not rendered:\n%s", f.Path, f.Text)
			}
			if f.Path != filepath.Base(f.Path) || len(f.Text) == 0 || !strings.HasSuffix(string(f.Text), "\n") {
				t.Errorf("%q is no file with a plain name and whole lines", f.Path)
			}
		}
		i := slices.IndexFunc(files, func(f File) bool { return f.Path == "plugin.json" })
		var m manifest.Manifest
		if err := json.Unmarshal(files[i].Text, &m); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(m.Roles, p.Roles) || m.Name != p.Name || m.Publisher != p.Publisher || m.Kinds[0] != p.Kind {
			t.Errorf("the manifest says something else: %+v", m)
		}
		own := m.Contract == manifest.ContractSallyport
		if own != (len(p.Roles) == 1 && p.Roles[0] == manifest.RoleVender) {
			t.Errorf("contract %s for %v", m.Contract, p.Roles)
		}
	})
}

func TestProject_FilesRefusesWhatCannotBe(t *testing.T) {
	good := Project{Name: "a", Publisher: "b", Kind: "c", Language: Go, Roles: []string{manifest.RoleVender}}
	if _, err := good.Files(); err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func(*Project){
		"name":            func(p *Project) { p.Name = "../a" },
		"name quotes":     func(p *Project) { p.Name = `a"b` },
		"publisher":       func(p *Project) { p.Publisher = "B" },
		"kind":            func(p *Project) { p.Kind = "a\nb" },
		"language":        func(p *Project) { p.Language = "../python" },
		"no role":         func(p *Project) { p.Roles = nil },
		"later role":      func(p *Project) { p.Roles = []string{"observer"} },
		"kbs and another": func(p *Project) { p.Roles = []string{"kbs", "notifier"} },
		"a vender in Go":  func(p *Project) { p.Roles = []string{"credential-vender", "notifier"} },
		"role twice":      func(p *Project) { p.Roles = []string{manifest.RoleAnalyzer, manifest.RoleAnalyzer} },
		"contract":        func(p *Project) { p.Contract = "kbs.plugin.v1" },
		"roles of two contracts": func(p *Project) {
			p.Language, p.Roles = Python, []string{manifest.RoleAnalyzer, manifest.RoleExtension}
		},
		"own contract for an analyzer": func(p *Project) {
			p.Contract, p.Roles = manifest.ContractSallyport, []string{manifest.RoleAnalyzer}
		},
	} {
		p := good
		change(&p)
		if files, err := p.Files(); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %d files, %v", what, len(files), err)
		}
	}
}

// The Python tests of every combination run with the standard library alone.
func TestProject_PythonTestsRun(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("needs python3")
	}
	all := Project{Name: "my-plugin", Publisher: "acme", Kind: "my.token", Language: Python, Roles: served}
	files, err := all.Files()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(dir, f.Path), f.Text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), python, "-B", "-m", "unittest", "-v")
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "Ran 10 tests") {
		t.Errorf("%v\n%s", err, out)
	}
	compile := exec.CommandContext(t.Context(), python, "-B", "-c", "import ast,sys; [ast.parse(open(f).read(), f) for f in sys.argv[1:]]", "main.py", "plugin_pb2.py")
	compile.Dir = dir
	if out, err := compile.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
