package rest

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/id"
	"github.com/sallyport-project/sallyport/internal/keys"
	"github.com/sallyport-project/sallyport/internal/keys/ca"
	"github.com/sallyport-project/sallyport/internal/keys/file"
	"github.com/sallyport-project/sallyport/internal/obs"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/policy"
	"github.com/sallyport-project/sallyport/internal/resource"
	"github.com/sallyport-project/sallyport/internal/secret"
	"github.com/sallyport-project/sallyport/internal/signal"
	"github.com/sallyport-project/sallyport/internal/subject"
	"github.com/sallyport-project/sallyport/internal/token"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

const domain = "test.example"

// gate is a small gate in memory: it recognises callers as the real one does,
// by certificates, tokens and proofs, and remembers what it was asked.
type gate struct {
	t         testing.TB
	authority *ca.Authority
	verifier  *ca.Verifier
	sessions  *token.Sessions
	records   flow.Records

	mu       sync.Mutex
	subjects map[string]subject.Subject
	revoked  map[string]bool // sessions
	proofs   map[string]bool
	invited  map[string]subject.Invitation // by secret
	vended   map[string]flow.Vended        // by key
	calls    []string
	vends    int
	fail     error // of every call but Authenticate
	lose     int   // so many vends are done and answered Unavailable
	last     any   // argument of the last call
}

func (g *gate) called(name string, arg any) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.calls = append(g.calls, name)
	g.last = arg
	return g.fail
}

func (g *gate) count(name string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for _, c := range g.calls {
		if c == name {
			n++
		}
	}
	return n
}

func (g *gate) Authenticate(_ context.Context, p flow.Presented) (flow.Caller, error) {
	c := flow.Caller{Via: p.Via, Address: p.Address, Method: p.Method, Certificate: p.Certificate}
	g.mu.Lock()
	defer g.mu.Unlock()
	if p.Certificate == nil && p.Token == "" {
		return c, fault.Unauthenticatedf("present a client certificate")
	}
	if p.Certificate != nil {
		who, err := g.verifier.Verify([]*x509.Certificate{p.Certificate}, time.Now())
		if err != nil {
			return c, err
		}
		c.Subject = g.subjects[who.SubjectID]
	}
	if p.Token != "" {
		s, err := g.sessions.Verify(p.Token, token.Presentation{Certificate: p.Certificate, Proof: p.Proof, Method: p.Method, URL: p.URL})
		if err != nil {
			return c, err
		}
		if g.revoked[s.ID] || g.revoked[s.Parent] || g.proofs[s.Proof.Use] {
			return c, fault.Unauthenticatedf("the session was revoked, or the proof was used")
		}
		if s.Proof.Use != "" {
			g.proofs[s.Proof.Use] = true
		}
		c.Session, c.Subject = s, g.subjects[s.Subject]
	}
	return c, nil
}

func (g *gate) Enrol(_ context.Context, r flow.EnrolRequest) (flow.Enrolled, error) {
	if err := g.called("Enrol", r.Name); err != nil {
		return flow.Enrolled{}, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	invited, ok := g.invited[string(r.Secret.Reveal())]
	if !ok {
		return flow.Enrolled{}, fault.Unauthenticatedf("the join token is not valid")
	}
	delete(g.invited, string(r.Secret.Reveal()))
	s := subject.Subject{ID: id.New(), Version: 1, Kind: invited.Kind, State: subject.Registered, Role: invited.Role, Name: r.Name, Created: time.Now(), Changed: time.Now()}
	g.subjects[s.ID] = s
	leaf, err := g.issue(r.CSR, s)
	return flow.Enrolled{Subject: s, Leaf: leaf}, err
}

func (g *gate) issue(csr []byte, s subject.Subject) (flow.Leaf, error) {
	leaf, err := g.authority.Issue(ca.Request{CSR: csr, Subject: s.ID, Kind: string(s.Kind)})
	return flow.Leaf{PEM: leaf.PEM, Root: g.authority.Bundle(), Serial: leaf.Serial, Fingerprint: leaf.Fingerprint, NotAfter: leaf.NotAfter}, err
}

func (g *gate) Renew(_ context.Context, c flow.Caller, csr []byte) (flow.Leaf, error) {
	if err := g.called("Renew", nil); err != nil {
		return flow.Leaf{}, err
	}
	return g.issue(csr, c.Subject)
}

func (g *gate) OpenSession(_ context.Context, c flow.Caller, scopes token.Scopes) (flow.Opened, error) {
	if err := g.called("OpenSession", scopes); err != nil {
		return flow.Opened{}, err
	}
	if c.Session.ID != "" || c.Certificate == nil {
		return flow.Opened{}, fault.Unauthenticatedf("open a session with a client certificate alone")
	}
	if len(scopes) == 0 {
		scopes = token.Scopes{"*:**"}
	}
	o, err := g.sessions.Open(token.Opening{Subject: c.Subject.ID, Certificate: c.Certificate, Scopes: scopes})
	return flow.Opened{Token: o.Token, Session: o.Session}, err
}

func (g *gate) RefreshSession(_ context.Context, c flow.Caller) (flow.Opened, error) {
	if err := g.called("RefreshSession", nil); err != nil {
		return flow.Opened{}, err
	}
	o, err := g.sessions.Refresh(c.Session)
	g.revoke(c.Session.ID)
	return flow.Opened{Token: o.Token, Session: o.Session}, err
}

func (g *gate) revoke(session string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.revoked[session] = true
}

func (g *gate) Delegate(_ context.Context, c flow.Caller, to token.Delegation) (flow.Opened, error) {
	if err := g.called("Delegate", to); err != nil {
		return flow.Opened{}, err
	}
	o, err := g.sessions.Delegate(c.Session, to)
	return flow.Opened{Token: o.Token, Session: o.Session}, err
}

func (g *gate) EndSession(_ context.Context, _ flow.Caller, sessionID, reason string) error {
	g.revoke(sessionID)
	return g.called("EndSession", sessionID+" "+reason)
}

func (g *gate) Vend(_ context.Context, c flow.Caller, r flow.VendRequest) (flow.Vended, error) {
	if err := g.called("Vend", r); err != nil {
		return flow.Vended{}, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if first, ok := g.vended[r.Key]; ok && r.Key != "" {
		first.Replayed = true
		first.Value = secret.FromString("ssh-cert-value") // the first one was wiped by its answer
		return first, nil
	}
	g.vends++
	v := flow.Vended{
		Grant: id.New(), Kind: r.Kind, Value: secret.FromString("ssh-cert-value"), Params: r.Params, IssuedAt: time.Now(),
		ExpiresAt: time.Now().Add(r.TTL), Source: grant.Source{Plugin: "sshcert", Version: "1.0.0", Digest: "sha256:00"},
		Anomalies: []grant.Anomaly{{Level: grant.Warn, Code: "WIDE", Message: "many principals"}},
	}
	if c.Session.Delegated() {
		v.Value = secret.New([]byte{0xff, 0x00, 0x01})
	}
	g.vended[r.Key] = v
	if g.lose > 0 {
		g.lose--
		return flow.Vended{}, fault.Unavailablef("the outcome is unknown")
	}
	return v, nil
}

func (g *gate) Grants(_ context.Context, _ flow.Caller, f grant.Filter) ([]grant.Grant, error) {
	if err := g.called("Grants", f); err != nil {
		return nil, err
	}
	out := []grant.Grant{}
	for range f.Limit {
		out = append(out, sampleGrant())
	}
	return out, nil
}

func sampleGrant() grant.Grant {
	return grant.Grant{
		ID: id.New(), Version: 2, State: grant.Active, Subject: "S", Session: "T", Kind: "ssh-user-cert",
		Scope:  grant.Scope{Kind: "ssh-user-cert", Params: map[string]any{"principals": []any{"deploy"}}, TTL: time.Minute},
		Source: grant.Source{Plugin: "sshcert"}, IssuedAt: time.Now(), ExpiresAt: time.Now().Add(time.Minute), Sealed: []byte("CANARY"),
	}
}

func (g *gate) Grant(_ context.Context, _ flow.Caller, id string) (grant.Grant, error) {
	return sampleGrant(), g.called("Grant", id)
}

func (g *gate) RevokeGrant(_ context.Context, _ flow.Caller, id, reason string) (flow.Match, error) {
	return flow.Match{Grant: id, State: grant.Revoked}, g.called("RevokeGrant", reason)
}

func (g *gate) Report(_ context.Context, _ flow.Caller, s signal.Signal) (flow.Reaction, error) {
	err := g.called("Report", string(s.Value.Reveal())+s.Digest)
	return flow.Reaction{Record: "R", Matches: []flow.Match{{Grant: "G", State: grant.Revoked, Tag: flow.TagRevoked}}}, err
}

func (g *gate) Invite(_ context.Context, _ flow.Caller, r flow.InviteRequest) (flow.Invited, error) {
	if err := g.called("Invite", r); err != nil {
		return flow.Invited{}, err
	}
	raw := make([]byte, 32)
	_, _ = rand.Read(raw)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.invited[string(raw)] = subject.Invitation{Kind: r.Kind, Role: r.Role}
	return flow.Invited{ID: id.New(), Secret: secret.New(raw), Expires: time.Now().Add(time.Hour)}, nil
}

func (g *gate) Subjects(_ context.Context, c flow.Caller, f subject.Filter) ([]subject.Subject, error) {
	return []subject.Subject{c.Subject}, g.called("Subjects", f)
}

func (g *gate) Subject(_ context.Context, c flow.Caller, id string) (subject.Subject, []subject.Certificate, []subject.Session, error) {
	return c.Subject, []subject.Certificate{{ID: "01"}}, []subject.Session{{ID: "T", Subject: id}}, g.called("Subject", id)
}

func (g *gate) ChangeSubject(_ context.Context, c flow.Caller, _ string, change flow.SubjectChange) (subject.Subject, error) {
	return c.Subject, g.called("ChangeSubject", change)
}

func (g *gate) RevokeCertificate(_ context.Context, _ flow.Caller, serial, reason string) error {
	return g.called("RevokeCertificate", serial+" "+reason)
}

func (g *gate) Policies(context.Context, flow.Caller) ([]policy.Document, error) {
	return []policy.Document{{Name: "base", Version: 1, Kind: policy.Sallyport}}, g.called("Policies", nil)
}

func (g *gate) PolicyVersions(_ context.Context, _ flow.Caller, name string) ([]policy.Document, error) {
	return []policy.Document{
		{Name: name, Version: 1, Kind: policy.Sallyport, Source: "old"}, {Name: name, Version: 2, Kind: policy.Sallyport, Source: "new"},
	}, g.called("PolicyVersions", name)
}

func (g *gate) SetPolicy(_ context.Context, _ flow.Caller, name string, kind policy.Kind, source string) (policy.Document, error) {
	return policy.Document{Name: name, Version: 3, Kind: kind, Source: source}, g.called("SetPolicy", source)
}

func (g *gate) RemovePolicy(_ context.Context, _ flow.Caller, name string) error {
	return g.called("RemovePolicy", name)
}

func (g *gate) ExplainPolicy(_ context.Context, _ flow.Caller, verb string, in map[string]any) (policy.Explanation, error) {
	return policy.Explanation{
		Verb: verb, Decision: policy.Decision{Allow: true, Bounds: policy.Bounds{Kind: "k", MaxTTL: time.Minute}},
		Documents: []policy.DocumentTrace{{Document: "base@1", Vote: policy.Allows, Answer: in, Rules: []policy.RuleTrace{{Rule: "release", Line: 3, Succeeded: true}}}},
	}, g.called("ExplainPolicy", in)
}

func (g *gate) Resources(_ context.Context, _ flow.Caller, prefix, after string, _ int) ([]resource.Resource, error) {
	return []resource.Resource{{ID: "a/b/c", Version: 1, Sealed: []byte("CANARY")}}, g.called("Resources", prefix+after)
}

func (g *gate) PutResource(_ context.Context, _ flow.Caller, segments []string, value secret.Bytes) (resource.Resource, error) {
	path, err := resource.ParsePath(segments)
	if err != nil {
		return resource.Resource{}, err
	}
	return resource.Resource{ID: path, Version: 1}, g.called("PutResource", string(value.Reveal()))
}

func (g *gate) DeleteResource(_ context.Context, _ flow.Caller, segments []string) error {
	return g.called("DeleteResource", segments)
}

func (g *gate) Publishers(context.Context, flow.Caller) ([]plugin.Key, error) {
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		g.t.Fatal(err)
	}
	return []plugin.Key{{ID: "k", Publisher: "p", Public: public, State: plugin.Active}}, g.called("Publishers", nil)
}

func (g *gate) TrustPublisher(_ context.Context, _ flow.Caller, publisher string, public ed25519.PublicKey, names []string) (plugin.Key, error) {
	return plugin.Key{ID: plugin.KeyID(public), Publisher: publisher, Public: public, Names: names, State: plugin.Active}, g.called("TrustPublisher", publisher)
}

func (g *gate) DistrustPublisher(_ context.Context, _ flow.Caller, keyID string) error {
	return g.called("DistrustPublisher", keyID)
}

func (g *gate) Plugins(context.Context, flow.Caller) ([]plugin.Installed, []plugin.Status, error) {
	return []plugin.Installed{{Name: "sshcert", Package: "1.0.0", State: plugin.Active}},
		[]plugin.Status{{Name: "sshcert", State: plugin.Ready}}, g.called("Plugins", nil)
}

func (g *gate) InstallPlugin(_ context.Context, _ flow.Caller, pack io.Reader) (plugin.Installed, error) {
	n, err := io.Copy(io.Discard, pack)
	if err != nil {
		return plugin.Installed{}, err
	}
	return plugin.Installed{Name: "sshcert", Package: "1.0.0"}, g.called("InstallPlugin", n)
}

func (g *gate) RemovePlugin(_ context.Context, _ flow.Caller, name string) error {
	return g.called("RemovePlugin", name)
}

func (g *gate) Audit(_ context.Context, _ flow.Caller, action string) (flow.Records, error) {
	return g.records, g.called("Audit", action)
}

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
		Gate: h.gate, Log: log, Metrics: h.metrics, Now: time.Now, Version: "0.0.0-test", Root: []byte(a.Bundle()),
		JoinToken: func(value []byte, role string, expires time.Time) (string, error) {
			text, err := ca.JoinToken{
				Address: h.server.Listener.Addr().String(), KeyHash: a.KeyHash(), Secret: secret.New(bytes.Clone(value)), Role: role,
				Expires: expires.UTC().Truncate(time.Second),
			}.Text()
			return string(text.Reveal()), err
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
	text, err := h.door.cfg.JoinToken(in.Secret.Reveal(), "deployer", in.Expires)
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

// ledger is a small ledger in memory.
type ledger struct {
	tiles  map[[2]uint64][]byte
	leaves [][]byte
	head   audit.Checkpoint
	keys   audit.Keys
}

func newLedger(t testing.TB, records int) *ledger {
	t.Helper()
	l := &ledger{tiles: map[[2]uint64][]byte{}}
	signer, err := audit.NewSigner("test.example/ledger", ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	var hashes []audit.Hash
	for range records {
		leaf, err := audit.Record{Version: 1, ID: id.New(), Type: "grant.issued", At: time.Now().UTC(), Outcome: audit.Done, Actor: audit.System("test")}.Leaf()
		if err != nil {
			t.Fatal(err)
		}
		l.leaves = append(l.leaves, leaf)
		hashes = append(hashes, audit.HashLeaf(leaf))
	}
	var tree audit.Builder
	if err := tree.Append(hashes); err != nil {
		t.Fatal(err)
	}
	for _, tile := range tree.Changed() {
		l.tiles[[2]uint64{uint64(tile.Level), tile.Index}] = tile.Data
	}
	if l.head, err = signer.Sign(tree.Size(), tree.Root()); err != nil {
		t.Fatal(err)
	}
	if l.keys, err = audit.NewKeys(signer.VerifierKey()); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *ledger) Tile(_ context.Context, level int, index uint64) ([]byte, error) {
	if data, ok := l.tiles[[2]uint64{uint64(level), index}]; ok {
		return data, nil
	}
	return nil, fault.NotFoundf("there is no such tile")
}

func (l *ledger) Leaves(_ context.Context, from uint64, n int) ([][]byte, error) {
	if from+uint64(n) > uint64(len(l.leaves)) {
		return nil, fault.NotFoundf("there are no such records")
	}
	return l.leaves[from : from+uint64(n)], nil
}

func (l *ledger) Head(context.Context) (audit.Checkpoint, error) { return l.head, nil }

func (l *ledger) Records(_ context.Context, f audit.Filter) ([]audit.Entry, error) {
	var out []audit.Entry
	n := uint64(len(l.leaves))
	if f.Newest {
		if f.From > 0 {
			n = f.From
		}
		for i := n; i > 0 && len(out) < f.Limit; i-- {
			out = append(out, audit.Entry{Position: i - 1, Leaf: l.leaves[i-1]})
		}
		return out, nil
	}
	for i := f.From; i < n && len(out) < f.Limit; i++ {
		out = append(out, audit.Entry{Position: i, Leaf: l.leaves[i]})
	}
	return out, nil
}

func (l *ledger) RecordByID(_ context.Context, id string) (audit.Entry, error) {
	for i, leaf := range l.leaves {
		if bytes.Contains(leaf, []byte(id)) {
			return audit.Entry{Position: uint64(i), Leaf: leaf}, nil
		}
	}
	return audit.Entry{}, fault.NotFoundf("there is no such record")
}
