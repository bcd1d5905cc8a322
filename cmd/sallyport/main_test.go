package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"sallyport": func() { os.Exit(run()) }})
}

// TestScripts runs the stories in testdata through the real program: each is a
// user's day, independent of the others.
func TestScripts(t *testing.T) {
	if _, err := exec.LookPath("ssh-keygen"); err != nil && os.Getenv("CI") != "" {
		t.Fatal("ssh-keygen is needed")
	}
	whole(t)
	built := sync.OnceValues(func() (string, error) { return buildPlugins(t) })
	wheels := sync.OnceValues(func() (string, error) { return downloadWheels(t) })
	released := sync.OnceValues(func() (string, error) { return buildProgram(t) })
	graph := sync.OnceValue(moduleGraph)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("SALLYPORT_HOME", filepath.Join(e.WorkDir, "home"))
			plugins, err := built()
			e.Setenv("PLUGINS", plugins)
			e.Setenv("PLATFORM", runtime.GOOS+"-"+runtime.GOARCH)
			e.Setenv("GORACE", os.Getenv("GORACE"))
			vectors, _ := vectorsFolder()
			e.Setenv("VECTORS", vectors)
			if !raced[strings.TrimPrefix(filepath.Base(e.WorkDir), "script-")] {
				program, missing := released()
				e.Setenv("PATH", program+string(os.PathListSeparator)+e.Getenv("PATH"))
				err = errors.Join(err, missing)
			}
			return errors.Join(err, graph(), goEnvironment(e))
		},
		Condition: func(name string) (bool, error) {
			if name != "vectors" {
				return false, errors.New("there is no condition " + name)
			}
			folder, err := vectorsFolder()
			return folder != "", err
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"serve": serve, "halt": stop, "field": field, "flip": flip, "flipany": flipAny, "exits": exits, "eventually": eventually, "page": page,
			"signbare": signbare,
			"wheels": func(ts *testscript.TestScript, _ bool, _ []string) {
				dir, err := wheels()
				ts.Check(err)
				ts.Setenv("WHEELS", dir)
			},
		},
	})
}

// whole demands that every script runs to its end: stop is testscript's own command,
// which ends one as passed.
func whole(t *testing.T) {
	t.Helper()
	scripts, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, name := range scripts {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		story, _, _ := strings.Cut(string(text), "\n-- ")
		for n, line := range strings.Split(story, "\n") {
			if words := strings.Fields(line); len(words) > 0 && words[0] == "stop" {
				t.Errorf("%s:%d: stop ends the script as passed; halt ends the server", name, n+1)
			}
		}
	}
}

// raced are the stories that run in the program of this test, with the race
// detector if there is one: they take requests through every verb. The others use
// the program as it is released, which does the same work in a fifth of the time.
var raced = map[string]bool{"vend": true, "leak": true, "kbs": true, "revoke": true, "policy": true, "plugin": true}

// buildProgram compiles the program as .ci/platforms does.
func buildProgram(t *testing.T) (string, error) {
	dir := t.TempDir()
	return dir, compile(t, "-s -w", filepath.Join(dir, "sallyport"), ".")
}

// compile builds one program as it is released.
func compile(t *testing.T, ldflags, out, source string) error {
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags", ldflags, "-o", out, source)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		return errors.New(source + ": " + string(text))
	}
	return nil
}

// vectorsFolder is where the vectors of real hardware lie beside this repository;
// empty where they do not, which is an error in CI.
func vectorsFolder() (string, error) {
	folder, err := filepath.Abs("../../../shared/vectors")
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(folder); err == nil {
		return folder, nil
	}
	if os.Getenv("CI") == "true" {
		return "", errors.New("the vectors of real hardware are needed in CI: " + folder)
	}
	return "", nil
}

// moduleGraph has the caches know every module that one of ours names, which a build
// does not ask for, but a project that begins to use ours.
func moduleGraph() error {
	out, err := exec.Command("go", "list", "-m", "all").CombinedOutput()
	if err != nil {
		return fmt.Errorf("list modules: %w: %s", err, out)
	}
	return nil
}

// goEnvironment lets scripts build Go projects against this source: with the
// caches of whoever runs the tests, and no network.
func goEnvironment(e *testscript.Env) error {
	names := []string{"GOMOD", "GOCACHE", "GOMODCACHE"}
	out, err := exec.Command("go", append([]string{"env"}, names...)...).Output()
	if err != nil {
		return err
	}
	values := strings.Split(strings.TrimSpace(string(out)), "\n")
	e.Setenv("SOURCE", filepath.Dir(values[0]))
	for i, name := range names[1:] {
		e.Setenv(name, values[i+1])
	}
	e.Setenv("GOPROXY", "off")
	// As plugins are built: whatever is compiled once serves all scripts.
	e.Setenv("CGO_ENABLED", "0")
	e.Setenv("GOFLAGS", "-trimpath")
	return nil
}

// buildPlugins compiles the first-party plugins, the one of the leak story, and a
// CLI plugin.
func buildPlugins(t *testing.T) (string, error) {
	dir := t.TempDir()
	for name, source := range map[string]string{
		"sshcert": "../../plugins/sshcert", "bait": "../../plugins/bait", "opaque": "./testdata/opaque", "tags": "./testdata/tags",
		"hello": "../../sdk/plugin/kbs/testdata/hello", "labels": "../../plugins/labels", "aide": "./testdata/aide", "desk": "./testdata/desk",
	} {
		at := filepath.Join(dir, name)
		if err := os.Mkdir(at, 0o700); err != nil {
			return dir, err
		}
		spec, err := os.ReadFile(filepath.Join(source, "plugin.json"))
		if err != nil {
			return dir, err
		}
		if err := os.WriteFile(filepath.Join(at, "plugin.json"), spec, 0o600); err != nil {
			return dir, err
		}
		if err := compile(t, "", filepath.Join(at, name+"-"+runtime.GOOS+"-"+runtime.GOARCH), source); err != nil {
			return dir, err
		}
	}
	newer := filepath.Join(dir, "labels-1.1.0")
	if err := compile(t, "-X main.version=1.1.0", newer, "../../plugins/labels"); err != nil {
		return dir, err
	}
	if err := os.CopyFS(filepath.Join(dir, "labels", "migrations"), os.DirFS("../../plugins/labels/migrations")); err != nil {
		return dir, err
	}
	return dir, os.CopyFS(filepath.Join(dir, "honeytoken"), os.DirFS("../../plugins/honeytoken"))
}

// downloadWheels gets the wheels that packages in Python are made with, once for
// all scripts: those of plugin init, and those of web.lock, which it makes of the lock
// file of the Python tests: what an extension of the attestation platform needs.
func downloadWheels(t *testing.T) (string, error) {
	dir := t.TempDir()
	all, err := os.ReadFile("../../python/requirements.lock")
	if err != nil {
		return dir, err
	}
	web := ""
	for _, line := range strings.SplitAfter(string(all), "\n") {
		name, _, starts := strings.Cut(line, "==")
		if starts && slices.Contains(strings.Fields(`fastapi sqlmodel annotated-doc annotated-types anyio click grpcio idna
			opentelemetry-api protobuf pydantic pydantic-core sqlalchemy starlette typing-extensions typing-inspection`), name) {
			web += line
		} else if web != "" && strings.HasSuffix(web, "\\\n") {
			web += line
		}
	}
	lock := filepath.Join(dir, "web.lock")
	if err := os.WriteFile(lock, []byte(web), 0o600); err != nil {
		return dir, err
	}
	pip := exec.CommandContext(t.Context(), "/usr/bin/python3", "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
		"--only-binary", ":all:", "--require-hashes", "--no-deps", "--dest", dir, "-r", lock)
	if text, err := pip.CombinedOutput(); err != nil {
		return dir, errors.New("pip download: " + string(text))
	}
	return dir, nil
}

// running is the server of one script.
type running struct {
	cmd   *exec.Cmd
	ended chan error
}

// serve [NAME] starts the server of $SALLYPORT_HOME and waits until it is
// ready; SALLYPORT_URL is its address from then on. It is stopped by SIGTERM
// when the script ends, and must exit with 0.
func serve(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: serve")
	}
	ready, log := ts.MkAbs("ready.json"), ts.MkAbs("server.log")
	_ = os.Remove(ready)
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	ts.Check(err)
	defer func() { _ = out.Close() }()
	program, err := exec.LookPath(filepath.Join(firstPath(ts), "sallyport"))
	ts.Check(err)
	cmd := exec.Command(program, "serve", "--ready-file", ready)
	cmd.Env = append(os.Environ(), "PATH="+ts.Getenv("PATH"), "SALLYPORT_HOME="+ts.Getenv("SALLYPORT_HOME"), "TMPDIR="+os.TempDir())
	cmd.Stderr = out
	ts.Check(cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	servers.Store(ts, running{cmd, ended})
	ts.Defer(func() { halt(ts) })
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		text, err := os.ReadFile(ready)
		if err == nil {
			var bound struct{ Main string }
			ts.Check(json.Unmarshal(text, &bound))
			ts.Setenv("SALLYPORT_URL", "https://"+bound.Main)
			return
		}
		select {
		case err := <-ended:
			servers.Delete(ts)
			ts.Fatalf("the server ended: %v\n%s", err, ts.ReadFile("server.log"))
		default:
		}
		if time.Now().After(deadline) {
			ts.Fatalf("the server was not ready in time\n%s", ts.ReadFile("server.log"))
		}
	}
}

// servers are those that run, by their script.
var servers sync.Map

// stop is the command halt: it ends the server before the script does. It is not
// named stop, by which testscript ends a script as passed.
func stop(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: halt")
	}
	halt(ts)
}

func halt(ts *testscript.TestScript) {
	found, ok := servers.LoadAndDelete(ts)
	if !ok {
		return
	}
	s, _ := found.(running)
	ts.Check(s.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case err := <-s.ended:
		if err != nil {
			ts.Fatalf("the server ended with %v\n%s", err, ts.ReadFile("server.log"))
		}
	case <-time.After(15 * time.Second):
		_ = s.cmd.Process.Kill()
		ts.Fatalf("the server did not stop on SIGTERM\n%s", ts.ReadFile("server.log"))
	}
}

// firstPath is where testscript puts the program.
func firstPath(ts *testscript.TestScript) string {
	first, _, _ := strings.Cut(ts.Getenv("PATH"), string(os.PathListSeparator))
	return first
}

// field NAME PATH sets a variable to a member of the JSON that the last command
// printed; the path is like items.0.id.
func field(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: field NAME PATH")
	}
	var value any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &value))
	for _, step := range strings.Split(args[1], ".") {
		switch v := value.(type) {
		case map[string]any:
			value = v[step]
		case []any:
			i, err := strconv.Atoi(step)
			if err != nil || i >= len(v) {
				ts.Fatalf("there is no %s in %s", step, ts.ReadFile("stdout"))
			}
			value = v[i]
		default:
			value = nil
		}
	}
	text, ok := value.(string)
	if !ok || text == "" {
		ts.Fatalf("%s is no text in %s", args[1], ts.ReadFile("stdout"))
	}
	ts.Setenv(args[0], text)
}

// flip FILE BYTES... changes one bit of the byte that follows the first
// occurrence of a text in a file.
func flip(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: flip FILE AFTER")
	}
	data := []byte(ts.ReadFile(args[0]))
	at := strings.Index(string(data), args[1])
	if at < 0 || at+len(args[1]) >= len(data) {
		ts.Fatalf("%s does not hold %q", args[0], args[1])
	}
	data[at+len(args[1])] ^= 1
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), data, 0o600))
}

// eventually PATTERN COMMAND... repeats a command of this program until its
// output matches, for what takes a moment by nature.
func eventually(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: eventually PATTERN ARGUMENT...")
	}
	pattern, err := regexp.Compile(args[0])
	ts.Check(err)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		_ = ts.Exec("sallyport", args[1:]...)
		if pattern.MatchString(ts.ReadFile("stdout")) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%s never showed in: %s", args[0], ts.ReadFile("stdout"))
		}
	}
}

// flipAny FOLDER AFTER is flip for the one file below a folder that holds the
// text.
func flipAny(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: flipany FOLDER AFTER")
	}
	root := ts.MkAbs(args[0])
	done := 0
	ts.Check(filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(data), args[1]) {
			flip(ts, false, []string{path, args[1]})
			done++
		}
		return err
	}))
	if done != 1 {
		ts.Fatalf("%d files below %s hold %q", done, args[0], args[1])
	}
}

// exits CODE PROGRAM ARGUMENT... runs a program that must exit with this code.
// stdin, stdout and stderr are as with exec.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARGUMENT...")
	}
	defer ts.Setenv("TMPDIR", ts.Getenv("TMPDIR"))
	ts.Setenv("TMPDIR", os.TempDir()) // as serve has it: sockets of plugins want a short path
	code := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		code = -1
		if e, ok := errors.AsType[*exec.ExitError](err); ok {
			code = e.ExitCode()
		}
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}
