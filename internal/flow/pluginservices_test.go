package flow_test

import (
	"context"
	"testing"

	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/secret"
	"github.com/sallyport-project/sallyport/internal/signal"
)

// What a plugin records and reports stands in the ledger under its name, and its
// report does what everybody's does, once.
func TestPlugin_EventsAndLeaks(t *testing.T) {
	ctx := context.Background()
	h, _, out := leaked(t, newTaker(grant.EffectsNone))
	must(t, h.gate.Emit(ctx, "scanner", plugin.Event{Type: "found", Data: map[string]string{"where": "a log"}}))
	count(t, len(h.records("plugin.event")), 1, "events")
	s := signal.Signal{Value: secret.FromString(string(out.Value.Reveal())), Source: "a log"}
	first, matches, err := h.gate.Raise(ctx, "scanner", s)
	must(t, err)
	count(t, matches, 1, "matches")
	count(t, h.inState(grant.Revoked), 1, "revoked")
	again, _, err := h.gate.Raise(ctx, "scanner", s)
	must(t, err)
	if first == "" || again == first {
		t.Errorf("records %q and %q", first, again)
	}
	count(t, len(h.records("grant.revoked")), 1, "revocations")
}
