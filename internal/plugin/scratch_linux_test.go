package plugin

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What a process left that was killed goes; everything else that looks like it
// stays.
func TestScratch_RemovesWhatIsDeadAlone(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	alive, err := NewScratch("sp-")
	if err != nil {
		t.Fatal(err)
	}
	folder := func(name string, mode os.FileMode, lock string) {
		t.Helper()
		at := filepath.Join(temp, name)
		if err := os.MkdirAll(filepath.Join(at, "p1"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(at, mode); err != nil {
			t.Fatal(err)
		}
		if lock != "" {
			if err := os.WriteFile(filepath.Join(at, lock), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	folder("sp-dead", 0o700, scratchLock)
	folder("sp-nolock", 0o700, "")
	folder("sp-otherlock", 0o700, "lock")
	folder("sp-shared", 0o755, scratchLock)
	folder("other-dead", 0o700, scratchLock)
	folder("sp-linkedlock", 0o700, "")
	folder("sp-pipe", 0o700, "")
	for _, err := range []error{
		os.Symlink(filepath.Join(temp, "other-dead"), filepath.Join(temp, "sp-link")),
		os.Symlink(filepath.Join(temp, "other-dead", scratchLock), filepath.Join(temp, "sp-linkedlock", scratchLock)),
		exec.Command("mkfifo", filepath.Join(temp, "sp-pipe", scratchLock)).Run(),
		os.WriteFile(filepath.Join(temp, "sp-file"), nil, 0o700),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	want := "other-dead sp-file sp-link sp-linkedlock sp-nolock sp-otherlock sp-pipe sp-shared"
	if os.Geteuid() == 0 { // of another user
		folder("sp-foreign", 0o700, scratchLock)
		if err := os.Chown(filepath.Join(temp, "sp-foreign"), 65534, 65534); err != nil {
			t.Fatal(err)
		}
		want = strings.Replace(want, " sp-link ", " sp-foreign sp-link ", 1)
	}
	next, err := NewScratch("sp-")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*Scratch{alive, next} {
		if _, err := os.Stat(s.Dir()); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(temp)
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if got := strings.Join(left, " "); got != want {
		t.Fatalf("left\n%s, want\n%s", got, want)
	}
}

// Many processes begin and sweep at the same time, and none loses its folder.
func TestScratch_ManyAtOnce(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	t.Run("all", func(t *testing.T) {
		for range 8 {
			t.Run("one", func(t *testing.T) {
				t.Parallel()
				for range 50 {
					s, err := NewScratch("sp-")
					if err != nil {
						t.Fatal(err)
					}
					sweepScratch("sp-")
					if !s.intact() {
						t.Fatal("a folder in use was swept away")
					}
					if err := s.Close(); err != nil {
						t.Fatal(err)
					}
				}
			})
		}
	})
}
