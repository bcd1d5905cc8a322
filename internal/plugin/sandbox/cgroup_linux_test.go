//go:build amd64 || arm64

package sandbox

import (
	"os"
	"path/filepath"
	"testing"
)

// A server that was killed leaves groups behind, which must not be in the way of
// the next one.
func TestCgroup_SweepsWhatIsLeft(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"plugin-one-1", "plugin-two-123", "plugin-busy-2/x", serverGroup} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	sweep(dir)
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 2 || left[0].Name() != "plugin-busy-2" || left[1].Name() != serverGroup {
		t.Fatalf("%v, %v", left, err)
	}
}
