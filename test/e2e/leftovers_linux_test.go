package e2e

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A server that is killed cannot clear away; the next one does, and touches
// nothing else.
func TestServer_ClearsAwayAfterOneThatWasKilled(t *testing.T) {
	temp, err := os.MkdirTemp("", "c") // names of sockets are short
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(temp) })
	t.Setenv("TMPDIR", temp)
	strange := filepath.Join(temp, "sp-of-another-program")
	must(t, os.Mkdir(strange, 0o700))
	ours := func() (list []string) {
		t.Helper()
		for _, pattern := range []string{"sp-[0-9]*", "sallyport-root-*"} {
			found, err := filepath.Glob(filepath.Join(temp, pattern))
			must(t, err)
			list = append(list, found...)
		}
		return list
	}
	w := equipped(t, Options{})
	w.vend(w.enrol("agent", "deployer", "build-7"), time.Minute) // a plugin runs
	w.Kill()
	left := ours()
	if len(left) != 2 {
		t.Fatalf("a server that was killed left %v", left)
	}
	w = start(t, w.House)
	now := ours()
	for _, dir := range left {
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("%s is still there: %v", dir, err)
		}
	}
	if len(now) != 2 {
		t.Errorf("a server that runs has %v", now)
	}
	must(t, w.Stop())
	if left := ours(); len(left) > 0 {
		t.Errorf("a server that was stopped left %v", left)
	}
	if _, err := os.Stat(strange); err != nil {
		t.Errorf("another program's folder: %v", err)
	}
}
