package plugin

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/obs"
)

// troupe is a pool whose processes are puppets.
type troupe struct {
	*pool[*puppet]
	stage sync.Mutex // guards what follows
	all   []*puppet
	fail  error
}

func newTroupe(s Scale, fail error) *troupe {
	p := pace{
		healthEvery: 30 * time.Second, checkWithin: 5 * time.Second, firstPause: 50 * time.Millisecond, maxPause: 5 * time.Second,
		breakAfter: 5, coolDown: 30 * time.Second, steadyAfter: time.Second,
	}
	t := &troupe{fail: fail}
	t.pool = newPool("troupe", s, p, slog.New(slog.DiscardHandler), time.Now, newMeters(obs.NewMetrics(), &Host{}),
		func(context.Context) (*puppet, error) {
			t.stage.Lock()
			defer t.stage.Unlock()
			if t.fail != nil {
				return nil, t.fail
			}
			w := newPuppet()
			t.all = append(t.all, w)
			return w, nil
		})
	t.run(true)
	return t
}

func (t *troupe) started() int {
	t.stage.Lock()
	defer t.stage.Unlock()
	return len(t.all)
}

func TestPool_SharesCallsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTroupe(Scale{Instances: 3}, nil)
		synctest.Wait()
		if p.started() != 3 {
			t.Fatalf("%d processes", p.started())
		}
		got := map[*puppet]int{}
		var releases []func()
		for range 9 {
			w, release, err := p.acquire(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			got[w]++
			releases = append(releases, release)
		}
		for _, n := range got {
			if n != 3 {
				t.Fatalf("nine calls are shared out as %v", got)
			}
		}
		for _, release := range releases {
			release()
		}
		p.end(t.Context())
	})
}

// One process that dies, or that does not come up again, costs calls nothing while
// another serves, and the plugin's status says so.
func TestPool_ServesWithWhatIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTroupe(Scale{Instances: 2}, nil)
		synctest.Wait()
		p.pool.mu.Lock()
		dying := p.lives[0].current
		p.pool.mu.Unlock()
		p.failWith(errors.New("does not start"))
		close(dying.gone)
		for range 20 {
			began := time.Now()
			w, release, err := p.acquire(t.Context())
			if err != nil || w == dying || time.Since(began) != 0 {
				t.Fatalf("after %v: %v", time.Since(began), err)
			}
			release()
			time.Sleep(time.Second)
		}
		var s Status
		p.describe(&s, func(*puppet) int { return 1 })
		if s.State != Ready || s.Reason == ReasonOK || s.Crashes != 1 || len(s.Instances) != 2 || s.Instances[1].State != Ready {
			t.Fatalf("status %+v", s)
		}
		p.end(t.Context())
	})
}

func (t *troupe) failWith(err error) {
	t.stage.Lock()
	defer t.stage.Unlock()
	t.fail = err
}

// Turns are given in the order in which they were asked for, and who finds the
// queue full is told so at once.
func TestPool_QueuesInOrderAndRefusesBeyond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTroupe(Scale{Concurrency: 1, Queue: 3}, nil)
		leave, err := p.enter(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		order := make(chan int, 3)
		for n := range 3 {
			go func() {
				leave, err := p.enter(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				order <- n
				synctest.Wait()
				leave()
			}()
			synctest.Wait()
		}
		began := time.Now()
		_, err = p.enter(t.Context())
		if !fault.Is(err, fault.Exhausted) || fault.RetryAfter(err) <= 0 || time.Since(began) != 0 {
			t.Fatalf("a full queue says after %v: %v", time.Since(began), err)
		}
		leave()
		for n := range 3 {
			if got := <-order; got != n {
				t.Fatalf("turn %d went to %d", n, got)
			}
		}
		if p.waiting.Load() != 0 {
			t.Fatalf("%d wait", p.waiting.Load())
		}
		p.end(t.Context())
	})
}

// What must not run is tried again as soon as somebody says that the reason may
// have gone, and not before.
// Whoever is slow keeps some of the turns, and the others go on.
func TestPool_LeavesTurnsToOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTroupe(Scale{Concurrency: 8, Queue: 6}, nil)
		ctx, cancel := context.WithCancel(t.Context())
		var leaves []func()
		refused, waited := 0, make(chan error, 20)
		for n := range 20 {
			if n < 6 {
				leave, err := p.enterFor(ctx, "slow")
				if err != nil {
					t.Fatal(err)
				}
				leaves = append(leaves, leave)
				continue
			}
			go func() {
				leave, err := p.enterFor(ctx, "slow")
				if err == nil {
					leave()
				}
				waited <- err
			}()
			synctest.Wait()
		}
		for len(waited) > 0 {
			if err := <-waited; !fault.Is(err, fault.Exhausted) {
				t.Fatalf("got %v", err)
			}
			refused++
		}
		if refused != 11 { // three wait
			t.Errorf("%d calls are refused", refused)
		}
		short, end := context.WithTimeout(t.Context(), time.Second)
		defer end()
		leave, err := p.enterFor(short, "other")
		if err != nil {
			t.Fatalf("another caller: %v", err)
		}
		leave()
		leaves[0]() // one of those who wait goes on, and the others after it
		for range 3 {
			if err := <-waited; err != nil {
				t.Errorf("who waited: %v", err)
			}
		}
		for _, leave := range leaves[1:] {
			leave()
		}
		if len(p.shares) != 0 || len(p.slots) != 0 {
			t.Errorf("%d shares and %d turns are left", len(p.shares), len(p.slots))
		}
		cancel()
		p.end(t.Context())
	})
}

func TestPool_RetriesWhatWasRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTroupe(Scale{}, refuse(ReasonDigest, "not what was signed"))
		time.Sleep(time.Second)
		_, _, err := p.acquire(t.Context())
		if ReasonOf(err) != ReasonDigest || !fault.Is(err, fault.Unavailable) {
			t.Fatalf("got %v", err)
		}
		p.failWith(nil)
		p.retry()
		synctest.Wait()
		if _, release, err := p.acquire(t.Context()); err != nil {
			t.Fatal(err)
		} else {
			release()
		}
		p.end(t.Context())
	})
}

// However many processes and callers there are and whatever happens to them, no
// more calls run than may, and nothing is left counted at the end.
func TestPool_KeepsItsBounds(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		scale := Scale{
			Instances:   rapid.IntRange(1, 4).Draw(r, "instances"),
			Concurrency: rapid.IntRange(1, 5).Draw(r, "concurrency"), Queue: rapid.IntRange(1, 5).Draw(r, "queue"),
		}
		steps := rapid.SliceOfN(rapid.IntRange(0, 3), 1, 40).Draw(r, "steps")
		synctest.Test(t, func(t *testing.T) {
			p := newTroupe(scale, nil)
			var calls sync.WaitGroup
			running, most := 0, 0
			var mu sync.Mutex
			for n, step := range steps {
				switch step {
				case 0:
					p.pool.mu.Lock()
					l := p.lives[n%len(p.lives)]
					if l.running && !ended(l.current) {
						close(l.current.gone)
					}
					p.pool.mu.Unlock()
				case 1:
					time.Sleep(300 * time.Millisecond)
				default:
					calls.Go(func() {
						ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
						defer cancel()
						leave, err := p.enter(ctx)
						if err != nil {
							if !fault.Is(err, fault.Exhausted) {
								t.Error(err)
							}
							return
						}
						defer leave()
						_, release, err := p.acquire(ctx)
						if err != nil {
							return
						}
						defer release()
						mu.Lock()
						running++
						most = max(most, running)
						mu.Unlock()
						time.Sleep(time.Second)
						mu.Lock()
						running--
						mu.Unlock()
					})
				}
			}
			calls.Wait()
			if most > scale.Concurrency {
				t.Errorf("%d calls at a time, %d may be", most, scale.Concurrency)
			}
			p.pool.mu.Lock()
			if p.calls != 0 || p.waiting.Load() != 0 {
				t.Errorf("%d calls and %d waiting are left", p.calls, p.waiting.Load())
			}
			p.pool.mu.Unlock()
			p.end(context.Background())
			for _, w := range p.all {
				if !w.stopped.Load() {
					t.Error("a process was not stopped")
				}
			}
		})
	})
}
