package flow_test

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/secret"
	"github.com/sallyport-project/sallyport/internal/subject"
	"github.com/sallyport-project/sallyport/internal/unit"
)

func request(kind string) flow.VendRequest {
	return flow.VendRequest{Kind: kind, Params: map[string]any{"principals": []any{"deploy"}}, TTL: hour}
}

// agentWith is an agent with a session in a house with one provider.
func agentWith(t *testing.T, p grant.Provider, change ...func(*flow.Config)) (*house, *client) {
	h := newHouse(t, change...)
	h.vendors["test"] = p
	return h, h.stored(subject.Agent, "deployer", "agent").open()
}

func (h *house) grants() []grant.Grant {
	h.t.Helper()
	all, err := h.store.Grants(context.Background(), grant.Filter{})
	must(h.t, err)
	return all
}

func (h *house) inState(s grant.State) (n int) {
	for _, g := range h.grants() {
		if g.State == s {
			n++
		}
	}
	return n
}

func TestVend_GivesNothingUnlessAPolicyAllowsIt(t *testing.T) {
	h, _ := agentWith(t, newVendor(grant.EffectsNone))
	r := h.stored(subject.Agent, "reporter", "reporter").open()
	_, err := h.gate.Vend(context.Background(), r.caller(), request("test"))
	want(t, err, fault.Denied)
	denied := h.records("grant.issued")
	count(t, len(denied), 1, "records")
	got := denied[0]
	if got.Outcome != audit.Denied || got.Actor.Subject != r.id || got.Actor.Session != r.held.ID || len(got.Reasons) == 0 || got.Grant != "" {
		t.Fatalf("recorded %+v", got)
	}
	if !strings.Contains(fault.Public(err), got.ID) || strings.Contains(fault.Public(err), got.Reasons[0]) {
		t.Fatalf("the caller reads %q", fault.Public(err))
	}
	count(t, len(h.grants()), 0, "grants")
}

func TestVend_RefusesADenialThatCannotBeRecorded(t *testing.T) {
	h, _ := agentWith(t, newVendor(grant.EffectsNone))
	who := h.stored(subject.Agent, "reporter", "reporter").open().caller()
	h.tap.on(func(unit.Unit) error { return fault.Unavailablef("the disk is full") })
	_, err := h.gate.Vend(context.Background(), who, request("test"))
	want(t, err, fault.Unavailable)
}

func TestVend_NarrowsToThePolicy(t *testing.T) {
	v := newVendor(grant.EffectsNone)
	h, c := agentWith(t, v)
	r := request("test")
	r.Params = map[string]any{"principals": []any{"deploy", "root"}}
	out, err := h.gate.Vend(context.Background(), c.caller(), r)
	must(t, err)
	if life := out.ExpiresAt.Sub(out.IssuedAt); life != 15*time.Minute {
		t.Errorf("lives for %v, want the policy's 15 minutes", life)
	}
	if got := fmt.Sprint(out.Params["principals"]); got != "[deploy]" {
		t.Errorf("granted %v", got)
	}
	if string(out.Value.Reveal()) != v.made[0] || v.asked[0].TTL != 15*time.Minute {
		t.Error("another value, or asked for longer than allowed")
	}
	r.TTL = time.Minute
	out, err = h.gate.Vend(context.Background(), c.caller(), r)
	must(t, err)
	if life := out.ExpiresAt.Sub(out.IssuedAt); life != time.Minute {
		t.Errorf("lives for %v, want the requested minute", life)
	}
	held, err := h.store.Grant(context.Background(), out.Grant)
	must(t, err)
	if held.State != grant.Active || held.Subject != c.id || held.Session != c.held.ID || len(held.Sealed) > 0 || !held.DueAt.Equal(held.ExpiresAt) {
		t.Errorf("stored %+v", held)
	}
}

func TestVend_RefusesWhatAProviderMustNotAnswer(t *testing.T) {
	wrong := map[string]func(*grant.Issued, grant.Scope){
		"wider":          func(i *grant.Issued, _ grant.Scope) { i.Scope.Params["principals"] = []any{"deploy", "root"} },
		"not asked for":  func(i *grant.Issued, _ grant.Scope) { i.Scope.Params["extra"] = "yes" },
		"missing":        func(i *grant.Issued, _ grant.Scope) { delete(i.Scope.Params, "principals") },
		"longer":         func(i *grant.Issued, a grant.Scope) { i.Scope.TTL = a.TTL + time.Second },
		"no life":        func(i *grant.Issued, _ grant.Scope) { i.Scope.TTL = 0 },
		"another kind":   func(i *grant.Issued, _ grant.Scope) { i.Scope.Kind = "test-other" },
		"expired":        func(i *grant.Issued, _ grant.Scope) { i.ExpiresAt = time.Now().Add(-time.Minute) },
		"empty":          func(i *grant.Issued, _ grant.Scope) { i.Value = secret.Bytes{} },
		"blank":          func(i *grant.Issued, _ grant.Scope) { i.Value = secret.FromString(" \n") },
		"too long":       func(i *grant.Issued, _ grant.Scope) { i.Value = secret.New(make([]byte, 65<<10)) },
		"host parameter": func(i *grant.Issued, _ grant.Scope) { i.Scope.Params["host.serial"] = "1" },
	}
	for _, effects := range []grant.Effects{grant.EffectsNone, grant.EffectsRemote} {
		for name, spoil := range wrong {
			t.Run(string(effects)+" "+name, func(t *testing.T) {
				v := newTaker(effects)
				v.issue = func(_ context.Context, a grant.Scope, b grant.Bounds) (grant.Issued, error) {
					i := v.proper(a, b)
					spoil(&i, a)
					return i, nil
				}
				h, c := agentWith(t, v)
				out, err := h.gate.Vend(context.Background(), under(c.caller(), "key"), request("test"))
				want(t, err, fault.Unavailable)
				if out.Grant != "" || out.Value.Len() > 0 {
					t.Error("something was handed out")
				}
				count(t, len(h.records("grant.issued")), 0, "issues")
				count(t, len(h.records("plugin.overstepped")), 1, "records of it")
				count(t, h.inState(grant.Active)+h.inState(grant.Intent), 0, "live grants")
				if effects == grant.EffectsRemote { // taken back at once
					count(t, len(v.tries()), 1, "revocations")
					if !strings.HasPrefix(v.tries()[0], "handle-") {
						t.Errorf("revoked by %q, not by the handle", v.tries()[0])
					}
					count(t, h.inState(grant.Void), 1, "void grants")
				}
			})
		}
	}
}

func TestVend_DoesNotPromiseMoreThanTheProvider(t *testing.T) {
	v := newVendor(grant.EffectsNone)
	var ends time.Time
	v.issue = func(_ context.Context, a grant.Scope, b grant.Bounds) (grant.Issued, error) {
		i := v.proper(a, b)
		i.ExpiresAt = ends
		return i, nil
	}
	h, c := agentWith(t, v)
	ends = time.Now().Add(2 * time.Minute).UTC().Truncate(time.Microsecond)
	out, err := h.gate.Vend(context.Background(), c.caller(), request("test"))
	must(t, err)
	if !out.ExpiresAt.Equal(ends) {
		t.Errorf("expires at %v, want %v", out.ExpiresAt, ends)
	}
	ends = time.Now().Add(24 * time.Hour)
	out, err = h.gate.Vend(context.Background(), c.caller(), request("test"))
	must(t, err)
	if out.ExpiresAt.Sub(out.IssuedAt) != 15*time.Minute {
		t.Errorf("the lease became %v by the provider's word", out.ExpiresAt.Sub(out.IssuedAt))
	}
}

func TestVend_RefusesBadRequests(t *testing.T) {
	v := newVendor(grant.EffectsNone)
	h, c := agentWith(t, v)
	for name, spoil := range map[string]func(*flow.VendRequest){
		"no kind":   func(r *flow.VendRequest) { r.Kind = "" },
		"long kind": func(r *flow.VendRequest) { r.Kind = strings.Repeat("k", 65) },
		"no time":   func(r *flow.VendRequest) { r.TTL = 0 },
		"negative":  func(r *flow.VendRequest) { r.TTL = -time.Hour },
		"too long":  func(r *flow.VendRequest) { r.TTL = 366 * 24 * time.Hour },
		"host":      func(r *flow.VendRequest) { r.Params["host.serial"] = "7" },
	} {
		r := request("test")
		spoil(&r)
		if _, err := h.gate.Vend(context.Background(), c.caller(), r); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	count(t, v.calls(), 0, "calls of the provider")
}

func TestVend_NeedsASessionOfAgentsOnly(t *testing.T) {
	ctx := context.Background()
	h, c := agentWith(t, newVendor(grant.EffectsNone))
	bare := *c
	bare.token = ""
	_, err := h.gate.Vend(ctx, bare.caller(), request("test"))
	want(t, err, fault.Unauthenticated)
	operator := h.stored(subject.Operator, "deployer", "person")
	_, err = h.gate.Vend(ctx, operator.caller(), request("test"))
	must(t, err)
}

func TestVend_DecidesAnewWhenThePolicyChanges(t *testing.T) {
	for _, effects := range []grant.Effects{grant.EffectsNone, grant.EffectsRemote} {
		for _, at := range []string{"grant.intended", "grant.issued"} {
			v := newTaker(effects)
			h, c := agentWith(t, v)
			who := c.caller()
			other := h.newGate()
			var once sync.Once
			change := func(source string) func(unit.Unit) error {
				once = sync.Once{}
				return func(u unit.Unit) error {
					if u.Record.Type == at {
						once.Do(func() {
							_, err := other.SetPolicy(context.Background(), h.admin.caller(), "more", "sallyport", source)
							must(t, err)
						})
					}
					return nil
				}
			}
			h.tap.on(change("package sallyport\nrelease := {\"allow\": true, \"bounds\": {\"kind\": \"test\", \"max_ttl_seconds\": 60}}"))
			out, err := h.gate.Vend(context.Background(), who, request("test"))
			must(t, err)
			if effects == grant.EffectsRemote || at == "grant.issued" {
				if life := out.ExpiresAt.Sub(out.IssuedAt); life != time.Minute {
					t.Errorf("%s, %s: lives for %v under the old policy", effects, at, life)
				}
			}
			h.tap.on(change("package sallyport\nrelease := {\"allow\": false}"))
			_, err = h.gate.Vend(context.Background(), who, request("test"))
			if effects == grant.EffectsRemote || at == "grant.issued" {
				want(t, err, fault.Denied)
				count(t, h.inState(grant.Active), 1, "active grants")
			}
			count(t, h.inState(grant.Intent), 0, "intents")
			if n := v.calls() - len(v.tries()); effects == grant.EffectsRemote && n != h.inState(grant.Active) {
				t.Errorf("%d credentials are out at the provider, %d grants are active", n, h.inState(grant.Active))
			}
		}
	}
}

func TestVend_LosesNothingWhenACommitOfALocalKindIsLost(t *testing.T) {
	v := newVendor(grant.EffectsNone)
	h, c := agentWith(t, v)
	who := c.caller()
	h.tap.on(func(u unit.Unit) error {
		if u.Record.Type == "grant.issued" {
			return fault.Unavailablef("lost")
		}
		return nil
	})
	out, err := h.gate.Vend(context.Background(), under(who, "key"), request("test"))
	want(t, err, fault.Unavailable)
	if out.Value.Len() > 0 {
		t.Fatal("the value left before it was recorded")
	}
	h.tap.on(nil)
	who = under(who, "key")
	_, err = h.gate.Vend(context.Background(), who, request("test"))
	must(t, err)
	if who.Key.Replayed {
		t.Fatal("a first answer was kept that never was")
	}
}

// signer is a key of the host's.
type signer struct {
	finish func(grant.Prepared, grant.Scope, secret.Bytes) (grant.Signed, error)
	held   []grant.Holder
}

// Forward keeps the parameter "own" from the provider.
func (s *signer) Forward(asked grant.Scope) grant.Scope {
	params := maps.Clone(asked.Params)
	delete(params, "own")
	asked.Params = params
	return asked
}

func (s *signer) Prepare(asked grant.Scope, h grant.Holder) (grant.Prepared, error) {
	s.held = append(s.held, h)
	asked = s.Forward(asked)
	params := asked.Params
	params["host.serial"] = "42"
	asked.Params = params
	return grant.Prepared{Scope: asked, Private: secret.FromString("private-" + h.Grant), Handle: "ca/42"}, nil
}

func (s *signer) Finish(p grant.Prepared, decided grant.Scope, proposed secret.Bytes) (grant.Signed, error) {
	return s.finish(p, decided, proposed)
}

func TestVend_LetsTheHostSign(t *testing.T) {
	s := &signer{finish: func(_ grant.Prepared, d grant.Scope, v secret.Bytes) (grant.Signed, error) {
		return grant.Signed{Value: secret.FromString("signed-" + string(v.Reveal())), ExpiresAt: time.Now().Add(d.TTL)}, nil
	}}
	v := newVendor(grant.EffectsNone)
	h, c := agentWith(t, v, func(c *flow.Config) { c.Signers = map[string]grant.Signer{"test": s} })
	out, err := h.gate.Vend(context.Background(), under(c.caller(), "key"), request("test"))
	must(t, err)
	if string(out.Value.Reveal()) != "signed-"+v.made[0] || string(out.Private.Reveal()) != "private-"+out.Grant {
		t.Fatal("another value or key")
	}
	if v.asked[0].Params["host.serial"] != "42" || out.Params["host.serial"] != nil {
		t.Fatal("the host's parameters did not stay with the host and the plugin")
	}
	held := h.grants()[0]
	if held.Handle != "ca/42" || s.held[0].Subject != c.id {
		t.Fatalf("handle %q, holder %+v", held.Handle, s.held[0])
	}
	again, err := h.gate.Vend(context.Background(), under(c.caller(), "key"), request("test"))
	must(t, err)
	if !again.Private.Equal(out.Private) {
		t.Fatal("the repetition lacks the private key")
	}
	s.finish = func(grant.Prepared, grant.Scope, secret.Bytes) (grant.Signed, error) {
		return grant.Signed{}, fault.Deniedf("another principal")
	}
	_, err = h.gate.Vend(context.Background(), c.caller(), request("test"))
	want(t, err, fault.Unavailable)
	count(t, len(h.records("plugin.overstepped")), 1, "records of it")
}
