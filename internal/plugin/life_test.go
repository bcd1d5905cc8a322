package plugin

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/obs"
)

// puppet is a process that does what a test says.
type puppet struct {
	gone    chan struct{}
	well    atomic.Bool
	stopped atomic.Bool
	asked   atomic.Bool // to end, before it was stopped
}

func newPuppet() *puppet {
	p := &puppet{gone: make(chan struct{})}
	p.well.Store(true)
	return p
}

func (p *puppet) done() <-chan struct{} { return p.gone }

func (p *puppet) check(context.Context) error {
	if p.well.Load() {
		return nil
	}
	return errors.New("unwell")
}

func (p *puppet) stop(gently bool) {
	p.asked.Store(gently)
	p.stopped.Store(true)
}

// stage is a life whose processes are puppets.
type stage struct {
	*pool[*puppet]
	starts atomic.Int64
	fail   atomic.Pointer[error]
	last   atomic.Pointer[puppet]
}

func newStage(eager bool) *stage {
	s := &stage{}
	p := pace{
		healthEvery: 30 * time.Second, checkWithin: 5 * time.Second,
		firstPause: 50 * time.Millisecond, maxPause: 5 * time.Second,
		breakAfter: 5, coolDown: 30 * time.Second, steadyAfter: 10 * time.Second,
	}
	log := slog.New(slog.DiscardHandler)
	s.pool = newPool("puppet", Scale{}, p, log, time.Now, newMeters(obs.NewMetrics(), &Host{}), func(context.Context) (*puppet, error) {
		s.starts.Add(1)
		if err := s.fail.Load(); err != nil {
			return nil, *err
		}
		w := newPuppet()
		s.last.Store(w)
		return w, nil
	})
	s.run(eager)
	return s
}

func (s *stage) finish(t *testing.T) {
	t.Helper()
	s.end(t.Context())
	if w := s.last.Load(); w != nil && !w.stopped.Load() {
		t.Error("the last process was not stopped")
	}
}

func TestLife_StartsWithTheFirstCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(false)
		defer s.finish(t)
		time.Sleep(time.Hour)
		if s.starts.Load() != 0 {
			t.Fatal("started without a call")
		}
		_, release, err := s.acquire(t.Context())
		if err != nil || s.starts.Load() != 1 {
			t.Fatalf("%d starts, %v", s.starts.Load(), err)
		}
		release()
	})
}

func TestLife_RestartsAtOnceAfterACrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(true)
		defer s.finish(t)
		synctest.Wait()
		began := time.Now()
		first := s.last.Load()
		close(first.gone)
		w, release, err := s.acquire(t.Context())
		if err != nil || w == first || time.Since(began) != 0 {
			t.Fatalf("after %v: %v", time.Since(began), err)
		}
		release()
		synctest.Wait()
		if !first.stopped.Load() {
			t.Fatal("the crashed process was not cleaned up")
		}
	})
}

func TestLife_RestartsWhatMissesItsChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(true)
		defer s.finish(t)
		synctest.Wait()
		first := s.last.Load()
		first.well.Store(false)
		time.Sleep(31 * time.Second)
		if s.last.Load() != first {
			t.Fatal("one missed check is no proof")
		}
		time.Sleep(6 * time.Second)
		if s.last.Load() == first || !first.stopped.Load() {
			t.Fatal("still the same process after two missed checks")
		}
	})
}

func TestLife_OpensTheCircuit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(false)
		defer s.finish(t)
		broken := errors.New("does not start")
		s.fail.Store(&broken)
		_, _, err := s.acquire(t.Context())
		if !fault.Is(err, fault.Unavailable) || s.starts.Load() != 5 {
			t.Fatalf("%d starts, %v", s.starts.Load(), err)
		}
		if after := fault.RetryAfter(err); after < 15*time.Second || after > 30*time.Second {
			t.Fatalf("retry after %v", after)
		}
		s.fail.Store(nil)
		time.Sleep(31 * time.Second)
		_, release, err := s.acquire(t.Context())
		if err != nil {
			t.Fatalf("after the cool-down: %v", err)
		}
		release()
	})
}

func TestLife_DoesNotRepeatARefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(false)
		defer s.finish(t)
		refused := refuse(ReasonDigest, "not what was signed")
		s.fail.Store(&refused)
		_, _, err := s.acquire(t.Context())
		if !fault.Is(err, fault.Unavailable) || s.starts.Load() != 1 || s.lives[0].state != Refused || s.lives[0].reason != ReasonDigest {
			t.Fatalf("%d starts, state %s: %v", s.starts.Load(), s.lives[0].state, err)
		}
	})
}

func TestLife_DrainsBeforeItEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(true)
		w, release, err := s.acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() {
			s.end(t.Context())
			close(ended)
		}()
		synctest.Wait()
		if w.stopped.Load() {
			t.Fatal("stopped under a call")
		}
		if _, _, err := s.acquire(t.Context()); !errors.Is(err, errGone) {
			t.Fatalf("a call began while draining: %v", err)
		}
		release()
		<-ended
		if !w.stopped.Load() {
			t.Fatal("not stopped")
		}
	})
}

func TestLife_CutsOffCallsWhenDrainingTakesTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(true)
		w, release, err := s.acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		s.end(ctx)
		if !w.stopped.Load() {
			t.Fatal("not stopped")
		}
		release()
	})
}

// What a revoked key has signed is not asked to end: it would have time meanwhile.
func TestLife_KillsWhatIsNotTrusted(t *testing.T) {
	for _, trusted := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			s := newStage(true)
			w, release, err := s.acquire(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			release()
			s.untrust.Store(!trusted)
			s.end(t.Context())
			if w.asked.Load() != trusted {
				t.Errorf("trusted %v, asked to end %v", trusted, w.asked.Load())
			}
		})
	}
}

// However processes come and go, a call gets one that is alive at that moment,
// or an error, and never waits beyond its deadline.
func TestLife_NeverHandsOutADeadProcess(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		steps := rapid.SliceOfN(rapid.IntRange(0, 4), 1, 30).Draw(r, "steps")
		synctest.Test(t, func(t *testing.T) {
			s := newStage(false)
			defer s.end(t.Context())
			broken := errors.New("does not start")
			for _, step := range steps {
				switch step {
				case 0: // crash
					if w := s.last.Load(); w != nil {
						select {
						case <-w.gone:
						default:
							close(w.gone)
						}
					}
				case 1:
					s.fail.Store(&broken)
				case 2:
					s.fail.Store(nil)
				case 3:
					time.Sleep(7 * time.Second)
				case 4:
					ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
					began := time.Now()
					w, release, err := s.acquire(ctx)
					if time.Since(began) > 5*time.Second {
						t.Fatal("waited beyond the deadline")
					}
					if err == nil {
						if ended(w) {
							t.Fatal("a dead process was handed out")
						}
						release()
					} else if !fault.Is(err, fault.Unavailable) {
						t.Fatalf("got %v", err)
					}
					cancel()
				}
			}
		})
	})
}

func TestPace_GrowsAndIsBounded(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		p := pace{firstPause: 50 * time.Millisecond, maxPause: 5 * time.Second, breakAfter: 20, coolDown: 30 * time.Second}
		n := rapid.IntRange(1, 40).Draw(r, "failures")
		w := p.wait(n)
		switch {
		case n == 1 && w != 0:
			r.Fatalf("the first restart waits %v", w)
		case n > 1 && n < p.breakAfter && (w < 25*time.Millisecond || w > p.maxPause):
			r.Fatalf("pause %v after %d failures", w, n)
		case n >= p.breakAfter && (w < p.coolDown/2 || w > p.coolDown):
			r.Fatalf("cool-down %v", w)
		}
	})
}
