package flow_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/id"
	"github.com/sallyport-project/sallyport/internal/keys/ca"
	"github.com/sallyport-project/sallyport/internal/secret"
	"github.com/sallyport-project/sallyport/internal/store/storetest"
	"github.com/sallyport-project/sallyport/internal/subject"
	"github.com/sallyport-project/sallyport/internal/token"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// client is somebody with a key and a certificate, perhaps with a session.
type client struct {
	h      *house
	id     string
	key    *ecdsa.PrivateKey
	cert   *x509.Certificate
	serial string
	token  string
	held   token.Session
	own    crypto.Signer // a delegate's key
}

func newKey(t testing.TB) (*ecdsa.PrivateKey, []byte) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	must(t, err)
	return key, csr
}

// stored is a client that was there from the beginning.
func (h *house) stored(kind subject.Kind, role, name string) *client {
	h.t.Helper()
	key, csr := newKey(h.t)
	now := h.now().UTC().Truncate(time.Microsecond)
	s := subject.Subject{ID: id.New(), Version: 1, Kind: kind, State: subject.Registered, Role: role, Name: name, Created: now, Changed: now}
	leaf, err := h.issuer.Issue(ca.Request{CSR: csr, Subject: s.ID, Kind: string(kind)})
	must(h.t, err)
	r := storetest.Record("subject.enrolled")
	r.Subject = s.ID
	must(h.t, h.store.Commit(context.Background(), unit.Unit{Record: r, Writes: []unit.Write{unit.Insert(s), unit.Insert(subject.Certificate{
		ID: leaf.Fingerprint, Version: 1, Subject: s.ID, Serial: leaf.Serial, NotAfter: leaf.NotAfter,
	})}}))
	return &client{h: h, id: s.ID, key: key, cert: parsePEM(h.t, leaf.PEM), serial: leaf.Serial}
}

func parsePEM(t testing.TB, text string) *x509.Certificate {
	block, _ := pem.Decode([]byte(text))
	cert, err := x509.ParseCertificate(block.Bytes)
	must(t, err)
	return cert
}

const requestURL = "https://sallyport.test/v1/credentials"

// present is what the client shows: certificate, token and proof, as it has
// them.
func (c *client) present() flow.Presented {
	p := flow.Presented{Certificate: c.cert, Token: c.token, Method: "POST", URL: requestURL, Via: "rest", Address: "192.0.2.7"}
	if c.own != nil {
		proof, err := token.NewProof(c.own, p.Method, p.URL, c.token, c.h.now())
		must(c.h.t, err)
		p.Proof = proof
	}
	return p
}

func (c *client) try(g *flow.Gate) (flow.Caller, error) {
	return g.Authenticate(context.Background(), c.present())
}

// caller is the client as the gate recognises it now.
func (c *client) caller() flow.Caller {
	c.h.t.Helper()
	who, err := c.try(c.h.gate)
	must(c.h.t, err)
	return who
}

// under is the caller with an Idempotency-Key, if any, for its next call.
func under(c flow.Caller, text string) flow.Caller {
	if text == "" {
		return c
	}
	key, err := flow.NewKey(text)
	if err != nil {
		panic(err)
	}
	c.Key = key
	return c
}

// open is the client with a session.
func (c *client) open(scopes ...token.Scope) *client {
	c.h.t.Helper()
	bare := *c
	bare.token = ""
	out, err := c.h.gate.OpenSession(context.Background(), bare.caller(), scopes)
	must(c.h.t, err)
	return c.with(out)
}

func (c *client) with(o flow.Opened) *client {
	n := *c
	n.token, n.held = string(o.Token.Reveal()), o.Session
	return &n
}

// delegate is another client with a key of its own under this one's session.
func (c *client) delegate(scopes ...token.Scope) *client {
	c.h.t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	must(c.h.t, err)
	thumb, err := token.Thumbprint(public)
	must(c.h.t, err)
	out, err := c.h.gate.Delegate(context.Background(), c.caller(), token.Delegation{KeyThumb: thumb, Scopes: scopes})
	must(c.h.t, err)
	return (&client{h: c.h, id: c.id, own: private}).with(out)
}

// invite is a join token's secret for a role.
func (h *house) invite(kind subject.Kind, role, name string) secret.Bytes {
	h.t.Helper()
	out, err := h.gate.Invite(context.Background(), h.admin.caller(), flow.InviteRequest{Kind: kind, Role: role, Name: name})
	must(h.t, err)
	return out.Secret
}

// enrol brings a secret and a fresh key to the gate.
func (h *house) enrol(g *flow.Gate, s secret.Bytes, name string) (*client, error) {
	key, csr := newKey(h.t)
	out, err := g.Enrol(context.Background(), flow.EnrolRequest{Secret: s, CSR: csr, Name: name, Address: "192.0.2.9", Via: "rest"})
	if err != nil {
		return nil, err
	}
	return &client{h: h, id: out.Subject.ID, key: key, cert: parsePEM(h.t, out.Leaf.PEM), serial: out.Leaf.Serial}, nil
}

// change does something to a subject as the administrator.
func (h *house) change(of, act string) {
	h.t.Helper()
	_, err := h.gate.ChangeSubject(context.Background(), h.admin.caller(), of, flow.SubjectChange{Act: act, Reason: "test"})
	must(h.t, err)
}
