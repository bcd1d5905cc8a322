package flow

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"time"
	"unicode/utf8"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/policy"
	"github.com/sallyport-project/sallyport/internal/seal"
	"github.com/sallyport-project/sallyport/internal/secret"
	"github.com/sallyport-project/sallyport/internal/token"
)

// CredentialBackend is the name below external that vends credentials to guests.
// No external plugin can have it.
const CredentialBackend = "credentials"

// sealedCredential is what a guest finds in the message that is sealed to it.
type sealedCredential struct {
	Grant      string         `json:"grant"`
	Kind       string         `json:"kind"`
	Value      string         `json:"value"`
	PrivateKey string         `json:"private_key,omitempty"`
	Encoding   string         `json:"encoding,omitempty"` // base64 where value and private_key are no text
	Params     map[string]any `json:"params,omitempty"`
	IssuedAt   time.Time      `json:"issued_at"`
	ExpiresAt  time.Time      `json:"expires_at"`
}

// VendToGuest gives an attested workload a short-lived credential, sealed to its
// key. Two policies have to allow it: the resource policy, for the path
// external/credentials/<kind>, says whether this workload may ask at all; the
// release policy, which sees the claims of its token, says for what and for how
// long, as for every credential. Faults are those of [Gate.ReleaseResource] and
// [Gate.Vend].
func (g *Gate) VendToGuest(ctx context.Context, c Caller, attested token.Attested, r VendRequest, query map[string]string) (seal.JWE, error) {
	if err := r.validate(); err != nil {
		return seal.JWE{}, err
	}
	if attested.Key.Legacy() && !g.Guests.LegacyRSA { // nothing is issued that could not be handed out
		return seal.JWE{}, seal.ErrLegacy()
	}
	asked := &asking{gate: g, caller: c, attested: attested, request: policy.ResourceRequest{
		Plugin: "external", Path: []string{CredentialBackend, r.Kind}, Query: query, Method: c.Method,
	}}
	if err := asked.ask(ctx); err != nil {
		return seal.JWE{}, err
	}
	c.asked = asked
	c.claims = attested.Claims
	out, err := g.Vend(ctx, c, r)
	if err != nil {
		return seal.JWE{}, err
	}
	text, err := json.Marshal(out.forGuest()) //nolint:gosec // it is sealed to whom it is for
	if err != nil {
		return seal.JWE{}, fault.Wrap(err, "encode credential")
	}
	plain := secret.New(text)
	defer plain.Wipe()
	return g.sealTo(attested.Key, plain)
}

// asking is a workload's request for a credential, as the resource policy sees it.
type asking struct {
	gate       *Gate
	caller     Caller
	attested   token.Attested
	request    policy.ResourceRequest
	generation int64 // of the policies that allowed it
}

// ask demands that the resource policy allows it now.
func (a *asking) ask(ctx context.Context) error {
	g := a.gate
	under, err := g.policies.now()
	if err != nil {
		return err
	}
	d, err := patiently(ctx, func() (policy.Decision, error) {
		return under.set.ResourceAllowed(ctx, a.request, policy.Claims{Token: a.attested.ID, Members: a.attested.Claims})
	})
	if err != nil {
		return fault.Wrap(err, "decide resource")
	}
	if a.generation = under.generation; d.Allow {
		return nil
	}
	kind := a.request.Path[len(a.request.Path)-1]
	return g.refuse(ctx, audit.Record{
		Type: "grant.issued", Actor: a.caller.actor(), Subject: a.caller.Subject.ID, Policy: d.Documents, Reasons: appraised(d, a.attested),
		Data: map[string]string{"kind": kind, "token": a.attested.ID},
	}, "policy does not allow this workload to ask for credentials of this kind")
}

// under demands that the policies which allowed it are those of a decision that
// commits, and asks again where they are not: both count at the commit.
func (a *asking) under(ctx context.Context, p loaded) error {
	if a == nil || a.generation == p.generation {
		return nil
	}
	if err := a.ask(ctx); err != nil || a.generation == p.generation {
		return err
	}
	return &missedError{fault.Conflictf("the policies have changed, try again")}
}

func (v Vended) forGuest() sealedCredential {
	s := sealedCredential{
		Grant: v.Grant, Kind: v.Kind, Value: string(v.Value.Reveal()), PrivateKey: string(v.Private.Reveal()), Params: v.Params,
		IssuedAt: v.IssuedAt.UTC(), ExpiresAt: v.ExpiresAt.UTC(),
	}
	if !utf8.ValidString(s.Value) || !utf8.ValidString(s.PrivateKey) { // which JSON would change
		s.Encoding = "base64"
		s.Value = base64.StdEncoding.EncodeToString(v.Value.Reveal())
		s.PrivateKey = base64.StdEncoding.EncodeToString(v.Private.Reveal())
	}
	return s
}
