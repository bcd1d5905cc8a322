package plugin

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// worker is one running process of a plugin.
type worker interface {
	// done is closed as soon as the process has ended or serves no more calls.
	done() <-chan struct{}
	// check asks whether it is well.
	check(ctx context.Context) error
	// stop ends it, gently if that is possible, and returns when nothing of it
	// is left.
	stop(gently bool)
}

// pace are the times of a life.
type pace struct {
	healthEvery time.Duration // between health checks
	checkWithin time.Duration // for one health check
	firstPause  time.Duration // before the second restart in a row; the first is at once
	maxPause    time.Duration
	breakAfter  int           // failures in a row that open the circuit
	coolDown    time.Duration // for which it stays open
	steadyAfter time.Duration // a process that lived that long begins a new count
}

// missedChecks is how many health checks in a row a process may miss.
const missedChecks = 2

// life keeps one process of a plugin running: it starts it when it is first
// needed, notices its end at once, restarts it with growing pauses, and opens a
// circuit when restarts do not help. A call asks its pool for a current process
// each time, so no call ever reaches the process before the last restart.
type life[W worker] struct {
	pool  *pool[W]
	start func(ctx context.Context) (W, error)
	pace  pace

	// Guarded by the pool's lock.
	current W
	running bool // current is one
	state   State
	reason  Reason
	detail  string
	crashes int // since the plugin was put in place
	starts  int
	since   time.Time
	retryAt time.Time
	calls   int // in flight

	leaving sync.WaitGroup // processes that are cleared away

	demand chan struct{} // somebody needs the process
	again  chan struct{} // try now, whatever the pause
	ended  chan struct{}
}

// State is where a plugin stands.
type State string

// The states of a plugin.
const (
	Idle     State = "idle"     // starts with the first call
	Starting State = "starting" // calls wait
	Ready    State = "ready"
	Pausing  State = "pausing" // between two restarts; calls wait
	Broken   State = "broken"  // the circuit is open; calls fail at once
	Refused  State = "refused" // must not run; see the reason
	Stopped  State = "stopped"
)

func newLife[W worker](p *pool[W], at pace, start func(context.Context) (W, error)) *life[W] {
	return &life[W]{
		pool: p, start: start, pace: at, state: Idle, reason: ReasonOK, since: p.now(),
		demand: make(chan struct{}, 1), again: make(chan struct{}, 1), ended: make(chan struct{}),
	}
}

// run is the life; it returns after end.
func (l *life[W]) run(eager bool) {
	defer close(l.ended)
	defer l.leaving.Wait()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-l.pool.quit:
			cancel() // also a start that is under way
		case <-ctx.Done():
		}
	}()
	if !eager {
		select {
		case <-l.demand:
		case <-l.pool.quit:
			l.to(Stopped, ReasonOK, "")
			return
		}
	}
	for failures := 0; ; {
		l.to(Starting, ReasonOK, "")
		began := l.pool.now()
		err := l.once(ctx)
		if ctx.Err() != nil {
			l.to(Stopped, ReasonOK, "")
			return
		}
		if l.pool.now().Sub(began) >= l.pace.steadyAfter {
			failures = 0
		}
		failures++
		if !l.pause(ctx, failures, err) {
			l.to(Stopped, ReasonOK, "")
			return
		}
	}
}

// once starts a process and returns, with the reason, when it is gone.
func (l *life[W]) once(ctx context.Context) error {
	w, err := l.start(ctx)
	if err != nil {
		return err
	}
	l.pool.mu.Lock()
	l.current, l.running = w, true
	l.starts++
	l.set(Ready, ReasonOK, "")
	l.pool.mu.Unlock()
	l.pool.meters.starts.Inc(l.pool.name)
	l.pool.log.InfoContext(ctx, "plugin is ready")
	err = l.watch(ctx, w)
	l.pool.mu.Lock()
	var none W
	l.current, l.running = none, false
	if l.state == Ready {
		l.set(Pausing, ReasonOf(err), "")
	}
	l.pool.mu.Unlock()
	if err == nil {
		w.stop(!l.pool.untrust.Load())
	} else { // nobody waits for what is left of it, least of all the next process
		l.leaving.Go(func() { w.stop(false) })
	}
	return err
}

// watch returns when the process ended, failed its checks, or must end (nil).
func (l *life[W]) watch(ctx context.Context, w W) error {
	tick := time.NewTimer(l.pace.healthEvery)
	defer tick.Stop()
	missed := 0
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.done():
			return l.ending(ctx)
		case <-tick.C:
		}
		result := make(chan error, 1)
		check, cancel := context.WithTimeout(ctx, l.pace.checkWithin)
		go func() { result <- w.check(check) }()
		select {
		case <-w.done():
			cancel()
			return l.ending(ctx)
		case err := <-result:
			cancel()
			if err != nil && ended(w) {
				return l.ending(ctx)
			}
			if err == nil || ctx.Err() != nil {
				missed = 0
				tick.Reset(l.pace.healthEvery)
				continue
			}
			if fault.Is(err, fault.Denied) { // it must not run any more
				return err
			}
			l.pool.log.WarnContext(ctx, "plugin missed a health check", slog.Any("err", err))
			if missed++; missed >= missedChecks {
				return &reasoned{fault.Unavailablef("plugin %s does not answer and is restarted", l.pool.name).Because(err), ReasonHung}
			}
			tick.Reset(min(l.pace.healthEvery, l.pace.checkWithin))
		}
	}
}

// ending is the error for a process that ended by itself; nil if it was to end.
func (l *life[W]) ending(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	default:
	}
	l.pool.mu.Lock()
	l.crashes++
	l.pool.mu.Unlock()
	l.pool.meters.crashes.Inc(l.pool.name)
	return &reasoned{fault.Unavailablef("plugin %s ended and is restarted", l.pool.name), ReasonCrashed}
}

// pause waits before the next start; false if the life must end.
func (l *life[W]) pause(ctx context.Context, failures int, err error) bool {
	wait, state := l.pace.wait(failures), Pausing
	if fault.Is(err, fault.Denied) { // it must not run; trying again soon cannot help
		wait, state = l.pace.coolDown, Refused
	} else if failures >= l.pace.breakAfter {
		state = Broken
	}
	l.pool.mu.Lock()
	crashes := l.pool.crashes()
	l.retryAt = l.pool.now().Add(wait)
	l.set(state, ReasonOf(err), fault.Public(err))
	l.pool.mu.Unlock()
	l.pool.log.WarnContext(ctx, "plugin is down", slog.String("reason", ReasonOf(err).counted(crashes)),
		slog.Int("failures", failures), slog.Duration("pause", wait), slog.Any("err", err))
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-l.again:
		return true
	case <-ctx.Done():
		return false
	}
}

// wait is the pause after so many failures in a row: none after the first, then
// doubling with up to half of it at random, so that many plugins that fell
// together do not rise together.
func (p pace) wait(failures int) time.Duration {
	if failures >= p.breakAfter {
		return jitter(p.coolDown)
	}
	if failures <= 1 {
		return 0
	}
	d := p.firstPause
	for i := 2; i < failures && d < p.maxPause; i++ {
		d *= 2
	}
	return jitter(min(d, p.maxPause))
}

func jitter(d time.Duration) time.Duration {
	if d <= 1 {
		return d
	}
	return d/2 + rand.N(d/2) //nolint:gosec // spreads load, protects nothing
}

func (l *life[W]) to(s State, r Reason, detail string) {
	l.pool.mu.Lock()
	defer l.pool.mu.Unlock()
	l.set(s, r, detail)
}

// set changes the state; the lock is held.
func (l *life[W]) set(s State, r Reason, detail string) {
	l.state, l.reason, l.detail, l.since = s, r, detail, l.pool.now()
	l.pool.notify()
}
