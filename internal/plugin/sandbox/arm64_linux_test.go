//go:build amd64

package sandbox

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The launcher of the other architecture runs, in an emulator: it prints, stops
// at a call that fails, and reports which. The code is what Go's assembler makes
// of the source.
func TestList_RunsOnARM64(t *testing.T) {
	dir := t.TempDir()
	object, image := filepath.Join(dir, "loop.o"), filepath.Join(dir, "launcher")
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	include := filepath.Join(strings.TrimSpace(string(root)), "pkg", "include")
	asm := exec.Command("go", "tool", "asm", "-p", "sandbox", "-I", include, "-o", object, "loop_linux_arm64.s")
	asm.Env = append(os.Environ(), "GOARCH=arm64")
	if out, err := asm.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	text, err := os.ReadFile(object)
	if err != nil {
		t.Fatal(err)
	}
	first := []byte{0xf3, 0x07, 0x6b, 0xb2} // MOVD $0x600000, R19
	at := bytes.Index(text, first)
	if at < 0 {
		t.Fatal("the first instruction is another")
	}
	code, err := cut(text[at:], elfARM64)
	if err != nil {
		t.Fatal(err)
	}
	const write, closeFile = 64, 57 // of this architecture
	l := &list{}
	l.call("say hello", write, 1, l.text("hello, "), 7)
	l.call("say nothing", write, 1, 0, 0)
	l.ifZero(1, 3)
	l.call("say what is left out", write, 1, l.text("nobody"), 6)
	l.call("say world", write, 1, l.text("world"), 5)
	l.call("close what is not open", closeFile, 77)
	l.call("say more", write, 1, l.text("more"), 4)
	f, err := os.OpenFile(image, os.O_CREATE|os.O_WRONLY, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range l.segments(code, elfARM64) {
		if _, err := f.WriteAt(s.bytes, int64(s.offset)); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	var out strings.Builder
	cmd := exec.Command("qemu-aarch64", image)
	cmd.Stdout, cmd.ExtraFiles = &out, []*os.File{w}
	err = cmd.Run()
	_ = w.Close()
	report := make([]byte, 16)
	n, _ := r.Read(report)
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != 1 || out.String() != "hello, world" || n != 16 {
		t.Fatalf("%q, report %x, %v", out.String(), report[:n], err)
	}
	failed, ok := l.failed(report).(*stepError) //nolint:errorlint // it is not wrapped
	if !ok || failed.what != "close what is not open" || failed.errno != unix.EBADF {
		t.Fatalf("%v", l.failed(report))
	}
}
