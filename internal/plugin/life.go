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

// life keeps one plugin running: it starts it when it is first needed, notices
// its end at once, restarts it with growing pauses, and opens a circuit when
// restarts do not help. A call asks for the current process each time, so no
// call ever reaches the process before the last restart.
type life[W worker] struct {
	name  string
	start func(ctx context.Context) (W, error)
	pace  pace
	log   *slog.Logger
	now   func() time.Time

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced whenever what follows changes
	current  W
	state    State
	reason   Reason
	detail   string
	crashes  int // since the plugin was put in place
	starts   int
	since    time.Time
	retryAt  time.Time
	calls    int // in flight
	draining bool

	demand chan struct{}
	quit   chan struct{}
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

func newLife[W worker](name string, p pace, log *slog.Logger, now func() time.Time, start func(context.Context) (W, error)) *life[W] {
	return &life[W]{
		name: name, start: start, pace: p, log: log, now: now,
		changed: make(chan struct{}), state: Idle, reason: ReasonOK, since: now(),
		demand: make(chan struct{}, 1), quit: make(chan struct{}), ended: make(chan struct{}),
	}
}

// run is the life; it returns after end.
func (l *life[W]) run(eager bool) {
	defer close(l.ended)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-l.quit:
			cancel() // also a start that is under way
		case <-ctx.Done():
		}
	}()
	if !eager {
		select {
		case <-l.demand:
		case <-l.quit:
			l.to(Stopped, ReasonOK, "")
			return
		}
	}
	for failures := 0; ; {
		l.to(Starting, ReasonOK, "")
		began := l.now()
		err := l.once(ctx)
		if ctx.Err() != nil {
			l.to(Stopped, ReasonOK, "")
			return
		}
		if l.now().Sub(began) >= l.pace.steadyAfter {
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
	l.mu.Lock()
	l.current = w
	l.starts++
	l.mu.Unlock()
	l.to(Ready, ReasonOK, "")
	l.log.InfoContext(ctx, "plugin is ready", slog.String("plugin", l.name))
	err = l.watch(ctx, w)
	l.mu.Lock()
	var none W
	l.current = none
	if l.state == Ready {
		l.set(Pausing, ReasonOf(err), "")
	}
	l.mu.Unlock()
	w.stop(err == nil)
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
			if err == nil || ctx.Err() != nil {
				missed = 0
				tick.Reset(l.pace.healthEvery)
				continue
			}
			l.log.WarnContext(ctx, "plugin missed a health check", slog.String("plugin", l.name), slog.Any("err", err))
			if missed++; missed >= missedChecks {
				return &reasoned{fault.Unavailablef("plugin %s does not answer and is restarted", l.name).Because(err), ReasonHung}
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
	l.mu.Lock()
	l.crashes++
	l.mu.Unlock()
	return &reasoned{fault.Unavailablef("plugin %s ended and is restarted", l.name), ReasonCrashed}
}

// pause waits before the next start; false if the life must end.
func (l *life[W]) pause(ctx context.Context, failures int, err error) bool {
	wait, state := l.pace.wait(failures), Pausing
	if fault.Is(err, fault.Denied) { // it must not run; trying again soon cannot help
		wait, state = l.pace.coolDown, Refused
	} else if failures >= l.pace.breakAfter {
		state = Broken
	}
	l.log.WarnContext(ctx, "plugin is down", slog.String("plugin", l.name), slog.String("reason", string(ReasonOf(err))),
		slog.Int("failures", failures), slog.Duration("pause", wait), slog.Any("err", err))
	l.mu.Lock()
	l.retryAt = l.now().Add(wait)
	l.set(state, ReasonOf(err), fault.Public(err))
	l.mu.Unlock()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
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

// acquire returns the current process and counts the call until release. It
// waits for a process that is on its way, no longer than ctx.
func (l *life[W]) acquire(ctx context.Context) (W, func(), error) {
	var none W
	for {
		l.mu.Lock()
		switch {
		case l.draining:
			l.mu.Unlock()
			return none, nil, errGone
		case l.state == Ready && !ended(l.current):
			w := l.current
			l.calls++
			l.mu.Unlock()
			return w, l.release, nil
		case l.state == Broken || l.state == Refused:
			err := fault.Unavailablef("plugin %s is not running (%s)", l.name, l.reason).After(l.retryAt.Sub(l.now()))
			l.mu.Unlock()
			return none, nil, err
		}
		changed := l.changed
		l.mu.Unlock()
		select {
		case l.demand <- struct{}{}:
		default:
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return none, nil, fault.Unavailablef("plugin %s did not become ready in time", l.name).Because(ctx.Err())
		}
	}
}

// ended reports that a process is gone though its life has not noticed yet.
func ended(w worker) bool {
	select {
	case <-w.done():
		return true
	default:
		return false
	}
}

// errGone says that this life ends; the caller looks up what took its place.
var errGone = fault.Unavailablef("the plugin was replaced or removed, try again")

func (l *life[W]) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.calls--; l.calls == 0 && l.draining {
		l.notify()
	}
}

// end drains: no new calls, those in flight finish or ctx ends, then the process
// is stopped. It returns when nothing is left. Call it once.
func (l *life[W]) end(ctx context.Context) {
	l.mu.Lock()
	l.draining = true
	l.notify()
	for l.calls > 0 && ctx.Err() == nil {
		changed := l.changed
		l.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		l.mu.Lock()
	}
	l.mu.Unlock()
	close(l.quit)
	<-l.ended
}

func (l *life[W]) to(s State, r Reason, detail string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.set(s, r, detail)
}

// set changes the state; l.mu is held.
func (l *life[W]) set(s State, r Reason, detail string) {
	l.state, l.reason, l.detail, l.since = s, r, detail, l.now()
	l.notify()
}

// notify wakes who waits for a change; l.mu is held.
func (l *life[W]) notify() {
	close(l.changed)
	l.changed = make(chan struct{})
}
