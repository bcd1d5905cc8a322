package flow_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/policy"
	"github.com/sallyport-project/sallyport/internal/secret"
	"github.com/sallyport-project/sallyport/internal/subject"
	"github.com/sallyport-project/sallyport/internal/token"
)

// elsewhere is another attestation service.
type elsewhere struct {
	t      *testing.T
	minter *token.Minter
	keys   token.KeySet
	thumb  string
}

func newElsewhere(t *testing.T, now func() time.Time) elsewhere {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	m, err := token.NewMinter(token.MinterConfig{Key: key, Build: "elsewhere", Now: now})
	must(t, err)
	text, err := token.MarshalKeySet([]token.SignerKey{{Public: key.Public()}})
	must(t, err)
	set, err := token.ParseKeySet(text)
	must(t, err)
	thumb, err := token.Thumbprint(key.Public())
	must(t, err)
	return elsewhere{t, m, set, thumb}
}

// vouch makes a token for a guest's key.
func (e elsewhere) vouch(g *guest) string {
	e.t.Helper()
	raw, _, err := e.minter.Mint(evidence.Verdict{
		Runtime: evidence.Runtime{Key: g.key.Public()},
		Devices: []evidence.Device{{
			Name: "cpu0", TEE: evidence.Snp, Class: evidence.CPU, Policy: "default_cpu", Vector: evidence.Vector{"hardware": 2},
			Annotated: map[string]any{"snp": map[string]any{}, "runtime_data_claims": map[string]any{"tee-pubkey": g.key.Public().Members()}},
		}},
	})
	must(e.t, err)
	return raw
}

func TestGuest_IsAdmittedByAPassportOnce(t *testing.T) {
	h := newHouse(t)
	ctx := context.Background()
	h.put("the secret", "team", "db", "key")
	h.resourcePolicy(policy.ResourceAllowAll())
	other := newElsewhere(t, h.gate.Now)
	g := h.guest()
	g.token = other.vouch(g)
	_, err := g.fetch(true, "team", "db", "key")
	want(t, err, fault.Unauthenticated) // nobody trusts it yet
	h.gate.Guests.Trust.ReplaceSets([]token.KeySet{other.keys})

	var together sync.WaitGroup // many requests, one admission
	for range 8 {
		together.Go(func() {
			if _, err := g.fetch(true, "team", "db", "key"); err != nil {
				t.Errorf("a request of many: %v", err)
			}
		})
	}
	together.Wait()
	vouched := h.records("workload.vouched")
	count(t, len(vouched), 1, "admissions")
	who, attested, err := h.gate.Guest(ctx, "", g.token, "192.0.2.50", "GET")
	must(t, err)
	if attested.Own || vouched[0].Subject != who.Subject.ID || vouched[0].Data["status"] != "affirming" || vouched[0].Data["signer"] != other.thumb || len(vouched[0].Policy) == 0 {
		t.Errorf("the record is %+v", vouched[0])
	}

	// It is the workload that it would be if it attested here: who locks it locks both ways.
	must(t, g.attest())
	own, _, err := h.gate.Guest(ctx, g.cookie, "", "", "GET")
	must(t, err)
	if own.Subject.ID != who.Subject.ID {
		t.Errorf("one key is two workloads: %s and %s", own.Subject.ID, who.Subject.ID)
	}
	g.token = other.vouch(g)
	h.gate.Guests.Trust.ReplaceSets(nil)
	_, err = g.fetch(true, "team", "db", "key")
	want(t, err, fault.Unauthenticated)
}

func TestGuest_PolicyRefusesPassports(t *testing.T) {
	h := newHouse(t)
	other := newElsewhere(t, h.gate.Now)
	h.gate.Guests.Trust.ReplaceSets([]token.KeySet{other.keys})
	_, err := h.gate.SetPolicy(context.Background(), h.admin.caller(), "no-passports", policy.Sallyport,
		"package sallyport\nadmit := {\"allow\": false} if input.evidence.kind == \"token\"")
	must(t, err)
	g := h.guest()
	_, _, err = h.gate.Guest(context.Background(), "", other.vouch(g), "192.0.2.50", "GET")
	want(t, err, fault.Denied)
	count(t, len(h.records("workload.vouched")), 1, "records of the refusal")
}

// A workload that was locked stays out with the word of others, too, and its attempt
// is recorded.
func TestGuest_LockedStaysOutWithAPassport(t *testing.T) {
	h, ctx := newHouse(t), context.Background()
	other := newElsewhere(t, h.gate.Now)
	h.gate.Guests.Trust.ReplaceSets([]token.KeySet{other.keys})
	g := h.guest()
	must(t, g.attest())
	own, _, err := h.gate.Guest(ctx, g.cookie, "", "", "GET")
	must(t, err)
	h.change(own.Subject.ID, "locked")
	_, _, err = h.gate.Guest(ctx, "", other.vouch(g), "192.0.2.50", "GET")
	want(t, err, fault.Denied)
	r := h.records("workload.vouched")
	if len(r) != 1 || r[0].Outcome != audit.Denied || r[0].Subject != own.Subject.ID || r[0].Data["signer"] != other.thumb {
		t.Errorf("records %+v", r)
	}
}

// A deputy is what its operator is, now: also one who was recognised before.
func TestDeputy_ActsAsItsOperator(t *testing.T) {
	h := newHouse(t)
	ctx := context.Background()
	bob := h.stored(subject.Operator, "administrator", "bob")
	p := flow.Presented{Via: "kbs-token", Address: "192.0.2.7", Method: "POST"}
	_, err := h.gate.Deputy(ctx, "nobody", p)
	want(t, err, fault.Unauthenticated)
	early, err := h.gate.Deputy(ctx, "bob", p)
	must(t, err)
	put := func(c flow.Caller) error {
		_, err := h.gate.PutResource(ctx, c, []string{"team", "db", "key"}, secret.FromString("x"))
		return err
	}
	must(t, put(early))
	if r := h.lastRecord("resource.stored"); r.Actor.Subject != bob.id || r.Actor.Via != "kbs-token" {
		t.Errorf("the record says %+v", r.Actor)
	}
	h.change(bob.id, "locked")
	want(t, put(early), fault.Unauthenticated)
	_, err = h.gate.Deputy(ctx, "bob", p)
	want(t, err, fault.Unauthenticated)
	h.change(bob.id, "unlocked")
	must(t, put(early)) // its row has changed twice since: it is read again
}
