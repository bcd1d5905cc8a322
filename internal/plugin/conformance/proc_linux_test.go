package conformance

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// What a process waits for by itself counts, what it waits for others does not.
func TestUnhurried_LeavesWaitingForOthersOut(t *testing.T) {
	begun := time.Now()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", "sleep 0.3; echo; exec sleep 60")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	took, ok := unhurried(cmd.Process.Pid)
	text, err := os.ReadFile("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/schedstat")
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(text))
	waited, err := time.ParseDuration(fields[1] + "ns")
	if err != nil {
		t.Fatal(err)
	}
	const grain = 20 * time.Millisecond // of what the kernel says
	if most := time.Since(begun) + grain; !ok || took < 300*time.Millisecond-waited-grain || took > most {
		t.Errorf("%v %v, of at most %v", took, ok, most)
	}
	if _, ok := unhurried(1 << 30); ok {
		t.Error("a process that does not exist has a time")
	}
}
