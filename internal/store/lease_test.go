package store

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// TestLease_TakeoverAndClocks lets two nodes contend for one duty. The second
// one's wall clock is a year off, which must not matter: only the counter over
// its own monotonic time does.
func TestLease_TakeoverAndClocks(t *testing.T) {
	ctx := context.Background()
	s, err := Open(ctx, Config{Dir: t.TempDir(), Now: func() time.Time { return time.Now().AddDate(1, 0, 0) }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close(ctx) }()
	a, b := s.lease("duty"), s.lease("duty")
	a.holder, b.holder = "a", "b"
	hold := func(l *lease, want bool, when string) {
		t.Helper()
		if got, err := l.hold(ctx); err != nil || got != want {
			t.Fatalf("%s: %s holds it: %v, %v", when, l.holder, got, err)
		}
	}
	hold(a, true, "first come")
	hold(b, false, "taken")
	// b sees the counter move: its patience begins anew
	b.seenAt = b.seenAt.Add(-leaseLost + time.Millisecond)
	a.renewed = a.renewed.Add(-leasePause)
	hold(a, true, "renewed")
	hold(b, false, "the counter moved")
	if time.Since(b.seenAt) > time.Second {
		t.Fatal("a moved counter does not begin the patience anew")
	}
	// a stops renewing
	b.seenAt = b.seenAt.Add(-leaseLost)
	hold(b, true, "nothing moved for long enough")
	// a comes back and must notice, and what it does under its old epoch fails
	guard := a.step()
	if err := s.submit(ctx, s.own(guard)); err == nil {
		t.Error("a stale holder can still commit")
	}
	a.renewed = a.renewed.Add(-leasePause)
	hold(a, false, "taken over")
	b.release(ctx)
	hold(a, true, "given back")
	if a.epoch != 3 {
		t.Errorf("epoch %d after three holders", a.epoch)
	}
}

// TestLease_HolderStopsInTime: a holder that cannot renew stops before another
// may take over.
func TestLease_HolderStopsInTime(t *testing.T) {
	if leaseSafe+2*leasePause >= leaseLost {
		t.Errorf("a holder stops after %v at worst, another takes over after %v", leaseSafe+2*leasePause, leaseLost)
	}
}

// TestPause_EndsWithItsContext in virtual time.
func TestPause_EndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begun := time.Now()
		pause(ctx, time.Hour)
		if took := time.Since(begun); took != time.Second {
			t.Errorf("took %v", took)
		}
	})
}
