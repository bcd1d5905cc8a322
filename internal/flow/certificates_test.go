package flow_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/keys/ca"
	"github.com/sallyport-project/sallyport/internal/secret"
	"github.com/sallyport-project/sallyport/internal/store/storetest"
	"github.com/sallyport-project/sallyport/internal/subject"
	"github.com/sallyport-project/sallyport/internal/unit"
)

func fingerprint(c *client) string {
	sum := sha256.Sum256(c.cert.RawTBSCertificate)
	return hex.EncodeToString(sum[:])
}

// renewed is the same subject with another certificate and no session.
func (c *client) renewed() *client {
	c.h.t.Helper()
	key, csr := newKey(c.h.t)
	leaf, err := c.h.gate.Renew(context.Background(), c.caller(), csr)
	must(c.h.t, err)
	return &client{h: c.h, id: c.id, key: key, cert: parsePEM(c.h.t, leaf.PEM), serial: leaf.Serial}
}

// outsider is a certificate of another authority for a subject that exists.
func (h *house) outsider(of *client, kind subject.Kind) *client {
	h.t.Helper()
	ctx := context.Background()
	if h.outside == nil {
		cfg := ca.Config{TrustDomain: "test.example", MaxLife: 7 * 24 * time.Hour, Now: h.now}
		top, middle, err := ca.Found(ctx, h.vault, cfg)
		must(h.t, err)
		h.outside, err = ca.Load(ctx, h.vault, append(h.rows[:1:1], top, middle), cfg)
		must(h.t, err)
	}
	key, csr := newKey(h.t)
	leaf, err := h.outside.Issue(ca.Request{CSR: csr, Subject: of.id, Kind: string(kind)})
	must(h.t, err)
	return &client{h: h, id: of.id, key: key, cert: parsePEM(h.t, leaf.PEM), serial: leaf.Serial}
}

func (h *house) refused(who ...*client) {
	h.t.Helper()
	for i, c := range who {
		if _, err := c.try(h.gate); !fault.Is(err, fault.Unauthenticated) {
			h.t.Errorf("client %d: got %v", i, err)
		}
	}
}

// Exactly what is bound to the certificate ends, and what it delegated.
func TestRevokeCertificate_EndsItsOwnSessionsAlone(t *testing.T) {
	ctx := context.Background()
	h := newHouse(t)
	bare := h.stored(subject.Agent, "deployer", "agent")
	old := bare.open()
	oldDelegate, second := old.delegate("release:test-a"), bare.open()
	out, err := h.gate.RefreshSession(ctx, second.caller())
	must(t, err)
	second = second.with(out)
	fresh := bare.renewed()
	kept := fresh.open()
	keptDelegate := kept.delegate("release:test-a")
	other := h.stored(subject.Agent, "deployer", "other").open()

	got, err := h.gate.RevokeCertificate(ctx, h.admin.caller(), fingerprint(bare), "stolen")
	must(t, err)
	if got.Sessions != 3 || !got.Seen || got.Certificate.Subject != bare.id || got.Certificate.Serial != bare.serial {
		t.Errorf("revoked %+v", got)
	}
	for range 2 {
		h.refused(bare, old, oldDelegate, second)
		for _, c := range []*client{fresh, kept, keptDelegate, other} {
			c.caller()
		}
		h.reopen()
	}
	live, err := h.store.SessionsOf(ctx, bare.id)
	must(t, err)
	count(t, len(live), 2, "sessions that are left")
	for _, s := range live {
		if s.Certificate != fingerprint(fresh) {
			t.Errorf("%+v is left", s)
		}
	}
	want(t, done(h.gate.RevokeCertificate(ctx, h.admin.caller(), bare.serial, "again")), fault.Conflict)
}

// A crash after the revocation leaves rows of sessions that look alive. They
// count for nothing.
func TestRevokeCertificate_HoldsWhenSessionsCannotBeMarked(t *testing.T) {
	ctx := context.Background()
	h := newHouse(t)
	c := h.stored(subject.Agent, "deployer", "agent").open()
	d := c.delegate("release:test-a")
	h.tap.on(func(u unit.Unit) error {
		if u.Record.Type == "session.revoked" {
			return fault.Unavailablef("the power is gone")
		}
		return nil
	})
	got, err := h.gate.RevokeCertificate(ctx, h.admin.caller(), c.serial, "stolen")
	must(t, err)
	count(t, got.Sessions, 2, "sessions that end with it, marked or not")
	h.reopen()
	live, err := h.store.SessionsOf(ctx, c.id)
	must(t, err)
	count(t, len(live), 2, "rows that look alive")
	h.refused(c, d)
}

// A holder who refreshes without a pause does not hold up the revocation.
func TestRevokeCertificate_IsNotHeldUpByRefreshing(t *testing.T) {
	ctx := context.Background()
	h := newHouse(t)
	c := h.stored(subject.Agent, "deployer", "agent").open()
	h.tap.on(func(u unit.Unit) error {
		if u.Record.Type == "certificate.revoked" || u.Record.Type == "subject.revoked" {
			out, err := h.gate.RefreshSession(ctx, c.caller())
			must(t, err)
			c = c.with(out)
		}
		return nil
	})
	must(t, done(h.gate.RevokeCertificate(ctx, h.admin.caller(), c.serial, "stolen")))
	h.refused(c)
	live, err := h.store.SessionsOf(ctx, c.id)
	must(t, err)
	count(t, len(live), 0, "sessions that are left")
}

func TestRevokeCertificate_OfAnotherAuthority(t *testing.T) {
	ctx := context.Background()
	h := newHouse(t)
	agent := h.stored(subject.Agent, "deployer", "agent")
	stolen, kept, unused := h.outsider(agent, subject.Agent), h.outsider(agent, subject.Agent), h.outsider(agent, subject.Agent)
	session, keeps := stolen.open(), kept.open()
	delegate := session.delegate("release:test-a")
	count(t, len(h.records("certificate.seen")), 2, "certificates seen")
	stolen.caller()
	h.reopen()
	stolen.caller()
	count(t, len(h.records("certificate.seen")), 0, "seen again")

	got, err := h.gate.RevokeCertificate(ctx, h.admin.caller(), fingerprint(stolen), "stolen")
	must(t, err)
	if !got.Seen || got.Sessions != 2 || got.Certificate.Issuer == "" || got.Certificate.Subject != agent.id {
		t.Errorf("revoked %+v", got)
	}
	early, err := h.gate.RevokeCertificate(ctx, h.admin.caller(), fingerprint(unused), "never shown")
	must(t, err)
	if early.Seen || early.Sessions != 0 || early.Certificate.Subject != "" {
		t.Errorf("revoked %+v", early)
	}
	want(t, done(h.gate.RevokeCertificate(ctx, h.admin.caller(), fingerprint(unused), "twice")), fault.Conflict)
	for range 2 {
		h.refused(stolen, session, delegate, unused)
		kept.caller()
		keeps.caller()
		agent.caller()
		h.reopen()
	}
	shown, err := h.store.CertificatesOf(ctx, agent.id)
	must(t, err)
	count(t, len(shown), 3, "certificates of the agent, with revoked ones")
}

// Whoever holds a stolen certificate of another authority may be the first to
// show it, at the very moment in which it is revoked.
func TestRevokeCertificate_MeetsItsFirstUse(t *testing.T) {
	ctx := context.Background()
	h := newHouse(t)
	agent := h.stored(subject.Agent, "deployer", "agent")
	for name, first := range map[string]string{"use first": "certificate.revoked", "revocation first": "certificate.seen"} {
		t.Run(name, func(t *testing.T) {
			c := h.outsider(agent, subject.Agent)
			var once sync.Once
			h.tap.on(func(u unit.Unit) error {
				if u.Record.Type == first { // on its way, and the other one comes before it
					once.Do(func() {
						if first == "certificate.seen" {
							must(t, done(h.gate.RevokeCertificate(ctx, h.admin.caller(), fingerprint(c), "stolen")))
						} else {
							c.open()
						}
					})
				}
				return nil
			})
			if first == "certificate.seen" {
				h.refused(c)
			} else {
				must(t, done(h.gate.RevokeCertificate(ctx, h.admin.caller(), fingerprint(c), "stolen")))
			}
			h.refused(c)
		})
	}
	live, err := h.store.SessionsOf(ctx, agent.id)
	must(t, err)
	count(t, len(live), 0, "sessions")
}

// An operator of another authority acts with the certificate alone: what is on
// its way when it is revoked does not commit.
func TestRevokeCertificate_StopsWhatIsOnItsWay(t *testing.T) {
	ctx := context.Background()
	h := newHouse(t)
	operator := h.outsider(h.stored(subject.Operator, "administrator", "carol"), subject.Operator)
	who := operator.caller()
	h.tap.on(func(u unit.Unit) error {
		if u.Record.Type == "resource.stored" {
			must(t, done(h.gate.RevokeCertificate(ctx, h.admin.caller(), fingerprint(operator), "stolen")))
		}
		return nil
	})
	_, err := h.gate.PutResource(ctx, who, []string{"a", "b", "c"}, secret.FromString("x"))
	want(t, err, fault.Unauthenticated)
}

func TestRevokeCertificate_NamesExactlyOne(t *testing.T) {
	ctx := context.Background()
	h := newHouse(t)
	agent := h.stored(subject.Agent, "deployer", "agent")
	twin := subject.Certificate{ID: strings.Repeat("ab", 32), Version: 1, Subject: agent.id, Serial: agent.serial, Issuer: "CN=x", NotAfter: h.now().Add(hour)}
	must(t, h.store.Commit(ctx, unit.Unit{Writes: []unit.Write{unit.Insert(twin)}, Record: storetest.Record("certificate.seen")}))
	for name, kind := range map[string]fault.Kind{
		agent.serial: fault.Conflict, "00": fault.NotFound, "": fault.Invalid, "xyz": fault.Invalid, strings.Repeat("a", 41): fault.Invalid,
		strings.ToUpper(fingerprint(agent)): fault.Invalid, fingerprint(agent) + "0": fault.Invalid,
	} {
		_, err := h.gate.RevokeCertificate(ctx, h.admin.caller(), name, "")
		if !fault.Is(err, kind) {
			t.Errorf("%q: got %v", name, err)
		}
	}
	must(t, done(h.gate.RevokeCertificate(ctx, h.admin.caller(), twin.ID, "")))
	agent.caller()
}

// A subject of another kind, or one that may do nothing, gets no row.
func TestAuthenticate_MeetsOnlyWhoMayAct(t *testing.T) {
	h := newHouse(t)
	agent, locked := h.stored(subject.Agent, "deployer", "agent"), h.stored(subject.Agent, "deployer", "locked")
	h.change(locked.id, "locked")
	h.refused(h.outsider(agent, subject.Operator), h.outsider(locked, subject.Agent), h.outsider(&client{id: "01JZZZZZZZZZZZZZZZZZZZZZZZ"}, subject.Agent))
	count(t, len(h.records("certificate.seen")), 0, "certificates seen")
	h.outsider(agent, subject.Agent).caller()
	count(t, len(h.records("certificate.seen")), 1, "certificates seen")
}
