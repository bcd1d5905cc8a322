package project

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
)

// lay writes files below a folder.
func lay(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		full := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// makeWheel makes a wheel with a RECORD that is right.
func makeWheel(t testing.TB, dir, name string, files map[string]string) (file, sum string) {
	t.Helper()
	parts := strings.SplitN(name, "-", 3)
	info := parts[0] + "-" + parts[1] + ".dist-info"
	all := map[string]string{info + "/METADATA": "Metadata-Version: 2.1\nName: " + parts[0] + "\nVersion: " + parts[1] + "\n", info + "/WHEEL": "Wheel-Version: 1.0\n"}
	for n, text := range files {
		all[n] = text
	}
	record := ""
	for n, text := range all {
		sum := sha256.Sum256([]byte(text))
		record += fmt.Sprintf("%s,sha256=%s,%d\n", n, base64.RawURLEncoding.EncodeToString(sum[:]), len(text))
	}
	if _, given := files[info+"/RECORD"]; !given {
		all[info+"/RECORD"] = record + info + "/RECORD,,\n"
	}
	return writeZip(t, filepath.Join(dir, name), all)
}

func writeZip(t testing.TB, file string, files map[string]string) (string, string) {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for n, text := range files {
		w, err := z.Create(n)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b.Bytes())
	return file, hex.EncodeToString(sum[:])
}

const pyproject = `
[project]
name = "My_Ext"
version = "1.2.3"
description = "An \"extension\""
dependencies = [
  "leaf == 1.0", # comment
]
[project.urls]
Repository = "https://example.org/my-ext.git"

[project.entry-points."attestation_extensions"]
my-ext = "mypackage.extension:MyExtension"
[project.entry-points.attestation_cli_plugins]
my-ext = 'mypackage.cli_plugin:MyCliPlugin'
[project.entry-points."other"]
x = "a:b"

[[tool.things]]
a.b = {c = [1, 2.5, true, 1979-05-27T07:32:00Z], "d e" = """
several \
   lines"""}
`

func paths(c Content) []string {
	var out []string
	for _, s := range c.Spec.Sources {
		out = append(out, s.Path)
	}
	slices.Sort(out)
	return out
}

// sample is a project in Python with one locked wheel.
func sample(t testing.TB, dir string) Python {
	t.Helper()
	wheels := t.TempDir()
	_, sum := makeWheel(t, wheels, "leaf-1.0-py3-none-any.whl", map[string]string{
		"leaf/__init__.py": "", "leaf/__pycache__/__init__.cpython-311.pyc": "x", "leaf-nspkg.pth": "import evil", "leaf/.notes/how to.md": "x",
		"leaf-1.0.data/scripts/leaf": "#!python", "leaf-1.0.data/purelib/leaf/more.py": "",
	})
	lay(t, dir, map[string]string{
		"pyproject.toml": pyproject, "README.md": "x", "tests/test_x.py": "x", ".git/config": "x", ".env": "TOKEN=1",
		"me.key": "-----BEGIN PRIVATE KEY-----\n", "me.pub": "x", "venv/pyvenv.cfg": "home = /usr/bin\n", "venv/lib/x.py": "",
		"src/mypackage/__init__.py": "", "src/mypackage/extension.py": "class MyExtension: pass\n", "src/mypackage/cli_plugin.py": "",
		"src/mypackage/__pycache__/extension.cpython-311.pyc": "x",
		"requirements.lock": "# made by a tool\nleaf==1.0 \\\n    --hash=sha256:" + strings.Repeat("0", 64) + " \\\n    --hash=sha256:" + sum + "\n    # via my-ext\n",
	})
	return Python{Folder: Folder{Dir: dir, Manifest: Undeclared("acme")}, Wheels: wheels}
}

func TestPython_PacksAProject(t *testing.T) {
	c, err := sample(t, t.TempDir()).Pack(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"src/mypackage/__init__.py", "src/mypackage/cli_plugin.py", "src/mypackage/extension.py",
		"vendor/leaf-1.0.dist-info/METADATA", "vendor/leaf/__init__.py", "vendor/leaf/more.py",
	}
	if d := cmp.Diff(want, paths(c)); d != "" {
		t.Error(d)
	}
	m := c.Spec.Manifest
	if m.Name != "my-ext" || m.Version != "1.2.3" || m.Summary != `An "extension"` || m.Provenance.Source != "https://example.org/my-ext.git" {
		t.Errorf("%+v", m)
	}
	if d := cmp.Diff(map[string]map[string]string{
		manifest.GroupExtensions: {"my-ext": "mypackage.extension:MyExtension"}, manifest.GroupCLI: {"my-ext": "mypackage.cli_plugin:MyCliPlugin"},
	}, m.EntryPoints); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{manifest.RoleCLI, manifest.RoleExtension}, m.Roles); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"src", "vendor"}, m.Run.SearchPath); d != "" || m.Run.Interpreter != "python3" {
		t.Errorf("%s %+v", d, m.Run)
	}
	for _, name := range []string{".env", "tests", "vendor/leaf-nspkg.pth", "vendor/leaf/.notes/how to.md", "vendor/leaf-1.0.data/scripts/leaf"} {
		if !slices.Contains(c.LeftOut, name) {
			t.Errorf("%s was left out without a word: %v", name, c.LeftOut)
		}
	}
	if _, err := plugin.Build(c.Spec, filepath.Join(t.TempDir(), "p")); err != nil {
		t.Error(err)
	}
}

// Equal sources give equal packages, wherever, whenever and by whoever.
func TestPython_IsReproducible(t *testing.T) {
	var first []byte
	for n, place := range []string{"a", "deeper/b c"} {
		dir := filepath.Join(t.TempDir(), place)
		project := sample(t, dir)
		if n == 1 {
			project.Wheels = strings.Clone(project.Wheels)
			err := filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
				if err == nil && !d.IsDir() {
					err = os.Chmod(name, 0o600)
				}
				if err == nil {
					err = os.Chtimes(name, time.Unix(1, 0), time.Unix(1, 0))
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Setenv("LC_ALL", "tr_TR.UTF-8")
			t.Setenv("TZ", "Pacific/Auckland")
		}
		c, err := project.Pack(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		out := filepath.Join(t.TempDir(), "p")
		if _, err := plugin.Build(c.Spec, out); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			first = data
		} else if !bytes.Equal(first, data) {
			t.Error("two builds differ")
		}
	}
}

func TestPython_Refuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(t *testing.T, p *Python)
		kind   fault.Kind
		says   string
	}{
		"another wheel than the locked one": {func(t *testing.T, p *Python) {
			makeWheel(t, p.Wheels, "leaf-1.0-py3-none-any.whl", map[string]string{"leaf/__init__.py": "import evil"})
		}, fault.Denied, "lock file"},
		"no wheel": {func(t *testing.T, p *Python) {
			if err := os.Remove(filepath.Join(p.Wheels, "leaf-1.0-py3-none-any.whl")); err != nil {
				t.Fatal(err)
			}
		}, fault.NotFound, "leaf"},
		"no hash": {func(t *testing.T, p *Python) {
			lay(t, p.Dir, map[string]string{"requirements.lock": "leaf==1.0\n"})
		}, fault.Invalid, "no hash"},
		"option": {func(t *testing.T, p *Python) {
			lay(t, p.Dir, map[string]string{"requirements.lock": "--index-url https://evil\nleaf==1.0\n"})
		}, fault.Invalid, "--index-url"},
		"not pinned": {func(t *testing.T, p *Python) {
			lay(t, p.Dir, map[string]string{"requirements.lock": "leaf>=1.0 --hash=sha256:" + strings.Repeat("0", 64) + "\n"})
		}, fault.Invalid, "NAME==VERSION"},
		"link": {func(t *testing.T, p *Python) {
			if err := os.Symlink("/etc/passwd", filepath.Join(p.Dir, "src", "x.py")); err != nil {
				t.Fatal(err)
			}
		}, fault.Invalid, "link"},
		"name": {func(t *testing.T, p *Python) {
			lay(t, p.Dir, map[string]string{"src/a b.py": ""})
		}, fault.Invalid, "--leave-out"},
		"other name than plugin.json": {func(_ *testing.T, p *Python) { p.Manifest.Name = "x" }, fault.Invalid, "agree"},
		"computed version": {func(t *testing.T, p *Python) {
			lay(t, p.Dir, map[string]string{"pyproject.toml": "[project]\nname='x'\ndynamic=['version']\n"})
		}, fault.Invalid, "written down"},
	} {
		t.Run(name, func(t *testing.T) {
			p := sample(t, t.TempDir())
			c.change(t, &p)
			if _, err := p.Pack(t.Context()); !fault.Is(err, c.kind) || !strings.Contains(fault.Public(err), c.says) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestWheel_Refuses(t *testing.T) {
	const name = "leaf-1.0-py3-none-any.whl"
	record := "leaf-1.0.dist-info/RECORD"
	for what, files := range map[string]map[string]string{
		"no RECORD":           {"leaf/__init__.py": ""},
		"file not in RECORD":  {"leaf/__init__.py": "", record: record + ",,\n"},
		"file of RECORD gone": {record: "leaf/x.py,sha256=" + strings.Repeat("A", 43) + ",1\n" + record + ",,\n"},
		"other content":       {"leaf/x.py": "evil", record: "leaf/x.py,sha256=" + strings.Repeat("A", 43) + ",1\n" + record + ",,\n"},
		"weak digest":         {"leaf/x.py": "evil", record: "leaf/x.py,md5=AAAA,1\n" + record + ",,\n"},
		"without digest":      {"leaf/x.py": "evil", record: "leaf/x.py,,\n" + record + ",,\n"},
		"twice in RECORD":     {record: record + ",,\n" + record + ",,\n"},
		"path up":             {"../evil.py": "", record: record + ",,\n"},
		"absolute path":       {"/evil.py": "", record: record + ",,\n"},
	} {
		file, _ := writeZip(t, filepath.Join(t.TempDir(), name), files)
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := openWheel(name, data); err == nil || fault.KindOf(err) == fault.Internal {
			t.Errorf("%s: %v", what, err)
		}
	}
	var link bytes.Buffer
	z := zip.NewWriter(&link)
	h := &zip.FileHeader{Name: "leaf/x.py"}
	h.SetMode(os.ModeSymlink | 0o777)
	w, err := z.CreateHeader(h)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("/etc/passwd")); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := openWheel(name, link.Bytes()); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "link") {
		t.Errorf("%v", err)
	}
}

func TestWheelName_Platforms(t *testing.T) {
	for name, want := range map[string]string{
		"a-1-py3-none-any.whl": "/ ", "a-1-1-py2.py3-none-any.whl": "/ ",
		"a-1-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl": "linux/amd64 python3.11",
		"a-1-cp37-abi3-musllinux_1_1_aarch64.whl":                        "linux/arm64 ",
		"a-1-cp313-cp313-macosx_11_0_arm64.whl":                          "darwin/arm64 python3.13",
		"a-1-cp39-cp39-win_amd64.whl":                                    "windows/amd64 python3.9",
	} {
		n, err := parseWheelName(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		goos, arch, err := n.system()
		if got := goos + "/" + arch + " " + n.interpreter(); err != nil || got != want {
			t.Errorf("%s: %q %v", name, got, err)
		}
	}
	for _, bad := range []string{"", "a.whl", "a-1-py3-none.whl", "a-1-py3-none-any.zip", "a-1--none-any.whl", "a-1-cp39-cp39-macosx_11_0_universal2.whl", "a-1-cp39-cp39-linux_s390x.whl"} {
		n, err := parseWheelName(bad)
		if err == nil {
			_, _, err = n.system()
		}
		if !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestWheel_BecomesAPlugin(t *testing.T) {
	dir := t.TempDir()
	lay(t, dir, map[string]string{})
	files := map[string]string{
		"ext/__init__.py": "",
		"ext-2.0.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: Ext\nVersion: 2.0.0\nSummary: It extends\nRequires-Dist: leaf>=1; python_version > '3'\n" +
			"Requires-Dist: click; extra == 'cli'\n\nLong text: of it",
		"ext-2.0.0.dist-info/entry_points.txt": "[console_scripts]\nx = a:b\n[attestation_cli_plugins]\next = ext : Plugin [cli]\n",
	}
	file, _ := makeWheel(t, dir, "ext-2.0.0-py3-none-any.whl", files)
	p := Python{Folder: Folder{Manifest: Undeclared("acme")}}
	if _, err := p.Wheel(t.Context(), file); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "needs leaf") {
		t.Errorf("a dependency that nothing gives: %v", err)
	}
	_, sum := makeWheel(t, dir, "leaf-1.0-py3-none-any.whl", map[string]string{"leaf/__init__.py": ""})
	lay(t, dir, map[string]string{"requirements.lock": "leaf==1.0 --hash=sha256:" + sum})
	p.Wheels = dir
	c, err := p.Wheel(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	m := c.Spec.Manifest
	if m.Name != "ext" || m.Version != "2.0.0" || m.EntryPoints[manifest.GroupCLI]["ext"] != "ext:Plugin" || !m.Has(manifest.RoleCLI) {
		t.Errorf("%+v", m)
	}
	if !slices.Contains(paths(c), "vendor/ext/__init__.py") || !slices.Contains(paths(c), "vendor/leaf/__init__.py") {
		t.Errorf("%v", paths(c))
	}
}

func TestWrap_TakesAFolderAsItIs(t *testing.T) {
	dir := t.TempDir()
	lay(t, dir, map[string]string{"run.py": "x", "tests/data.md": "x", "lib/a.py": "", ".hidden": "x", "plugin.json": "{}", "bin/tool": "x"})
	if err := os.Chmod(filepath.Join(dir, "bin/tool"), 0o711); err != nil {
		t.Fatal(err)
	}
	m := Undeclared("acme")
	for entry, want := range map[string]manifest.Run{
		"run.py --flag":     {Interpreter: "python3", Command: "run.py", Args: []string{"--flag"}},
		"python3.11 run.py": {Interpreter: "python3.11", Command: "run.py", Args: []string{}},
		"bin/tool":          {Command: "bin/tool", Args: []string{}},
	} {
		c, err := Wrap(Folder{Dir: dir, Manifest: m, Entry: strings.Fields(entry)})
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, *c.Spec.Manifest.Run); d != "" {
			t.Errorf("%s: %s", entry, d)
		}
		if d := cmp.Diff([]string{"bin/tool", "lib/a.py", "run.py", "tests/data.md"}, paths(c)); d != "" {
			t.Error(d)
		}
		if !slices.ContainsFunc(c.Spec.Sources, func(s plugin.Source) bool { return s.Path == "bin/tool" && s.Executable }) {
			t.Error("the tool is no executable any more")
		}
	}
	for _, entry := range []string{"", "python3"} {
		if _, err := Wrap(Folder{Dir: dir, Manifest: m, Entry: strings.Fields(entry)}); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", entry, err)
		}
	}
}

func TestProvenance_OnlyOfWhatIsCommitted(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("needs git")
	}
	dir := t.TempDir()
	p := sample(t, dir)
	if err := os.RemoveAll(filepath.Join(dir, ".git")); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		t.Helper()
		out, err := git(t.Context(), dir, append([]string{"-c", "user.name=x", "-c", "user.email=x@example.org"}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
	revision := func() string {
		c, err := p.Pack(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		c.Provenance(t.Context(), dir)
		return c.Spec.Manifest.Provenance.Revision
	}
	if got := revision(); got != "" {
		t.Errorf("without git: %q", got)
	}
	run("init", "-q")
	run("add", ".")
	run("commit", "-q", "-m", "first")
	if got := revision(); got != run("rev-parse", "HEAD") {
		t.Errorf("committed: %q", got)
	}
	lay(t, dir, map[string]string{"notes.spk": "not packed, and so of no interest"})
	if got := revision(); got == "" {
		t.Error("a file that is not packed made the tree count as changed")
	}
	lay(t, dir, map[string]string{"src/mypackage/new.py": ""})
	if got := revision(); got != "" {
		t.Errorf("with a file that is not committed: %q", got)
	}
	// The same commit, fetched from a path, gives the same package.
	if err := os.Remove(filepath.Join(dir, "src/mypackage/new.py")); err != nil {
		t.Fatal(err)
	}
	clone, at, err := Fetch(t.Context(), dir, "HEAD")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(clone) }()
	if at != run("rev-parse", "HEAD") {
		t.Errorf("fetched %s", at)
	}
	if _, _, err := Fetch(t.Context(), dir, "no-such-branch"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("%v", err)
	}
}

func TestParseGit_Table(t *testing.T) {
	for arg, want := range map[string]string{
		"git+https://h/p.git@v1":    "https://h/p.git v1",
		"git+https://u@h/p.git@f/x": "https://u@h/p.git f/x",
		"git+file:///srv/p@main":    "file:///srv/p main",
		"git+/srv/p@main":           "/srv/p main",
		"git+ssh://git@h/p@abc":     "ssh://git@h/p abc",
		"git+https://u@h/p.git":     "",
		"git+https://h/p.git":       "",
		"git+https://h/p.git@":      "",
		"https://h/p.git@v1":        "",
		"git+@v1":                   "",
	} {
		source, ref, err := ParseGit(arg)
		if got := strings.TrimSpace(source + " " + ref); got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q %v", arg, got, err)
		}
	}
	if got := withoutUser("https://user:secret@h/p"); got != "https://h/p" {
		t.Error(got)
	}
}
