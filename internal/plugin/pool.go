package plugin

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// Scale says how wide a plugin runs on this node. Zero values mean the defaults
// named here.
type Scale struct {
	Instances   int // processes of the same package; 1
	Concurrency int // calls in flight, over all of them; 256
	Queue       int // calls that may wait for their turn; 1024
}

func (s Scale) filled() Scale {
	if s.Instances <= 0 {
		s.Instances = 1
	}
	if s.Concurrency <= 0 {
		s.Concurrency = 256
	}
	if s.Queue <= 0 {
		s.Queue = 1024
	}
	return s
}

// pool is the running processes of one plugin, each with a life of its own, and
// the calls that are shared out among them: each call goes to the process with
// the fewest in flight. One that dies costs none of the others' calls. Safe for
// concurrent use.
type pool[W worker] struct {
	name    string
	scale   Scale
	log     *slog.Logger
	now     func() time.Time
	meters  *meters
	lives   []*life[W]
	slots   chan struct{} // one for each call in flight; who waits is served in turn
	waiting atomic.Int64

	mu       sync.Mutex    // guards what follows, and the changing parts of the lives
	changed  chan struct{} // closed and replaced whenever any of that changes
	calls    int           // in flight
	draining bool
	shares   map[string]*share // of callers who have or want turns
	untrust  atomic.Bool       // what runs is killed, and not asked to end

	quit chan struct{}
}

func newPool[W worker](name string, s Scale, p pace, log *slog.Logger, now func() time.Time, m *meters, start func(context.Context) (W, error)) *pool[W] {
	s = s.filled()
	l := &pool[W]{
		name: name, scale: s, log: log.With(slog.String("plugin", name)), now: now, meters: m,
		slots: make(chan struct{}, s.Concurrency), changed: make(chan struct{}), quit: make(chan struct{}), shares: map[string]*share{},
	}
	for range s.Instances {
		l.lives = append(l.lives, newLife(l, p, start))
	}
	return l
}

// run begins all lives. With eager they start at once, else with the first call.
func (p *pool[W]) run(eager bool) {
	for _, l := range p.lives {
		go l.run(eager)
	}
}

// enter waits for its turn among the calls of the plugin, no longer than ctx.
// Turns are given in the order in which they were asked for. Who finds the queue
// full is told so at once: waiting would only make it longer.
func (p *pool[W]) enter(ctx context.Context) (leave func(), err error) {
	leave = func() { <-p.slots }
	select {
	case p.slots <- struct{}{}: // while others wait the channel is full, so this overtakes nobody
		return leave, nil
	default:
	}
	defer p.waiting.Add(-1)
	if p.waiting.Add(1) > int64(p.scale.Queue) {
		return nil, fault.Exhaustedf("plugin %s has too many calls in flight and waiting", p.name).After(time.Second)
	}
	select {
	case p.slots <- struct{}{}:
		return leave, nil
	case <-ctx.Done():
		return nil, fault.Exhaustedf("plugin %s has too many calls in flight", p.name).After(time.Second).Because(ctx.Err())
	}
}

// acquire returns the process that is to serve a call and counts the call until
// release. It waits for a process that is on its way, no longer than ctx.
func (p *pool[W]) acquire(ctx context.Context) (W, func(), error) {
	var none W
	for {
		p.mu.Lock()
		if p.draining {
			p.mu.Unlock()
			return none, nil, errGone
		}
		if l := p.idlest(); l != nil {
			w := l.current
			l.calls++
			p.calls++
			p.mu.Unlock()
			return w, func() { p.release(l) }, nil
		}
		err := p.hopeless()
		changed := p.changed
		p.mu.Unlock()
		if err != nil {
			return none, nil, err
		}
		for _, l := range p.lives {
			signal(l.demand)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return none, nil, fault.Unavailablef("plugin %s did not become ready in time", p.name).Because(ctx.Err())
		}
	}
}

// idlest is the life with the fewest calls among those that can serve; p.mu is
// held.
func (p *pool[W]) idlest() *life[W] {
	var best *life[W]
	for _, l := range p.lives {
		if l.state == Ready && !ended(l.current) && (best == nil || l.calls < best.calls) {
			best = l
		}
	}
	return best
}

// hopeless is the error for a call when no process is on its way; p.mu is held.
func (p *pool[W]) hopeless() error {
	var first *life[W] // to try again
	for _, l := range p.lives {
		if l.state != Broken && l.state != Refused {
			return nil
		}
		if first == nil || l.retryAt.Before(first.retryAt) {
			first = l
		}
	}
	err := fault.Unavailablef("plugin %s is not running (%s)", p.name, first.reason.counted(p.crashes()))
	return &reasoned{err.After(first.retryAt.Sub(p.now())), first.reason}
}

// crashes of all lives; p.mu is held.
func (p *pool[W]) crashes() int {
	n := 0
	for _, l := range p.lives {
		n += l.crashes
	}
	return n
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

// errGone says that this pool ends; the caller looks up what took its place.
var errGone = fault.Unavailablef("the plugin was replaced or removed, try again")

func (p *pool[W]) release(l *life[W]) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l.calls--
	if p.calls--; p.calls == 0 && p.draining {
		p.notify()
	}
}

// retry starts again at once what was refused: the reason may have gone.
func (p *pool[W]) retry() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.lives {
		if l.state == Refused {
			signal(l.again)
		}
	}
}

// end drains: no new calls, those in flight finish or ctx ends, then the
// processes are stopped. It returns when nothing is left. Call it once.
func (p *pool[W]) end(ctx context.Context) {
	p.mu.Lock()
	p.draining = true
	p.notify()
	for p.calls > 0 && ctx.Err() == nil {
		changed := p.changed
		p.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		p.mu.Lock()
	}
	p.mu.Unlock()
	close(p.quit)
	for _, l := range p.lives {
		<-l.ended
	}
}

// notify wakes who waits for a change; p.mu is held.
func (p *pool[W]) notify() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// signal leaves a mark for who listens, if none is there.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
