package plugin

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// script is an interpreted plugin that says what it sees and then becomes the
// fixture, which lies beside it.
const script = `import os, sys
import helper
here = os.path.dirname(os.path.abspath(__file__))
print("path", [p for p in sys.path if not p.startswith(here)], file=sys.stderr)
print("environ", sorted(os.environ), file=sys.stderr)
print("flags", sys.flags.no_site, sys.flags.no_user_site, sys.flags.dont_write_bytecode, "site" in sys.modules, "evil" in sys.modules, file=sys.stderr)
print("helper", helper.WORD, sys.argv[1:], file=sys.stderr)
program = os.path.join(here, "bin", "fixture")
os.execv(program, ["NAME"])
`

func text(s string) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(s)), nil }
}

// scripted is a package of many files, by their content.
func scripted(name string) Spec {
	m := testManifest(name)
	m.Run = &manifest.Run{Interpreter: "python3", Command: "main.py", Args: []string{"one", "two words"}, SearchPath: []string{"lib"}}
	return Spec{Manifest: m, Sources: []Source{
		{manifest.File{Path: "main.py"}, text(strings.ReplaceAll(script, "NAME", name))},
		{manifest.File{Path: "lib/helper/__init__.py"}, text("from helper.word import WORD\n")},
		{manifest.File{Path: "lib/helper/word.py"}, text("WORD = 'fine'\n")},
		{manifest.File{Path: "lib/sitecustomize.py"}, text("import evil\n")},
		{manifest.File{Path: "lib/evil.pth"}, text("import evil\n")},
		{manifest.File{Path: "lib/evil.py"}, text("")},
		{
			manifest.File{OS: runtime.GOOS, Arch: runtime.GOARCH, Path: "bin/fixture", Executable: true},
			func() (io.ReadCloser, error) { return OpenFile(fixtureBinary) },
		},
	}}
}

func (p publisher) packSpec(t testing.TB, spec Spec) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), spec.Manifest.Name+".plugin")
	if _, err := Build(spec, out); err != nil {
		t.Fatal(err)
	}
	if _, err := Sign(out, p.key); err != nil {
		t.Fatal(err)
	}
	return out
}

// grove is a host with one package of many files.
func grove(t *testing.T, spec Spec, change func(*Config)) *rig {
	t.Helper()
	r := newRig(t, change)
	r.rows = append(r.rows, r.install(t, r.store, r.packSpec(t, spec), 1))
	if err := r.Sync(t.Context(), r.rows, r.publisher.trust); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) issue(t *testing.T, kind string) error {
	t.Helper()
	_, err := r.provider(t, kind).Issue(t.Context(), ask(kind, nil), limits(kind))
	return err
}

func TestTree_RunsAnInterpretedPlugin(t *testing.T) {
	evil := t.TempDir()
	rewrite(t, filepath.Join(evil, "sitecustomize.py"), []byte("import evil"))
	rewrite(t, filepath.Join(evil, "helper.py"), []byte("WORD = 'evil'"))
	for _, name := range []string{"PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONUSERBASE"} {
		t.Setenv(name, evil)
	}
	r := grove(t, scripted("py"), nil)
	warm(t, r.provider(t, "fixture-py"), "fixture-py")
	log := r.log.String()
	for _, want := range []string{"helper fine ['one', 'two words']", "flags 1 1 1 False False"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log has no %q:\n%s", want, log)
		}
	}
	if strings.Contains(log, evil) || strings.Contains(log, "dist-packages") || strings.Contains(log, "site-packages") {
		t.Errorf("it sees more than its package and the standard library:\n%s", log)
	}
	s := r.Status()[0]
	if s.Interpreter == nil || s.Interpreter.Name != "python3" || len(s.Interpreter.SHA256) != 64 || !filepath.IsAbs(s.Interpreter.Path) {
		t.Errorf("status says of the interpreter: %+v", s.Interpreter)
	}
	must(t, r.Sync(t.Context(), nil, r.publisher.trust))
	r.old.Wait()
	if left, err := os.ReadDir(r.store.trees()); err != nil || len(left) != 0 {
		t.Errorf("left of the tree: %v %v", left, err)
	}
}

func TestTree_RunsAnExecutable(t *testing.T) {
	spec := scripted("bin")
	spec.Manifest.Run = &manifest.Run{Command: "start"}
	spec.Sources = append(spec.Sources, Source{manifest.File{Path: "start", Executable: true}, text(`#!/usr/bin/python3
import os
os.execv(os.path.join(os.path.dirname(__file__), "bin", "fixture"), ["bin"])
`)})
	r := grove(t, spec, nil)
	warm(t, r.provider(t, "fixture-bin"), "fixture-bin")
	if s := r.Status()[0]; s.Interpreter != nil {
		t.Errorf("%+v", s.Interpreter)
	}
}

// A plugin that can write, because it runs as root and without a sandbox, and
// does, is told nothing.
func TestTree_WriterIsNotServed(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: nobody else may write there")
	}
	spec := scripted("py")
	spec.Sources[0].Open = text(strings.ReplaceAll(script, "program =", "open(os.path.join(here, 'x'), 'w')\nprogram =") + "# NAME")
	r := grove(t, spec, func(c *Config) { c.CoolDown = time.Hour })
	if err := r.issue(t, "fixture-py"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("%v", err)
	}
	if s := r.Status()[0]; s.Reason != ReasonDigest {
		t.Errorf("%+v", s)
	}
}

func TestTree_FindsAFlippedByteInAnyFile(t *testing.T) {
	p, s := newPublisher(t), newStore(t)
	file := p.packSpec(t, scripted("py"))
	for _, path := range []string{"main.py", "lib/helper/__init__.py", "lib/helper/word.py", "bin/fixture", "lib/evil.pth"} {
		row := p.install(t, s, file, 1)
		hex, _ := hexDigest(row.Digest)
		flip(t, filepath.Join(s.root(), hex, path))
		if _, err := s.Verify(row.Digest, p.trust); ReasonOf(err) != ReasonDigest {
			t.Errorf("%s: %v", path, err)
		}
	}
	good, err := os.ReadFile(file)
	must(t, err)
	for at := 0; at < len(good); at += max(1, len(good)/50) {
		bad := bytes.Clone(good)
		bad[at] ^= 1
		if judged(p.trust, bad) == nil {
			t.Fatalf("byte %d was flipped and the package was accepted", at)
		}
	}
}

func TestTree_RefusesAnUnsafeEntry(t *testing.T) {
	for name, c := range map[string]struct {
		change func(t *testing.T, dir string)
		reason Reason
	}{
		"file is a link": {func(t *testing.T, dir string) {
			at := filepath.Join(dir, "lib/helper/word.py")
			must(t, os.Rename(at, at+".real"), os.Symlink("word.py.real", at))
		}, ReasonUnsafe},
		"folder is a link": {func(t *testing.T, dir string) {
			at := filepath.Join(dir, "lib/helper")
			must(t, os.Rename(at, at+".real"), os.Symlink("helper.real", at))
		}, ReasonUnsafe},
		"hard link": {func(t *testing.T, dir string) {
			must(t, os.Link(filepath.Join(dir, "main.py"), filepath.Join(dir, "other.py")))
		}, ReasonUnsafe},
		"fifo": {func(t *testing.T, dir string) {
			at := filepath.Join(dir, "lib/helper/word.py")
			must(t, os.Remove(at), syscall.Mkfifo(at, 0o400))
		}, ReasonUnsafe},
		"writable folder": {func(t *testing.T, dir string) { must(t, os.Chmod(filepath.Join(dir, "lib"), 0o777)) }, ReasonUnsafe},
		"writable file":   {func(t *testing.T, dir string) { must(t, os.Chmod(filepath.Join(dir, "main.py"), 0o660)) }, ReasonUnsafe},
		"file for a folder": {func(t *testing.T, dir string) {
			at := filepath.Join(dir, "lib/helper")
			must(t, os.RemoveAll(at), os.WriteFile(at, nil, 0o400))
		}, ReasonUnsafe},
		"missing file": {func(t *testing.T, dir string) { must(t, os.Remove(filepath.Join(dir, "lib/helper/word.py"))) }, ReasonMissing},
		"added file": {func(t *testing.T, dir string) {
			must(t, os.WriteFile(filepath.Join(dir, "lib/helper/ssl.py"), []byte("evil"), 0o400))
		}, ReasonOK}, // it is in no manifest, so it comes into no tree
	} {
		t.Run(name, func(t *testing.T) {
			p, s := newPublisher(t), newStore(t)
			row := p.install(t, s, p.packSpec(t, scripted("py")), 1)
			hex, _ := hexDigest(row.Digest)
			c.change(t, filepath.Join(s.root(), hex))
			if _, err := s.Verify(row.Digest, p.trust); ReasonOf(err) != c.reason {
				t.Fatalf("reason %s, want %s: %v", ReasonOf(err), c.reason, err)
			}
		})
	}
}

// onlyTree waits for the tree of the one plugin that runs.
func onlyTree(t *testing.T, s *Store) string {
	t.Helper()
	found, err := os.ReadDir(s.trees())
	if err != nil || len(found) != 1 {
		t.Fatalf("trees %v, %v", found, err)
	}
	return filepath.Join(s.trees(), found[0].Name())
}

func TestTree_NoticesAChangeWhileRunning(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, dir string){
		"content": func(t *testing.T, dir string) {
			at := filepath.Join(dir, "lib/helper/word.py")
			must(t, os.Chmod(at, 0o600), os.WriteFile(at, []byte("WORD = 'evil'\n"), 0o600), os.Chmod(at, 0o400))
		},
		"content and back": func(t *testing.T, dir string) {
			at := filepath.Join(dir, "lib/helper/word.py")
			info, err := os.Stat(at)
			must(t, err, os.Chmod(at, 0o600))
			must(t, os.WriteFile(at, []byte("WORD = 'evil'\n"), 0o600), os.WriteFile(at, []byte("WORD = 'fine'\n"), 0o600))
			must(t, os.Chmod(at, 0o400), os.Chtimes(at, info.ModTime(), info.ModTime()))
		},
		"a file more": func(t *testing.T, dir string) {
			must(t, os.Chmod(dir, 0o700), os.WriteFile(filepath.Join(dir, "ssl.py"), nil, 0o400), os.Chmod(dir, 0o500))
		},
		"exchanged by rename": func(t *testing.T, dir string) {
			at, beside := filepath.Join(dir, "main.py"), filepath.Join(t.TempDir(), "main.py")
			must(t, os.WriteFile(beside, []byte(script), 0o400), os.Chmod(dir, 0o700), os.Rename(beside, at), os.Chmod(dir, 0o500))
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := grove(t, scripted("py"), func(c *Config) { c.HealthEvery = 20 * time.Millisecond; c.CoolDown = time.Hour })
			warm(t, r.provider(t, "fixture-py"), "fixture-py")
			change(t, onlyTree(t, r.store))
			eventually(t, "the change is noticed", func() bool { return r.Status()[0].Reason == ReasonDigest })
			if err := r.issue(t, "fixture-py"); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), string(ReasonDigest)) {
				t.Errorf("%v", err)
			}
		})
	}
}

// A process of the same user exchanges files of the tree as fast as it can while
// plugins start. What is told to a plugin, and so any call, comes after the check.
func TestTree_RaceBetweenVerifyAndStart(t *testing.T) {
	r := newRig(t, nil)
	row := r.install(t, r.store, r.packSpec(t, scripted("py")), 1)
	e, err := r.store.judge(row.Digest, r.publisher.trust)
	must(t, err)
	var stop atomic.Bool
	var attacker sync.WaitGroup
	attacker.Go(func() {
		for !stop.Load() {
			trees, _ := filepath.Glob(filepath.Join(r.store.trees(), "*", "lib", "helper", "word.py"))
			for _, at := range trees {
				dir := filepath.Dir(at)
				_ = os.Chmod(dir, 0o700)
				_ = os.Rename(at, at+".good")
				_ = os.WriteFile(at, []byte("WORD = 'evil'\n"), 0o400)
				_ = os.Rename(at+".good", at)
				_ = os.Chmod(dir, 0o500)
			}
		}
	})
	defer attacker.Wait()
	defer stop.Store(true)
	img, free, err := r.images.use(e, r.store)
	must(t, err)
	defer free()
	planted := 0
	for range 20 {
		p, err := r.store.plant(img)
		if err != nil {
			continue // noticed while it was made
		}
		planted++
		eventually(t, "the change is noticed", func() bool { return p.unchanged() != nil })
		p.remove()
	}
	t.Logf("%d of 20 were attacked only after they were made", planted)
}

func TestTree_SweepsWhatAKilledHostLeft(t *testing.T) {
	s := newStore(t)
	left := filepath.Join(s.trees(), "left")
	must(t, os.MkdirAll(filepath.Join(left, "lib"), 0o700), os.WriteFile(filepath.Join(left, "lib", "x"), nil, 0o400))
	must(t, os.Chmod(filepath.Join(left, "lib"), 0o500), os.Chmod(left, 0o500))
	used := filepath.Join(s.trees(), "used")
	must(t, os.Mkdir(used, 0o700))
	f, err := os.Open(used)
	must(t, err, hold(f))
	defer func() { _ = f.Close() }()
	must(t, s.sweepTrees())
	if found, err := os.ReadDir(s.trees()); err != nil || len(found) != 1 || found[0].Name() != "used" {
		t.Errorf("%v %v", found, err)
	}
}

func TestInterpreter_IsWitnessedAndWatched(t *testing.T) {
	python, _, err := openInterpreter("python3", nil)
	if err != nil {
		t.Skip("needs python3")
	}
	path := filepath.Join(t.TempDir(), "python3")
	must(t, python.Close())
	// The system's interpreter, and one that differs in what follows the program.
	system, err := filepath.EvalSymlinks("/usr/bin/python3")
	must(t, err)
	program, err := os.ReadFile(system)
	must(t, err, os.WriteFile(path, program, 0o700))
	var mu sync.Mutex
	var seen []Interpreter
	r := grove(t, scripted("py"), func(c *Config) {
		c.Interpreters = map[string]string{"python3": path}
		c.Witness = func(_ context.Context, plugin string, i Interpreter) error {
			mu.Lock()
			defer mu.Unlock()
			if plugin != "py" || i.Path != path {
				t.Errorf("%s %+v", plugin, i)
			}
			seen = append(seen, i)
			return nil
		}
	})
	warm(t, r.provider(t, "fixture-py"), "fixture-py")
	restart := func() {
		pid := r.Status()[0].PID
		must(t, syscall.Kill(pid, syscall.SIGKILL))
		eventually(t, "the change is noticed", func() bool { s := r.Status()[0]; return s.PID != pid && s.State == Ready })
	}
	restart()
	must(t, os.WriteFile(path+".new", append(program, "other"...), 0o700), os.Rename(path+".new", path))
	restart()
	mu.Lock()
	defer mu.Unlock()
	if len(seen) != 2 || seen[0].SHA256 == seen[1].SHA256 || *r.Status()[0].Interpreter != seen[1] {
		t.Errorf("witnessed: %+v", seen)
	}
}

func TestInterpreter_Refuses(t *testing.T) {
	dir := t.TempDir()
	good, open, open2 := filepath.Join(dir, "good"), filepath.Join(dir, "open"), filepath.Join(dir, "in")
	must(t, os.WriteFile(good, []byte("x"), 0o700), os.WriteFile(open, []byte("x"), 0o700), os.Chmod(open, 0o777))
	must(t, os.Mkdir(open2, 0o700), os.WriteFile(filepath.Join(open2, "p"), []byte("x"), 0o700), os.Chmod(open2, 0o777))
	must(t, syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o700))
	for name, c := range map[string]struct {
		interpreter, path string
		reason            Reason
	}{
		"good":             {"python3", good, ReasonOK},
		"not known":        {"ruby", "", ReasonIncompatible},
		"version not here": {"python3.99", "", ReasonIncompatible},
		"relative":         {"python3", "python3", ReasonIncompatible},
		"absent":           {"python3", filepath.Join(dir, "absent"), ReasonIncompatible},
		"writable":         {"python3", open, ReasonUnsafe},
		"writable folder":  {"python3", filepath.Join(open2, "p"), ReasonUnsafe},
		"folder":           {"python3", dir, ReasonUnsafe},
		"fifo":             {"python3", filepath.Join(dir, "fifo"), ReasonUnsafe},
	} {
		configured := map[string]string{}
		if c.path != "" {
			configured[c.interpreter] = c.path
		}
		f, _, err := openInterpreter(c.interpreter, configured)
		if ReasonOf(err) != c.reason {
			t.Errorf("%s: %v", name, err)
		}
		if f != nil {
			_ = f.Close()
		}
	}
	if _, _, err := (Interpreter{Name: "ruby"}).command(manifest.Run{Command: "x", SearchPath: []string{"."}}, "/t"); ReasonOf(err) != ReasonIncompatible {
		t.Errorf("a search path without Python: %v", err)
	}
	if _, _, err := (Interpreter{Name: "python3"}).command(manifest.Run{Command: "x", SearchPath: []string{"."}}, "/t:/evil"); !fault.Is(err, fault.Invalid) {
		t.Errorf("a folder that splits the search path: %v", err)
	}
}

// What a start needs is recorded first, or it does not happen.
func TestInterpreter_NotWitnessedNotStarted(t *testing.T) {
	r := grove(t, scripted("py"), func(c *Config) {
		c.CallTimeout = time.Second
		c.Witness = func(context.Context, string, Interpreter) error { return fault.Unavailablef("the ledger is full") }
	})
	if err := r.issue(t, "fixture-py"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("%v", err)
	}
	if s := r.Status()[0]; s.Starts != 0 || s.PID != 0 {
		t.Errorf("%+v", s)
	}
}
