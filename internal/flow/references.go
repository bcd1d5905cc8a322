package flow

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/reference"
)

// References reads the reference material that is stored, removed rows included.
type References interface {
	Endorsements(ctx context.Context) ([]reference.Endorsement, error)
	ReferenceValues(ctx context.Context) ([]reference.Value, error)
}

// Library knows what the verifiers of this server need.
type Library interface {
	// Verifiers makes those that are switched on, with this reference material. It
	// does not change any more.
	Verifiers(from evidence.Shelf) (evidence.Verifiers, error)
	// Read recognises files, and verifies all that is in them by the makers' keys:
	// those in the program, those in the other files, and those in from. With kind
	// every file is taken for one of it, which is for what nothing but the
	// operator's word makes good.
	Read(files []reference.File, kind string, from evidence.Shelf) ([]reference.Found, error)
}

// material is all reference material of one generation.
type material struct {
	generation   int64
	endorsements []reference.Endorsement
	values       []reference.Value
	byName       map[string]reference.Value
	shelf        evidence.Shelf
	verifiers    evidence.Verifiers
	now          func() time.Time
}

// ReferenceValue implements policy.ReferenceValues: a value that was removed or
// has expired is none.
func (m material) ReferenceValue(_ context.Context, id string) (any, bool, error) {
	v, ok := m.byName[id]
	if !ok || !v.Good(m.now()) {
		return nil, false, nil
	}
	out, err := v.Decoded()
	return out, err == nil, err
}

// references keeps the present material, and verifiers made with it: they see
// one generation, as a whole. Swapping it is atomic; material that no verifiers
// can be made with never replaces what is there.
type references struct {
	store   Reader
	library Library
	clock   func() time.Time
	log     *slog.Logger
	current atomic.Pointer[material]
	mu      sync.Mutex // one reload at a time
}

// now is the present material; Unavailable before the first load.
func (r *references) now() (material, error) {
	m := r.current.Load()
	if m == nil {
		return material{}, fault.Unavailablef("the reference material is not loaded yet, try again")
	}
	return *m, nil
}

// reload reads the material if its generation has moved.
func (r *references) reload(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	generation, err := r.store.Generation(ctx, "reference")
	if err != nil {
		return fault.Wrap(err, "read reference generation")
	}
	if m := r.current.Load(); m != nil && m.generation == generation {
		return nil
	}
	m := &material{generation: generation, byName: map[string]reference.Value{}, now: r.clock, verifiers: evidence.Verifiers{}}
	if m.endorsements, err = r.store.Endorsements(ctx); err != nil {
		return fault.Wrap(err, "read endorsements")
	}
	if m.values, err = r.store.ReferenceValues(ctx); err != nil {
		return fault.Wrap(err, "read reference values")
	}
	for _, v := range m.values {
		m.byName[v.Name] = v
	}
	m.shelf = reference.Shelf(m.endorsements)
	if r.library != nil {
		if m.verifiers, err = r.library.Verifiers(m.shelf); err != nil {
			return fault.Wrap(err, "make verifiers of reference generation %d", generation)
		}
	}
	for _, w := range reference.Warnings(m.endorsements, m.values, r.clock()) {
		r.log.WarnContext(ctx, "reference material needs renewing", slog.String("what", w))
	}
	// A change between the reads shows as newer material under an older generation:
	// units decided on it miss the check and reload once more.
	r.current.Store(m)
	return nil
}

// ReferenceMaterial is what is stored and counts now, on this replica.
func (g *Gate) ReferenceMaterial() ([]reference.Endorsement, []reference.Value) {
	m, err := g.references.now()
	if err != nil {
		return nil, nil
	}
	return m.endorsements, m.values
}
