package local

import (
	"crypto/ed25519"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
)

// desk is a home, and a publisher whom it trusts.
type desk struct {
	*Home
	t   *testing.T
	key ed25519.PrivateKey
}

func newDesk(t *testing.T) desk {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	d := desk{At(filepath.Join(t.TempDir(), "cli"), time.Now), t, private}
	if _, err := d.Trust(Key{Publisher: "acme", Public: public}); err != nil {
		t.Fatal(err)
	}
	return d
}

// pack makes a signed package with a command.
func (d desk) pack(name, version, command string, change func(*manifest.Manifest)) string {
	d.t.Helper()
	m := manifest.Manifest{
		Schema: manifest.Schema, Name: name, Version: version, Publisher: "acme", Contract: manifest.ContractSallyport,
		HostAPI: manifest.Range{Min: 1, Max: 1}, Roles: []string{manifest.RoleCLI}, Commands: []manifest.Command{{Name: command, Help: "help"}},
		Effects: manifest.EffectsNone, Revocation: manifest.Revocation{Needs: manifest.NeedsNone}, Tier: manifest.TierFree, Audience: manifest.AudienceAny,
	}
	spec := plugin.Spec{Manifest: m}
	dir := d.t.TempDir()
	for _, f := range []struct{ side, text string }{{manifest.ForCLI, "for the command line"}, {manifest.ForServer, "for a server"}} {
		file := filepath.Join(dir, f.side)
		if err := os.WriteFile(file, []byte(f.text+version), 0o600); err != nil {
			d.t.Fatal(err)
		}
		spec.Binaries = append(spec.Binaries, plugin.Binary{OS: runtime.GOOS, Arch: runtime.GOARCH, File: file, Path: name + "-" + f.side, For: f.side})
	}
	if change != nil {
		change(&spec.Manifest)
	}
	out := filepath.Join(dir, name+".spk")
	if _, err := plugin.Build(spec, out); err != nil {
		d.t.Fatal(err)
	}
	if _, err := plugin.Sign(out, d.key); err != nil {
		d.t.Fatal(err)
	}
	return out
}

func (d desk) install(file string, r Request) (Tool, error) {
	d.t.Helper()
	f, err := os.Open(file)
	if err != nil {
		d.t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	return d.Install(f, r)
}

func TestHome_UnpacksWhatIsForTheCommandLine(t *testing.T) {
	d := newDesk(t)
	if _, err := d.install(d.pack("tags", "1.0.0", "tag", nil), Request{}); err != nil {
		t.Fatal(err)
	}
	found := 0
	err := filepath.WalkDir(d.dir, func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			text, rerr := os.ReadFile(path)
			if strings.Contains(string(text), "for a server1") {
				t.Errorf("%s is for a server", path)
			}
			if strings.Contains(string(text), "for the command line1") {
				found++
			}
			return rerr
		}
		return err
	})
	if err != nil || found != 1 {
		t.Fatalf("%d, %v", found, err)
	}
	tool, row, err := d.Tool("tags")
	if err != nil || row.Commands[0].Name != "tag" {
		t.Fatal(row, err)
	}
	tool.Close()
}

func TestHome_LetsNoCommandBeShadowed(t *testing.T) {
	d := newDesk(t)
	if _, err := d.install(d.pack("tags", "1.0.0", "tag", nil), Request{}); err != nil {
		t.Fatal(err)
	}
	_, err := d.install(d.pack("other", "1.0.0", "tag", nil), Request{})
	if !fault.Is(err, fault.Conflict) || plugin.ReasonOf(err) != plugin.ReasonConflict ||
		!strings.Contains(err.Error(), "tags") || !strings.Contains(err.Error(), "other") {
		t.Errorf("another plugin's command: %v", err)
	}
	taken := func(name string) string { return map[string]string{"auth": "the built-in command auth"}[name] }
	if _, err := d.install(d.pack("evil", "1.0.0", "auth", nil), Request{Taken: taken}); !fault.Is(err, fault.Conflict) {
		t.Errorf("a built-in command: %v", err)
	}
	st, err := d.Read()
	if err != nil || len(st.Active()) != 1 {
		t.Fatalf("%+v, %v", st.Active(), err)
	}
	if err := d.Remove("tags"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.install(d.pack("other", "1.0.0", "tag", nil), Request{}); err != nil {
		t.Errorf("after the first was removed: %v", err)
	}
}

func TestHome_KeepsARemovedVersionFromComingBack(t *testing.T) {
	d := newDesk(t)
	old, next := d.pack("tags", "1.0.0", "tag", nil), d.pack("tags", "1.1.0", "tag", nil)
	for _, f := range []string{old, next} {
		if _, err := d.install(f, Request{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.install(old, Request{}); plugin.ReasonOf(err) != plugin.ReasonRollback {
		t.Errorf("a downgrade: %v", err)
	}
	back, err := d.Rollback("tags", "", nil)
	if err != nil || back.Package != "1.0.0" {
		t.Fatal(back, err)
	}
	secure := d.pack("tags", "1.2.0", "tag", func(m *manifest.Manifest) { m.MinSecureVersion = "1.2.0" })
	if _, err := d.install(secure, Request{}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Rollback("tags", "", nil); plugin.ReasonOf(err) != plugin.ReasonRollback {
		t.Errorf("below the lowest version: %v", err)
	}
	if _, err := d.install(next, Request{AllowDowngrade: true}); plugin.ReasonOf(err) != plugin.ReasonRollback {
		t.Errorf("below the lowest version, though meant: %v", err)
	}
}

func TestHome_RunsWhatTheLockNamesAlone(t *testing.T) {
	d := newDesk(t)
	row, err := d.install(d.pack("tags", "1.0.0", "tag", nil), Request{})
	if err != nil {
		t.Fatal(err)
	}
	text, err := plugin.LockOf([]plugin.Installed{row.Installed}).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	if err := plugin.WritePrivate(d.LockPath(), text); err != nil {
		t.Fatal(err)
	}
	tool, _, err := d.Tool("tags")
	if err != nil {
		t.Fatal(err)
	}
	tool.Close()
	if _, err := d.install(d.pack("tags", "1.1.0", "tag", nil), Request{}); plugin.ReasonOf(err) != plugin.ReasonNotLocked {
		t.Errorf("got %v", err)
	}
}

func TestHome_ChangesOneAfterTheOther(t *testing.T) {
	d := newDesk(t)
	var wg sync.WaitGroup
	for n := range 20 {
		wg.Go(func() {
			public, _, _ := ed25519.GenerateKey(nil)
			if _, err := d.Trust(Key{Publisher: "acme", Public: public}); err != nil {
				t.Errorf("%d: %v", n, err)
			}
		})
	}
	wg.Wait()
	if st, err := d.Read(); err != nil || len(st.Keys) != 21 {
		t.Fatalf("%d keys, %v", len(st.Keys), err)
	}
}

func TestHome_ReadsNoFileThatOthersCanChange(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("owners and modes are not judged there")
	}
	d := newDesk(t)
	file := filepath.Join(d.dir, stateFile)
	if err := os.Chmod(file, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Read(); plugin.ReasonOf(err) != plugin.ReasonUnsafe {
		t.Errorf("writable by others: %v", err)
	}
	if err := os.Rename(file, file+".real"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(file+".real", file); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Read(); plugin.ReasonOf(err) != plugin.ReasonUnsafe {
		t.Errorf("a link: %v", err)
	}
}

func FuzzState(f *testing.F) {
	f.Add([]byte(`{"schema":"sallyport.plugins.local/v1","publishers":[],"keys":[],"floors":[],"tools":[],"installations":[],"repositories":[]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		dir := t.TempDir()
		if err := plugin.WritePrivate(filepath.Join(dir, stateFile), text); err != nil {
			t.Fatal(err)
		}
		st, err := At(dir, time.Now).Read()
		if err == nil {
			_, _ = At(dir, time.Now).trust(st)
			_ = st.Active()
		}
	})
}
