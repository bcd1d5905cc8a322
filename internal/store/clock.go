package store

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/id"
	"github.com/sallyport-project/sallyport/internal/unit"
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
	return fault.Unavailablef("CLOCK_ROLLBACK: the clock stands %s behind the latest time seen; nothing is issued until it is right "+
		"(if it is right and once stood ahead, an operator accepts it: sallyport doctor clock)",
		(time.Duration(behind) * time.Microsecond).Round(time.Second))
}

// LatestTime is the latest time seen, and the time by the clock now.
func (s *Store) LatestTime() (seen, now time.Time) {
	return unit.Moment(s.clock.highest.Load()), s.now().UTC()
}

// AcceptClock takes the clock as it is now for right and forgets the later time
// that was seen: the way out after a clock once stood far ahead. It is the
// operator's decision and never the program's, and is a record of type
// clock.accepted with both times. seen is the time that the operator was shown. A
// clock that nothing is held against is a Conflict. With PostgreSQL other
// replicas go on with the time that they have seen until they start again.
func (s *Store) AcceptClock(ctx context.Context, actor audit.Actor, seen time.Time, reason string) error {
	err := s.CheckClock(ctx)
	if err == nil {
		return fault.Conflictf("the clock is not held against anything: there is nothing to accept")
	}
	if !fault.Is(err, fault.Unavailable) {
		return err
	}
	now := s.now().UTC()
	err = s.Commit(ctx, unit.Unit{
		Writes: []unit.Write{unit.Do("clock.lower", 1, "the latest time seen has changed, look again", now.UnixMicro(), unit.Micros(seen))},
		Record: audit.Record{
			Version: audit.Version, ID: id.New(), Type: "clock.accepted", At: now, Outcome: audit.Done, Actor: actor, Reasons: []string{reason},
			Data: map[string]string{"seen": seen.UTC().Format(time.RFC3339Nano), "now": now.Format(time.RFC3339Nano)},
		},
	})
	if err != nil {
		return err
	}
	s.clock.highest.Store(now.UnixMicro())
	s.clock.raised.Store(now.UnixMicro())
	return nil
}
