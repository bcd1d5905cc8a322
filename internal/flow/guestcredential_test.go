package flow_test

import (
	"context"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/policy"
)

// Two policies have to allow a guest's credential, and both as they are at the
// commit: also on a replica that has not heard yet that one of them has changed.
func TestVendToGuest_AsksBothPoliciesAsTheyAreNow(t *testing.T) {
	h, ctx := newHouse(t), context.Background()
	h.vendors["test"] = newVendor(grant.EffectsNone)
	h.resourcePolicy(policy.ResourceAllowAll())
	_, err := h.gate.SetPolicy(ctx, h.admin.caller(), "guests", policy.Sallyport, `package sallyport
release := {"allow": true, "bounds": {"kind": "test", "max_params": {"principals": ["deploy"]}, "max_ttl_seconds": 900}, "reasons": ["guest"]} if {
	input.subject.kind == "workload"
	input.claims.submods
}`)
	must(t, err)
	g := h.guest()
	must(t, g.attest())
	vend := func(at *flow.Gate) error {
		who, attested, err := at.Guest(ctx, g.cookie, "", "192.0.2.50", "GET")
		must(t, err)
		_, err = at.VendToGuest(ctx, who, attested, flow.VendRequest{
			Kind: "test", Params: map[string]any{"principals": []any{"deploy"}}, TTL: time.Minute,
		}, nil)
		return err
	}
	other := h.newGate() // has read the policies, and does not look again by itself
	must(t, vend(other))
	h.resourcePolicy(policy.ResourceDenyAll())
	want(t, vend(other), fault.Denied)
	count(t, len(h.records("grant.issued")), 2, "records")
	h.resourcePolicy(policy.ResourceAllowAll())
	must(t, vend(h.gate))
}
