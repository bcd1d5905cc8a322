package plugin

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/grant"
)

// fixtureBinary is built once for all tests of the package.
var fixtureBinary string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

// childHost names the fixture to a host that a test runs in a process of its
// own.
const childHost = "SALLYPORT_TEST_CHILD_HOST"

func testMain(m *testing.M) int {
	if fixtureBinary = os.Getenv(childHost); fixtureBinary != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "sallyport-fixture-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	fixtureBinary = filepath.Join(dir, "fixture")
	if err := buildFixture(fixtureBinary, ""); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if code := m.Run(); code != 0 {
		return code
	}
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, "goroutines are left:", err)
		return 1
	}
	return 0
}

// buildFixture compiles the fixture with more flags for the linker.
func buildFixture(out, flags string) error {
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w "+flags, "-o", out, "./testdata/fixture")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build fixture: %w\n%s", err, text)
	}
	return nil
}

// publisher is a test publisher with one key.
type publisher struct {
	key   ed25519.PrivateKey
	trust Trust
}

func newPublisher(t testing.TB) publisher {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	k, err := NewKey(pub, "tester", nil, "test", time.Unix(1, 0))
	if err != nil {
		t.Fatal(err)
	}
	return publisher{key, Trust{Keys: []Key{k}}}
}

func testManifest(name string) manifest.Manifest {
	m := manifest.Manifest{
		Schema: manifest.Schema, Name: name, Version: "1.0.0", Publisher: "tester",
		Contract: manifest.ContractSallyport, HostAPI: manifest.Range{Min: 1, Max: 1},
		Roles: []string{manifest.RoleVender}, Kinds: []string{"fixture-" + name},
		Effects: manifest.EffectsNone, Revocation: manifest.Revocation{Needs: manifest.NeedsNone},
		Tier: manifest.TierFree, Audience: manifest.AudienceAny,
	}
	if len(name) >= 4 && name[:4] == "akms" {
		m.Contract = manifest.ContractAgentKMS
		m.Roles = []string{manifest.RoleValidator, manifest.RoleAnalyzer, manifest.RoleSerializer, manifest.RoleVender}
		if name == "akmslean" {
			m.Roles = []string{manifest.RoleValidator, manifest.RoleVender}
		}
	}
	return m
}

// pack builds and signs a package and returns its file.
func (p publisher) pack(t testing.TB, m manifest.Manifest, binary string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), m.Name+".plugin")
	spec := Spec{Manifest: m, Binaries: []Binary{{OS: runtime.GOOS, Arch: runtime.GOARCH, File: binary}}}
	if _, err := Build(spec, out); err != nil {
		t.Fatal(err)
	}
	if _, err := Sign(out, p.key); err != nil {
		t.Fatal(err)
	}
	return out
}

// install puts a package into a store and returns its row.
func (p publisher) install(t testing.TB, s *Store, file string, at int64) Installed {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	e, err := s.Install(bytes.NewReader(data), p.trust)
	if err != nil {
		t.Fatal(err)
	}
	row, err := NewInstalled(e, nil, "test", time.Unix(at, 0))
	if err != nil {
		t.Fatal(err)
	}
	return row
}

func newStore(t testing.TB) *Store {
	t.Helper()
	s, err := OpenStore(filepath.Join(t.TempDir(), "plugins"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// logBuffer is a log that tests read.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// rig is a host with fixtures installed.
type rig struct {
	*Host
	publisher
	rows []Installed
	log  *logBuffer
}

func newRig(t testing.TB, change func(*Config), manifests ...manifest.Manifest) *rig {
	t.Helper()
	r := &rig{publisher: newPublisher(t), log: &logBuffer{}}
	cfg := Config{
		Store: newStore(t),
		Log:   slog.New(slog.NewTextHandler(r.log, nil)),
	}
	if change != nil {
		change(&cfg)
	}
	for n, m := range manifests {
		r.rows = append(r.rows, r.install(t, cfg.Store, r.pack(t, m, fixtureBinary), int64(n+1)))
	}
	var err error
	if r.Host, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := r.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	if err := r.Sync(t.Context(), r.rows, r.publisher.trust); err != nil {
		t.Fatal(err)
	}
	return r
}

// Sync waits for upgrades, too.
func (r *rig) Sync(ctx context.Context, rows []Installed, trust Trust) error {
	err := r.Host.Sync(ctx, rows, trust)
	r.Settle(ctx)
	return err
}

func (r *rig) provider(t testing.TB, kind string) grant.Provider {
	t.Helper()
	p, err := r.Provider(kind)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// warm waits until a plugin answers, however busy the machine is, so that a test
// with short limits measures the call and not the start.
func warm(t testing.TB, p grant.Provider, kind string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		_, err := p.Issue(t.Context(), ask(kind, nil), limits(kind))
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func ask(kind string, params map[string]any) grant.Scope {
	if params == nil {
		params = map[string]any{}
	}
	return grant.Scope{Kind: kind, Params: params, TTL: time.Minute}
}

func limits(kind string) grant.Bounds { return grant.Bounds{Kind: kind, MaxTTL: time.Hour} }
