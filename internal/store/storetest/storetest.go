// Package storetest is what every engine of the store must do: one suite that
// runs on SQLite and on PostgreSQL, and the small parts that tests of the store
// share.
package storetest

import (
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"database/sql"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/id"
	"github.com/sallyport-project/sallyport/internal/store"
	"github.com/sallyport-project/sallyport/internal/subject"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// Engine opens stores for the suite.
type Engine struct {
	// Config is a store of its own for this test: an empty database and
	// directory.
	Config func(t *testing.T) store.Config
	// DB is a connection behind the store's back, closed with the test.
	DB func(t *testing.T, cfg store.Config) *sql.DB
	// Backup copies the database of a closed store; what it returns brings the
	// copy back.
	Backup func(t *testing.T, cfg store.Config) func(*testing.T)
}

// MAC is a row-MAC for tests: HMAC-SHA-256 under a fixed key.
type MAC struct{}

// Sum implements store.MAC.
func (MAC) Sum(table string, columns []any) []byte {
	b := append(make([]byte, 0, 1024), table...)
	for _, c := range columns {
		switch c := c.(type) {
		case string:
			b = append(strconv.AppendInt(append(b, 's'), int64(len(c)), 10), c...)
		case int64:
			b = strconv.AppendInt(append(b, 'i'), c, 10)
		case []byte:
			b = append(strconv.AppendInt(append(b, 'b'), int64(len(c)), 10), c...)
		}
	}
	h := hmac.New(sha256.New, []byte("storetest"))
	h.Write(b)
	return h.Sum(nil)
}

// Check implements store.MAC.
func (m MAC) Check(table string, columns []any, mac []byte) error {
	if !hmac.Equal(mac, m.Sum(table, columns)) {
		return fault.Internalf("row %v of %s does not match its MAC", columns[0], table)
	}
	return nil
}

// Origin is the ledger's name in tests.
const Origin = "test.sallyport/ledger"

// NewSigner is the ledger's key in tests, always the same.
func NewSigner() (*audit.Signer, audit.Keys, error) {
	signer, err := audit.NewSigner(Origin, ed25519.NewKeyFromSeed([]byte(strings.Repeat("s", ed25519.SeedSize))))
	if err != nil {
		return nil, audit.Keys{}, err
	}
	keys, err := audit.NewKeys(signer.VerifierKey())
	return signer, keys, err
}

// Signer is [NewSigner] for a test.
func Signer(t testing.TB) (*audit.Signer, audit.Keys) {
	t.Helper()
	signer, keys, err := NewSigner()
	must(t, err)
	return signer, keys
}

// Open opens a store, hands it its keys, and closes it with the test.
func Open(t testing.TB, cfg store.Config) *store.Store {
	t.Helper()
	s, err := store.Open(context.Background(), cfg)
	must(t, err)
	t.Cleanup(func() { Close(t, s) })
	s.UseMAC(MAC{})
	signer, keys := Signer(t)
	must(t, s.UseSigner(context.Background(), signer, keys))
	return s
}

// Close closes a store; twice does no harm.
func Close(t testing.TB, s *store.Store) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		t.Errorf("close store: %v", err)
	}
}

// Running starts the integrator of a store and ends it with the test, or when
// the returned function is called.
func Running(t testing.TB, s *store.Store) func() {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var tasks sync.WaitGroup
	tasks.Go(func() {
		if err := s.Integrate(ctx); err != nil {
			t.Errorf("integrate: %v", err)
		}
	})
	var once sync.Once
	stop := func() { once.Do(func() { cancel(); tasks.Wait() }) }
	t.Cleanup(stop)
	return stop
}

// Record is a valid record of a type.
func Record(kind string) audit.Record {
	return audit.Record{
		Version: audit.Version, ID: id.New(), Type: kind, At: time.Now().UTC().Truncate(time.Microsecond),
		Outcome: audit.Done, Actor: audit.System("storetest"),
	}
}

// Subject is a fresh agent.
func Subject(name string) subject.Subject {
	now := time.Now().UTC().Truncate(time.Microsecond)
	return subject.Subject{
		ID: id.New(), Version: 1, Kind: subject.Agent, State: subject.Registered, Role: "agent", Name: name,
		Attributes: map[string]string{"a": "b"}, Created: now, Changed: now,
	}
}

// Grant is a fresh active grant for a subject.
func Grant(of string) grant.Grant {
	now := time.Now().UTC().Truncate(time.Microsecond)
	return grant.Grant{
		ID: id.New(), Version: 1, State: grant.Active, Subject: of, Session: id.New(), Kind: "ssh-user-cert",
		Scope:  grant.Scope{Kind: "ssh-user-cert", Params: map[string]any{"principals": []any{"deploy"}}, TTL: time.Hour, IssuedAt: now, ExpiresAt: now.Add(time.Hour)},
		Source: grant.Source{Plugin: "sshcert", Version: "1.0.0", Digest: "sha256:00", Effects: grant.EffectsNone},
		Handle: "7", Policy: []string{"base@1"}, IssuedAt: now, ExpiresAt: now.Add(time.Hour), DueAt: now.Add(time.Hour),
	}
}

// Issue is the unit that stores a grant.
func Issue(g grant.Grant, more ...unit.Write) unit.Unit {
	r := Record("grant.issued")
	r.Subject, r.Grant = g.Subject, g.ID
	return unit.Unit{Writes: append([]unit.Write{unit.Insert(g)}, more...), Record: r}
}

// Birth is the unit that stores a subject.
func Birth(s subject.Subject) unit.Unit {
	r := Record("subject.registered")
	r.Subject = s.ID
	return unit.Unit{Writes: []unit.Write{unit.Insert(s)}, Record: r}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("unexpected: %+v", err)
	}
}

// want demands a fault of a kind.
func want(t testing.TB, err error, kind fault.Kind) {
	t.Helper()
	if err == nil || fault.KindOf(err) != kind {
		t.Fatalf("got %v (%v), want a fault of kind %v", err, fault.KindOf(err), kind)
	}
}

// Eventually waits up to ten seconds for a condition.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("did not happen in time: %s", what)
}
