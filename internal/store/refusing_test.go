package store_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/store"
	"github.com/sallyport-project/sallyport/internal/store/storetest"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// lines is a log that counts.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), text)
}

// TestIntegrator_SaysTheSameOnceAMinute keeps the last checkpoint from its place,
// so that every round of the integrator fails: ten a second.
func TestIntegrator_SaysTheSameOnceAMinute(t *testing.T) {
	ctx := context.Background()
	var ahead atomic.Int64
	var log lines
	state := filepath.Join(t.TempDir(), "state")
	s := storetest.Open(t, store.Config{
		Dir: t.TempDir(), StateDir: state, Logger: slog.New(slog.NewTextHandler(&log, nil)),
		Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) },
	})
	storetest.Running(t, s)
	commit := func() { noError(t, s.Commit(ctx, unit.Unit{Record: storetest.Record("test.noted")})) }
	commit()
	storetest.Eventually(t, "the first checkpoint is kept", func() bool { _, err := os.Stat(filepath.Join(state, "last-checkpoint")); return err == nil })
	noError(t, os.RemoveAll(state))
	noError(t, os.WriteFile(state, nil, 0o600))
	const again = "the integrator will try again"
	commit()
	storetest.Eventually(t, "the integrator fails", func() bool { return log.count(again) == 1 && s.Behind() != nil })
	if text := fault.Public(s.Behind()); !strings.Contains(text, "checkpoint cannot be kept in "+state) {
		t.Errorf("what keeps the records back: %s", text)
	}
	time.Sleep(500 * time.Millisecond) // some rounds
	if n := log.count(again); n != 1 {
		t.Errorf("the same was said %d times within a second", n)
	}
	ahead.Store(int64(61 * time.Second))
	storetest.Eventually(t, "it is said again after a minute", func() bool { return log.count(again) == 2 })
	noError(t, os.Remove(state))
	storetest.Eventually(t, "the records have their places", func() bool { return s.Behind() == nil })
	if _, err := s.Refusing(); err != nil {
		t.Errorf("a store that takes everything refuses: %v", err)
	}
}

// TestStore_SaysWhatItRefuses fills a small disk: first for what gives, then, when
// the reserve is used up too, for everything; and makes room again.
func TestStore_SaysWhatItRefuses(t *testing.T) {
	ctx := context.Background()
	dir := mount(t, "24m")
	s := storetest.Open(t, store.Config{Dir: dir, Reserve: 1 << 20})
	commit := func(urgent bool) error {
		r := storetest.Record("test.noted")
		r.Data = map[string]string{"filler": strings.Repeat("x", 24<<10)}
		return s.Commit(ctx, unit.Unit{Record: r, Urgent: urgent})
	}
	refuses := func(urgent, everything bool) {
		t.Helper()
		var err error
		for n := 0; err == nil && n < 5000; n++ {
			err = commit(urgent)
		}
		all, why := s.Refusing()
		if !fault.Is(err, fault.Unavailable) || !fault.Is(why, fault.Unavailable) || all != everything || !strings.Contains(fault.Public(why), "disk is full") {
			t.Fatalf("refused with %v, and says %v, %v", err, all, why)
		}
	}
	if _, err := s.Refusing(); err != nil {
		t.Errorf("at first: %v", err)
	}
	refuses(false, false)
	refuses(true, true)
	noError(t, unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, "size=96m"))
	storetest.Eventually(t, "it takes everything again", func() bool {
		_, err := s.Refusing()
		return commit(false) == nil && err == nil
	})
}
