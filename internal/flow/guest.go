package flow

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/id"
	"github.com/sallyport-project/sallyport/internal/policy"
	"github.com/sallyport-project/sallyport/internal/subject"
	"github.com/sallyport-project/sallyport/internal/token"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// Challenge opens a handshake with a confidential guest. It writes nothing: what
// must be remembered travels in the sealed cookie, so that a flood of
// challenges costs neither memory nor disk, and any replica can go on.
func (g *Gate) Challenge(_ context.Context, r evidence.Request) (evidence.Challenge, string, error) {
	if g.Guests.Cookies == nil {
		return evidence.Challenge{}, "", fault.NotFoundf("this server takes no guests")
	}
	if err := g.Guests.Verifiers.Require(r.TEE); err != nil {
		return evidence.Challenge{}, "", err
	}
	nonce, err := evidence.NewNonce(nil)
	if err != nil {
		return evidence.Challenge{}, "", err
	}
	cookie, err := g.Guests.Cookies.Seal(token.Handshake{Nonce: nonce, TEE: r.TEE, Version: r.Version})
	if err != nil {
		return evidence.Challenge{}, "", err
	}
	return evidence.Challenge{Nonce: nonce}, cookie, nil
}

// Attest judges a guest's evidence and gives it an attestation result (EAR).
// Accepted or not, the nonce is used up: an attempt that was refused is
// recorded under the same unique key.
func (g *Gate) Attest(ctx context.Context, cookie string, body []byte, address string) (string, error) {
	if g.Guests.Cookies == nil || g.Guests.Results == nil {
		return "", fault.NotFoundf("this server takes no guests")
	}
	if err := g.Clock.CheckClock(ctx); err != nil {
		return "", err
	}
	handshake, err := g.Guests.Cookies.Open(cookie)
	if err != nil {
		g.strangers.add(address)
		return "", err
	}
	a := attesting{gate: g, handshake: handshake, address: address}
	raw, err := a.judge(ctx, body)
	switch {
	case err == nil:
		return raw, nil
	case fault.Is(err, fault.Unavailable) || fault.Is(err, fault.Conflict):
		return "", err
	}
	return "", a.refuse(ctx, err)
}

// attesting is one call of Attest on its way.
type attesting struct {
	gate      *Gate
	handshake token.Handshake
	address   string
}

func (a attesting) actor(id string) audit.Actor {
	return audit.Actor{Subject: id, Kind: string(subject.Workload), Via: "kbs", Address: a.address}
}

// useNonce makes the attempt the only one with this nonce.
func (a attesting) useNonce() unit.Write {
	return unit.Do("nonces.insert", 1, "this challenge was answered already, begin a new handshake",
		"kbs/"+a.handshake.Nonce.ID(), unit.Micros(a.handshake.Expires.Add(slack)))
}

// refuse records a failed attempt with its reason and uses up the nonce. Anybody
// can ask for challenges, so a flood of bad evidence is counted like every other
// refusal of a stranger, and only the nonces are used up.
func (a attesting) refuse(ctx context.Context, cause error) error {
	if !a.gate.strangers.ofEvidence() {
		a.gate.strangers.add(a.address)
		return a.spent(a.gate.Ledger.Commit(ctx, unit.Unit{Writes: []unit.Write{a.useNonce()}}), cause)
	}
	data := map[string]string{"tee": string(a.handshake.TEE)}
	if r, ok := errors.AsType[*evidence.RefusedError](cause); ok {
		data["checks"] = evidence.EncodeFindings([]evidence.Finding{{TEE: r.TEE, Checks: r.Checks}})
	}
	return a.spent(a.gate.commit(ctx, unit.Unit{
		Writes: []unit.Write{a.useNonce()},
		Record: audit.Record{
			Type: "workload.refused", Outcome: audit.Denied, Actor: a.actor(""), Reasons: []string{fault.Public(cause)},
			Data: data,
		},
	}), cause)
}

// spent is the answer to an attempt that was refused for a cause, after its
// nonce was used up.
func (a attesting) spent(err, cause error) error {
	if fault.Is(err, fault.Conflict) {
		return fault.Unauthenticatedf("this challenge was answered already, begin a new handshake").Because(cause)
	}
	if err != nil {
		return fault.Unavailablef("the refusal of this evidence could not be recorded, try again").Because(err)
	}
	return cause
}

func (a attesting) judge(ctx context.Context, body []byte) (string, error) {
	g := a.gate
	given, err := evidence.ParseAttestation(a.handshake.Version, body)
	if err != nil {
		return "", err
	}
	if !given.Answers(a.handshake.Nonce) {
		return "", fault.Unauthenticatedf("the evidence answers another challenge")
	}
	verdict, err := g.Guests.Verifiers.Verify(ctx, a.handshake.TEE, given, g.Now())
	if err != nil {
		return "", err
	}
	var raw string
	err = g.decide(ctx, nil, func() (unit.Unit, error) {
		var u unit.Unit
		raw, u, err = a.admit(ctx, verdict)
		return u, err
	})
	if fault.Is(err, fault.Conflict) {
		return "", fault.Unauthenticatedf("this challenge was answered already, begin a new handshake")
	}
	return raw, err
}

// admit appraises genuine evidence, asks policy, and says what to write.
func (a attesting) admit(ctx context.Context, verdict evidence.Verdict) (string, unit.Unit, error) {
	g := a.gate
	under, err := g.policies.now()
	if err != nil {
		return "", unit.Unit{}, err
	}
	labels, err := g.appraise(ctx, under.set, &verdict)
	if err != nil {
		return "", unit.Unit{}, err
	}
	raw, expires, err := g.Guests.Results.Mint(verdict)
	if err != nil {
		return "", unit.Unit{}, err
	}
	checked, err := g.Guests.Trust.Verify(raw)
	if err != nil {
		return "", unit.Unit{}, fault.Wrap(err, "check own attestation result")
	}
	guest, row, err := g.guest(ctx, verdict)
	if err != nil {
		return "", unit.Unit{}, err
	}
	who := Caller{Subject: guest, Via: "kbs", Address: a.address, Method: "POST"}
	record := audit.Record{
		Type: "workload.attested", Actor: a.actor(guest.ID), Subject: guest.ID, Serial: strconv.FormatInt(guest.Version, 10),
		Target: a.handshake.Nonce.ID(), Data: map[string]string{
			"tee": string(a.handshake.TEE), "status": verdict.Status().String(), "expires_at": expires.UTC().Format(time.RFC3339), "token": checked.ID,
			"checks": evidence.EncodeFindings(verdict.Findings()),
		},
	}
	d, err := g.allowed(ctx, who, "admit", record, input{
		action: "attest", claims: checked.Claims,
		evidence: map[string]any{"kind": "tee", "verified": true, "tee": string(a.handshake.TEE), "status": verdict.Status().String()},
	})
	if err != nil {
		return "", unit.Unit{}, err
	}
	record.Policy = append(d.Documents, labels...)
	return raw, unit.Unit{Record: record, Writes: []unit.Write{
		a.useNonce(), row,
		unit.Do("generations.check", 1, "the policies have changed, try again", "policy", d.under.generation),
		unit.Insert(subject.Passport{
			ID: a.handshake.Nonce.ID(), Version: 1, Subject: guest.ID, Digest: checked.ID, Token: raw, Expires: expires,
		}),
	}}, nil
}

// appraise fills the verdict's devices by the attestation policies default_cpu,
// default_gpu and so on.
func (g *Gate) appraise(ctx context.Context, set *policy.Set, verdict *evidence.Verdict) ([]string, error) {
	var labels []string
	for i := range verdict.Devices {
		d := &verdict.Devices[i]
		name := "default_" + string(d.Class)
		appraisal, err := patiently(ctx, func() (policy.Appraisal, error) {
			return set.Appraise(ctx, name, d.Annotated, g.Guests.References)
		})
		if err != nil {
			return nil, err
		}
		claims := make(map[string]any, len(appraisal.Claims))
		for k, v := range appraisal.Claims {
			claims[k] = v
		}
		if d.Vector, err = evidence.NewVector(claims); err != nil {
			return nil, err
		}
		d.Policy, d.Extensions = name, map[string]any{}
		for _, e := range appraisal.Extensions {
			d.Extensions[e.Name] = e.Value
		}
		labels = append(labels, appraisal.Document)
	}
	return labels, nil
}

// guestRole is the role of every workload: what a guest may have is decided by
// its evidence, not by a role that somebody gave it.
const guestRole = "guest"

// guest finds the workload by its key, or makes it. The id is derived from the
// key, so that the same key is the same workload for ever: one that was locked
// or revoked stays out.
func (g *Gate) guest(ctx context.Context, verdict evidence.Verdict) (subject.Subject, unit.Write, error) {
	now := g.Now().UTC().Truncate(time.Microsecond)
	thumb := verdict.Runtime.Key.Thumbprint()
	known, name := id.Derived("workload "+thumb), "tee-"+thumb
	old, err := g.Store.Subject(ctx, known)
	switch {
	case fault.Is(err, fault.NotFound):
		fresh := subject.Subject{
			ID: known, Version: 1, Kind: subject.Workload, State: subject.Attested, Role: guestRole, Name: name, Created: now, Changed: now,
		}
		return fresh, unit.Insert(fresh), fresh.Validate()
	case err != nil:
		return subject.Subject{}, unit.Write{}, fault.Wrap(err, "read workload")
	}
	next, err := old.Step("attested", "evidence accepted", now)
	if fault.Is(err, fault.Conflict) {
		return subject.Subject{}, unit.Write{}, fault.Deniedf("this workload is %s", old.State)
	}
	return next, unit.Update(next), err
}

// Guest recognises a workload by the cookie of its handshake, or by its
// attestation result.
func (g *Gate) Guest(ctx context.Context, cookie, bearer, address, method string) (Caller, token.Attested, error) {
	c, attested, err := g.recogniseGuest(ctx, cookie, bearer)
	if fault.Is(err, fault.Unauthenticated) {
		g.strangers.add(address)
	}
	c.Via, c.Address, c.Method = "kbs", address, method
	return c, attested, err
}

func (g *Gate) recogniseGuest(ctx context.Context, cookie, bearer string) (Caller, token.Attested, error) {
	none := fault.Unauthenticatedf("attest first: neither cookie nor token shows an attestation")
	if g.Guests.Cookies == nil || g.Guests.Trust == nil {
		return Caller{}, token.Attested{}, none
	}
	var passport subject.Passport
	var attested token.Attested
	var err error
	switch {
	case cookie != "":
		handshake, failed := g.Guests.Cookies.Open(cookie)
		if failed != nil {
			return Caller{}, token.Attested{}, failed
		}
		passport, err = g.Store.Passport(ctx, handshake.Nonce.ID())
	case bearer != "":
		// By the token's own name: its text as a whole has a twin.
		if attested, err = g.Guests.Trust.Verify(bearer); err != nil {
			return Caller{}, token.Attested{}, err
		}
		passport, err = g.Store.PassportByDigest(ctx, attested.ID)
	default:
		return Caller{}, token.Attested{}, none
	}
	if err != nil {
		return Caller{}, token.Attested{}, unknown(err, "read passport")
	}
	if !passport.Good(g.Now()) {
		return Caller{}, token.Attested{}, fault.Unauthenticatedf("the attestation was revoked, or has expired: attest again")
	}
	// Beside a cookie nobody has looked at the bearer token.
	if attested.ID == "" || passport.Token != bearer {
		if attested, err = g.Guests.Trust.Verify(passport.Token); err != nil {
			return Caller{}, token.Attested{}, err
		}
	}
	holder, err := g.Store.Subject(ctx, passport.Subject)
	if err != nil {
		return Caller{}, token.Attested{}, unknown(err, "read workload")
	}
	if !holder.Active() {
		return Caller{}, token.Attested{}, fault.Unauthenticatedf("the workload is %s", holder.State)
	}
	return Caller{Subject: holder}, attested, nil
}
