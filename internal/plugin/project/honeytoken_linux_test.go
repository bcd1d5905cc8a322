package project

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/plugin/sandbox"
)

// The contract of the reference plugin in Python: insecure TCP, no health
// service, no controller. Packed as a project with locked wheels and as a folder
// that runs as it is, it vends, outlives many health checks, and is back after a
// kill.
func TestHoneytoken_RunsForReal(t *testing.T) {
	if err := exec.Command("/usr/bin/python3", "-m", "pip", "--version").Run(); err != nil {
		t.Skip("needs python3-pip")
	}
	source := "../testdata/honeytoken"
	text, err := os.ReadFile(filepath.Join(source, "plugin.json"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := plugin.ReadSpec(text)
	if err != nil {
		t.Fatal(err)
	}
	packed, err := Python{Folder: Folder{Dir: source, Manifest: m}, Python: "/usr/bin/python3"}.Pack(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Run("project", func(t *testing.T) { live(t, packed) })

	folder := t.TempDir()
	for _, s := range packed.Spec.Sources {
		data, err := readAll(s.Open, maxWheel)
		if err != nil {
			t.Fatal(err)
		}
		lay(t, folder, map[string]string{s.Path: string(data)})
	}
	wrapped, err := Wrap(Folder{
		Dir: folder, Manifest: packed.Spec.Manifest, Entry: []string{"python3", "src/honeytoken/server.py"}, SearchPath: []string{"src", "vendor"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Run("folder as it is", func(t *testing.T) { live(t, wrapped) })
}

// healthEvery is short enough for a test to see several checks.
const healthEvery = 50 * time.Millisecond

// live installs a package into a host of its own and lives with it.
func live(t *testing.T, c Content) {
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	trusted, err := plugin.NewKey(pub, "tester", nil, "test", time.Unix(1, 0))
	if err != nil {
		t.Fatal(err)
	}
	trust := plugin.Trust{Keys: []plugin.Key{trusted}}
	file := filepath.Join(t.TempDir(), "p.spk")
	if _, err := plugin.Build(c.Spec, file); err != nil {
		t.Fatal(err)
	}
	if _, err := plugin.Sign(file, key); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	store, err := plugin.OpenStore(filepath.Join(t.TempDir(), "plugins"))
	if err != nil {
		t.Fatal(err)
	}
	e, err := store.Install(bytes.NewReader(data), trust)
	if err != nil {
		t.Fatal(err)
	}
	row, err := plugin.NewInstalled(e, nil, "test", time.Unix(1, 0))
	if err != nil {
		t.Fatal(err)
	}
	host := hosting(t, store)
	if err := host.Sync(t.Context(), []plugin.Installed{row}, trust); err != nil {
		t.Fatal(err)
	}
	vended(t, host)
	first := host.Status()[0].PID
	for range 1000 { // each takes four calls of the plugin
		vended(t, host)
	}
	for up := time.Now(); time.Since(up) < 10*healthEvery; { // if a thousand took less than that
		vended(t, host)
	}
	if s := host.Status()[0]; s.PID != first || s.Starts != 1 || s.Failures != 0 || s.Interpreter == nil {
		t.Errorf("it did not stay up: %+v", s)
	}
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	vended(t, host)
	if s := host.Status()[0]; s.Starts != 2 || s.Crashes != 1 {
		t.Errorf("after a kill: %+v", s)
	}
}

func hosting(t *testing.T, store *plugin.Store) *plugin.Host {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	box, err := sandbox.New(sandbox.Config{Mode: sandbox.Preferred})
	if err != nil {
		t.Fatal(err)
	}
	host, err := plugin.New(plugin.Config{
		Store: store, Log: log, Sandbox: box, HealthEvery: healthEvery, CallTimeout: 30 * time.Second, StartTimeout: 30 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := host.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return host
}

// vended asks for a credential until it gets one.
func vended(t *testing.T, host *plugin.Host) {
	t.Helper()
	p, err := host.Provider("honeytoken")
	if err != nil {
		t.Fatal(err)
	}
	scope := grant.Scope{Kind: "honeytoken", Params: map[string]any{"name": "bait", "purpose": "alarm"}, TTL: time.Minute}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		issued, err := p.Issue(t.Context(), scope, grant.Bounds{Kind: "honeytoken", MaxTTL: time.Hour})
		if err == nil {
			if !strings.HasPrefix(string(issued.Value.Reveal()), "honey-") {
				t.Fatal("no honeytoken")
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v: %+v", err, host.Status())
		}
	}
}
