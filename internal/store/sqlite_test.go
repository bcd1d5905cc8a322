package store_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/store"
	"github.com/sallyport-project/sallyport/internal/store/storetest"
	"github.com/sallyport-project/sallyport/internal/unit"
)

func TestSQLite_SecondProcessIsRefused(t *testing.T) {
	cfg := store.Config{Dir: t.TempDir()}
	s := storetest.Open(t, cfg)
	_, err := store.Open(context.Background(), cfg)
	if !fault.Is(err, fault.Unavailable) || !strings.Contains(fault.Public(err), "in use by another process") {
		t.Fatalf("a second store in one directory: %v", err)
	}
	storetest.Close(t, s)
	storetest.Open(t, cfg)
}

// mount puts a small file system of its own over a fresh directory.
func mount(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		if os.Getenv("CI") == "true" && os.Getuid() == 0 {
			t.Fatalf("mount: %v", err)
		}
		t.Skipf("skipped: needs the right to mount: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// TestSQLite_DiskFull fills a small disk. Giving is refused with the reason,
// taking away still works in the reserve, nothing acknowledged is lost, and all
// works again when there is room.
func TestSQLite_DiskFull(t *testing.T) {
	ctx := context.Background()
	dir := mount(t, "24m")
	cfg := store.Config{Dir: dir, Reserve: 4 << 20}
	s := storetest.Open(t, cfg)
	sub := storetest.Subject("a")
	noError(t, s.Commit(ctx, storetest.Birth(sub)))
	var grants []grant.Grant
	var full error
	for full == nil && len(grants) < 20000 {
		g := storetest.Grant(sub.ID)
		g.Sealed = make([]byte, 16<<10)
		if full = s.Commit(ctx, storetest.Issue(g)); full == nil {
			grants = append(grants, g)
		}
	}
	if !fault.Is(full, fault.Unavailable) || !strings.Contains(fault.Public(full), "disk is full") {
		t.Fatalf("a full disk is answered with %v after %d grants", full, len(grants))
	}
	for _, g := range grants[:50] {
		next, err := g.To(grant.Revoked, "leak", time.Now())
		noError(t, err)
		r := storetest.Record("grant.revoked")
		r.Subject, r.Grant = g.Subject, g.ID
		if err := s.Commit(ctx, unit.Unit{Writes: []unit.Write{unit.Update(next)}, Record: r, Urgent: true}); err != nil {
			t.Fatalf("a revocation on a full disk: %v", err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "reserve")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the reserve was not used: %v", err)
	}
	err := s.Commit(ctx, storetest.Issue(storetest.Grant(sub.ID)))
	if !fault.Is(err, fault.Unavailable) || !strings.Contains(fault.Public(err), "disk is full") {
		t.Errorf("the reserve is given to somebody who takes: %v", err)
	}
	noError(t, unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, "size=96m"))
	storetest.Eventually(t, "the reserve is back", func() bool {
		_, err := os.Stat(filepath.Join(dir, "reserve"))
		return err == nil
	})
	storetest.Eventually(t, "what gives something commits again", func() bool {
		return s.Commit(ctx, storetest.Issue(storetest.Grant(sub.ID))) == nil
	})
	storetest.Close(t, s)
	s = storetest.Open(t, cfg)
	for i, g := range grants {
		got, err := s.Grant(ctx, g.ID)
		if err != nil || (got.State == grant.Revoked) != (i < 50) {
			t.Fatalf("grant %d: %v, %v", i, got.State, err)
		}
	}
}

func TestSQLite_ReadOnlyStorageIsRefused(t *testing.T) {
	dir := mount(t, "64m")
	cfg := store.Config{Dir: dir}
	s := storetest.Open(t, cfg)
	noError(t, s.Commit(context.Background(), storetest.Birth(storetest.Subject("a"))))
	storetest.Close(t, s)
	noError(t, unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	_, err := store.Open(context.Background(), cfg)
	if !fault.Is(err, fault.Unavailable) || !strings.Contains(fault.Public(err), "cannot be written") {
		t.Fatalf("read-only storage: %v", err)
	}
}

// TestSQLite_FailedSync runs this binary under strace, which fails the sync of
// a commit. Whoever waited gets Unavailable with an unknown outcome, the store
// says that it failed, nothing is acknowledged afterwards, and the next process
// finds every acknowledged unit.
func TestSQLite_FailedSync(t *testing.T) {
	tracer, err := exec.LookPath("strace")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs strace")
		}
		t.Skip("skipped: needs strace")
	}
	for _, when := range []string{"fsync,fdatasync:error=EIO:when=40", "fsync,fdatasync:error=EIO:when=80+", "fsync,fdatasync:error=EIO:when=150", "sync_file_range:error=EIO:when=2"} {
		dir := t.TempDir()
		calls, _, _ := strings.Cut(when, ":")
		cmd := exec.Command(tracer, "-f", "-qq", "--seccomp-bpf", "-o", filepath.Join(t.TempDir(), "trace"), "-e", "trace="+calls,
			"-e", "inject="+when, os.Args[0], "-test.run=TestSQLite_FailedSyncWorker", "-test.v")
		cmd.Env = append(os.Environ(), "STORE_WORKER="+dir)
		out, err := cmd.CombinedOutput()
		text := string(out)
		if err != nil || !strings.Contains(text, "FAILED ") || !strings.Contains(text, "REFUSED outcome is unknown") {
			t.Fatalf("%s: %v\n%s", when, err, text)
		}
		s := storetest.Open(t, store.Config{Dir: dir})
		n := 0
		for _, line := range strings.Split(text, "\n") {
			if name, ok := strings.CutPrefix(line, "ACK "); ok {
				n++
				if _, err := s.Grant(context.Background(), name); err != nil {
					t.Fatalf("acknowledged grant %s: %v", name, err)
				}
			}
		}
		if n == 0 {
			t.Errorf("%s: nothing was acknowledged before the fault", when)
		}
		storetest.Close(t, s)
	}
}

// TestSQLite_FailedSyncWorker is the process that TestSQLite_FailedSync starts.
func TestSQLite_FailedSyncWorker(t *testing.T) {
	dir := os.Getenv("STORE_WORKER")
	if dir == "" {
		return
	}
	ctx := context.Background()
	s, err := store.Open(ctx, store.Config{Dir: dir})
	if err != nil {
		os.Stdout.WriteString("FAILED REFUSED outcome is unknown at open: " + err.Error() + "\n")
		return
	}
	s.UseMAC(storetest.MAC{})
	var mu sync.Mutex
	say := func(line string) { mu.Lock(); defer mu.Unlock(); os.Stdout.WriteString("\n" + line + "\n") }
	var tasks sync.WaitGroup
	for range 8 {
		tasks.Go(func() {
			for range 2000 {
				g := storetest.Grant("SUBJECT")
				if err := s.Commit(ctx, storetest.Issue(g)); err != nil {
					if strings.Contains(fault.Public(err), "outcome is unknown") && fault.Is(err, fault.Unavailable) {
						say("REFUSED outcome is unknown")
					}
					if again := s.Commit(ctx, storetest.Issue(storetest.Grant("SUBJECT"))); again == nil {
						say("SERVED AFTER THE FAULT")
						os.Exit(3)
					}
					return
				}
				say("ACK " + g.ID)
			}
		})
	}
	tasks.Wait()
	select {
	case err := <-s.Failed():
		say("FAILED " + strings.ReplaceAll(err.Error(), "\n", " "))
	case <-time.After(5 * time.Second):
	}
	_ = s.Close(ctx)
}

// TestSQLite_CheckpointsBoundTheLog writes far more than the log may grow to,
// under load and with readers.
func TestSQLite_CheckpointsBoundTheLog(t *testing.T) {
	ctx := context.Background()
	cfg := store.Config{Dir: t.TempDir()}
	s := storetest.Open(t, cfg)
	var tasks sync.WaitGroup
	for range 16 {
		tasks.Go(func() {
			for range 150 {
				g := storetest.Grant("SUBJECT")
				g.Sealed = make([]byte, 64<<10)
				if err := s.Commit(ctx, storetest.Issue(g)); err != nil {
					t.Error(err)
				}
				if _, err := s.Grant(ctx, g.ID); err != nil {
					t.Error(err)
				}
			}
		})
	}
	tasks.Wait()
	fi, err := os.Stat(filepath.Join(cfg.Dir, "sallyport.db-wal"))
	noError(t, err)
	if fi.Size() > 120<<20 {
		t.Errorf("the log grew to %d MB of 150 written", fi.Size()>>20)
	}
}

// TestSQLite_ReadsALogThatWasWidened as a crash leaves it: what lies behind the
// last commit is nothing.
func TestSQLite_ReadsALogThatWasWidened(t *testing.T) {
	ctx := context.Background()
	cfg := store.Config{Dir: t.TempDir()}
	s := storetest.Open(t, cfg)
	var want []string
	commit := func() {
		for range 20 {
			g := storetest.Grant("SUBJECT")
			noError(t, s.Commit(ctx, storetest.Issue(g)))
			want = append(want, g.ID)
		}
	}
	log := filepath.Join(cfg.Dir, "sallyport.db-wal")
	commit()
	for size := int64(0); size < store.WALFull; {
		fi, err := os.Stat(log)
		noError(t, err)
		size = fi.Size()
		time.Sleep(5 * time.Millisecond)
	}
	commit()
	left := store.Config{Dir: t.TempDir()}
	for _, name := range []string{"sallyport.db", "sallyport.db-wal"} {
		data, err := os.ReadFile(filepath.Join(cfg.Dir, name))
		noError(t, err)
		noError(t, os.WriteFile(filepath.Join(left.Dir, name), data, 0o600))
	}
	s = storetest.Open(t, left)
	for _, id := range want {
		_, err := s.Grant(ctx, id)
		noError(t, err)
	}
	commit()
}
