//go:build amd64 || arm64

package sandbox_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// childHost makes a test a host in a process of its own, and names the plugin.
const childHost = "SALLYPORT_TEST_BOX_HOST"

// When the server is killed its plugins end at once, also one that tried to stay
// and one that moved a process away.
func TestSandbox_EndsWithTheServer(t *testing.T) {
	if name := os.Getenv(childHost); name != "" {
		host(t, name)
		return
	}
	name := fmt.Sprintf("orphan%d", os.Getpid())
	cmd := exec.Command(os.Args[0], "-test.run", "^TestSandbox_EndsWithTheServer$", "-test.v")
	cmd.Env = append(os.Environ(), childHost+"="+name)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	lines, said := bufio.NewScanner(out), ""
	for lines.Scan() && lines.Text() != "READY" {
		said += lines.Text() + "\n"
	}
	if n := len(processes(t, name)); n != 2 {
		t.Fatalf("%d processes, want the plugin and its child; the server said:\n%s", n, said)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); len(processes(t, name)) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("left: %v", processes(t, name))
		}
	}
}

func host(t *testing.T, name string) {
	h := newHouse(t, newBox(t), guest{testManifest(name), hostile})
	if got, err := h.do(t, name, "escape", ""); err != nil || !strings.HasPrefix(got, "done: ") {
		t.Fatalf("%q, %v", got, err)
	}
	if got, err := h.do(t, name, "outlive", ""); err != nil || !strings.HasPrefix(got, "failed: ") {
		t.Fatalf("%q, %v", got, err)
	}
	fmt.Println("READY")
	time.Sleep(time.Minute) // until it is killed
}
