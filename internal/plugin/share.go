package plugin

import (
	"context"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// A caller who sends a request's body slowly, or reads an answer slowly, has his turn
// for minutes. He must not have all of them, nor all places in the queue.

// share is what one caller has of a plugin's turns.
type share struct {
	slots chan struct{}
	calls int // in flight and waiting; the pool's mu guards it
}

// mostOf is how many turns one caller may have: all but a quarter, at least one.
func (s Scale) mostOf() int { return max(1, s.Concurrency-max(1, s.Concurrency/4)) }

// enterFor is [pool.enter] for a caller who may have his share and no more. What he asks
// beyond waits for his own calls; with half of the queue he is told so at once.
func (p *pool[W]) enterFor(ctx context.Context, who string) (leave func(), err error) {
	s := p.shareOf(who)
	if s == nil {
		return nil, fault.Exhaustedf("too many of your calls of plugin %s are in flight and waiting", p.name).After(time.Second)
	}
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		p.giveBack(who, s)
		return nil, fault.Exhaustedf("too many of your calls of plugin %s are in flight", p.name).After(time.Second).Because(ctx.Err())
	}
	end := func() { <-s.slots; p.giveBack(who, s) }
	turn, err := p.enter(ctx)
	if err != nil {
		end()
		return nil, err
	}
	return func() { turn(); end() }, nil
}

// shareOf counts a call of a caller; nil if he has too many.
func (p *pool[W]) shareOf(who string) *share {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.shares[who]
	if s == nil {
		s = &share{slots: make(chan struct{}, p.scale.mostOf())}
		p.shares[who] = s
	}
	if s.calls >= cap(s.slots)+p.scale.Queue/2 {
		return nil
	}
	s.calls++
	return s
}

func (p *pool[W]) giveBack(who string, s *share) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.calls--; s.calls == 0 {
		delete(p.shares, who)
	}
}
