package store

import (
	"context"
	"database/sql"
	"log/slog"
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
	mu   sync.Mutex
	list []subscription
}

// Subscribe registers a subscriber under a name by which its place is kept over
// restarts. All must be there before [Store.Relay] runs.
func (s *Store) Subscribe(name string, f Subscriber) {
	s.subs.mu.Lock()
	defer s.subs.mu.Unlock()
	s.subs.list = append(s.subs.list, subscription{name, f})
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
	s.subs.mu.Lock()
	list := append([]subscription(nil), s.subs.list...)
	s.subs.mu.Unlock()
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
		s.serve(ctx, l, list)
	}
	return nil
}

// serve runs the subscribers for as long as the lease is held.
func (s *Store) serve(ctx context.Context, l *lease, list []subscription) {
	run, cancel := context.WithCancel(ctx)
	guard := l.step()
	var tasks sync.WaitGroup
	for _, sub := range list {
		tasks.Go(func() { s.follow(run, guard, sub) })
	}
	for run.Err() == nil {
		pause(run, leasePause)
		if held, err := l.hold(ctx); !held || err != nil && s.barred.Load() != nil {
			break
		}
	}
	cancel()
	tasks.Wait()
}

// follow moves one subscriber along the ledger.
func (s *Store) follow(ctx context.Context, guard step, sub subscription) {
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
func (s *Store) hand(ctx context.Context, guard step, sub subscription, from int64) (int64, error) {
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
	err := s.query(ctx, "SELECT position FROM cursors WHERE name = $1", []any{name}, func(rows *sql.Rows) error {
		return rows.Scan(&at)
	})
	return at, fault.Wrap(err, "read cursor")
}
