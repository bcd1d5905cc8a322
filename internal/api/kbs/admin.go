package kbs

import (
	"net/http"
	"strings"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/token"
)

// Mode says who may administer at this door.
type Mode string

// The modes. Three of them are Trustee's, under other names.
const (
	// Operators admits those who show a client certificate, and a session token if
	// they are in a session, as every other door does.
	Operators Mode = ""
	// DenyAll refuses everybody: what is administered elsewhere cannot be changed
	// from where guests call.
	DenyAll Mode = "deny_all"
	// BearerJWT also admits whoever shows a token of a trusted issuer with a role
	// that may use the path.
	BearerJWT Mode = "bearer_jwt"
	// InsecureAllowAll admits everybody who can reach the door. For trials.
	InsecureAllowAll Mode = "insecure_allow_all"
)

// Admin says who may administer at this door. Whoever is let in by a token, or by
// nothing, acts as one operator of this server: what policy allows that operator
// bounds all of them, and to lock it locks them out.
type Admin struct {
	Mode Mode
	As   string // the operator's name; required for BearerJWT and InsecureAllowAll
	// Token judges a bearer token for a request, BearerJWT only: the fault is
	// Unauthenticated for a token that is not good, Denied for one whose role may
	// not do this. It must be safe for concurrent use.
	// Whom the token names, by iss and sub, is recorded.
	Token func(raw, path string) (token.Bearer, error)
}

// operator recognises who administers.
func (d door) operator(w http.ResponseWriter, r *http.Request) (flow.Caller, bool) {
	caller, err := d.administrator(r)
	if err != nil {
		d.fail(w, r, because(evidence.AdminAuthAccess, err))
		return flow.Caller{}, false
	}
	return caller, true
}

func (d door) administrator(r *http.Request) (flow.Caller, error) {
	p := flow.Presented{Method: r.Method, Via: "kbs", Address: address(r), Token: bearerToken(r)}
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		p.Certificate = r.TLS.PeerCertificates[0]
	}
	switch {
	case d.Admin.Mode == DenyAll:
		return flow.Caller{}, fault.Deniedf("nobody administers at this door")
	case d.origin.Check(r) != nil: // a browser shows a certificate whichever page asks it to
		return flow.Caller{}, fault.Deniedf("a page of another origin may not administer")
	case p.Certificate != nil || d.Admin.Mode == Operators:
		return d.Gate.Authenticate(r.Context(), p)
	case d.Admin.Mode == InsecureAllowAll:
		p.Via, p.Token = "kbs-anybody", ""
		return d.Gate.Deputy(r.Context(), d.Admin.As, p)
	}
	if p.Token == "" {
		return flow.Caller{}, fault.Unauthenticatedf("present the token of an administrator")
	}
	// What is allowed by path is decided on the path as it was sent: one that can
	// be written in two ways is not decided on.
	if strings.Contains(r.URL.EscapedPath(), "%") {
		return flow.Caller{}, fault.Deniedf("write the path without percent signs")
	}
	who, err := d.Admin.Token(p.Token, r.URL.Path)
	if err != nil {
		d.Gate.CountStranger(address(r))
		return flow.Caller{}, err
	}
	p.Via, p.Token, p.Issuer, p.Bearer = "kbs-token", "", who.Issuer, who.Subject
	return d.Gate.Deputy(r.Context(), d.Admin.As, p)
}
