package store

import (
	"context"
	"log/slog"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/obs"
)

// Lead runs do on one node at a time, until the context ends: do gets a context
// that ends when the lease of this name is lost, and must then return soon. Two
// nodes may overlap for a moment, so what do commits must be decided by
// compare-and-set. After do has returned, or the lease was lost, the node tries
// to lead again.
func (s *Store) Lead(ctx context.Context, name string, do func(ctx context.Context)) {
	l := s.lease(name)
	defer l.release(context.WithoutCancel(ctx))
	var told obs.Repeated
	for ctx.Err() == nil {
		held, err := l.hold(ctx)
		if err != nil && ctx.Err() == nil && told.New(fault.Public(err), s.now()) {
			s.log.WarnContext(ctx, "a lease cannot be asked for", slog.Any("lease", name), slog.Any("err", err))
		}
		if held {
			s.leadWhile(ctx, l, do)
			continue
		}
		pause(ctx, leasePause)
	}
}

// leadWhile runs do for as long as the lease is held.
func (s *Store) leadWhile(ctx context.Context, l *lease, do func(ctx context.Context)) {
	work, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); do(work) }()
	defer func() { stop(); <-done }()
	for {
		select {
		case <-done:
			return
		case <-ctx.Done():
			return
		case <-time.After(leasePause):
		}
		if held, _ := l.hold(ctx); !held {
			return
		}
	}
}
