package sallyport

import (
	"context"
	"crypto/x509"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Session is an open session. It is a secret as a whole.
type Session struct {
	Token     Secret      `json:"token"`
	TokenType string      `json:"token_type"` // Bearer, or DPoP for a delegated one
	ExpiresAt time.Time   `json:"expires_at"`
	Session   SessionInfo `json:"session"`

	// ObtainedAt is when this client got it, by its own clock. A [SessionCache]
	// keeps it.
	ObtainedAt time.Time `json:"-"`
}

// SessionInfo is what the server knows of a session. Scopes, IssuedAt and
// Delegated are set for the caller's own one only.
type SessionInfo struct {
	ID        string    `json:"id"`
	Subject   string    `json:"subject,omitempty"`
	Parent    string    `json:"parent,omitempty"`
	Bound     string    `json:"certificate,omitempty"` // fingerprint of the certificate with which it ends
	Scopes    []string  `json:"scopes,omitempty"`
	IssuedAt  time.Time `json:"issued_at,omitzero"`
	ExpiresAt time.Time `json:"expires_at"`
	RevokedAt time.Time `json:"revoked_at,omitzero"`
	Reason    string    `json:"reason,omitempty"`
	Delegated bool      `json:"delegated,omitempty"`
}

// fresh reports whether the session is within the first 80 % of its life, by
// the caller's clock.
func (s *Session) fresh(now time.Time) bool {
	if s == nil || s.Token.Empty() {
		return false
	}
	life := s.ExpiresAt.Sub(s.Session.IssuedAt)
	if s.Session.IssuedAt.IsZero() || s.ObtainedAt.IsZero() || life <= 0 {
		return false
	}
	age := now.Sub(s.ObtainedAt)
	return age >= 0 && age < life*8/10
}

// OpenSession opens a session with the client's certificate, narrowed to the
// scopes if there are any. Calls of this client do not use it: they open their
// own.
func (c *Client) OpenSession(ctx context.Context, scopes []string) (Session, error) {
	body := struct {
		Scopes []string `json:"scopes,omitempty"`
	}{scopes}
	return c.opened(ctx, call{method: http.MethodPost, path: "/v1/sessions", body: body, auth: bare, keyed: true})
}

// RefreshSession exchanges the session that the client acts with for a fresh
// one and uses that from now on. The old one ends at once, for everybody who
// shares it.
func (c *Client) RefreshSession(ctx context.Context) (Session, error) {
	s, err := c.opened(ctx, call{method: http.MethodPost, path: "/v1/sessions/refresh", body: struct{}{}, keyed: true})
	if err != nil {
		return Session{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cfg.Token.Empty() {
		c.session = &s
		if c.cfg.Sessions != nil {
			err = c.cfg.Sessions.Store(ctx, &s)
		}
	}
	return s, err
}

// DelegateRequest asks for a narrower session for somebody else.
type DelegateRequest struct {
	Scopes        []string      // at least one, each covered by the session's own
	KeyThumbprint string        // of the delegate's public key, see [Thumbprint]
	TTL           time.Duration // five minutes if zero; never longer than the session
}

// Delegate makes a session for a delegate, who acts with it in a client whose
// Config has Token and Key.
func (c *Client) Delegate(ctx context.Context, r DelegateRequest) (Session, error) {
	body := struct {
		Scopes     []string `json:"scopes"`
		Thumbprint string   `json:"key_thumbprint"`
		TTL        int64    `json:"ttl_seconds,omitempty"`
	}{r.Scopes, r.KeyThumbprint, seconds(r.TTL)}
	return c.opened(ctx, call{method: http.MethodPost, path: "/v1/sessions/delegate", body: body, keyed: true})
}

// EndSession revokes a session and all that were delegated from it. The id
// "current" is the session that the client acts with.
func (c *Client) EndSession(ctx context.Context, id, reason string) error {
	_, err := c.do(ctx, call{
		method: http.MethodDelete, path: join("/v1/sessions/{}", id), query: set("reason", reason),
		keyed: id != "current", again: true, // who has ended its own cannot ask for the first answer in it
	}, nil)
	if err != nil || id != "current" {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.session = nil
	if c.cfg.Sessions != nil {
		return c.cfg.Sessions.Store(ctx, nil)
	}
	return nil
}

func (c *Client) opened(ctx context.Context, r call) (Session, error) {
	var s Session
	if _, err := c.do(ctx, r, &s); err != nil {
		return Session{}, err
	}
	s.ObtainedAt = c.cfg.Now()
	return s, nil
}

// authorise gives the session that a call shows, opening one if needed; nil if
// it shows none.
func (c *Client) authorise(ctx context.Context, r call) (*Session, error) {
	if r.auth == bare {
		return nil, nil
	}
	if !c.cfg.Token.Empty() {
		return &Session{Token: c.cfg.Token}, nil
	}
	if ok, err := c.opens(); err != nil || !ok {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session == nil && c.cfg.Sessions != nil {
		kept, err := c.cfg.Sessions.Load(ctx)
		if err != nil {
			return nil, err
		}
		c.session = kept
	}
	if c.session.fresh(c.cfg.Now()) {
		return c.session, nil
	}
	// The key of the context is for the call that the session is opened for.
	s, err := c.OpenSession(WithIdempotencyKey(ctx, ""), c.cfg.Scopes)
	if err != nil {
		return nil, err
	}
	c.session = &s
	if c.cfg.Sessions != nil {
		if err := c.cfg.Sessions.Store(ctx, &s); err != nil {
			return nil, err
		}
	}
	return c.session, nil
}

// forget drops a session that the server did not take, unless another call has
// replaced it already.
func (c *Client) forget(ctx context.Context, s *Session) error {
	if !c.cfg.Token.Empty() {
		return nil // a proof may have been too late; another token there is not
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session == nil || c.session.Token != s.Token {
		return nil
	}
	c.session = nil
	if c.cfg.Sessions != nil {
		return c.cfg.Sessions.Store(ctx, nil)
	}
	return nil
}

// opens reports whether calls go under a session of the client's own: always
// but for an operator without scopes.
func (c *Client) opens() (bool, error) {
	if len(c.cfg.Scopes) > 0 {
		return true, nil
	}
	pair := c.cfg.Certificate
	if c.cfg.ClientCertificate != nil {
		var err error
		if pair, err = c.cfg.ClientCertificate(); err != nil {
			return false, err
		}
	}
	if pair == nil || len(pair.Certificate) == 0 {
		return false, nil
	}
	leaf := pair.Leaf
	if leaf == nil {
		var err error
		if leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
			return false, invalid("the client certificate cannot be read").because(err)
		}
	}
	for _, uri := range leaf.URIs { // spiffe://<trust domain>/<kind>/<id>
		if uri.Scheme == "spiffe" && strings.HasPrefix(uri.Path, "/operator/") {
			return false, nil
		}
	}
	return true, nil
}

// show adds the session and its proof to a request.
func (c *Client) show(req *http.Request, r call, s *Session) error {
	if s == nil {
		return nil
	}
	if c.cfg.Key == nil {
		req.Header.Set("Authorization", "Bearer "+s.Token.Reveal())
		return nil
	}
	target := url.URL{Scheme: req.URL.Scheme, Host: req.URL.Host, Path: req.URL.Path, RawPath: req.URL.RawPath}
	proof, err := NewProof(c.cfg.Key, r.method, target.String(), s.Token, c.cfg.Now())
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "DPoP "+s.Token.Reveal())
	req.Header.Set("DPoP", proof)
	return nil
}

func seconds(d time.Duration) int64 { return int64(d / time.Second) }

// set makes a query of those pairs whose value is not empty.
func set(pairs ...string) url.Values {
	q := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	return q
}
