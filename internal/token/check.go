package token

import (
	"crypto/sha256"
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

// verified is what a token with a good signature says.
type verified struct {
	claims sessionClaims
	scopes Scopes
	signer string // kid
}

// parse checks everything but the binding. A token whose signature was checked
// before is not checked again, but its key must still count and its times fit.
func (s *Sessions) parse(raw string) (Session, error) {
	if len(raw) > MaxSession {
		return Session{}, errSize(MaxSession)
	}
	now, sum := s.now(), sha256.Sum256([]byte(raw))
	v, known := s.seen.recall(sum, now)
	if !known {
		c, err := split(raw, MaxSession)
		if err != nil {
			return Session{}, err
		}
		if v, err = s.verify(c, now); err != nil {
			return Session{}, err
		}
	} else if _, ok := s.cfg.Ring.public(v.signer, now); !ok {
		return Session{}, errSigner()
	}
	if err := v.claims.check(s.cfg.Issuer, now); err != nil {
		return Session{}, err
	}
	if !known {
		s.seen.keep(sum, sighting[verified]{said: v, at: now, weight: len(raw)})
	}
	return Session{
		ID: v.claims.ID, Subject: v.claims.Subject, Parent: v.claims.Parent, Scopes: v.scopes, Signer: v.signer,
		IssuedAt: time.Unix(v.claims.IssuedAt, 0).UTC(), Expires: time.Unix(v.claims.Expires, 0).UTC(),
		Certificate: v.claims.Confirm.Certificate, KeyThumb: v.claims.Confirm.Key,
	}, nil
}

// verify checks header and signature and reads the payload.
func (s *Sessions) verify(c compact, now time.Time) (verified, error) {
	var h sessionHeader
	if err := canon.Strict(c.header, MaxSession, 2, &h); err != nil {
		return verified{}, errForm(err)
	}
	if h.Type != sessionType || h.Alg != string(jose.EdDSA) {
		return verified{}, fault.Unauthenticatedf("this is no session token, open a session first")
	}
	key, ok := s.cfg.Ring.public(h.Kid, now)
	if !ok {
		return verified{}, errSigner()
	}
	if err := c.verify(jose.EdDSA, key); err != nil {
		return verified{}, err
	}
	v := verified{signer: h.Kid}
	if err := canon.Strict(c.payload, MaxSession, 4, &v.claims); err != nil {
		return verified{}, errForm(err)
	}
	var err error
	if v.scopes, err = ParseScopes(v.claims.Scopes); err != nil {
		return verified{}, errForm(err)
	}
	return v, nil
}

func errSigner() error {
	return fault.Unauthenticatedf("the session token's key is not known here, open a session again")
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
