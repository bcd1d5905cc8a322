package plugin

import (
	"context"
	"sync"
	"time"
)

// limit is the context of one call: its caller's, with a time limit. What
// [context.WithTimeout] makes, its timer among it, is made when somebody asks for Done:
// a call on a stream ends without. Safe for concurrent use.
type limit struct {
	context.Context // the caller's
	deadline        time.Time

	mu     sync.Mutex
	real   context.Context // once somebody has asked for Done
	cancel context.CancelFunc
	ended  bool
}

var _ context.Context = (*limit)(nil)

// limited makes a context that ends after a time at the latest. The caller must end it.
func limited(ctx context.Context, within time.Duration) *limit {
	l := &limit{Context: ctx, deadline: time.Now().Add(within)}
	if earlier, ok := ctx.Deadline(); ok && earlier.Before(l.deadline) {
		l.deadline = earlier
	}
	return l
}

// Deadline implements context.Context.
func (l *limit) Deadline() (time.Time, bool) { return l.deadline, true }

// Done implements context.Context.
func (l *limit) Done() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.real == nil {
		l.real, l.cancel = context.WithDeadline(l.Context, l.deadline)
		if l.ended {
			l.cancel()
		}
	}
	return l.real.Done()
}

// Value implements context.Context. Contexts made from this one find what Done made.
func (l *limit) Value(key any) any {
	l.mu.Lock()
	from := l.real
	l.mu.Unlock()
	if from == nil {
		from = l.Context
	}
	return from.Value(key)
}

// Err implements context.Context.
func (l *limit) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.real != nil:
		return l.real.Err()
	case l.Context.Err() != nil:
		return l.Context.Err()
	case l.ended:
		return context.Canceled
	case !time.Now().Before(l.deadline):
		return context.DeadlineExceeded
	}
	return nil
}

// end frees what the context holds.
func (l *limit) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	if l.cancel != nil {
		l.cancel()
	}
}

// waker is what ends a wait for a context whose deadline somebody else watches: the
// caller's own end. It is nil if that cannot come.
func waker(ctx context.Context) (done <-chan struct{}, deadline time.Time) {
	if l, ok := ctx.(*limit); ok {
		return l.Context.Done(), l.deadline
	}
	return ctx.Done(), time.Time{}
}
