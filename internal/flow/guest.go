package flow

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/policy"
	"github.com/sallyport-project/sallyport/internal/seal"
	"github.com/sallyport-project/sallyport/internal/secret"
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
	m, err := g.references.now()
	if err != nil {
		return evidence.Challenge{}, "", err
	}
	if err := g.Guests.with(m.verifiers).Require(r.TEE); err != nil {
		return evidence.Challenge{}, "", err
	}
	selected, known := g.Guests.Selectors[r.Selector]
	if r.Selector != "" && !known {
		return evidence.Challenge{}, "", fault.Invalidf("this server has no attestation policies for the selector of the request")
	}
	nonce, err := evidence.NewNonce(nil)
	if err != nil {
		return evidence.Challenge{}, "", err
	}
	cookie, err := g.Guests.Cookies.Seal(token.Handshake{Nonce: nonce, TEE: r.TEE, Version: r.Version, Policy: selected})
	if err != nil {
		return evidence.Challenge{}, "", err
	}
	return evidence.Challenge{Nonce: nonce}, cookie, nil
}

// GuestTEE is the kind of evidence that a handshake is about, for counting; empty
// if the cookie is not valid.
func (g *Gate) GuestTEE(cookie string) evidence.TEE {
	if g.Guests.Cookies == nil {
		return ""
	}
	h, err := g.Guests.Cookies.Open(cookie)
	if err != nil {
		return ""
	}
	return h.TEE
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
		"kbs/"+a.handshake.ID(), unit.Micros(a.handshake.Expires.Add(slack)))
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
	if given.Runtime.Key.Legacy() && !g.Guests.LegacyRSA {
		return "", seal.ErrLegacy()
	}
	verdict, by, err := a.verify(ctx, given)
	if err != nil {
		return "", err
	}
	var raw string
	err = g.decide(ctx, nil, func() (unit.Unit, error) {
		// What was revoked meanwhile, on any replica, counts.
		if m, err := g.references.now(); err != nil || m.generation != by.generation {
			if verdict, by, err = a.verify(ctx, given); err != nil {
				return unit.Unit{}, err
			}
		}
		var u unit.Unit
		raw, u, err = a.admit(ctx, verdict, by)
		return u, err
	})
	if fault.Is(err, fault.Conflict) {
		return "", fault.Unauthenticatedf("this challenge was answered already, begin a new handshake")
	}
	return raw, err
}

// admit appraises genuine evidence, asks policy, and says what to write.
func (a attesting) admit(ctx context.Context, verdict evidence.Verdict, by material) (string, unit.Unit, error) {
	g := a.gate
	under, err := g.policies.now()
	if err != nil {
		return "", unit.Unit{}, err
	}
	labels, err := g.appraise(ctx, under.set, a.handshake.Policy, &verdict, by)
	if err != nil {
		return "", unit.Unit{}, err
	}
	raw, expires, err := g.Guests.Results.Mint(verdict)
	if err != nil {
		return "", unit.Unit{}, err
	}
	checked, err := g.Guests.Trust.VerifyKept(raw)
	if err != nil {
		return "", unit.Unit{}, fault.Wrap(err, "check own attestation result")
	}
	guest, row, err := g.guest(ctx, verdict.Runtime.Key)
	if err != nil {
		return "", unit.Unit{}, err
	}
	who := Caller{Subject: guest, Via: "kbs", Address: a.address, Method: "POST"}
	record := audit.Record{
		Type: "workload.attested", Actor: a.actor(guest.ID), Subject: guest.ID, Serial: strconv.FormatInt(guest.Version, 10),
		Target: a.handshake.ID(), Data: map[string]string{
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
		a.useNonce(), row, g.references.same(by),
		unit.Do("generations.check", 1, "the policies have changed, try again", "policy", d.under.generation),
		unit.Insert(subject.Passport{
			ID: a.handshake.ID(), Version: 1, Subject: guest.ID, Digest: checked.ID, Token: raw, Expires: expires,
		}),
	}}, nil
}

// sealTo seals a secret to an attested key.
func (g *Gate) sealTo(key seal.PublicKey, plain secret.Bytes) (seal.JWE, error) {
	if g.Guests.LegacyRSA {
		return seal.SealLegacy(key, plain)
	}
	return seal.Seal(key, plain, nil)
}

// appraise fills the verdict's devices by the attestation policies of the
// selected set: default_cpu, default_gpu and so on, where none was selected.
func (g *Gate) appraise(ctx context.Context, set *policy.Set, selected string, verdict *evidence.Verdict, by material) ([]string, error) {
	if selected == "" {
		selected = "default"
	}
	var labels []string
	for i := range verdict.Devices {
		d := &verdict.Devices[i]
		name := selected + "_" + string(d.Class)
		appraisal, err := patiently(ctx, func() (policy.Appraisal, error) {
			return set.Appraise(ctx, name, d.Annotated, by)
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
