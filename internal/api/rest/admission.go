package rest

import (
	"context"
	"encoding/base64"
	"encoding/pem"
	"net/http"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/secret"
	"github.com/sallyport-project/sallyport/internal/token"
)

type enrolBody struct {
	Secret string `json:"secret" doc:"The one-time secret of the join token, base64url without padding."`
	CSR    string `json:"csr" doc:"Certificate request (RFC 2986), PEM. Only its key counts."`
	Name   string `json:"name,omitempty" doc:"Wished for; a name in the invitation wins."`
}

type leafView struct {
	Certificate string    `json:"certificate" doc:"PEM, the leaf first, without the root."`
	CA          string    `json:"ca" doc:"PEM of the root."`
	Serial      string    `json:"serial" doc:"Lower-case hex."`
	NotAfter    time.Time `json:"not_after"`
}

type enrolledView struct {
	Subject     subjectView `json:"subject"`
	Certificate string      `json:"certificate" doc:"PEM, the leaf first, without the root."`
	CA          string      `json:"ca" doc:"PEM of the root."`
	Serial      string      `json:"serial" doc:"Lower-case hex."`
	NotAfter    time.Time   `json:"not_after"`
}

type renewBody struct {
	CSR string `json:"csr" doc:"Certificate request (RFC 2986), PEM, with a fresh key."`
}

type whoamiView struct {
	Subject subjectView  `json:"subject"`
	Session *sessionView `json:"session,omitempty"`
}

type openBody struct {
	Scopes []string `json:"scopes,omitempty" nullable:"false" doc:"verb:target each; none leaves it to policy alone."`
}

type delegateBody struct {
	Scopes     []string `json:"scopes" nullable:"false" doc:"Each covered by the session's own."`
	Thumbprint string   `json:"key_thumbprint" doc:"RFC 7638 thumbprint (SHA-256) of the delegate's own key, base64url."`
	TTLSeconds int64    `json:"ttl_seconds,omitempty" doc:"300 by default; never longer than the session."`
}

type openedView struct {
	Token     string      `json:"token"`
	TokenType string      `json:"token_type" enum:"Bearer,DPoP"`
	ExpiresAt time.Time   `json:"expires_at"`
	Session   sessionView `json:"session"`
}

func viewOpened(o flow.Opened) openedView {
	kind := "Bearer"
	if o.Session.Delegated() {
		kind = "DPoP"
	}
	return openedView{Token: string(o.Token.Reveal()), TokenType: kind, ExpiresAt: o.Session.Expires.UTC(), Session: viewToken(o.Session)}
}

func (d *Door) admission() []route {
	return []route{
		endpoint(route{
			id: "enrol", method: http.MethodPost, path: "/v1/enrol", tag: "admission", keyed: true, open: true, status: http.StatusCreated,
			summary: "Trade an invitation for a certificate",
			about:   "Verify the server by the authority's hash in the join token before you send the secret.",
		}, d.enrol),
		endpoint(route{
			id: "renew", method: http.MethodPost, path: "/v1/renew", tag: "admission", keyed: true, status: http.StatusCreated,
			summary: "Trade a certificate that is still good for a fresh one",
		}, d.renew),
		endpoint(route{
			id: "whoami", method: http.MethodGet, path: "/v1/whoami", tag: "admission", summary: "Tell who the caller is",
		}, d.whoami),
		endpoint(route{
			id: "open-session", method: http.MethodPost, path: "/v1/sessions", tag: "admission", keyed: true, status: http.StatusCreated, optional: true,
			summary: "Open a session with a certificate",
		}, d.openSession),
		endpoint(route{
			id: "refresh-session", method: http.MethodPost, path: "/v1/sessions/refresh", tag: "admission", keyed: true, refreshes: true, status: http.StatusCreated, optional: true,
			summary: "Exchange a session for a fresh one", about: "The old session ends at once.",
		}, d.refreshSession),
		endpoint(route{
			id: "delegate-session", method: http.MethodPost, path: "/v1/sessions/delegate", tag: "admission", keyed: true, status: http.StatusCreated,
			summary: "Make a narrower session for somebody with a key of its own",
		}, d.delegate),
		endpoint(route{
			id: "end-session", method: http.MethodDelete, path: "/v1/sessions/{id}", tag: "admission", keyed: true,
			summary: "Revoke a session and all that were delegated from it", about: "The id `current` is the caller's own session.",
			query: []param{{name: "reason", about: "At most 512 bytes."}},
		}, d.endSession),
	}
}

func (d *Door) enrol(ctx context.Context, x *exchange, in enrolBody) (enrolledView, error) {
	csr, err := derOf(in.CSR)
	if err != nil {
		return enrolledView{}, err
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(in.Secret)
	if err != nil || len(raw) == 0 {
		return enrolledView{}, fault.Invalidf("secret must be the secret of the join token, in base64url")
	}
	once := secret.New(raw)
	defer once.Wipe()
	out, err := d.cfg.Gate.Enrol(ctx, flow.EnrolRequest{
		Secret: once, CSR: csr, Name: in.Name, Address: address(x.r), Via: via, Key: x.key,
	})
	if err != nil {
		return enrolledView{}, err
	}
	leaf := viewLeaf(out.Leaf)
	return enrolledView{viewSubject(out.Subject), leaf.Certificate, leaf.CA, leaf.Serial, leaf.NotAfter}, nil
}

// derOf takes the one PEM block of a certificate request apart.
func derOf(text string) ([]byte, error) {
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE REQUEST" && block.Type != "NEW CERTIFICATE REQUEST" || !blank(rest) {
		return nil, fault.Invalidf("csr must be one PEM block of type CERTIFICATE REQUEST")
	}
	return block.Bytes, nil
}

func blank(b []byte) bool {
	for _, c := range b {
		if c != ' ' && c != '\t' && c != '\r' && c != '\n' {
			return false
		}
	}
	return true
}

func viewLeaf(l flow.Leaf) leafView {
	return leafView{Certificate: l.PEM, CA: l.Root, Serial: l.Serial, NotAfter: l.NotAfter.UTC()}
}

func (d *Door) renew(ctx context.Context, x *exchange, in renewBody) (leafView, error) {
	csr, err := derOf(in.CSR)
	if err != nil {
		return leafView{}, err
	}
	leaf, err := d.cfg.Gate.Renew(ctx, x.caller, csr)
	return viewLeaf(leaf), err
}

func (d *Door) whoami(_ context.Context, x *exchange, _ none) (whoamiView, error) {
	out := whoamiView{Subject: viewSubject(x.caller.Subject)}
	if x.caller.Session.ID != "" {
		s := viewToken(x.caller.Session)
		out.Session = &s
	}
	return out, nil
}

func (d *Door) openSession(ctx context.Context, x *exchange, in openBody) (openedView, error) {
	var scopes token.Scopes
	if len(in.Scopes) > 0 {
		var err error
		if scopes, err = token.ParseScopes(in.Scopes); err != nil {
			return openedView{}, err
		}
	}
	out, err := d.cfg.Gate.OpenSession(ctx, x.caller, scopes)
	if err != nil {
		return openedView{}, err
	}
	return viewOpened(out), nil
}

func (d *Door) refreshSession(ctx context.Context, x *exchange, _ struct{}) (openedView, error) {
	out, err := d.cfg.Gate.RefreshSession(ctx, x.caller)
	if err != nil {
		return openedView{}, err
	}
	return viewOpened(out), nil
}

func (d *Door) delegate(ctx context.Context, x *exchange, in delegateBody) (openedView, error) {
	scopes, err := token.ParseScopes(in.Scopes)
	if err != nil {
		return openedView{}, err
	}
	life, err := duration(in.TTLSeconds)
	if err != nil {
		return openedView{}, err
	}
	out, err := d.cfg.Gate.Delegate(ctx, x.caller, token.Delegation{KeyThumb: in.Thumbprint, Scopes: scopes, Life: life})
	if err != nil {
		return openedView{}, err
	}
	return viewOpened(out), nil
}

func (d *Door) endSession(ctx context.Context, x *exchange, _ none) (none, error) {
	id := x.value("id")
	if id == "current" {
		if id = x.caller.Session.ID; id == "" {
			return none{}, fault.Invalidf("this request is in no session: name the session that is to end")
		}
	}
	return none{}, d.cfg.Gate.EndSession(ctx, x.caller, id, x.query.Get("reason"))
}

// duration reads seconds, which must neither be negative nor overflow.
func duration(seconds int64) (time.Duration, error) {
	const most = 10 * 365 * 24 * 3600
	if seconds < 0 || seconds > most {
		return 0, fault.Invalidf("ttl_seconds must lie between 0 and %d", most)
	}
	return time.Duration(seconds) * time.Second, nil
}
