package conformance

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/plugin"
)

var built struct {
	sync.Mutex
	files map[string]string
}

// compile builds a command once for all tests.
func compile(t *testing.T, source string) string {
	t.Helper()
	built.Lock()
	defer built.Unlock()
	if built.files == nil {
		built.files = map[string]string{}
	}
	if f := built.files[source]; f != "" {
		return f
	}
	dir, err := os.MkdirTemp("", "conformance-test-")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "program")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", file, source)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	built.files[source] = file
	return file
}

func TestMain(m *testing.M) {
	code := m.Run()
	for _, f := range built.files {
		_ = os.RemoveAll(filepath.Dir(f))
	}
	os.Exit(code)
}

// pack makes an unsigned package.
func pack(t *testing.T, m manifest.Manifest, program string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "p.spk")
	_, err := plugin.Build(plugin.Spec{Manifest: m, Binaries: []plugin.Binary{{OS: runtime.GOOS, Arch: runtime.GOARCH, File: program}}}, out)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// The first-party plugin keeps what its host expects, every bit of it.
func TestRun_SSHCert(t *testing.T) {
	const source = "../../../plugins/sshcert"
	text, err := os.ReadFile(filepath.Join(source, "plugin.json"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := plugin.ReadSpec(text)
	if err != nil {
		t.Fatal(err)
	}
	if text, err = os.ReadFile(filepath.Join(source, "conformance.json")); err != nil {
		t.Fatal(err)
	}
	requests, err := ReadRequests(text)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Run(t.Context(), Config{Package: pack(t, m, compile(t, source)), Requests: requests})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range r.Checks {
		expected := c.Result == Pass || c.ID == "package/signature" || c.ID == "package/reproducible" || c.ID == "start/sandbox" ||
			strings.HasPrefix(c.ID, "extension/") || strings.HasPrefix(c.ID, "cli/")
		if !expected {
			t.Errorf("%s %s: %s", c.ID, c.Result, c.Reason)
		}
	}
	if !r.OK || r.Passed < 17 {
		t.Errorf("%d passed, %d failed, %d skipped", r.Passed, r.Failed, r.Skipped)
	}
}

func rogue(name string) manifest.Manifest {
	return manifest.Manifest{
		Schema: manifest.Schema, Name: name, Version: "1.0.0", Publisher: "acme", Contract: manifest.ContractSallyport,
		HostAPI: manifest.Range{Min: 1, Max: 1}, Roles: []string{manifest.RoleVender}, Kinds: []string{"rogue"},
		Effects: manifest.EffectsNone, Revocation: manifest.Revocation{Needs: manifest.NeedsNone},
		Tier: manifest.TierFree, Audience: manifest.AudienceAny,
		Config: manifest.Fields{"token": {Type: manifest.TypeString, Secret: true}},
		Params: map[string]manifest.Fields{"rogue": {"audience": {Type: manifest.TypeString}}},
	}
}

// Each wrong is found by the check for it, and the plugin without one passes.
func TestRun_FindsEachWrong(t *testing.T) {
	program := compile(t, "./testdata/rogue")
	good := Requests{Requests: []Request{{Kind: "rogue", Params: map[string]any{"audience": "billing"}, TTLSeconds: 60}}}
	for name, want := range map[string][]string{
		"honest":   nil,
		"anyone":   {"start/cookie", "end/asked"},
		"talks":    {"end/output"},
		"stays":    {"start/cookie", "end/asked"},
		"parent":   {"end/children"},
		"liar":     {"start/identity"},
		"widens":   {"calls/narrow"},
		"adds":     {"calls/narrow"},
		"outlives": {"calls/expiry"},
		"logs":     {"calls/secrets"},
		"babbles":  {"calls/secrets"},
		"tells":    {"calls/secrets"},
		"fragile":  {"calls/garbage"},
		"hangs":    {"calls/request"},
		"formless": {"calls/unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := rogue(name)
			if name == "formless" {
				m.Params = nil
			}
			c := Config{Package: pack(t, m, program), Requests: good}
			if name == "hangs" {
				c.Calls = 500 * time.Millisecond
			}
			r, err := Run(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			for _, id := range want {
				i := slices.IndexFunc(r.Checks, func(c Check) bool { return c.ID == id })
				if i < 0 || r.Checks[i].Result != Fail || r.Checks[i].Do == "" {
					t.Errorf("%s did not fail", id)
				}
			}
			for _, c := range r.Checks {
				if want == nil && c.Result == Fail {
					t.Errorf("%s: %s", c.ID, c.Reason)
				}
			}
			if r.OK != (want == nil) {
				t.Errorf("OK is %v", r.OK)
			}
		})
	}
}

// A signature counts if it is by the key that was given.
func TestRun_Signature(t *testing.T) {
	file := pack(t, rogue("honest"), compile(t, "./testdata/rogue"))
	dir := t.TempDir()
	pair, err := plugin.Keygen(filepath.Join(dir, "k"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(pair.Public)
	if err != nil {
		t.Fatal(err)
	}
	public, err := plugin.ParsePublicKey(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, signed := range []bool{false, true} {
		if signed {
			text, err := os.ReadFile(pair.Private)
			if err != nil {
				t.Fatal(err)
			}
			private, err := plugin.ParsePrivateKey(text)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := plugin.Sign(file, private); err != nil {
				t.Fatal(err)
			}
		}
		r := run{Config: Config{Package: file, Key: public}, m: rogue("honest")}
		r.packageChecks()
		if got := r.report.Checks[0]; (got.Result == Pass) != signed {
			t.Errorf("signed %v: %+v", signed, got)
		}
	}
}

// Two builds that differ are found.
func TestRun_Reproducible(t *testing.T) {
	program := compile(t, "./testdata/rogue")
	file := pack(t, rogue("honest"), program)
	seen, err := plugin.Inspect(file)
	if err != nil {
		t.Fatal(err)
	}
	for version, want := range map[string]Result{"1.0.0": Pass, "1.0.1": Fail} {
		r := run{Config: Config{Package: file}, m: seen.Manifest, digest: seen.Digest, dir: t.TempDir()}
		r.Again = func(out string) error {
			m := rogue("honest")
			m.Version = version
			return os.Rename(pack(t, m, program), out)
		}
		r.packageChecks()
		if got := r.report.Checks[1]; got.Result != want {
			t.Errorf("%s: %+v", version, got)
		}
	}
}

// What is no package is an error and no report.
func TestRun_NoPackage(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(file, []byte("no package"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{file, file + ".none"} {
		if r, err := Run(context.Background(), Config{Package: f}); err == nil {
			t.Errorf("%s: %+v", f, r)
		}
	}
}
