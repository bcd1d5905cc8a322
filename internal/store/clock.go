package store

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// clockTolerance is how far the clock may stand behind the highest time seen.
const clockTolerance = 2 * time.Minute

// clock remembers the highest time that any replica has seen, so that a clock
// that was set back does not bring expired things back to life.
type clock struct {
	highest atomic.Int64 // microseconds
	raised  atomic.Int64 // what the last raise wrote
	read    atomic.Int64 // when highest was read, by our own clock
}

// clockReread is how often a replica looks for what the others have seen.
const clockReread = int64(5 * time.Second / time.Microsecond)

func (c *clock) load(ctx context.Context, s *Store) error {
	n, err := s.number(ctx, "clock", "SELECT highest FROM clock WHERE name = 'clock'")
	if err != nil {
		return fault.Wrap(err, "read highest time")
	}
	c.read.Store(s.now().UnixMicro())
	c.raise64(n)
	return nil
}

func (c *clock) raise64(n int64) {
	for {
		old := c.highest.Load()
		if n <= old || c.highest.CompareAndSwap(old, n) {
			return
		}
	}
}

// raise is the job that writes a higher time, at most once a second, beside
// whatever is committed; nil if there is nothing to write.
func (c *clock) raise(s *Store) *job {
	now := s.now().UnixMicro()
	last := c.raised.Load()
	if now < last+int64(time.Second/time.Microsecond) || now <= c.highest.Load() || !c.raised.CompareAndSwap(last, now) {
		return nil
	}
	c.raise64(now)
	return s.own(s.do("clock.raise", -1, now))
}

// CheckClock refuses, with a fault of kind Unavailable that names
// CLOCK_ROLLBACK, when the clock stands more than two minutes behind the
// highest time that was ever seen. Nothing may be issued then (decisions on the
// clock).
func (s *Store) CheckClock(ctx context.Context) error {
	now := s.now().UnixMicro()
	if r := s.clock.read.Load(); s.postgres && (now-r > clockReread || now < r) {
		if err := s.clock.load(ctx, s); err != nil {
			return err
		}
	}
	behind := s.clock.highest.Load() - now
	if behind <= int64(clockTolerance/time.Microsecond) {
		return nil
	}
	return fault.Unavailablef("CLOCK_ROLLBACK: the clock stands %s behind the latest time seen; nothing is issued until it is right",
		(time.Duration(behind) * time.Microsecond).Round(time.Second))
}
