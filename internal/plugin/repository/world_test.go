package repository

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/plugin"
)

// world is a publisher with a repository, and a clock.
type world struct {
	t    *testing.T
	at   time.Time
	dir  *Dir
	seen plugin.Seen // of the client
}

// key makes a key that is the same in every run.
func key(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func pub(names ...string) []ed25519.PublicKey {
	var out []ed25519.PublicKey
	for _, n := range names {
		out = append(out, key(n).Public().(ed25519.PublicKey))
	}
	return out
}

// all are the private keys of names.
func all(names ...string) Keys {
	var list []ed25519.PrivateKey
	for _, n := range names {
		list = append(list, key(n))
	}
	return NewKeys(list...)
}

var (
	offline = []string{"root1", "root2", "targets1", "targets2"}
	online  = []string{"snapshot", "timestamp", "uploads"}
	every   = append(append([]string{}, offline...), online...)
)

func plan() Plan {
	return Plan{
		Root:    Holders{pub("root1", "root2", "root3"), 2},
		Targets: Holders{pub("targets1", "targets2", "targets3"), 2}, Snapshot: Holders{Keys: pub("snapshot")},
		Timestamp: Holders{Keys: pub("timestamp")}, Uploads: Holders{Keys: pub("uploads")}, UploadNames: []string{"up-*"},
	}
}

// newWorld makes a repository whose root a client has pinned.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, at: time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)}
	d, s, err := Init(context.Background(), filepath.Join(t.TempDir(), "repo"), plan(), all(every...), w.now)
	if err != nil {
		t.Fatal(err)
	}
	if s.Reason != plugin.ReasonOK || len(s.Staged) != 0 {
		t.Fatalf("a new repository is %+v", s)
	}
	w.dir = d
	if w.seen.Root, err = d.read("metadata/1.root.json", maxRoot); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) now() time.Time { return w.at }

// pack makes a signed package.
func pack(t *testing.T, name, version string) string {
	t.Helper()
	dir := t.TempDir()
	bin, out := filepath.Join(dir, "bin"), filepath.Join(dir, name+"-"+version+".spk")
	if err := os.WriteFile(bin, []byte(fmt.Sprintf("%s %s %s", name, version, t.Name())), 0o755); err != nil {
		t.Fatal(err)
	}
	m := manifest.Manifest{
		Name: name, Version: version, Publisher: "acme", Contract: manifest.ContractSallyport, HostAPI: manifest.Range{Min: 1, Max: 1},
		Roles: []string{manifest.RoleVender}, Kinds: []string{name}, Effects: "none", Revocation: manifest.Revocation{Needs: "none"},
		Tier: "Free", Audience: "any", Summary: "The package " + name,
	}
	spec := plugin.Spec{Manifest: m, Binaries: []plugin.Binary{{OS: runtime.GOOS, Arch: runtime.GOARCH, File: bin}}}
	if _, err := plugin.Build(spec, out); err != nil {
		t.Fatal(err)
	}
	if _, err := plugin.Sign(out, key("publisher")); err != nil {
		t.Fatal(err)
	}
	return out
}

// publish puts a package into the repository.
func (w *world) publish(name, version string) plugin.Release {
	w.t.Helper()
	_, r, err := w.dir.Publish(context.Background(), pack(w.t, name, version), RoleTargets, all(every...))
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// walk is what the client does.
func (w *world) walk(get Getter) (View, error) {
	return Walk(context.Background(), w.seen, get, w.at)
}

// look walks, and remembers what it saw.
func (w *world) look() View {
	w.t.Helper()
	v, err := w.walk(w.get)
	if err != nil {
		w.t.Fatal(err)
	}
	w.seen = v.Seen
	return v
}

func (w *world) get(ctx context.Context, name string, limit int64) ([]byte, error) {
	return From(folder(w.dir.path))(ctx, name, limit)
}
