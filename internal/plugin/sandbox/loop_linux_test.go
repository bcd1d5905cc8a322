//go:build amd64 || arm64

package sandbox

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// run starts a launcher and returns its output and what it reported.
func run(t *testing.T, l *list) (string, []byte, error) {
	t.Helper()
	img, err := l.image()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = img.Close() }()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	cmd := exec.Command(procFD(img))
	cmd.ExtraFiles = []*os.File{w}
	out, err := cmd.Output()
	_ = w.Close()
	report := make([]byte, 64)
	n, _ := r.Read(report)
	return string(out), report[:n], err
}

func TestList_RunsInOrder(t *testing.T) {
	l := &list{}
	l.call("say hello", unix.SYS_WRITE, 1, l.text("hello, "), 7)
	l.call("say world", unix.SYS_WRITE, 1, l.text("world"), 5)
	l.call("end", unix.SYS_EXIT_GROUP, 0)
	out, report, err := run(t, l)
	if err != nil || out != "hello, world" || len(report) != 0 {
		t.Fatalf("%q, report %x, %v", out, report, err)
	}
}

func TestList_StopsAtTheFirstFailure(t *testing.T) {
	l := &list{}
	l.call("say hello", unix.SYS_WRITE, 1, l.text("hello"), 5)
	l.call("close what is not open", unix.SYS_CLOSE, 77)
	l.call("say more", unix.SYS_WRITE, 1, l.text("more"), 4)
	out, report, err := run(t, l)
	if err == nil || out != "hello" || len(report) != 16 {
		t.Fatalf("%q, report %x, %v", out, report, err)
	}
	at := (binary.NativeEndian.Uint64(report) - stepBase) / stepSize
	errno := unix.Errno(-int64(binary.NativeEndian.Uint64(report[8:])))
	if at != 1 || errno != unix.EBADF {
		t.Fatalf("step %d, %v", at, errno)
	}
}

// A result of zero leads elsewhere, forwards and backwards, and another one does
// not.
func TestList_BranchesIfZero(t *testing.T) {
	l := &list{}
	l.call("say one", unix.SYS_WRITE, 1, l.text("one "), 4)
	l.ifZero(0, 1<<10)
	l.call("say nothing", unix.SYS_WRITE, 1, 0, 0)
	l.ifZero(1, 4)
	l.call("say back", unix.SYS_WRITE, 1, l.text("back "), 5)
	l.call("end", unix.SYS_EXIT_GROUP, 0)
	l.call("say four", unix.SYS_WRITE, 1, l.text("four "), 5)
	l.call("say nothing", unix.SYS_WRITE, 1, 0, 0)
	l.ifZero(5, 2)
	out, report, err := run(t, l)
	if err != nil || out != "one four back " || len(report) != 0 {
		t.Fatalf("%q, report %x, %v", out, report, err)
	}
}

func TestList_CannotBeChanged(t *testing.T) {
	l := &list{}
	l.call("end", unix.SYS_EXIT_GROUP, 0)
	img, err := l.image()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = img.Close() }()
	w, err := os.OpenFile(procFD(img), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Close() }()
	if _, err := w.WriteAt([]byte{1}, 0); err == nil || !strings.Contains(err.Error(), "not permitted") {
		t.Fatalf("a sealed launcher was written: %v", err)
	}
}

func TestList_HasLimits(t *testing.T) {
	for name, l := range map[string]*list{"empty": {}, "long": {steps: make([]step, maxSteps+1)}, "large": {steps: make([]step, 1), data: make([]byte, maxData+1)}} {
		if _, err := l.image(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// The image is executed by the number of its descriptor, when those of the launcher
// are in place already: it must have none of theirs, though they be free.
func TestList_ImageKeepsOutOfTheWay(t *testing.T) {
	if os.Getenv(emptyChild) == "" {
		child := exec.Command("/proc/self/exe", "-test.run", "^"+t.Name()+"$")
		child.Env = append(os.Environ(), emptyChild+"=1")
		if out, err := child.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	for fd := fdControl; fd < fdNext; fd++ { // whatever has them but the runtime, which ends without its own
		if what, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)); err == nil && !strings.HasPrefix(what, "anon_inode:") {
			_ = unix.Close(fd)
		}
	}
	l := &list{}
	l.call("end", unix.SYS_EXIT_GROUP, 0)
	f, err := l.image()
	if err != nil || f.Fd() < fdNext {
		t.Fatalf("descriptor %d, %v", f.Fd(), err)
	}
}

// emptyChild says that a test runs in a process of its own.
const emptyChild = "SALLYPORT_TEST_EMPTY"
