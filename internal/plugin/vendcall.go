package plugin

import (
	"context"
	"slices"
	"sync"
	"time"

	own "github.com/sallyport-project/sallyport/api/sallyport/plugin/v1"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/secret"
)

// The service vend of the host: credentials for a plugin, as policy allows.

// Vended is a credential that was made for a plugin. Scope.ExpiresAt says when it
// ends.
type Vended struct {
	Grant   string
	Scope   grant.Scope
	Value   secret.Bytes
	Private secret.Bytes // of a key pair that was made for it, else empty
}

const (
	// vendRate is how many credentials a process may ask for a second, and as many
	// at once.
	vendRate = 50
	// vendDepth is how many requests of one plugin may be under way. Whoever makes a
	// credential, or is asked before one is made, may ask for one itself: this ends a
	// ring of plugins that wait for each other.
	vendDepth = 16
)

// depths count what each plugin has under way. The zero value is ready.
type depths struct {
	mu sync.Mutex
	of map[string]int
}

// enter takes a place, and reports whether there was one; leave gives it back.
func (d *depths) enter(plugin string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.of[plugin] >= vendDepth {
		return false
	}
	if d.of == nil {
		d.of = map[string]int{}
	}
	d.of[plugin]++
	return true
}

func (d *depths) leave(plugin string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.of[plugin]--; d.of[plugin] == 0 {
		delete(d.of, plugin)
	}
}

// mayVend takes from the rate of credentials.
func (s *services) mayVend() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.vends.take(vendRate, s.host.cfg.Now())
}

// vend answers a HostCall of kind vend.
func (s *services) vend(ctx context.Context, q *own.Vend) *own.HostAnswer {
	if !slices.Contains(s.asked.VendKinds(), q.GetKind()) {
		return refusing(own.Code_CODE_DENIED, "credentials of kind "+clip(q.GetKind(), 64)+" were not asked for in the manifest")
	}
	if !s.mayVend() {
		return refusing(own.Code_CODE_EXHAUSTED, "the plugin asks for more than 50 credentials a second")
	}
	scope, err := wantedScope(q)
	if err != nil {
		return failing(err)
	}
	if !s.host.depths.enter(s.name) {
		return refusing(own.Code_CODE_EXHAUSTED, "16 requests of the plugin for credentials are under way; plugins that ask each other may be the cause")
	}
	defer s.host.depths.leave(s.name)
	v, err := s.house.Vend(ctx, s.name, s.publisher, scope, q.GetIdempotencyKey())
	if err != nil {
		return failing(err)
	}
	out := &own.Vended{Grant: v.Grant, Value: v.Value.Reveal(), PrivateKey: v.Private.Reveal(), ExpiresAtUnix: v.Scope.ExpiresAt.Unix()}
	if out.Scope, err = wireScope(v.Scope); err != nil {
		return failing(err)
	}
	return &own.HostAnswer{Body: &own.HostAnswer_Vended{Vended: out}}
}

func wantedScope(q *own.Vend) (grant.Scope, error) {
	params, err := readParams(q.GetParams())
	if err != nil {
		return grant.Scope{}, fault.Invalidf("the parameters must be a JSON object of at most %d bytes", maxParams).Because(err)
	}
	const most = int64(365 * 24 * time.Hour / time.Second)
	if t := q.GetTtlSeconds(); t < 1 || t > most {
		return grant.Scope{}, fault.Invalidf("ask for a lifetime between a second and a year")
	}
	return grant.Scope{Kind: q.GetKind(), Params: params, TTL: time.Duration(q.GetTtlSeconds()) * time.Second}, nil
}
