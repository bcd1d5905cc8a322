package flow_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/store/storetest"
	"github.com/sallyport-project/sallyport/internal/unit"
)

func TestVend_MakesTheIntentDurableBeforeARemoteCall(t *testing.T) {
	v := newTaker(grant.EffectsRemote)
	h, c := agentWith(t, v)
	seen := 0
	v.issue = func(ctx context.Context, a grant.Scope, b grant.Bounds) (grant.Issued, error) {
		id, _ := a.Params["host.grant"].(string)
		held, err := h.store.Grant(ctx, id)
		must(t, err)
		if held.State == grant.Intent {
			seen++
		}
		return v.proper(a, b), nil
	}
	out, err := h.gate.Vend(context.Background(), c.caller(), request("test"))
	must(t, err)
	count(t, seen, 1, "intents seen by the provider")
	if _, leaked := out.Params["host.grant"]; leaked {
		t.Error("the host's parameter is part of the grant")
	}
	count(t, h.inState(grant.Active), 1, "active grants")
	count(t, len(h.records("grant.intended")), 1, "records of the intent")
}

func TestVend_TakesBackWhatARemoteProviderMadeForNobody(t *testing.T) {
	crash := errors.New("the machine stopped")
	for name, c := range map[string]struct {
		lost  bool // the activation is lost on the way to the ledger
		issue func(v *taker) func(context.Context, grant.Scope, grant.Bounds) (grant.Issued, error)
		sweep bool // only the reaper can know
		tries int
	}{
		"lost commit":       {lost: true, sweep: true, tries: 1},
		"provider broke":    {issue: answer(fault.Unavailablef("broken")), tries: 1},
		"provider refused":  {issue: answer(fault.Deniedf("no")), tries: 0},
		"provider panicked": {issue: answer(nil), sweep: true, tries: 1},
	} {
		t.Run(name, func(t *testing.T) {
			v := newTaker(grant.EffectsRemote)
			if c.issue != nil {
				v.vendor.issue = c.issue(v)
			}
			h, agent := agentWith(t, v)
			who := agent.caller()
			h.tap.on(func(u unit.Unit) error {
				if c.lost && u.Record.Type == "grant.issued" {
					return fault.Unavailablef("lost").Because(crash)
				}
				return nil
			})
			func() {
				defer func() { _ = recover() }()
				_, err := h.gate.Vend(context.Background(), who, request("test"))
				if err == nil {
					t.Error("something was handed out")
				}
			}()
			if c.sweep {
				count(t, len(v.tries()), 0, "revocations before the reaper")
				h.reopen()
				h.pass(3 * time.Minute)
				_, err := h.gate.Sweep(context.Background())
				must(t, err)
			}
			count(t, len(v.tries()), c.tries, "revocations")
			count(t, h.inState(grant.Void), 1, "void grants")
			if name == "provider broke" || c.sweep {
				if v.tries()[0] != h.grants()[0].ID {
					t.Errorf("revoked %q, the provider knows it as %q", v.tries()[0], h.grants()[0].ID)
				}
			}
			for _, n := range h.phone.heard() {
				t.Errorf("people were alarmed: %s", n.Title)
			}
		})
	}
}

func answer(err error) func(*taker) func(context.Context, grant.Scope, grant.Bounds) (grant.Issued, error) {
	return func(v *taker) func(context.Context, grant.Scope, grant.Bounds) (grant.Issued, error) {
		return func(context.Context, grant.Scope, grant.Bounds) (grant.Issued, error) {
			if err == nil {
				panic("plugin adapter broke")
			}
			return grant.Issued{}, err
		}
	}
}

func TestSweep_RevokesNoIntentThatWasActivatedLate(t *testing.T) {
	v := newTaker(grant.EffectsRemote)
	h, c := agentWith(t, v)
	intent := storetest.Grant(c.id)
	intent.Kind, intent.State, intent.Source, intent.DueAt = "test", grant.Intent, v.source, h.now()
	must(t, h.store.Commit(context.Background(), storetest.Issue(intent)))
	h.tap.on(func(u unit.Unit) error { // the reaper has read the intent; the slow call ends first
		h.tap.on(nil)
		active, err := intent.To(grant.Active, "", h.now())
		must(t, err)
		record := storetest.Record("grant.issued")
		record.Grant = intent.ID
		return h.store.Commit(context.Background(), unit.Unit{Writes: []unit.Write{unit.Update(active)}, Record: record})
	})
	_, err := h.gate.Sweep(context.Background())
	must(t, err)
	count(t, len(v.tries()), 0, "revocations")
	count(t, h.inState(grant.Active), 1, "active grants")
}
