package flow_test

import (
	"context"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
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
	event := h.lastRecord("plugin.event")
	if event.Actor != audit.Plugin("scanner") || event.Target != "scanner" || event.Data["event"] != "found" {
		t.Errorf("recorded %+v", event)
	}
	s := signal.Signal{Value: secret.FromString(string(out.Value.Reveal())), Source: "a log"}
	first, matches, err := h.gate.Raise(ctx, "scanner", s, "")
	must(t, err)
	count(t, matches, 1, "matches")
	count(t, h.inState(grant.Revoked), 1, "revoked")
	again, _, err := h.gate.Raise(ctx, "scanner", s, "")
	must(t, err)
	if first == "" || again == first {
		t.Errorf("records %q and %q", first, again)
	}
	count(t, len(h.records("grant.revoked")), 1, "revocations")
	// Nobody can take the plugin for an agent.
	for _, kind := range []string{"leak.reported", "grant.revoked"} {
		r := h.lastRecord(kind)
		if r.Actor != audit.Plugin("scanner") || kind == "leak.reported" && (r.Subject != "" || r.Target != "scanner") {
			t.Errorf("%s by %+v about %q, target %q", kind, r.Actor, r.Subject, r.Target)
		}
	}
}

// A report under a key is one report, for each plugin by itself.
func TestPlugin_RaisesOnceUnderAKey(t *testing.T) {
	ctx := context.Background()
	h, _, out := leaked(t, newTaker(grant.EffectsNone))
	s := signal.Signal{Value: secret.FromString(string(out.Value.Reveal())), Source: "a log"}
	first, _, err := h.gate.Raise(ctx, "scanner", s, "finding-1")
	must(t, err)
	h.ahead.Add(int64(time.Minute))
	again, matches, err := h.gate.Raise(ctx, "scanner", s, "finding-1")
	must(t, err)
	if again != first || matches != 1 {
		t.Errorf("records %s and %s, %d matches", first, again, matches)
	}
	other, _, err := h.gate.Raise(ctx, "another", s, "finding-1")
	must(t, err)
	if other == first {
		t.Error("another plugin has used the key")
	}
	count(t, len(h.records("leak.reported")), 2, "reports")
	s.Source = "elsewhere"
	_, _, err = h.gate.Raise(ctx, "scanner", s, "finding-1")
	want(t, err, fault.Conflict)
	_, _, err = h.gate.Raise(ctx, "scanner", s, "no good key")
	want(t, err, fault.Invalid)
}
