//go:build amd64 || arm64

package sandbox_test

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

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/plugin/sandbox"
)

// The programs that the tests run as plugins.
var hostile, overTCP string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

// builtPrograms tells tests that run in a process of their own where the programs
// are that the first one has built.
const builtPrograms = "SALLYPORT_TEST_BOX_PROGRAMS"

func testMain(m *testing.M) int {
	if dir := os.Getenv(builtPrograms); dir != "" {
		hostile, overTCP = filepath.Join(dir, "hostile"), filepath.Join(dir, "overtcp")
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "sallyport-box-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	hostile, overTCP = filepath.Join(dir, "hostile"), filepath.Join(dir, "overtcp")
	for _, program := range []string{hostile, overTCP} {
		build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "./testdata/"+filepath.Base(program))
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build %s: %v\n%s", program, err, out)
			return 1
		}
	}
	if err := os.Setenv(builtPrograms, dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
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

func testManifest(name string) manifest.Manifest {
	return manifest.Manifest{
		Schema: manifest.Schema, Name: name, Version: "1.0.0", Publisher: "tester",
		Contract: manifest.ContractSallyport, HostAPI: manifest.Range{Min: 1, Max: 1},
		Roles: []string{manifest.RoleVender}, Kinds: []string{"hostile-" + name},
		Effects: manifest.EffectsNone, Revocation: manifest.Revocation{Needs: manifest.NeedsNone},
		Tier: manifest.TierFree, Audience: manifest.AudienceAny,
	}
}

// house is a host with hostile plugins in it.
type house struct {
	*plugin.Host
	log   *logBuffer
	store string // folder of the plugin store
}

// guest is a package to install.
type guest struct {
	m      manifest.Manifest
	binary string
}

func newHouse(t testing.TB, box plugin.Sandbox, guests ...guest) *house {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	k, err := plugin.NewKey(pub, "tester", nil, "test", time.Unix(1, 0))
	if err != nil {
		t.Fatal(err)
	}
	trust := plugin.Trust{Keys: []plugin.Key{k}}
	h := &house{log: &logBuffer{}, store: filepath.Join(t.TempDir(), "plugins")}
	store, err := plugin.OpenStore(h.store)
	if err != nil {
		t.Fatal(err)
	}
	var rows []plugin.Installed
	for n, g := range guests {
		file := filepath.Join(t.TempDir(), g.m.Name+".spk")
		spec := plugin.Spec{Manifest: g.m, Binaries: []plugin.Binary{{OS: runtime.GOOS, Arch: runtime.GOARCH, File: g.binary}}}
		if _, err := plugin.Build(spec, file); err != nil {
			t.Fatal(err)
		}
		if _, err := plugin.Sign(file, key); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		e, err := store.Install(f, trust)
		_ = f.Close()
		if err != nil {
			t.Fatal(err)
		}
		row, err := plugin.NewInstalled(e, nil, "test", time.Unix(int64(n+1), 0))
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, row)
	}
	log := slog.New(slog.NewTextHandler(h.log, nil))
	if s, ok := box.(*sandbox.Sandbox); ok {
		s.LogTo(log)
	}
	if h.Host, err = plugin.New(plugin.Config{Store: store, Log: log, Sandbox: box, CallTimeout: 30 * time.Second}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := h.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	if err := h.Sync(t.Context(), rows, trust); err != nil {
		t.Fatal(err)
	}
	return h
}

func newBox(t testing.TB) *sandbox.Sandbox { return boxOf(t, sandbox.Required) }

func preferredBox(t testing.TB) *sandbox.Sandbox { return boxOf(t, sandbox.Preferred) }

func boxOf(t testing.TB, m sandbox.Mode) *sandbox.Sandbox {
	t.Helper()
	s, err := sandbox.New(sandbox.Config{Mode: m})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// do lets a plugin try something and returns what it says of it.
func (h *house) do(t testing.TB, name, do, arg string) (string, error) {
	t.Helper()
	kind := "hostile-" + name
	p, err := h.Provider(kind)
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.Issue(t.Context(), grant.Scope{Kind: kind, Params: map[string]any{"do": do, "arg": arg}, TTL: time.Minute},
		grant.Bounds{Kind: kind, MaxTTL: time.Hour})
	if err != nil {
		return "", err
	}
	return string(out.Value.Reveal()), nil
}
