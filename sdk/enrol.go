package sallyport

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"net/http"
	"net/url"
	"time"
)

// Identity is a certificate with its key, and the authority behind both.
type Identity struct {
	Certificate    tls.Certificate
	CertificatePEM string // the leaf and its chain, without the root
	KeyPEM         Secret // PKCS #8
	RootPEM        string
	Serial         string // lower-case hex
	NotAfter       time.Time
}

// Roots is a pool of the one authority, for [Config].
func (i Identity) Roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(i.RootPEM))
	return pool
}

// Enrolment is a newcomer's new identity at a server.
type Enrolment struct {
	Identity
	URL     string // of the server
	Subject Subject
}

// Enrol makes a P-256 key, proves its possession, and trades a join token for a
// certificate. The name is a wish; one that the invitation fixes wins, and then
// it may be empty.
//
// The token's secret is sent only to a server whose chain leads up to the
// authority that the token names, and the answer is checked against it: no
// server is trusted on first use. The private key never leaves the process.
func Enrol(ctx context.Context, joinToken, name string) (Enrolment, error) {
	t, err := ParseJoinToken(joinToken)
	if err != nil {
		return Enrolment{}, err
	}
	now := time.Now
	if !now().Before(t.Expires) {
		return Enrolment{}, &Error{Kind: Unauthenticated, Detail: "the join token has expired: ask the operator for a new one"}
	}
	host, _, err := net.SplitHostPort(t.Address)
	if err != nil {
		return Enrolment{}, invalid("the join token has no valid address").because(err)
	}
	key, csr, err := newRequest()
	if err != nil {
		return Enrolment{}, err
	}
	var root *x509.Certificate
	security := &tls.Config{MinVersion: tls.VersionTLS13}
	pin(security, t.RootHash, host, now, &root)
	client := &Client{
		cfg:  Config{Timeout: defaultTimeout, UserAgent: userAgent, Now: now},
		base: &url.URL{Scheme: "https", Host: t.Address}, http: httpClient(security, defaultTimeout),
	}
	defer client.Close()
	body := struct {
		Secret string `json:"secret"`
		CSR    string `json:"csr"`
		Name   string `json:"name,omitempty"`
	}{t.Secret.Reveal(), csr, name}
	var out struct {
		Subject Subject `json:"subject"`
		issued
	}
	if _, err := client.do(ctx, call{method: http.MethodPost, path: "/v1/enrol", body: body, auth: bare, keyed: true}, &out); err != nil {
		return Enrolment{}, err
	}
	identity, err := out.identity(key, t.RootHash, now())
	if err != nil {
		return Enrolment{}, err
	}
	return Enrolment{Identity: identity, URL: client.base.String(), Subject: out.Subject}, nil
}

// Renew trades the client's certificate, while it is good, for one with a
// fresh key under the same authority.
func (c *Client) Renew(ctx context.Context) (Identity, error) {
	key, csr, err := newRequest()
	if err != nil {
		return Identity{}, err
	}
	body := struct {
		CSR string `json:"csr"`
	}{csr}
	var out issued
	if _, err := c.do(ctx, call{method: http.MethodPost, path: "/v1/renew", body: body, auth: bare, keyed: true}, &out); err != nil {
		return Identity{}, err
	}
	return out.identity(key, c.cfg.RootHash, c.cfg.Now())
}

// newRequest makes a key and a signing request (RFC 2986, PEM). The server
// takes nothing from it but the key.
func newRequest() (*ecdsa.PrivateKey, string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, "", &Error{Kind: Internal, Detail: "no key can be made", cause: err}
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, "", &Error{Kind: Internal, Detail: "no signing request can be made", cause: err}
	}
	return key, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), nil
}

// issued is a certificate as the server answers it.
type issued struct {
	Certificate string    `json:"certificate"`
	CA          string    `json:"ca"`
	Serial      string    `json:"serial"`
	NotAfter    time.Time `json:"not_after"`
}

// identity checks what was issued: it must hold our key and lead up to the
// authorities in the answer, one of whose keys must have the hash unless that is
// zero.
func (i issued) identity(key *ecdsa.PrivateKey, hash [sha256.Size]byte, now time.Time) (Identity, error) {
	bad := &Error{Kind: Internal, Detail: "the server issued a certificate that cannot be used"}
	chain, roots := parseChain(i.Certificate), parseChain(i.CA)
	if len(chain) == 0 || len(roots) == 0 {
		return Identity{}, bad
	}
	pool, between := x509.NewCertPool(), x509.NewCertPool()
	named := hash == ([sha256.Size]byte{})
	for _, root := range roots { // more than one while the authority changes
		got := RootHash(root)
		named = named || subtle.ConstantTimeCompare(got[:], hash[:]) == 1
		pool.AddCert(root)
	}
	if !named {
		return Identity{}, &Error{Kind: Unauthenticated, Detail: "the server names another authority than the join token"}
	}
	if public, ok := chain[0].PublicKey.(*ecdsa.PublicKey); !ok || !public.Equal(key.Public()) {
		return Identity{}, bad
	}
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	if _, err := chain[0].Verify(x509.VerifyOptions{
		Roots: pool, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}); err != nil {
		return Identity{}, bad.because(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Identity{}, bad.because(err)
	}
	pair := tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, c := range chain {
		pair.Certificate = append(pair.Certificate, c.Raw)
	}
	return Identity{
		Certificate: pair, CertificatePEM: i.Certificate, RootPEM: i.CA, Serial: i.Serial, NotAfter: i.NotAfter,
		KeyPEM: NewSecret(string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))),
	}, nil
}

// parseChain reads PEM certificates, none if anything else is among them.
func parseChain(text string) []*x509.Certificate {
	var out []*x509.Certificate
	for rest := []byte(text); len(bytes.TrimSpace(rest)) > 0; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil || block.Type != "CERTIFICATE" || len(out) == maxChain {
			return nil
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil
		}
		out = append(out, c)
	}
	return out
}
