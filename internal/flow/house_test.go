package flow_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/keys"
	"github.com/sallyport-project/sallyport/internal/keys/ca"
	"github.com/sallyport-project/sallyport/internal/keys/file"
	"github.com/sallyport-project/sallyport/internal/notify"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/policy"
	"github.com/sallyport-project/sallyport/internal/store"
	"github.com/sallyport-project/sallyport/internal/store/storetest"
	"github.com/sallyport-project/sallyport/internal/subject"
	"github.com/sallyport-project/sallyport/internal/token"
	"github.com/sallyport-project/sallyport/internal/unit"
	"github.com/sallyport-project/sallyport/internal/verifier/sample"
)

// house is a gate on real parts: a SQLite store, keys, CA, tokens and policies.
// Only providers and channels are stand-ins.
type house struct {
	t        testing.TB
	dir      string
	ahead    atomic.Int64 // how far the clock stands ahead of the real one
	rows     []keys.Key
	vault    *keys.Vault
	mac      *keys.MAC
	peppers  *keys.Peppers
	issuer   *ca.Authority
	outside  *ca.Authority // another authority that the operator believes, if there is one
	sessions *token.Sessions
	guests   flow.Guests

	store *store.Store
	tap   *tap
	gate  *flow.Gate
	log   *journal

	vendors vendors
	phone   *phone
	admin   *client
}

func (h *house) now() time.Time { return time.Now().Add(time.Duration(h.ahead.Load())) }

// pass lets time go by.
func (h *house) pass(d time.Duration) { h.ahead.Add(int64(d)) }

// deployers are agents that may have every kind that begins with "test", within
// bounds.
const deployers = `package sallyport
admit := {"allow": true, "reasons": ["deployer"]} if {
	input.subject.role == "deployer"
	input.evidence.verified == true
}
release := {"allow": true, "bounds": {"kind": input.request.kind, "max_params": {"principals": ["deploy", "rollback"]}, "max_ttl_seconds": 900}, "reasons": ["deployer"]} if {
	input.subject.role == "deployer"
	startswith(input.request.kind, "test")
}
`

func newHouse(t testing.TB, change ...func(*flow.Config)) *house {
	t.Helper()
	h := &house{t: t, dir: t.TempDir(), log: &journal{}, vendors: vendors{}, phone: &phone{name: "phone"}}
	h.makeKeys()
	h.open()
	h.found()
	h.gate = h.newGate(change...)
	return h
}

func (h *house) makeKeys() {
	ctx, at := context.Background(), file.Config{Path: filepath.Join(h.t.TempDir(), "kek"), DataDir: h.dir}
	kek, err := file.Create(at)
	must(h.t, err)
	var root keys.Key
	h.vault, root, err = keys.Create(ctx, keys.Config{KEK: kek, Now: h.now})
	must(h.t, err)
	h.rows = append(h.rows, root)
	for _, k := range []struct {
		purpose   keys.Purpose
		algorithm keys.Algorithm
	}{{keys.RowMAC, keys.Random256}, {keys.Pepper, keys.Random256}, {keys.Token, keys.Ed25519}, {keys.EAR, keys.ECDSAP256}, {keys.Cookie, keys.Random256}} {
		row, err := h.vault.Generate(ctx, k.purpose, k.algorithm)
		must(h.t, err)
		h.rows = append(h.rows, row)
	}
	cfg := ca.Config{TrustDomain: "test.example", MaxLife: 7 * 24 * time.Hour, Now: h.now}
	top, middle, err := ca.Found(ctx, h.vault, cfg)
	must(h.t, err)
	h.rows = append(h.rows, top, middle)
	h.issuer, err = ca.Load(ctx, h.vault, h.rows, cfg)
	must(h.t, err)
	h.mac, err = keys.NewMAC(ctx, h.vault, h.ring(keys.RowMAC))
	must(h.t, err)
	h.peppers, err = keys.NewPeppers(ctx, h.vault, h.ring(keys.Pepper))
	must(h.t, err)
	h.makeTokens(ctx)
}

func (h *house) ring(p keys.Purpose) *keys.Ring {
	r, err := keys.NewRing(p, h.rows)
	must(h.t, err)
	return r
}

func (h *house) makeTokens(ctx context.Context) {
	far := h.now().AddDate(10, 0, 0)
	row, err := h.ring(keys.Token).Signing(h.now())
	must(h.t, err)
	signer, err := h.vault.Signer(ctx, row)
	must(h.t, err)
	ring, err := token.NewRing([]token.Key{{ID: row.ID, Seed: seedOf(signer), NotBefore: row.Created.Add(-hour), RetireAt: far}})
	must(h.t, err)
	h.sessions, err = token.NewSessions(token.SessionsConfig{Issuer: "test.example", Ring: ring, Now: h.now})
	must(h.t, err)
	row, err = h.ring(keys.Cookie).Signing(h.now())
	must(h.t, err)
	value, err := h.vault.Reveal(ctx, row)
	must(h.t, err)
	h.guests.Cookies, err = token.NewCookies(token.CookiesConfig{Now: h.now, Keys: []token.CookieKey{{ID: row.ID, Secret: value, NotBefore: row.Created.Add(-hour), RetireAt: far}}})
	must(h.t, err)
	row, err = h.ring(keys.EAR).Signing(h.now())
	must(h.t, err)
	signer, err = h.vault.Signer(ctx, row)
	must(h.t, err)
	h.guests.Results, err = token.NewMinter(token.MinterConfig{Key: signer, Build: "test", Now: h.now})
	must(h.t, err)
	h.guests.Trust, err = token.NewTrust(token.TrustConfig{Keys: []token.SignerKey{{Public: signer.Public()}}, Now: h.now})
	must(h.t, err)
	verifier, err := sample.New(sample.Config{Insecure: true, TEE: evidence.Sample})
	must(h.t, err)
	h.guests.Library = &shelves{verifiers: evidence.Verifiers{evidence.Sample: verifier}}
}

// open opens the store in the house's directory.
func (h *house) open() {
	st, err := store.Open(context.Background(), store.Config{Dir: h.dir, Now: h.now, Reserve: -1})
	must(h.t, err)
	h.store = st
	h.t.Cleanup(func() { storetest.Close(h.t, st) })
	st.UseMAC(h.mac)
	signer, auditors := storetest.Signer(h.t)
	must(h.t, st.UseSigner(context.Background(), signer, auditors))
	h.tap = &tap{Ledger: st}
}

// reopen closes the store and begins again from the disk, as after a crash.
func (h *house) reopen(change ...func(*flow.Config)) {
	storetest.Close(h.t, h.store)
	h.open()
	h.gate = h.newGate(change...)
}

// found stores policies and the first operator.
func (h *house) found() {
	h.admin = h.stored(subject.Operator, "administrator", "root")
	var writes []unit.Write
	for _, d := range append(policy.Installed(h.now()), policy.Document{
		Name: "deployers", Version: 1, Kind: policy.Sallyport, Source: deployers, At: h.now(), State: policy.Active,
	}) {
		writes = append(writes, unit.Insert(d), unit.Insert(policy.Edition{Document: d}))
	}
	must(h.t, h.store.Commit(context.Background(), unit.Unit{Writes: writes, Record: storetest.Record("installation.founded")}))
}

// newGate is a gate on the house's store: a second one is a second replica.
func (h *house) newGate(change ...func(*flow.Config)) *flow.Gate {
	c := flow.Config{
		Ledger: h.tap, Store: h.store, Clock: h.store, Envelope: h.vault, Pepper: h.peppers, Authority: authority{h}, Keyring: &keeper{h: h},
		Sessions: h.sessions, Providers: h.vendors, Channels: []notify.Channel{h.phone}, Guests: h.guests, Packages: noPackages{}, Repositories: noRepositories{},
		Log: slog.New(slog.NewTextHandler(h.log, &slog.HandlerOptions{Level: slog.LevelDebug})), Now: h.now,
	}
	for _, f := range change {
		f(&c)
	}
	g, err := flow.New(c)
	must(h.t, err)
	must(h.t, g.Reload(context.Background()))
	return g
}

// authority is the adapter between gate and CA, as the app has it.
type authority struct{ h *house }

func (a authority) Identify(cert *x509.Certificate) (flow.Identity, error) {
	who, err := a.h.issuer.Verify([]*x509.Certificate{cert}, a.h.now())
	issuer := ""
	if err != nil && a.h.outside != nil {
		who, err = a.h.outside.Verify([]*x509.Certificate{cert}, a.h.now())
		issuer = "CN=outside"
	}
	return flow.Identity{
		Subject: who.SubjectID, Kind: subject.Kind(who.Kind), Serial: who.Serial, Fingerprint: who.Fingerprint, Issuer: issuer, NotAfter: who.NotAfter,
	}, err
}

func (a authority) Issue(csr []byte, kind subject.Kind, of string, life time.Duration) (flow.Leaf, error) {
	leaf, err := a.h.issuer.Issue(ca.Request{CSR: csr, Subject: of, Kind: string(kind), Life: life})
	return flow.Leaf{PEM: leaf.PEM, Root: a.h.issuer.Bundle(), Serial: leaf.Serial, Fingerprint: leaf.Fingerprint, NotAfter: leaf.NotAfter}, err
}

// noRepositories takes every root for the first one, and no bundle.
type noRepositories struct{}

func (noRepositories) Pin([]byte) (int64, error) { return 1, nil }
func (noRepositories) Open(io.Reader) (flow.Bundle, error) {
	return nil, fault.Invalidf("this is no bundle")
}

// noPackages is a plugin host without plugins.
type noPackages struct{}

func (noPackages) Install(io.Reader, plugin.Trust) (plugin.Entry, error) {
	return plugin.Entry{}, fault.Deniedf("no publisher is trusted")
}

func (noPackages) Verify(string, plugin.Trust) (plugin.Entry, error) {
	return plugin.Entry{}, fault.Deniedf("no publisher is trusted")
}

func (noPackages) InstallBare(context.Context, io.Reader, plugin.Bare, plugin.Trust) (plugin.Entry, error) {
	return plugin.Entry{}, fault.Deniedf("no publisher is trusted")
}

func (noPackages) Apply(context.Context, []plugin.Installed, plugin.Trust) error { return nil }
func (noPackages) Settle(context.Context)                                        {}
func (noPackages) Status() []plugin.Status                                       { return nil }

// journal is what was logged.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(b)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.String()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("unexpected: %v", err)
	}
}

// done is for calls of which only the error counts.
func done[T any](_ T, err error) error { return err }

// want demands a fault of a kind.
func want(t testing.TB, err error, kind fault.Kind) {
	t.Helper()
	if !fault.Is(err, kind) {
		t.Fatalf("got %v (%v), want a fault of kind %v", err, fault.KindOf(err), kind)
	}
}

// patiently repeats what is temporarily unavailable: on a busy machine, under
// the race detector, a policy may take longer than a request allows it.
func patiently(do func() error) (err error) {
	for range 50 {
		if err = do(); !fault.Is(err, fault.Unavailable) {
			return err
		}
	}
	return err
}

func count(t testing.TB, got, wanted int, what string) {
	t.Helper()
	if got != wanted {
		t.Fatalf("%s: got %d, want %d", what, got, wanted)
	}
}

func TestMain(m *testing.M) { os.Exit(m.Run()) }
