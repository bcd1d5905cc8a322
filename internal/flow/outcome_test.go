package flow_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/subject"
)

func TestVend_RepeatsTheFirstAnswerUnderOneKey(t *testing.T) {
	ctx := context.Background()
	v := newVendor(grant.EffectsNone)
	h, c := agentWith(t, v)
	first, err := h.gate.Vend(ctx, under(c.caller(), "key"), request("test"))
	must(t, err)
	who := under(c.caller(), "key")
	again, err := h.newGate().Vend(ctx, who, request("test")) // another replica
	must(t, err)
	if again.Grant != first.Grant || !again.Value.Equal(first.Value) || !who.Key.Replayed || !again.ExpiresAt.Equal(first.ExpiresAt) {
		t.Fatalf("got another answer: %+v", again)
	}
	count(t, len(h.grants()), 1, "grants, though a provider without effects may be asked twice")
	count(t, len(h.records("grant.replayed")), 1, "records of the repetition")
	other := request("test")
	other.TTL = time.Minute
	_, err = h.gate.Vend(ctx, under(c.caller(), "key"), other)
	want(t, err, fault.Conflict)
	// Another subject's key of the same name is another key.
	stranger := under(h.stored(subject.Agent, "deployer", "other").open().caller(), "key")
	out, err := h.gate.Vend(ctx, stranger, request("test"))
	must(t, err)
	if out.Grant == first.Grant || stranger.Key.Replayed {
		t.Fatal("the answer went to another subject")
	}
	// A session that was refreshed meanwhile fetches the answer once more.
	next, err := h.gate.RefreshSession(ctx, c.caller())
	must(t, err)
	c = c.with(next)
	out, err = h.gate.Vend(ctx, under(c.caller(), "key"), request("test"))
	must(t, err)
	if out.Grant != first.Grant {
		t.Fatal("refreshing lost the answer")
	}
	// A delegate does not get what its delegator was given.
	d := c.delegate("release:test-other")
	_, err = h.gate.Vend(ctx, under(d.caller(), "key"), request("test"))
	want(t, err, fault.Denied)
	d = c.delegate("release:test")
	out, err = h.gate.Vend(ctx, under(d.caller(), "key"), request("test"))
	must(t, err)
	if out.Grant == first.Grant {
		t.Fatal("the answer went to a delegate")
	}
}

func TestVend_GivesNoFirstAnswerThatEndedOrIsNotAllowedAnyMore(t *testing.T) {
	ctx := context.Background()
	for name, end := range map[string]struct {
		do   func(h *house, c *client, grantID string)
		kind fault.Kind
	}{
		"revoked": {func(h *house, c *client, id string) {
			_, err := h.gate.RevokeGrant(ctx, c.caller(), id, "not needed")
			must(h.t, err)
		}, fault.Conflict},
		"expired": {func(h *house, _ *client, _ string) { h.pass(2 * time.Minute) }, fault.Conflict},
		"not allowed": {func(h *house, _ *client, _ string) {
			must(h.t, policyIs(h, "freeze", "package sallyport\nrelease := {\"allow\": false}"))
		}, fault.Denied},
		"allowed less": {func(h *house, _ *client, _ string) {
			must(h.t, policyIs(h, "narrow", "package sallyport\nrelease := {\"allow\": true, \"bounds\": {\"kind\": \"test\", \"max_ttl_seconds\": 30}}"))
		}, fault.Conflict},
	} {
		t.Run(name, func(t *testing.T) {
			h, c := agentWith(t, newTaker(grant.EffectsNone))
			r := request("test")
			r.TTL = time.Minute
			out, err := h.gate.Vend(ctx, under(c.caller(), "key"), r)
			must(t, err)
			end.do(h, c, out.Grant)
			_, err = h.gate.Vend(ctx, under(c.caller(), "key"), r)
			want(t, err, end.kind)
		})
	}
}

// TestVend_KeepsAFirstAnswerNoLongerThanItSays though nobody has removed it.
func TestVend_KeepsAFirstAnswerNoLongerThanItSays(t *testing.T) {
	h, c := agentWith(t, newTaker(grant.EffectsNone))
	_, err := h.gate.Vend(context.Background(), under(c.caller(), "key"), request("test"))
	must(t, err)
	h.pass(11 * time.Minute)
	_, err = h.gate.Vend(context.Background(), under(c.caller(), "key"), request("test"))
	want(t, err, fault.Conflict)
}

func TestVend_MakesOneGrantOfFiftyCallsWithOneKey(t *testing.T) {
	for _, effects := range []grant.Effects{grant.EffectsNone, grant.EffectsRemote} {
		v := newTaker(effects)
		h, c := agentWith(t, v)
		gates := []*flow.Gate{h.gate, h.newGate()}
		who := c.caller()
		values := make([]string, 50)
		var wg sync.WaitGroup
		for i := range values {
			wg.Go(func() {
				var out flow.Vended
				err := patiently(func() (err error) {
					out, err = gates[i%2].Vend(context.Background(), under(who, "key"), request("test"))
					return err
				})
				if err != nil {
					t.Errorf("call %d: %v", i, err)
				}
				values[i] = out.Grant + string(out.Value.Reveal())
			})
		}
		wg.Wait()
		slices.Sort(values)
		count(t, len(slices.Compact(values)), 1, "different answers")
		count(t, h.inState(grant.Active), 1, "active grants")
		count(t, h.inState(grant.Intent), 0, "intents left")
		if effects == grant.EffectsRemote { // what was made and not handed out was taken back
			count(t, len(v.tries()), v.calls()-1, "revocations")
		}
	}
}
