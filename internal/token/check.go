package token

import (
	"crypto/subtle"
	"crypto/x509"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/id"
)

// Presentation is what came with a session token: enough to tell whether the
// one who presents it may.
type Presentation struct {
	Certificate *x509.Certificate // verified client certificate of this connection, nil if none
	Proof       string            // DPoP header, empty if none
	Method      string            // HTTP method of the request
	URL         string            // absolute URL of the request as the client knows it
}

// Verify checks a session token: form, type, key, signature, issuer, times, and
// that whoever presents it holds what it is bound to. There is no way to ask
// for less. Revocation of the session, its parent and its subject, and the
// single use of a proof, are for the caller to check.
//
// Every refusal is Unauthenticated.
func (s *Sessions) Verify(raw string, p Presentation) (Session, error) {
	x, err := s.parse(raw)
	if err != nil {
		return Session{}, err
	}
	if x.Certificate != "" {
		if p.Certificate == nil || subtle.ConstantTimeCompare([]byte(certificateThumb(p.Certificate)), []byte(x.Certificate)) != 1 {
			return Session{}, fault.Unauthenticatedf("the session token is bound to another client certificate, open a session with this one")
		}
		x.holder = p.Certificate
	} else {
		proof, err := checkProof(p, raw, x.KeyThumb, s.cfg.Now())
		if err != nil {
			return Session{}, err
		}
		x.Proof = proof
	}
	x.ours = true
	return x, nil
}

// sessionHeader has all members that are allowed; any other, crit among them,
// is refused.
type sessionHeader struct {
	Alg  string `json:"alg"`
	Kid  string `json:"kid"`
	Type string `json:"typ"`
}

// parse checks everything but the binding.
func (s *Sessions) parse(raw string) (Session, error) {
	c, err := split(raw, MaxSession)
	if err != nil {
		return Session{}, err
	}
	var h sessionHeader
	if err := canon.Strict(c.header, MaxSession, 2, &h); err != nil {
		return Session{}, errForm(err)
	}
	if h.Type != sessionType || h.Alg != string(jose.EdDSA) {
		return Session{}, fault.Unauthenticatedf("this is no session token, open a session first")
	}
	now := s.now()
	key, ok := s.cfg.Ring.public(h.Kid, now)
	if !ok {
		return Session{}, fault.Unauthenticatedf("the session token's key is not known here, open a session again")
	}
	if err := c.verify(jose.EdDSA, key); err != nil {
		return Session{}, err
	}
	var claims sessionClaims
	if err := canon.Strict(c.payload, MaxSession, 4, &claims); err != nil {
		return Session{}, errForm(err)
	}
	if err := claims.check(s.cfg.Issuer, now); err != nil {
		return Session{}, err
	}
	scopes, err := ParseScopes(claims.Scopes)
	if err != nil {
		return Session{}, errForm(err)
	}
	return Session{
		ID: claims.ID, Subject: claims.Subject, Parent: claims.Parent, Scopes: scopes, Signer: h.Kid,
		IssuedAt: time.Unix(claims.IssuedAt, 0).UTC(), Expires: time.Unix(claims.Expires, 0).UTC(),
		Certificate: claims.Confirm.Certificate, KeyThumb: claims.Confirm.Key,
	}, nil
}

// check holds a signed payload against the rules. A token that we signed fits
// them; one that does not was signed by a key that is not ours alone, or by a
// defect.
func (c sessionClaims) check(issuer string, now time.Time) error {
	if c.Issuer != issuer {
		return fault.Unauthenticatedf("the session token comes from another issuer")
	}
	if c.Subject == "" || !id.Valid(c.ID) || c.Parent != "" && !id.Valid(c.Parent) {
		return errForm(nil)
	}
	byCertificate, byKey := c.Confirm.Certificate != "", c.Confirm.Key != ""
	switch {
	case byCertificate == byKey, // unbound, or bound twice
		byCertificate && !digest256(c.Confirm.Certificate),
		byKey && !digest256(c.Confirm.Key),
		byKey != (c.Parent != ""): // a delegate has its own key, and nobody else has
		return errForm(nil)
	}
	if c.IssuedAt <= 0 || c.NotBefore != c.IssuedAt-int64(backdate/time.Second) ||
		c.Expires <= c.IssuedAt || c.Expires-c.IssuedAt > int64(MaxLife/time.Second) {
		return errForm(nil)
	}
	if now.Unix() < c.NotBefore {
		return fault.Unauthenticatedf("the session token is not valid yet, check the clocks")
	}
	if now.Unix() >= c.Expires {
		return errExpired()
	}
	return nil
}

func errExpired() error {
	return fault.Unauthenticatedf("the session has expired, open a new one")
}
