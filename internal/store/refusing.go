package store

import (
	"sync/atomic"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// refusalLasts is for how long storage counts as full after it has refused
// something, when nobody has succeeded since.
const refusalLasts = time.Minute

// refusals are what storage has refused last, for want of space or because it is
// read-only.
type refusals struct {
	giving atomic.Pointer[refused] // what gives something
	all    atomic.Pointer[refused] // what takes something away, too
}

type refused struct {
	why error
	at  time.Time // monotonic
}

// met remembers a refusal.
func (r *refusals) met(why error, urgent bool) {
	now := &refused{why, time.Now()}
	r.giving.Store(now)
	if urgent {
		r.all.Store(now)
	}
}

// succeeded forgets what jobs disprove that were committed. Those of the store
// itself disprove nothing: they are small, and write over rows that are there.
func (r *refusals) succeeded(batch []*job) {
	if r.giving.Load() == nil {
		return
	}
	for _, j := range batch {
		if j.record == nil {
			continue
		}
		r.all.Store(nil)
		if !j.urgent {
			r.giving.Store(nil)
			return
		}
	}
}

// last is a refusal that still counts.
func last(p *atomic.Pointer[refused]) error {
	if r := p.Load(); r != nil && time.Since(r.at) < refusalLasts {
		return r.why
	}
	return nil
}

// Refusing says what the store cannot record now: nil if it records everything,
// else why, of kind Unavailable, and whether that is true of revocations and locks
// too. It tells what was met and tries nothing: without any writes a full disk is
// noticed by the store's own, within a second on the node that has a lease.
func (s *Store) Refusing() (everything bool, err error) {
	if why := s.barred.Load(); why != nil {
		return true, why
	}
	if err := last(&s.refusals.all); err != nil {
		return true, err
	}
	if s.reserve != nil && s.reserve.size > 0 && s.reserve.used.Load() {
		return false, fault.Unavailablef("the server's disk is full: nothing is given until %d MiB are free; revocations, locks and leak reports are still recorded", 2*s.reserve.size>>20)
	}
	return false, last(&s.refusals.giving)
}

// Behind says why committed records get no place in the tree now, and so no
// checkpoint; nil if they do, or if another node gives them.
func (s *Store) Behind() error {
	if why := s.behind.Load(); why != nil {
		return *why
	}
	return nil
}
