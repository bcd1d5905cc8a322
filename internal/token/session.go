package token

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/id"
	"github.com/sallyport-project/sallyport/internal/secret"
)

// Limits of session tokens.
const (
	MaxSession   = 4 << 10          // bytes of the token's text
	MaxLife      = 15 * time.Minute // of any session
	DelegateLife = 5 * time.Minute  // of a delegated session that asks for none

	backdate    = 60 * time.Second // nbf lies this far before iat: clocks of replicas differ
	sessionType = "sallyport-session+jwt"
)

// Session is what a session token says.
//
// Exactly one of Certificate and KeyThumb is set. Sessions that [Sessions]
// made or verified can be refreshed and delegated; one that was put together
// or decoded elsewhere cannot.
type Session struct {
	ID          string // jti, a ULID
	Subject     string
	Parent      string // id of the session that delegated it; empty if none
	IssuedAt    time.Time
	Expires     time.Time
	Scopes      Scopes
	Certificate string // x5t#S256 of the client certificate it is bound to (RFC 8705)
	KeyThumb    string // jkt of the delegate's key it is bound to (RFC 9449)
	Signer      string // kid of the ring key that signed it
	// Proof is the proof of possession that came with a key-bound session, for
	// the caller to use up; zero for certificate-bound ones.
	Proof Proof

	holder *x509.Certificate // of certificate-bound sessions: who opened or presented it
	ours   bool              // made or verified by Sessions
}

// Delegated reports whether another session made this one. A delegated session
// opens, refreshes and delegates nothing.
func (s Session) Delegated() bool { return s.Parent != "" }

// Allows reports whether the session's scopes permit an act.
func (s Session) Allows(verb, target string) bool { return s.Scopes.Allows(verb, target) }

// SessionsConfig is what sessions need. Every field is required.
type SessionsConfig struct {
	Issuer string           // iss, the same on every replica
	Ring   *Ring            // the one key set that signs and verifies
	Now    func() time.Time // the clock
}

// Sessions makes and verifies session tokens. Safe for concurrent use.
type Sessions struct {
	cfg  SessionsConfig
	seen seen[verified]
}

// NewSessions checks the configuration; a gap in it is Internal.
func NewSessions(cfg SessionsConfig) (*Sessions, error) {
	if cfg.Issuer == "" || cfg.Ring == nil || cfg.Now == nil {
		return nil, fault.Internalf("make sessions without issuer, ring or clock")
	}
	return &Sessions{cfg: cfg}, nil
}

// Issued is a fresh token and what it says.
type Issued struct {
	Token   secret.Bytes
	Session Session
}

// Opening asks for a session of someone who showed a client certificate. That
// the certificate is trusted and its subject active is the caller's check.
type Opening struct {
	Subject     string // id of the subject, not a name from the certificate
	Certificate *x509.Certificate
	Scopes      Scopes
	Life        time.Duration // 0 or more than MaxLife means MaxLife
}

// Open makes a session bound to a certificate; it ends no later than the
// certificate does. A certificate that is not valid now is Unauthenticated;
// missing parts are Internal.
func (s *Sessions) Open(o Opening) (Issued, error) {
	if o.Subject == "" || o.Certificate == nil || len(o.Scopes) == 0 || o.Life < 0 {
		return Issued{}, fault.Internalf("open a session without subject, certificate or scopes")
	}
	now := s.now()
	if now.Before(o.Certificate.NotBefore) || !now.Before(o.Certificate.NotAfter) {
		return Issued{}, fault.Unauthenticatedf("the client certificate is not valid now, enrol again")
	}
	return s.sign(Session{
		Subject: o.Subject, Scopes: o.Scopes, IssuedAt: now,
		Expires:     earliest(now.Add(life(o.Life, MaxLife)), o.Certificate.NotAfter),
		Certificate: certificateThumb(o.Certificate), holder: o.Certificate,
	})
}

// Refresh makes a new session with the same subject, binding and scopes. The
// caller revokes the old one in the same unit of work. A delegated session is
// Denied: who wants it longer asks the delegator.
func (s *Sessions) Refresh(old Session) (Issued, error) {
	if err := s.alive(old); err != nil {
		return Issued{}, err
	}
	if old.Delegated() || old.holder == nil {
		return Issued{}, fault.Deniedf("a delegated session cannot be refreshed, ask the delegator for another")
	}
	return s.Open(Opening{Subject: old.Subject, Certificate: old.holder, Scopes: old.Scopes})
}

// Delegation asks for a narrower session for someone else.
type Delegation struct {
	KeyThumb string // RFC 7638 thumbprint (SHA-256, base64url) of the delegate's own public key
	Scopes   Scopes
	Life     time.Duration // 0 means DelegateLife
}

// Delegate makes a session bound to the delegate's own key. It has no scope
// that the parent lacks, ends no later than the parent, and cannot delegate
// further. Too wide a scope, a parent that is delegated itself, or the parent's
// own key is Denied.
func (s *Sessions) Delegate(parent Session, d Delegation) (Issued, error) {
	if err := s.alive(parent); err != nil {
		return Issued{}, err
	}
	if parent.Delegated() || parent.holder == nil {
		return Issued{}, fault.Deniedf("a delegated session cannot delegate further")
	}
	if !digest256(d.KeyThumb) {
		return Issued{}, fault.Invalidf("a delegation must name the delegate's key by its RFC 7638 thumbprint (SHA-256, base64url)")
	}
	own, err := Thumbprint(parent.holder.PublicKey)
	if err != nil {
		return Issued{}, fault.Wrap(err, "hash the delegator's key")
	}
	if own == d.KeyThumb {
		return Issued{}, fault.Deniedf("a delegate must bring a key of its own, not the delegator's")
	}
	if len(d.Scopes) == 0 || d.Life < 0 {
		return Issued{}, fault.Invalidf("a delegation must name at least one scope and no negative life")
	}
	if !parent.Scopes.Covers(d.Scopes) {
		return Issued{}, fault.Deniedf("a delegation can only narrow: it asks for a scope that the session does not have")
	}
	now := s.now()
	return s.sign(Session{
		Subject: parent.Subject, Parent: parent.ID, Scopes: d.Scopes, IssuedAt: now,
		Expires:  earliest(now.Add(life(d.Life, DelegateLife)), parent.Expires),
		KeyThumb: d.KeyThumb,
	})
}

// alive refuses sessions that this package did not make or verify, and those
// that ended meanwhile.
func (s *Sessions) alive(x Session) error {
	if !x.ours {
		return fault.Internalf("act on a session that was not verified")
	}
	if !s.now().Before(x.Expires) {
		return errExpired()
	}
	return nil
}

// sessionClaims is the payload; every member but par is required.
type sessionClaims struct {
	Issuer    string   `json:"iss"`
	Subject   string   `json:"sub"`
	ID        string   `json:"jti"`
	IssuedAt  int64    `json:"iat"`
	NotBefore int64    `json:"nbf"`
	Expires   int64    `json:"exp"`
	Confirm   confirm  `json:"cnf"`
	Parent    string   `json:"par,omitempty"`
	Scopes    []string `json:"scp"`
}

type confirm struct {
	Certificate string `json:"x5t#S256,omitempty"`
	Key         string `json:"jkt,omitempty"`
}

func (s *Sessions) sign(x Session) (Issued, error) {
	x.ID = id.New()
	x.ours = true
	if !x.IssuedAt.Before(x.Expires) {
		return Issued{}, errExpired()
	}
	key, err := s.cfg.Ring.signer(x.IssuedAt, x.Expires)
	if err != nil {
		return Issued{}, err
	}
	x.Signer = key.ID
	payload, err := json.Marshal(sessionClaims{
		Issuer: s.cfg.Issuer, Subject: x.Subject, ID: x.ID,
		IssuedAt: x.IssuedAt.Unix(), NotBefore: x.IssuedAt.Add(-backdate).Unix(), Expires: x.Expires.Unix(),
		Confirm: confirm{x.Certificate, x.KeyThumb}, Parent: x.Parent, Scopes: x.Scopes.Strings(),
	})
	if err != nil {
		return Issued{}, fault.Wrap(err, "encode session")
	}
	opts := (&jose.SignerOptions{}).WithType(sessionType).WithHeader("kid", key.ID)
	raw, err := signCompact(jose.SigningKey{Algorithm: jose.EdDSA, Key: key.private}, opts, payload)
	if err != nil {
		return Issued{}, err
	}
	if len(raw) > MaxSession {
		return Issued{}, fault.Invalidf("the session has too many scopes for one token of %d bytes", MaxSession)
	}
	return Issued{Token: secret.FromString(raw), Session: x}, nil
}

// now is the clock in whole seconds, which is what a token can say.
func (s *Sessions) now() time.Time { return s.cfg.Now().UTC().Truncate(time.Second) }

func life(asked, otherwise time.Duration) time.Duration {
	if asked == 0 {
		asked = otherwise
	}
	return min(asked, MaxLife)
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		a = b
	}
	return a.UTC().Truncate(time.Second)
}

func certificateThumb(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return encode(sum[:])
}

func signCompact(key jose.SigningKey, opts *jose.SignerOptions, payload []byte) (string, error) {
	signer, err := jose.NewSigner(key, opts)
	if err != nil {
		return "", fault.Wrap(err, "make signer")
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		return "", fault.Wrap(err, "sign token")
	}
	raw, err := jws.CompactSerialize()
	return raw, fault.Wrap(err, "write token")
}
