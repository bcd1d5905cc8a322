//go:build amd64 || arm64

package sandbox_test

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sallyport-project/sallyport/internal/plugin"
)

// script imports what plugins use, and tries what they must not.
const script = `
import json, hashlib, ssl, socket, threading, ctypes, asyncio, subprocess, sys, os
import beside
def attempt(f):
    try:
        return "done: %r" % (f(),)
    except Exception as e:
        return "failed: %s" % type(e).__name__
threads = [threading.Thread(target=lambda: hashlib.sha256(b"x").hexdigest()) for _ in range(8)]
[t.start() for t in threads]
[t.join() for t in threads]
print("beside", beside.VALUE)
print("bind", attempt(lambda: socket.socket().bind(("127.0.0.1", 0))))
print("passwd", attempt(lambda: open("/etc/passwd").read()))
print("home", attempt(lambda: os.listdir(HOME)))
print("tree", attempt(lambda: open(os.path.join(os.path.dirname(__file__), "new"), "w")))
print("change", attempt(lambda: open(__file__, "a")))
print("run", attempt(lambda: subprocess.run(["/bin/true"])))
print("again", attempt(lambda: subprocess.run([sys.executable, "-c", ""])))
print("call", attempt(lambda: socket.create_connection(("127.0.0.1", 22))))
`

// An interpreter runs a package of many files from a folder that it can only
// read, with the host's libraries.
func TestSandbox_RunsAnInterpreter(t *testing.T) {
	python, err := filepath.EvalSymlinks("/usr/bin/python3")
	if err != nil {
		t.Fatal("this test needs Debian's python3: ", err)
	}
	home, err := os.UserHomeDir()
	if err != nil {
		t.Fatal(err)
	}
	for _, weak := range []bool{false, true} {
		box := newBox(t)
		if weak {
			box.Weaken()
		}
		tree, dir := t.TempDir(), t.TempDir()
		for name, text := range map[string]string{
			"main.py": strings.ReplaceAll(script, "HOME", "\""+home+"\""), "beside.py": "VALUE = 42\n",
		} {
			if err := os.WriteFile(filepath.Join(tree, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chmod(tree, 0o755); err != nil {
			t.Fatal(err)
		}
		said, file, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd := &exec.Cmd{
			Path: python, Args: []string{python, "-I", "-B", "-c", "import sys; sys.path.insert(0, " +
				"\"" + tree + "\"); import runpy; runpy.run_path(\"" + tree + "/main.py\", run_name=\"__main__\")"},
			Dir: dir, Env: []string{}, Stdout: file, Stderr: file,
		}
		b, err := box.Prepare(t.Context(), plugin.SandboxPlan{
			Plugin: "python", SocketDir: dir, Loopback: true, Tree: &plugin.SandboxTree{Dir: tree, Interpreter: python},
		}, cmd)
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		running, err := b.Confirm(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if state, err := running.Wait(); err != nil || !state.Success() {
			t.Errorf("weak=%v: %v, %v", weak, state, err)
		}
		b.Release()
		_ = file.Close()
		text, err := io.ReadAll(said)
		if err != nil || said.Close() != nil {
			t.Fatal(err)
		}
		out := string(text)
		want := map[string]string{
			"beside": "42", "bind": "done", "passwd": "failed", "home": "failed", "tree": "failed", "change": "failed",
			"run": "failed", "call": "failed",
		}
		if weak { // no network of its own, and no child processes
			want["bind"], want["again"] = "failed", "failed"
		}
		for what, result := range want {
			if !strings.Contains(out, what+" "+result) {
				t.Errorf("weak=%v: %s is not %s", weak, what, result)
			}
		}
		if t.Failed() {
			t.Log(out)
		}
	}
}
