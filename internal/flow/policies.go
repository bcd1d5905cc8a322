package flow

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/policy"
)

// loaded is a compiled set of policies with the generation it was read at.
type loaded struct {
	set        *policy.Set
	generation int64
}

// policies keeps the present set. Swapping it is atomic; a set that does not
// compile never replaces one that does.
type policies struct {
	store   Documents
	clock   func() time.Time
	current atomic.Pointer[loaded]
	mu      sync.Mutex // one reload at a time
}

func newPolicies(store Documents, clock func() time.Time) *policies {
	return &policies{store: store, clock: clock}
}

// now returns the present set; Unavailable before the first load.
func (p *policies) now() (loaded, error) {
	l := p.current.Load()
	if l == nil {
		return loaded{}, fault.Unavailablef("the policies are not loaded yet, try again")
	}
	return *l, nil
}

// reload reads the policies if their generation has moved.
func (p *policies) reload(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	generation, err := p.store.Generation(ctx, "policy")
	if err != nil {
		return fault.Wrap(err, "read policy generation")
	}
	if l := p.current.Load(); l != nil && l.generation == generation {
		return nil
	}
	documents, err := p.store.Policies(ctx)
	if err != nil {
		return fault.Wrap(err, "read policies")
	}
	set, err := policy.Compile(documents, p.clock)
	if err != nil {
		return fault.Wrap(err, "compile policies of generation %d", generation)
	}
	// A change between the two reads shows as a newer set under an older
	// generation: units decided on it miss the check and reload once more.
	p.current.Store(&loaded{set: set, generation: generation})
	return nil
}

// Reload makes this replica use the policies and the reference material that are
// in the store now. It is called once before serving, then every second, and
// after each missed check.
func (g *Gate) Reload(ctx context.Context) error {
	if err := g.policies.reload(ctx); err != nil {
		return err
	}
	return g.references.reload(ctx)
}
