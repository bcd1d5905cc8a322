package flow_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/policy"
	"github.com/sallyport-project/sallyport/internal/secret"
	"github.com/sallyport-project/sallyport/internal/subject"
	"github.com/sallyport-project/sallyport/internal/token"
	"github.com/sallyport-project/sallyport/internal/unit"
)

func TestEnrol_LetsInOneOfManyWithOneJoinToken(t *testing.T) {
	h := newHouse(t)
	s := h.invite(subject.Agent, "deployer", "")
	gates := []*flow.Gate{h.gate, h.newGate()}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var in []*client
	for i := range 16 {
		wg.Go(func() {
			c, err := h.enrol(gates[i%2], s, "agent-"+string(rune('a'+i)))
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				in = append(in, c)
			} else if !fault.Is(err, fault.Unauthenticated) {
				t.Errorf("a loser got %v", err)
			}
		})
	}
	wg.Wait()
	count(t, len(in), 1, "admitted")
	count(t, len(h.records("subject.enrolled")), 1, "records")
	if who := in[0].caller(); who.Subject.Role != "deployer" || who.Subject.Kind != subject.Agent {
		t.Fatalf("enrolled as %+v", who.Subject)
	}
}

func TestEnrol_RefusesEveryBadJoinTokenInTheSameWords(t *testing.T) {
	h := newHouse(t)
	used := h.invite(subject.Agent, "deployer", "")
	_, err := h.enrol(h.gate, used, "first")
	must(t, err)
	orphan := h.stored(subject.Operator, "administrator", "leaver")
	left, err := h.gate.Invite(context.Background(), orphan.caller(), flow.InviteRequest{Kind: subject.Operator, Role: "administrator", Life: 24 * time.Hour})
	must(t, err)
	h.change(orphan.id, "revoked")
	expired := h.invite(subject.Agent, "deployer", "")
	h.pass(61 * time.Minute)
	words := map[string]bool{}
	for name, s := range map[string]secret.Bytes{
		"used": used, "expired": expired, "wrong": secret.FromString(strings.Repeat("x", 32)), "empty": {}, "author revoked": left.Secret,
	} {
		_, err := h.enrol(h.gate, s, "second")
		if !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("%s: got %v", name, err)
			continue
		}
		words[fault.Public(err)] = true
	}
	count(t, len(words), 1, "different answers")
	must(t, h.gate.RecordStrangers(context.Background()))
	counted := h.records("stranger.refused")
	count(t, len(counted), 1, "records of strangers")
	if counted[0].Data["192.0.2.9"] != "5" {
		t.Fatalf("counted %v", counted[0].Data)
	}
}

func TestEnrol_RefusesANameThatIsTaken(t *testing.T) {
	h := newHouse(t)
	_, err := h.enrol(h.gate, h.invite(subject.Agent, "deployer", "builder"), "wish")
	must(t, err)
	s := h.invite(subject.Agent, "deployer", "")
	_, err = h.enrol(h.gate, s, "builder")
	want(t, err, fault.Conflict)
	c, err := h.enrol(h.gate, s, "builder-2") // the join token was not used up
	must(t, err)
	if c.caller().Subject.Name != "builder-2" {
		t.Fatal("another name than wished for")
	}
}

func TestInvite_RefusesARoleThatNoPolicyKnows(t *testing.T) {
	h := newHouse(t)
	for _, role := range []string{"developer", "", "Deployer", "admin istrator"} {
		_, err := h.gate.Invite(context.Background(), h.admin.caller(), flow.InviteRequest{Kind: subject.Agent, Role: role})
		want(t, err, fault.Invalid)
	}
	count(t, len(h.records("subject.invited")), 0, "invitations")
}

func TestEnrol_RefusesARoleThatPoliciesForgot(t *testing.T) {
	h := newHouse(t)
	s := h.invite(subject.Agent, "deployer", "")
	must(t, h.gate.RemovePolicy(context.Background(), h.admin.caller(), "deployers"))
	_, err := h.enrol(h.gate, s, "agent-1")
	want(t, err, fault.Denied)
	denied := h.records("subject.enrolled")
	count(t, len(denied), 1, "records")
	if denied[0].Outcome != audit.Denied || len(denied[0].Reasons) == 0 {
		t.Fatalf("recorded %+v", denied[0])
	}
}

func TestSession_NeedsTheCertificateThatItIsBoundTo(t *testing.T) {
	h := newHouse(t)
	a, b := h.stored(subject.Agent, "deployer", "a").open(), h.stored(subject.Agent, "deployer", "b")
	for name, c := range map[string]*client{
		"another's certificate": {h: h, cert: b.cert, token: a.token},
		"no certificate":        {h: h, token: a.token},
		"changed token":         {h: h, cert: a.cert, token: a.token[:len(a.token)-4] + "AAAA"},
		"nothing":               {h: h},
	} {
		if _, err := c.try(h.gate); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	second, csr := newKey(t)
	leaf, err := h.gate.Renew(context.Background(), a.caller(), csr)
	must(t, err)
	renewed := &client{h: h, id: a.id, key: second, cert: parsePEM(t, leaf.PEM), token: a.token}
	_, err = renewed.try(h.gate)
	want(t, err, fault.Unauthenticated) // the session stays with the old certificate
	renewed.token = ""
	renewed.open()
}

func TestAuthenticate_RefusesWhateverWasTakenAway(t *testing.T) {
	ctx := context.Background()
	for name, take := range map[string]func(h *house, c *client) error{
		"session ended": func(h *house, c *client) error { return h.gate.EndSession(ctx, c.caller(), c.held.ID, "done") },
		"session ended by an operator": func(h *house, c *client) error {
			return h.gate.EndSession(ctx, h.admin.caller(), c.held.ID, "suspicious")
		},
		"certificate revoked": func(h *house, c *client) error {
			return done(h.gate.RevokeCertificate(ctx, h.admin.caller(), c.serial, "lost"))
		},
		"subject revoked": func(h *house, c *client) error { h.change(c.id, "revoked"); return nil },
		"subject locked":  func(h *house, c *client) error { h.change(c.id, "locked"); return nil },
		"time":            func(h *house, _ *client) error { h.pass(16 * time.Minute); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			replica := h.newGate()
			c := h.stored(subject.Agent, "deployer", "agent").open()
			d := c.delegate("release:test-none")
			d.caller()
			must(t, take(h, c))
			h.reopen()
			for _, who := range []*client{c, d} {
				_, err := who.try(h.gate)
				want(t, err, fault.Unauthenticated)
			}
			_ = replica
		})
	}
}

// Whatever is taken away while a unit is on its way, the unit misses it.
func TestUnits_NeverCommitAfterARevocation(t *testing.T) {
	ctx := context.Background()
	acts := map[string]func(h *house, who flow.Caller) error{
		"vend": func(h *house, who flow.Caller) error {
			_, err := h.gate.Vend(ctx, under(who, "k"), request("test-none"))
			return err
		},
		"vend remote": func(h *house, who flow.Caller) error {
			_, err := h.gate.Vend(ctx, who, request("test-remote"))
			return err
		},
		"renew": func(h *house, who flow.Caller) error {
			_, csr := newKey(h.t)
			_, err := h.gate.Renew(ctx, who, csr)
			return err
		},
		"refresh": func(h *house, who flow.Caller) error { _, err := h.gate.RefreshSession(ctx, who); return err },
		"delegate": func(h *house, who flow.Caller) error {
			_, err := h.gate.Delegate(ctx, who, token.Delegation{KeyThumb: thumb(h.t), Scopes: token.Scopes{"release:*"}})
			return err
		},
	}
	takes := map[string]func(h *house, c *client) error{
		"session": func(h *house, c *client) error { return h.newGate().EndSession(ctx, h.admin.caller(), c.held.ID, "x") },
		"certificate": func(h *house, c *client) error {
			return done(h.newGate().RevokeCertificate(ctx, h.admin.caller(), c.serial, "x"))
		},
		"subject": func(h *house, c *client) error {
			_, err := h.newGate().ChangeSubject(ctx, h.admin.caller(), c.id, flow.SubjectChange{Act: "revoked"})
			return err
		},
	}
	given := map[string]bool{"grant.issued": true, "certificate.renewed": true, "session.refreshed": true, "session.delegated": true}
	for act, do := range acts {
		for what, take := range takes {
			t.Run(act+" while the "+what+" is revoked", func(t *testing.T) {
				h := newHouse(t)
				h.vendors["test-none"], h.vendors["test-remote"] = newVendor(grant.EffectsNone), newTaker(grant.EffectsRemote)
				c := h.stored(subject.Agent, "deployer", "agent").open()
				who := c.caller()
				var once sync.Once
				h.tap.on(func(u unit.Unit) error {
					if given[u.Record.Type] {
						once.Do(func() { must(t, take(h, c)) })
					}
					return nil
				})
				want(t, do(h, who), fault.Unauthenticated)
				for kind := range given {
					count(t, len(h.records(kind)), 0, kind)
				}
				live, err := h.store.Grants(ctx, grant.Filter{State: grant.Active})
				must(t, err)
				count(t, len(live), 0, "grants")
			})
		}
	}
}

func thumb(t testing.TB) string {
	public, _, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	s, err := token.Thumbprint(public)
	must(t, err)
	return s
}

func TestVend_CommitsNothingOnceRevokeHasReturned(t *testing.T) {
	ctx := context.Background()
	h := newHouse(t)
	h.vendors["test-none"] = newVendor(grant.EffectsNone)
	replica := h.newGate()
	c := h.stored(subject.Agent, "deployer", "agent").open()
	who := c.caller()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			g := h.gate
			if i%2 == 1 {
				g = replica
			}
			for {
				select {
				case <-stop:
					return
				default:
				}
				_, err := g.Vend(ctx, who, request("test-none"))
				if err != nil && !fault.Is(err, fault.Unauthenticated) && !fault.Is(err, fault.Unavailable) {
					t.Errorf("got %v", err)
				}
			}
		})
	}
	time.Sleep(50 * time.Millisecond)
	h.change(c.id, "revoked")
	time.Sleep(50 * time.Millisecond)
	close(stop)
	wg.Wait()
	before, after, revoked := 0, 0, false
	for _, r := range h.ledger() { // in the order of commits
		switch {
		case r.Type == "subject.revoked":
			revoked = true
		case r.Type == "grant.issued" && revoked:
			after++
		case r.Type == "grant.issued":
			before++
		}
	}
	if !revoked || before == 0 || after > 0 {
		t.Fatalf("revoked: %v, grants before: %d, after: %d", revoked, before, after)
	}
	_, err := h.gate.Vend(ctx, who, request("test-none"))
	want(t, err, fault.Unauthenticated)
}

func TestRefreshSession_EndsTheOldOneAndOnlyOneWins(t *testing.T) {
	ctx := context.Background()
	h := newHouse(t)
	c := h.stored(subject.Agent, "deployer", "agent").open("release:test-none")
	who := c.caller()
	var wg sync.WaitGroup
	var mu sync.Mutex
	var got []flow.Opened
	for range 8 {
		wg.Go(func() {
			out, err := h.gate.RefreshSession(ctx, who)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				got = append(got, out)
			} else if !fault.Is(err, fault.Unauthenticated) {
				t.Errorf("got %v", err)
			}
		})
	}
	wg.Wait()
	count(t, len(got), 1, "refreshed")
	_, err := c.try(h.gate)
	want(t, err, fault.Unauthenticated)
	if s := c.with(got[0]).caller().Session.Scopes.Strings(); len(s) != 1 || s[0] != "release:test-none" {
		t.Fatalf("the scopes became %v", s)
	}
}

func TestDelegatedSession_CanOnlyDoLess(t *testing.T) {
	ctx := context.Background()
	h := newHouse(t)
	h.vendors["test-a"], h.vendors["test-b"] = newVendor(grant.EffectsNone), newVendor(grant.EffectsNone)
	c := h.stored(subject.Agent, "deployer", "agent").open()
	d := c.delegate("release:test-a")
	_, err := h.gate.Vend(ctx, d.caller(), request("test-a"))
	must(t, err)
	_, err = h.gate.Vend(ctx, d.caller(), request("test-b"))
	want(t, err, fault.Denied)
	_, csr := newKey(t)
	for name, act := range map[string]func() error{
		"open":    func() error { _, err := h.gate.OpenSession(ctx, d.caller(), nil); return err },
		"refresh": func() error { _, err := h.gate.RefreshSession(ctx, d.caller()); return err },
		"renew":   func() error { _, err := h.gate.Renew(ctx, d.caller(), csr); return err },
		"end":     func() error { return h.gate.EndSession(ctx, d.caller(), c.held.ID, "") },
		"read":    func() error { _, err := h.gate.Subject(ctx, d.caller(), c.id); return err },
		"grants":  func() error { _, err := h.gate.Grants(ctx, d.caller(), grant.Filter{Subject: c.id}); return err },
		"delegate": func() error {
			_, err := h.gate.Delegate(ctx, d.caller(), token.Delegation{KeyThumb: thumb(t), Scopes: token.Scopes{"release:test-a"}})
			return err
		},
	} {
		if err := act(); !fault.Is(err, fault.Denied) && !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	// With the delegator's certificate beside it the token is still a delegate's.
	with := *d
	with.cert = c.cert
	_, err = h.gate.OpenSession(ctx, with.caller(), nil)
	want(t, err, fault.Unauthenticated)
	_, err = h.gate.Renew(ctx, with.caller(), csr)
	want(t, err, fault.Unauthenticated)
	// Without its key, or with the delegator's certificate alone, it is nothing.
	bare := *d
	bare.own, bare.cert = nil, c.cert
	_, err = bare.try(h.gate)
	want(t, err, fault.Unauthenticated)
	// And it cannot be wider than its parent.
	narrow := h.stored(subject.Agent, "deployer", "narrow").open("release:test-a")
	_, err = h.gate.Delegate(ctx, narrow.caller(), token.Delegation{KeyThumb: thumb(t), Scopes: token.Scopes{"release:test-b"}})
	want(t, err, fault.Denied)
}

func TestDelegatedSession_EndsWithWhatItsParentBecame(t *testing.T) {
	ctx := context.Background()
	h := newHouse(t)
	c := h.stored(subject.Agent, "deployer", "agent").open()
	other := c.open()
	d := c.delegate("release:test-a")
	out, err := h.gate.RefreshSession(ctx, c.caller())
	must(t, err)
	d.caller() // lives on: its parent was refreshed, not revoked
	next := c.with(out)
	must(t, h.gate.EndSession(ctx, next.caller(), next.held.ID, "done"))
	_, err = d.try(h.gate)
	want(t, err, fault.Unauthenticated)
	other.caller()
}

func TestDelegatedSession_MadeWhileItsParentEndsIsDeadToo(t *testing.T) {
	ctx := context.Background()
	h := newHouse(t)
	c := h.stored(subject.Agent, "deployer", "agent").open()
	var d *client
	var once sync.Once
	h.tap.on(func(u unit.Unit) error {
		if u.Record.Type == "session.revoked" { // decided, not committed: now a delegate comes
			once.Do(func() { d = c.delegate("release:test-a") })
		}
		return nil
	})
	must(t, h.gate.EndSession(ctx, h.admin.caller(), c.held.ID, "stolen"))
	_, err := d.try(h.gate)
	want(t, err, fault.Unauthenticated)
	want(t, h.gate.EndSession(ctx, h.admin.caller(), c.held.ID, "refreshed"), fault.Invalid)
}

func TestDelegatedSession_EndsWithTheCertificate(t *testing.T) {
	ctx := context.Background()
	h := newHouse(t)
	c := h.stored(subject.Agent, "deployer", "agent").open()
	d := c.delegate("release:test-a")
	var late *client
	var once sync.Once
	h.tap.on(func(u unit.Unit) error {
		if u.Record.Type == "certificate.revoked" {
			once.Do(func() { late = c.delegate("release:test-a") })
		}
		return nil
	})
	must(t, done(h.gate.RevokeCertificate(ctx, h.admin.caller(), c.serial, "stolen")))
	for _, who := range []*client{c, d, late} {
		_, err := who.try(h.gate)
		want(t, err, fault.Unauthenticated)
	}
	want(t, done(h.gate.RevokeCertificate(ctx, h.admin.caller(), c.serial, "again")), fault.Conflict)
}

func TestProof_IsGoodForOneAct(t *testing.T) {
	ctx := context.Background()
	h := newHouse(t)
	h.vendors["test-none"], h.vendors["test-remote"] = newVendor(grant.EffectsNone), newTaker(grant.EffectsRemote)
	c := h.stored(subject.Agent, "deployer", "agent").open()
	d := c.delegate("release:*")
	for _, kind := range []string{"test-none", "test-remote"} {
		for _, key := range []string{"", "key-of-" + kind} {
			who := under(d.caller(), key)
			_, err := h.gate.Vend(ctx, who, request(kind))
			must(t, err)
			_, err = h.gate.Vend(ctx, who, request(kind))
			want(t, err, fault.Conflict) // the same proof once more, also for a replay
			h.pass(59 * time.Second)
			must(t, h.gate.Housekeep(ctx))
			_, err = h.gate.Vend(ctx, who, request(kind))
			want(t, err, fault.Conflict)
		}
		h.pass(-2 * 59 * time.Second)
	}
	must(t, policyIs(h, "reporters", `package sallyport
respond := {"allow": true} if input.subject.role == "deployer"`))
	who := c.delegate("respond:leak").caller()
	_, err := h.gate.Report(ctx, who, leak("something"))
	must(t, err)
	_, err = h.gate.Report(ctx, who, leak("something"))
	want(t, err, fault.Conflict)
}

func policyIs(h *house, name, source string) error {
	_, err := h.gate.SetPolicy(context.Background(), h.admin.caller(), name, policy.Sallyport, source)
	return err
}

func TestClock_NothingIsIssuedWhenItWasSetBack(t *testing.T) {
	ctx := context.Background()
	h := newHouse(t)
	h.vendors["test-none"] = newVendor(grant.EffectsNone)
	c := h.stored(subject.Agent, "deployer", "agent").open()
	s := h.invite(subject.Agent, "deployer", "")
	who, admin := c.caller(), h.admin.caller()
	h.pass(time.Hour)
	must(t, h.gate.RecordStrangers(ctx))
	must(t, h.gate.Housekeep(ctx)) // any unit shows the store the time
	h.pass(-time.Hour)
	_, csr := newKey(t)
	for name, act := range map[string]func() error{
		"vend":  func() error { _, err := h.gate.Vend(ctx, who, request("test-none")); return err },
		"renew": func() error { _, err := h.gate.Renew(ctx, who, csr); return err },
		"open":  func() error { _, err := h.gate.RefreshSession(ctx, who); return err },
		"enrol": func() error { _, err := h.enrol(h.gate, s, "n"); return err },
		"invite": func() error {
			_, err := h.gate.Invite(ctx, admin, flow.InviteRequest{Kind: subject.Agent, Role: "deployer"})
			return err
		},
	} {
		if err := act(); !fault.Is(err, fault.Unavailable) || !strings.Contains(fault.Public(err), "CLOCK_ROLLBACK") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	must(t, h.gate.EndSession(ctx, who, c.held.ID, "taking away is always possible"))
}
