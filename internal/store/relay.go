package store

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// Subscriber receives records in the order of their positions, at least once.
// An error means that the same record comes again.
type Subscriber func(ctx context.Context, position uint64, r audit.Record) error

type subscription struct {
	name string
	f    Subscriber
}

type subscribers struct {
	mu      sync.Mutex
	list    []*subscription // for as long as the store is open
	coming  []*subscription // come and go; see Follow
	changed *bell
}

// Observe makes f hear of each record that this process commits, once it is
// durable: the only one, not in the order of positions, and not again after a
// crash. For what may miss one, such as counters, it saves reading the ledger. f
// must be quick: the writer calls it.
func (s *Store) Observe(f func(audit.Record)) { s.observer.Store(&f) }

// Subscribe registers a subscriber under a name by which its place is kept over
// restarts.
func (s *Store) Subscribe(name string, f Subscriber) {
	s.subs.mu.Lock()
	defer s.subs.mu.Unlock()
	s.subs.list = append(s.subs.list, &subscription{name, f})
	s.subs.changed.ring()
}

// Follow makes names the subscribers that come and go, in place of those of the
// last call. A name that was there goes on undisturbed; the context of one that is
// gone ends. Where a new name begins is up to the unit that made it
// (cursors.start); without that it is the beginning of the ledger.
func (s *Store) Follow(names []string, f func(ctx context.Context, name string, position uint64, r audit.Record) error) {
	s.subs.mu.Lock()
	defer s.subs.mu.Unlock()
	before := s.subs.coming
	s.subs.coming = nil
	for _, name := range names {
		sub := &subscription{name, func(ctx context.Context, position uint64, r audit.Record) error { return f(ctx, name, position, r) }}
		if at := slices.IndexFunc(before, func(b *subscription) bool { return b.name == name }); at >= 0 {
			sub = before[at]
		}
		s.subs.coming = append(s.subs.coming, sub)
	}
	s.subs.changed.ring()
}

// all is who subscribes now, and what tells of a change.
func (s *subscribers) all() ([]*subscription, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Concat(s.list, s.coming), s.changed.wait()
}

// Pace of the relay.
const (
	relayBatch = 256
	relayPoll  = 200 * time.Millisecond
	relayRetry = time.Second
)

// Relay hands records to the subscribers until the context ends. One node at a
// time does it, under a lease. Each subscriber has its own pace: a slow one
// holds up neither commits nor the others. Call it once per store.
func (s *Store) Relay(ctx context.Context) error {
	l := s.lease("relay")
	defer func() {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		l.release(last)
	}()
	for ctx.Err() == nil {
		held, err := l.hold(ctx)
		if err != nil && s.barred.Load() != nil {
			return err
		}
		if !held || err != nil {
			pause(ctx, leasePause)
			continue
		}
		s.serve(ctx, l)
	}
	return nil
}

// serve runs the subscribers for as long as the lease is held.
func (s *Store) serve(ctx context.Context, l *lease) {
	run, cancel := context.WithCancel(ctx)
	guard := l.step()
	var tasks sync.WaitGroup
	running := map[*subscription]context.CancelFunc{}
	for run.Err() == nil {
		list, changed := s.subs.all()
		for sub, stop := range running {
			if !slices.Contains(list, sub) {
				stop()
				delete(running, sub)
			}
		}
		for _, sub := range list {
			if running[sub] == nil {
				one, stop := context.WithCancel(run)
				running[sub] = stop
				tasks.Go(func() { s.follow(one, guard, sub) })
			}
		}
		timer := time.NewTimer(leasePause)
		select {
		case <-run.Done():
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
		if held, err := l.hold(ctx); !held || err != nil && s.barred.Load() != nil {
			break
		}
	}
	cancel()
	for _, stop := range running {
		stop()
	}
	tasks.Wait()
}

// follow moves one subscriber along the ledger.
func (s *Store) follow(ctx context.Context, guard step, sub *subscription) {
	next, known := int64(0), false
	for ctx.Err() == nil {
		more := s.grown.wait()
		n, err := int64(0), error(nil)
		if !known {
			next, err = s.cursor(ctx, sub.name)
			known = err == nil
		}
		if err == nil {
			n, err = s.hand(ctx, guard, sub, next)
			next += n
		}
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			s.log.WarnContext(ctx, "a subscriber of the ledger will see a record again", slog.Any("subscriber", sub.name), slog.Any("position", next), slog.Any("err", err))
			known = false
			pause(ctx, relayRetry)
		case n == 0:
			timer := time.NewTimer(relayPoll)
			select {
			case <-ctx.Done():
			case <-more:
			case <-timer.C:
			}
			timer.Stop()
		}
	}
}

// hand gives one run of records to a subscriber and moves its cursor behind
// those it took.
func (s *Store) hand(ctx context.Context, guard step, sub *subscription, from int64) (int64, error) {
	list, err := s.Records(ctx, audit.Filter{From: uint64(from), Limit: relayBatch}) //nolint:gosec // not negative
	if err != nil {
		return 0, err
	}
	n := int64(0)
	for _, e := range list {
		r, bad := audit.ParseLeaf(e.Leaf)
		if bad != nil {
			err = fault.Internalf("record %d of the ledger cannot be read", e.Position).Because(bad)
			break
		}
		if err = sub.f(ctx, e.Position, r); err != nil {
			break
		}
		n++
	}
	if n > 0 {
		j := s.own(guard, s.do("cursors.move", -1, sub.name, from+n))
		if move := s.submit(ctx, j); move != nil {
			return n, fault.Wrap(move, "move cursor")
		}
	}
	return n, err
}

func (s *Store) cursor(ctx context.Context, name string) (int64, error) {
	var at int64
	err := s.query(ctx, "SELECT position FROM cursors WHERE name = $1", []any{name}, func(rows foundRow) error {
		return rows.Scan(&at)
	})
	return at, fault.Wrap(err, "read cursor")
}
