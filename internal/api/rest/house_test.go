package rest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/keys"
	"github.com/sallyport-project/sallyport/internal/keys/ca"
	"github.com/sallyport-project/sallyport/internal/keys/file"
	"github.com/sallyport-project/sallyport/internal/obs"
	"github.com/sallyport-project/sallyport/internal/secret"
	"github.com/sallyport-project/sallyport/internal/subject"
	"github.com/sallyport-project/sallyport/internal/token"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

const domain = "test.example"

// house is a door with everything around it, on a real TLS listener.
type house struct {
	gate    *gate
	door    *Door
	server  *httptest.Server
	log     *bytes.Buffer
	metrics *obs.Metrics
}

func newAuthority(t testing.TB) *ca.Authority {
	t.Helper()
	kek, err := file.Create(file.Config{Path: t.TempDir() + "/kek"})
	if err != nil {
		t.Fatal(err)
	}
	v, _, err := keys.Create(t.Context(), keys.Config{KEK: kek, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	cfg := ca.Config{TrustDomain: domain, Now: time.Now}
	root, intermediate, err := ca.Found(t.Context(), v, cfg)
	if err != nil {
		t.Fatal(err)
	}
	a, err := ca.Load(t.Context(), v, []keys.Key{root, intermediate}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func newHouse(t testing.TB, change func(*Config)) *house {
	t.Helper()
	a := newAuthority(t)
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	ring, err := token.NewRing([]token.Key{{
		ID: "k1", Seed: secret.New(private.Seed()), NotBefore: time.Now().Add(-time.Hour), RetireAt: time.Now().Add(24 * time.Hour),
	}})
	if err != nil {
		t.Fatal(err)
	}
	sessions, err := token.NewSessions(token.SessionsConfig{Issuer: domain, Ring: ring, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	h := &house{log: &bytes.Buffer{}, metrics: obs.NewMetrics(), gate: &gate{
		t: t, authority: a, verifier: ca.NewVerifier(domain, a.Roots(), nil), sessions: sessions, records: newLedger(t, 600),
		subjects: map[string]subject.Subject{}, revoked: map[string]bool{}, proofs: map[string]bool{},
		invited: map[string]subject.Invitation{}, vended: map[string]flow.Vended{},
	}}
	// The intermediate comes with the chain of the handshake, whose leaf alone
	// reaches the gate.
	pair, err := ca.NewServer(a, []string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	chain, err := pair.GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	intermediate, err := x509.ParseCertificate(chain.Certificate[1])
	if err != nil {
		t.Fatal(err)
	}
	h.gate.verifier = ca.NewVerifier(domain, a.Roots(), []*x509.Certificate{intermediate})
	h.server = httptest.NewUnstartedServer(nil)
	h.server.TLS = &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*chain}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: h.gate.verifier.Pool(),
	}
	log, err := obs.NewLogger(obs.LogConfig{Writer: &locked{w: h.log}, Level: nil})
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{
		Gate: h.gate, Log: log, Metrics: h.metrics, Now: time.Now, Version: "0.0.0-test", Root: func() []byte { return []byte(a.Bundle()) },
		JoinToken: func(value []byte, role, address string, expires time.Time) (string, error) {
			text, err := ca.JoinToken{
				Address: cmp.Or(address, h.server.Listener.Addr().String()), KeyHash: a.KeyHash(), Secret: secret.New(bytes.Clone(value)), Role: role,
				Expires: expires.UTC().Truncate(time.Second),
			}.Text()
			return string(text.Reveal()), err
		},
		UploadToken: func(value []byte, id, address string, expires time.Time) (string, error) {
			text, err := ca.UploadToken{
				Address: cmp.Or(address, h.server.Listener.Addr().String()), KeyHash: a.KeyHash(), Secret: secret.New(bytes.Clone(value)), ID: id, Expires: expires,
			}.Text()
			return string(text.Reveal()), err
		},
		ReadUploadToken: func(text string) (string, secret.Bytes, bool) {
			t, _ := ca.ParseUploadToken(secret.FromString(text))
			return t.ID, t.Secret, ca.IsUploadToken(text)
		},
		SSHAuthority:   func(context.Context) ([]byte, error) { return []byte("ssh-ed25519 AAAA\n"), nil },
		SSHRevocations: func(context.Context) ([]byte, error) { return []byte("SSHKRL\n\x00"), nil },
		LedgerKeys: func(context.Context) (LedgerKeys, error) {
			return LedgerKeys{Keys: []string{"o+1+k"}, Origin: "o"}, nil
		},
		Status: func(context.Context) (Status, error) {
			return Status{Version: "0.0.0-test", Storage: "sqlite", Ready: true, Ledger: LedgerStatus{Size: 600}}, nil
		},
		Rate: 1000, Burst: 1000,
	}
	if change != nil {
		change(&cfg)
	}
	if h.door, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	h.server.Config.Handler = h.door
	h.server.StartTLS()
	t.Cleanup(h.server.Close)
	return h
}

// locked makes a buffer safe for the goroutines of a server.
type locked struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// invite opens an invitation as an operator would, and gives its join token.
func (h *house) invite(t testing.TB, kind subject.Kind) string {
	t.Helper()
	in, err := h.gate.Invite(t.Context(), flow.Caller{}, flow.InviteRequest{Kind: kind, Role: "deployer"})
	if err != nil {
		t.Fatal(err)
	}
	text, err := h.door.cfg.JoinToken(in.Secret.Reveal(), "deployer", "", in.Expires)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// newcomer enrols somebody and gives the client that acts for it.
func (h *house) newcomer(t testing.TB, kind subject.Kind) (*sallyport.Client, sallyport.Enrolment) {
	t.Helper()
	who, err := sallyport.Enrol(t.Context(), h.invite(t, kind), string(kind)+"-1")
	if err != nil {
		t.Fatal(err)
	}
	c, err := sallyport.New(sallyport.Config{URL: who.URL, Roots: who.Roots(), Certificate: &who.Certificate})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, who
}

// plain is an HTTP client with or without a certificate, for requests that no
// client of ours would send.
func (h *house) plain(who *sallyport.Enrolment) *http.Client {
	roots := x509.NewCertPool()
	for _, c := range h.gate.authority.Roots() {
		roots.AddCert(c)
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots}
	if who != nil {
		cfg.Certificates = []tls.Certificate{who.Certificate}
	}
	return &http.Client{
		Transport:     &http.Transport{TLSClientConfig: cfg, ForceAttemptHTTP2: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
