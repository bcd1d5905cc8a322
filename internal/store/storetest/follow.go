package storetest

import (
	"context"
	"sync"
	"testing"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/store"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// comingSubscribers: one that begins in the middle hears nothing from before, one
// that goes hears nothing more and is let go, and one that stays misses nothing.
func comingSubscribers(t *testing.T, e Engine) {
	s := Open(t, e.Config(t))
	Running(t, s)
	var mu sync.Mutex
	heard := map[string][]uint64{}
	follow := func(names ...string) {
		s.Follow(names, func(_ context.Context, name string, position uint64, _ audit.Record) error {
			mu.Lock()
			defer mu.Unlock()
			heard[name] = append(heard[name], position)
			return nil
		})
	}
	last := func(name string) (uint64, int) {
		mu.Lock()
		defer mu.Unlock()
		list := heard[name]
		if len(list) == 0 {
			return 0, 0
		}
		return list[len(list)-1], len(list)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var tasks sync.WaitGroup
	tasks.Go(func() { _ = s.Relay(ctx) })
	defer tasks.Wait()
	defer cancel()
	follow("stays")
	fill(t, s, 20)
	Eventually(t, "the one that stays has all", func() bool { _, n := last("stays"); return n == 20 })
	must(t, s.Commit(ctx, start(s, t, "late")))
	follow("stays", "late")
	fill(t, s, 20)
	Eventually(t, "both have the rest", func() bool {
		a, n := last("stays")
		b, m := last("late")
		return a == b && n == int(a)+1 && m >= 20
	})
	mu.Lock()
	first := heard["late"][0]
	mu.Unlock()
	if first < 20 {
		t.Errorf("the one that came late begins at %d", first)
	}
	follow("stays")
	_, before := last("late")
	fill(t, s, 20)
	Eventually(t, "the one that stays goes on", func() bool { a, n := last("stays"); return n == int(a)+1 && a >= 60 })
	if _, now := last("late"); now != before {
		t.Errorf("the one that went heard %d more", now-before)
	}
}

// start is a unit after which a subscriber begins at the present end.
func start(s *store.Store, t *testing.T, name string) unit.Unit {
	t.Helper()
	head, err := s.Head(context.Background())
	must(t, err)
	u := Birth(Subject("of " + name))
	u.Writes = append(u.Writes, unit.Do("cursors.start", unit.AnyRows, "", name, int64(head.Size)))
	return u
}

// observed: who observes hears of each record that was committed, once, before its
// caller has the answer, and of none that was refused.
func observed(t *testing.T, e Engine) {
	ctx, s := context.Background(), Open(t, e.Config(t))
	var mu sync.Mutex
	heard := map[string]int{}
	s.Observe(func(r audit.Record) {
		mu.Lock()
		defer mu.Unlock()
		heard[r.ID]++
	})
	sub := Subject("a")
	must(t, s.Commit(ctx, Birth(sub)))
	var tasks sync.WaitGroup
	for i := range 40 {
		tasks.Go(func() {
			u := Issue(Grant(sub.ID), unit.Check("subjects", sub.ID, int64(1+i%2)))
			err := s.Commit(ctx, u)
			mu.Lock()
			defer mu.Unlock()
			if n := heard[u.Record.ID]; (err == nil) != (n == 1) || n > 1 {
				t.Errorf("unit %d (%v) was heard of %d times", i, err, n)
			}
		})
	}
	tasks.Wait()
	if len(heard) != 21 {
		t.Errorf("heard of %d records, not 21", len(heard))
	}
}
