package flow_test

import (
	"context"
	"crypto/ed25519"
	"slices"
	"sync"
	"testing"

	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/plugin"
)

// stuckPackages is a plugin host in which an upgrade hangs for ever.
type stuckPackages struct {
	noPackages
	mu      sync.Mutex
	applied []plugin.Trust
}

func (s *stuckPackages) Apply(_ context.Context, _ []plugin.Installed, t plugin.Trust) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.applied = append(s.applied, t)
	return nil
}

func (s *stuckPackages) Settle(context.Context) { select {} }

// A key is trusted, and revoked, while an upgrade hangs: the plugin host is told, and
// nobody waits.
func TestGate_RevokesBehindNoUpgrade(t *testing.T) {
	stuck := &stuckPackages{}
	h := newHouse(t, func(c *flow.Config) { c.Packages = stuck })
	public, _, err := ed25519.GenerateKey(nil)
	must(t, err)
	k, err := h.gate.TrustPublisher(t.Context(), h.admin.caller(), flow.PublisherKey{Publisher: "acme", Public: public})
	must(t, err)
	must(t, h.gate.RevokePublisherKey(t.Context(), h.admin.caller(), k.ID, "stolen"))
	must(t, h.gate.ApplyPlugins(t.Context()))
	if n := len(stuck.applied); n != 3 {
		t.Fatalf("the plugin host was told %d times", n)
	}
	for n, trust := range stuck.applied {
		revoked := slices.ContainsFunc(trust.Keys, func(k plugin.Key) bool { return k.State == plugin.Revoked })
		if len(trust.Keys) != 1 || revoked != (n > 0) {
			t.Errorf("%d: %+v", n, trust.Keys)
		}
	}
}
