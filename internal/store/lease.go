package store

import (
	"context"
	"log/slog"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// Pauses of leases. A holder that could not renew for leaseSafe stops; another
// node takes over when it has seen nothing change for leaseLost by its own
// clock, which is longer. Clocks are never compared.
const (
	leasePause = 500 * time.Millisecond
	leaseSafe  = 2 * time.Second
	leaseLost  = 4 * time.Second
)

// lease is one node's view of one duty that a single node does at a time.
type lease struct {
	s       *Store
	name    string
	holder  string
	epoch   int64 // ours, while held
	held    bool
	renewed time.Time // monotonic; when the last renewal began

	seenEpoch, seenCounter int64
	seenAt                 time.Time // monotonic; when that pair was first seen
	seeded                 bool
}

func (s *Store) lease(name string) *lease { return &lease{s: s, name: name, holder: s.node} }

// hold takes or renews the lease if it can and reports whether it is held.
func (l *lease) hold(ctx context.Context) (bool, error) {
	now := time.Now() // never s.now: the observer's monotonic time decides
	if l.held {
		return l.renew(ctx, now)
	}
	if !l.seeded {
		if err := l.s.submit(ctx, l.s.own(l.s.do("leases.seed", -1, l.name))); err != nil {
			return false, err
		}
		l.seeded = true
	}
	holder, epoch, counter, err := l.s.leaseRow(ctx, l.name)
	if err != nil {
		return false, err
	}
	if l.seenAt.IsZero() || epoch != l.seenEpoch || counter != l.seenCounter {
		l.seenEpoch, l.seenCounter, l.seenAt = epoch, counter, now
	}
	if holder != "" && now.Sub(l.seenAt) < leaseLost {
		return false, nil
	}
	err = l.s.submit(ctx, l.s.own(l.s.do("leases.take", 1, l.name, l.holder, epoch, counter)))
	if fault.Is(err, fault.Conflict) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	l.held, l.epoch, l.renewed = true, epoch+1, now
	l.s.log.InfoContext(ctx, "this node has a lease", slog.Any("lease", l.name), slog.Any("epoch", l.epoch))
	return true, nil
}

func (l *lease) renew(ctx context.Context, now time.Time) (bool, error) {
	if now.Sub(l.renewed) < leasePause {
		return true, nil
	}
	err := l.s.submit(ctx, l.s.own(l.s.do("leases.renew", 1, l.name, l.holder, l.epoch)))
	switch {
	case err == nil:
		l.renewed = now
	case fault.Is(err, fault.Conflict) || now.Sub(l.renewed) > leaseSafe:
		l.held, l.seenAt = false, time.Time{}
		l.s.log.WarnContext(ctx, "this node has lost a lease", slog.Any("lease", l.name), slog.Any("epoch", l.epoch))
		if fault.Is(err, fault.Conflict) {
			err = nil
		}
	}
	return l.held, err
}

// step demands, inside a transaction, that the lease is still ours.
func (l *lease) step() step {
	return l.s.do("leases.check", 1, l.name, l.holder, l.epoch)
}

// release gives the lease back, so that the next node need not wait.
func (l *lease) release(ctx context.Context) {
	if !l.held {
		return
	}
	l.held = false
	if err := l.s.submit(ctx, l.s.own(l.s.do("leases.release", -1, l.name, l.holder, l.epoch))); err != nil {
		l.s.log.InfoContext(ctx, "a lease was not given back", slog.Any("lease", l.name), slog.Any("err", err))
	}
}

func (s *Store) leaseRow(ctx context.Context, name string) (holder string, epoch, counter int64, err error) {
	err = s.query(ctx, "SELECT holder, epoch, counter FROM leases WHERE name = $1", []any{name}, func(rows foundRow) error {
		return rows.Scan(&holder, &epoch, &counter)
	})
	return holder, epoch, counter, fault.Wrap(err, "read lease")
}
