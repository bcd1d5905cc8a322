package flow_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	attester "github.com/sallyport-project/sallyport/internal/attester/sample"
	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/policy"
	"github.com/sallyport-project/sallyport/internal/seal"
	"github.com/sallyport-project/sallyport/internal/secret"
	"github.com/sallyport-project/sallyport/internal/token"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// guest is a confidential workload with a key.
type guest struct {
	h      *house
	key    seal.PrivateKey
	cookie string
	token  string
}

func (h *house) guest() *guest {
	h.t.Helper()
	key, err := seal.GenerateKey()
	must(h.t, err)
	return &guest{h: h, key: key}
}

// evidence opens a handshake and collects evidence for it.
func (g *guest) evidence() (cookie string, body []byte) {
	g.h.t.Helper()
	ctx := context.Background()
	challenge, cookie, err := g.h.gate.Challenge(ctx, evidence.Request{Version: evidence.V040, TEE: evidence.Sample})
	must(g.h.t, err)
	a := evidence.Attestation{Version: evidence.V040, Runtime: evidence.Runtime{Nonce: challenge.Nonce, Key: g.key.Public()}}
	digest, err := a.Runtime.Digest(evidence.V040)
	must(g.h.t, err)
	maker, err := attester.New(evidence.Sample)
	must(g.h.t, err)
	e, err := maker.Evidence(ctx, evidence.Binding{ReportData: digest})
	must(g.h.t, err)
	a.Primary = e.Body
	body, err = a.Encode()
	must(g.h.t, err)
	return cookie, body
}

func (g *guest) attest() error {
	cookie, body := g.evidence()
	raw, err := g.h.gate.Attest(context.Background(), cookie, body, "192.0.2.50")
	g.cookie, g.token = cookie, raw
	return err
}

// fetch reads a resource by cookie, or by token.
func (g *guest) fetch(byToken bool, path ...string) (seal.JWE, error) {
	cookie, bearer := g.cookie, ""
	if byToken {
		cookie, bearer = "", g.token
	}
	who, attested, err := g.h.gate.Guest(context.Background(), cookie, bearer, "192.0.2.50", "GET")
	if err != nil {
		return seal.JWE{}, err
	}
	return g.h.gate.ReleaseResource(context.Background(), who, attested, path, nil)
}

func (h *house) put(value string, path ...string) {
	h.t.Helper()
	_, err := h.gate.PutResource(context.Background(), h.admin.caller(), path, secret.FromString(value))
	must(h.t, err)
}

func (h *house) resourcePolicy(source string) {
	h.t.Helper()
	_, err := h.gate.SetPolicy(context.Background(), h.admin.caller(), policy.ResourceName, policy.KBSResource, source)
	must(h.t, err)
}

func TestGuest_FetchesWhatPolicyAllowsAndOpensItAlone(t *testing.T) {
	h := newHouse(t)
	h.put("first", "team", "db", "key")
	h.put("the secret", "team", "db", "key")
	g, other := h.guest(), h.guest()
	must(t, g.attest())
	_, err := g.fetch(false, "team", "db", "key") // the policy of a new installation
	want(t, err, fault.Denied)
	h.resourcePolicy(policy.ResourceAllowAll())
	for _, byToken := range []bool{false, true} {
		sealed, err := g.fetch(byToken, "team", "db", "key")
		must(t, err)
		plain, err := seal.Open(g.key, sealed)
		must(t, err)
		if string(plain.Reveal()) != "the secret" {
			t.Fatal("another value")
		}
		if _, err := seal.Open(other.key, sealed); err == nil {
			t.Fatal("another guest opened it")
		}
	}
	released := h.records("resource.released")
	count(t, len(released), 3, "records")
	if r := released[1]; r.Target != "team/db/key" || r.Data["version"] != "2" || r.Subject == "" || r.Actor.Kind != "workload" || len(r.Policy) == 0 {
		t.Fatalf("recorded %+v", r)
	}
	_, err = g.fetch(false, "team", "db", "missing")
	want(t, err, fault.NotFound)
	for _, path := range [][]string{{"team", "db"}, {"team", "..", "key"}, {"team", "db/x", "key"}, {"a", "b", "c", "d"}} {
		_, err = g.fetch(false, path...)
		want(t, err, fault.Invalid)
	}
	h.resourcePolicy(policy.ResourceDenyAll())
	_, err = g.fetch(false, "team", "db", "missing") // denied alike, there or not
	want(t, err, fault.Denied)
	must(t, h.gate.DeleteResource(context.Background(), h.admin.caller(), []string{"team", "db", "key"}, false))
}

// Path and version name one secret for ever.
func TestResource_VersionsOnlyGrow(t *testing.T) {
	ctx := context.Background()
	h := newHouse(t)
	h.resourcePolicy(policy.ResourceAllowAll())
	g := h.guest()
	must(t, g.attest())
	path := []string{"team", "db", "key"}
	last := int64(0)
	for round := range 3 {
		for range 2 {
			got, err := h.gate.PutResource(ctx, h.admin.caller(), path, secret.FromString("a secret"))
			must(t, err)
			if got.Version <= last {
				t.Fatalf("round %d: version %d after %d", round, got.Version, last)
			}
			last = got.Version
		}
		must(t, h.gate.DeleteResource(ctx, h.admin.caller(), path, false))
		h.reopen()
		_, err := g.fetch(true, path...)
		want(t, err, fault.NotFound)
		want(t, h.gate.DeleteResource(ctx, h.admin.caller(), path, false), fault.NotFound)
		left, err := h.gate.Resources(ctx, h.admin.caller(), "", "", 0)
		must(t, err)
		count(t, len(left), 0, "listed resources")
	}
}

func TestAttest_AcceptsANonceOnce(t *testing.T) {
	h := newHouse(t)
	replica := h.newGate()
	g := h.guest()
	cookie, body := g.evidence()
	var wg sync.WaitGroup
	var mu sync.Mutex
	accepted := 0
	for i := range 10 {
		wg.Go(func() {
			raw, err := []*flow.Gate{h.gate, replica}[i%2].Attest(context.Background(), cookie, body, "192.0.2.50")
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				accepted++
			} else if !fault.Is(err, fault.Unauthenticated) || raw != "" {
				t.Errorf("got %q, %v", raw, err)
			}
		})
	}
	wg.Wait()
	count(t, accepted, 1, "accepted")
	count(t, len(h.records("workload.attested")), 1, "records")
	h.pass(token.CookieLife - time.Second)
	must(t, h.gate.Housekeep(context.Background()))
	_, err := h.gate.Attest(context.Background(), cookie, body, "192.0.2.50")
	want(t, err, fault.Unauthenticated)
}

func TestAttest_UsesUpTheNonceOfRefusedEvidence(t *testing.T) {
	ctx := context.Background()
	spoil := map[string]func(body []byte, other []byte) []byte{
		"no JSON":       func([]byte, []byte) []byte { return []byte("{") },
		"another nonce": func(_, other []byte) []byte { return other },
		"another report": func(body, _ []byte) []byte {
			return []byte(strings.Replace(string(body), `"report_data":"`, `"report_data":"AA`, 1))
		},
	}
	for name, change := range spoil {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			g := h.guest()
			cookie, body := g.evidence()
			_, other := g.evidence()
			bad := change(body, other)
			if string(bad) == string(body) {
				t.Fatal("nothing was spoiled")
			}
			_, err := h.gate.Attest(ctx, cookie, bad, "192.0.2.50")
			if err == nil {
				t.Fatal("accepted")
			}
			count(t, len(h.records("workload.refused")), 1, "refusals recorded")
			_, err = h.gate.Attest(ctx, cookie, body, "192.0.2.50")
			want(t, err, fault.Unauthenticated)
			count(t, len(h.records("workload.attested")), 0, "accepted")
			count(t, len(h.records("workload.refused")), 1, "refusals recorded in the end")
			g.cookie = cookie
			_, err = g.fetch(false, "a", "b", "c")
			want(t, err, fault.Unauthenticated)
		})
	}
}

func TestAttest_RefusesForeignAndOldCookies(t *testing.T) {
	h := newHouse(t)
	g := h.guest()
	cookie, body := g.evidence()
	second, _ := g.evidence()
	for name, c := range map[string]string{"empty": "", "cut": cookie[:len(cookie)-2], "of another handshake": second} {
		if _, err := h.gate.Attest(context.Background(), c, body, "192.0.2.50"); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	h.pass(token.CookieLife + time.Second)
	_, err := h.gate.Attest(context.Background(), cookie, body, "192.0.2.50")
	want(t, err, fault.Unauthenticated)
	_, _, err = h.gate.Challenge(context.Background(), evidence.Request{Version: evidence.V040, TEE: evidence.Snp})
	want(t, err, fault.Invalid)
}

func TestGuest_ThatWasTakenOutStaysOut(t *testing.T) {
	ctx := context.Background()
	for _, act := range []string{"locked", "revoked"} {
		h := newHouse(t)
		h.resourcePolicy(policy.ResourceAllowAll())
		h.put("the secret", "a", "b", "c")
		g := h.guest()
		must(t, g.attest())
		must(t, g.attest()) // the same key is the same workload
		who, attested, err := h.gate.Guest(ctx, g.cookie, "", "", "GET")
		must(t, err)
		h.change(who.Subject.ID, act)
		_, err = g.fetch(false, "a", "b", "c")
		want(t, err, fault.Unauthenticated)
		_, err = g.fetch(true, "a", "b", "c")
		want(t, err, fault.Unauthenticated)
		_, err = h.gate.ReleaseResource(ctx, who, attested, []string{"a", "b", "c"}, nil) // recognised before
		want(t, err, fault.Unauthenticated)
		want(t, g.attest(), fault.Denied)
		count(t, len(h.records("workload.attested")), 2, "attestations")
		if act == "locked" {
			h.change(who.Subject.ID, "unlocked")
			must(t, g.attest())
		}
	}
}

func TestReleaseResource_CommitsNothingAfterARevocation(t *testing.T) {
	ctx := context.Background()
	h := newHouse(t)
	h.resourcePolicy(policy.ResourceAllowAll())
	h.put("the secret", "a", "b", "c")
	g := h.guest()
	must(t, g.attest())
	who, _, err := h.gate.Guest(ctx, g.cookie, "", "", "GET")
	must(t, err)
	var once sync.Once
	h.tap.on(func(u unit.Unit) error {
		if u.Record.Type == "resource.released" {
			once.Do(func() { h.change(who.Subject.ID, "locked") })
		}
		return nil
	})
	sealed, err := g.fetch(false, "a", "b", "c")
	want(t, err, fault.Unauthenticated)
	if len(sealed.Ciphertext) > 0 {
		t.Fatal("something was handed out")
	}
	count(t, len(h.records("resource.released")), 0, "releases")
}

// TestReleaseResource_CommitsNothingAfterADeletion: nor after one version took the
// place of another, which its owner may have rotated away.
func TestReleaseResource_CommitsNothingAfterADeletion(t *testing.T) {
	ctx := context.Background()
	path := []string{"a", "b", "c"}
	h := newHouse(t)
	h.resourcePolicy(policy.ResourceAllowAll())
	g := h.guest()
	must(t, g.attest())
	meanwhile := func(do func()) {
		var once sync.Once
		h.tap.on(func(u unit.Unit) error {
			if u.Record.Type == "resource.released" {
				once.Do(do)
			}
			return nil
		})
	}
	h.put("the old secret", path...)
	meanwhile(func() { h.put("the new secret", path...) })
	sealed, err := g.fetch(false, path...)
	must(t, err)
	plain, err := seal.Open(g.key, sealed)
	must(t, err)
	if got := string(plain.Reveal()); got != "the new secret" {
		t.Errorf("got %q after it was replaced", got)
	}
	meanwhile(func() { must(t, h.gate.DeleteResource(ctx, h.admin.caller(), path, true)) })
	if sealed, err = g.fetch(false, path...); len(sealed.Ciphertext) > 0 {
		t.Error("what was erased is handed out")
	}
	want(t, err, fault.NotFound)
	count(t, len(h.records("resource.released")), 1, "releases")
}

// TestGuest_IsWhoTheCookieSays whatever is sent as a bearer token beside it, which
// nobody looks at.
func TestGuest_IsWhoTheCookieSays(t *testing.T) {
	h := newHouse(t)
	g, other := h.guest(), h.guest()
	must(t, g.attest())
	must(t, other.attest())
	byToken, attested, err := h.gate.Guest(context.Background(), "", g.token, "", "GET")
	must(t, err)
	for name, bearer := range map[string]string{"nothing": "", "its own token": g.token, "another's token": other.token, "nonsense": "x"} {
		who, shown, err := h.gate.Guest(context.Background(), g.cookie, bearer, "", "GET")
		must(t, err)
		if who.Subject.ID != byToken.Subject.ID || shown.ID != attested.ID || !shown.Key.Equal(g.key.Public()) || len(shown.Claims) == 0 {
			t.Errorf("beside %s: %s with %+v", name, who.Subject.ID, shown)
		}
	}
}

func TestGuest_ExpiresWithItsToken(t *testing.T) {
	ctx := context.Background()
	h := newHouse(t)
	h.resourcePolicy(policy.ResourceAllowAll())
	h.put("the secret", "a", "b", "c")
	g := h.guest()
	must(t, g.attest())
	who, attested, err := h.gate.Guest(ctx, "", g.token, "", "GET")
	must(t, err)
	h.pass(token.EARLife + time.Second)
	_, err = g.fetch(true, "a", "b", "c")
	want(t, err, fault.Unauthenticated)
	must(t, h.gate.RecordStrangers(ctx))
	h.pass(-time.Hour) // a clock that was set back brings nothing to life
	h.ahead.Store(0)
	h.pass(-10 * time.Minute)
	_, err = h.gate.ReleaseResource(ctx, who, attested, []string{"a", "b", "c"}, nil)
	want(t, err, fault.Unavailable)
}

// Anybody can ask for challenges: a flood of bad evidence must not fill the
// ledger, and still each nonce is good once.
func TestAttest_CountsAFloodOfBadEvidence(t *testing.T) {
	ctx := context.Background()
	h := newHouse(t)
	g := h.guest()
	const flood = 100
	var last string
	for range flood {
		cookie, _ := g.evidence()
		_, err := h.gate.Attest(ctx, cookie, []byte("{}"), "192.0.2.66")
		want(t, err, fault.Invalid)
		last = cookie
	}
	if n := len(h.records("workload.refused")); n == 0 || n > 64 {
		t.Fatalf("%d refusals have a record of their own", n)
	}
	_, err := h.gate.Attest(ctx, last, []byte("{}"), "192.0.2.66")
	want(t, err, fault.Unauthenticated) // its nonce is used up all the same
	must(t, h.gate.RecordStrangers(ctx))
	counted := h.records("stranger.refused")
	if len(counted) == 0 || counted[len(counted)-1].Data["192.0.2.66"] == "" {
		t.Fatalf("the others are not counted: %+v", counted)
	}
	cookie, body := g.evidence()
	if _, err := h.gate.Attest(ctx, cookie, body, "192.0.2.50"); err != nil {
		t.Fatalf("good evidence after a flood: %v", err)
	}
}
