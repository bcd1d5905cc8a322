package plugin

import (
	"context"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/obs"
)

// eventually waits for a condition, however slow the machine is.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still not so: %s", what)
		}
	}
}

// executable is the file of an installed package in the store.
func (r *rig) executable(t *testing.T, n int) string {
	t.Helper()
	hex, _ := hexDigest(r.rows[n].Digest)
	files, err := filepath.Glob(filepath.Join(r.store.root(), hex, r.rows[n].Name+"-*"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	return files[0]
}

// one is the status of one plugin.
func (r *rig) one(name string) Status {
	for _, s := range r.Status() {
		if s.Name == name {
			return s
		}
	}
	return Status{}
}

func (r *rig) pids(name string) []int {
	var out []int
	for _, i := range r.one(name).Instances {
		if i.State == Ready {
			out = append(out, i.PID)
		}
	}
	return out
}

// Several processes of one package share its calls and its sealed image. Killing
// one of them again and again fails no call, not even one with effects that comes
// later, and the package's circuit stays closed for the others.
func TestHost_RunsSeveralInstances(t *testing.T) {
	remote := testManifest("alpha")
	remote.Effects = manifest.EffectsRemote // so that no call is repeated
	r := newRig(t, func(c *Config) { c.Scale, c.Eager = map[string]Scale{"alpha": {Instances: 3}}, true }, remote)
	eventually(t, "three processes are ready", func() bool { return len(r.pids("alpha")) == 3 })
	r.images.mu.Lock()
	images := len(r.images.held)
	r.images.mu.Unlock()
	if images != 1 {
		t.Fatalf("%d sealed images of one package", images)
	}
	p := r.provider(t, "fixture-alpha")
	seen := map[string]bool{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 12 {
		wg.Go(func() {
			out, err := p.Issue(context.Background(), ask("fixture-alpha", map[string]any{"do": "sleep"}), limits("fixture-alpha"))
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			seen[string(out.Value.Reveal())] = true
			mu.Unlock()
		})
	}
	wg.Wait()
	if len(seen) != 3 {
		t.Fatalf("calls at the same time went to processes %v", seen)
	}
	victim := r.pids("alpha")[0]
	for n := range 8 { // the fifth death in a row opens that one's circuit
		crashes := r.one("alpha").Crashes
		_ = syscall.Kill(victim, syscall.SIGKILL)
		eventually(t, "the death is noticed", func() bool { return r.one("alpha").Crashes > crashes })
		for range 10 {
			if _, err := p.Issue(t.Context(), ask("fixture-alpha", nil), limits("fixture-alpha")); err != nil {
				t.Fatalf("after death %d: %v", n+1, err)
			}
		}
		i := func() Instance { return r.one("alpha").Instances[0] }
		eventually(t, "it is up again or given up", func() bool { return i().State == Ready || i().State == Broken })
		if i().State == Broken {
			break
		}
		victim = i().PID
	}
	if s := r.one("alpha"); s.State != Ready || s.Reason != ReasonCrashed || s.Instances[0].State != Broken || len(r.pids("alpha")) != 2 {
		t.Fatalf("status %+v", s)
	}
}

// One package serves all of its roles, and another may add one to them.
func TestHost_ServesSeveralRoles(t *testing.T) {
	judge, maker := testManifest("akmslean"), testManifest("akms")
	judge.Name, judge.Roles = "akmslean", []string{manifest.RoleValidator}
	maker.Name, maker.Roles = "akms", []string{manifest.RoleAnalyzer, manifest.RoleSerializer, manifest.RoleVender}
	judge.Kinds, maker.Kinds = []string{"fixture-akms"}, []string{"fixture-akms"}
	patient := func(c *Config) { c.CallTimeout = time.Minute }
	r := newRig(t, patient, maker, judge)
	out, err := r.provider(t, "fixture-akms").Issue(t.Context(), ask("fixture-akms", nil), limits("fixture-akms"))
	if err == nil || r.one("akmslean").State != Refused {
		t.Fatalf("a validator of another kind was taken: %v, %v", out, err)
	}
	all := testManifest("akms")
	r = newRig(t, patient, all)
	got, err := r.provider(t, "fixture-akms").Issue(t.Context(), ask("fixture-akms", nil), limits("fixture-akms"))
	if err != nil || len(got.Anomalies) != 1 || got.Value.Len() == 0 {
		t.Fatalf("%+v, %v", got, err)
	}
	if s := r.one("akms"); s.Calls != 5 || s.Starts != 1 {
		t.Fatalf("five stages by one process: %+v", s)
	}
}

// next is a further version of a fixture; what it answers tells them apart.
func (r *rig) next(t *testing.T, name, version string, at int64, binary string) Installed {
	t.Helper()
	m := testManifest(name)
	m.Version = version
	return r.install(t, r.cfg.Store, r.pack(t, m, binary), at)
}

// Under load, versions follow each other and no call fails, although the package
// has effects, so that nothing may be repeated.
func TestHost_UpgradesWithoutAFailedCall(t *testing.T) {
	m := testManifest("akms")
	m.Effects = manifest.EffectsRemote
	r := newRig(t, func(c *Config) { c.Eager, c.CallTimeout = true, time.Minute }, m)
	p := r.provider(t, "fixture-akms")
	warm(t, p, "fixture-akms")
	var done atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := p.Issue(context.Background(), ask("fixture-akms", nil), limits("fixture-akms")); err != nil {
					t.Error(err)
					return
				}
				done.Add(1)
			}
		})
	}
	for n := range 4 {
		row := r.next(t, "akms", "1.0."+strconv.Itoa(n+1), int64(n+2), fixtureBinary)
		before := done.Load()
		if err := r.Sync(t.Context(), []Installed{row}, r.publisher.trust); err != nil {
			t.Fatal(err)
		}
		if s := r.one("akms"); s.Version != row.Package || s.State != Ready {
			t.Fatalf("the new version took over before it was ready: %+v", s)
		}
		eventually(t, "calls go on", func() bool { return done.Load() > before+20 || t.Failed() })
	}
	close(stop)
	wg.Wait()
}

// A plugin whose circuit is open is replaced by a good version at once.
func TestHost_RecoversAtOnceByAnUpgrade(t *testing.T) {
	r := newRig(t, func(c *Config) { c.CoolDown, c.CallTimeout = time.Hour, time.Minute }, testManifest("quits"), testManifest("beta"))
	_, err := r.provider(t, "fixture-quits").Issue(t.Context(), ask("fixture-quits", nil), limits("fixture-quits"))
	if !fault.Is(err, fault.Unavailable) || r.one("quits").State != Broken {
		t.Fatalf("%+v: %v", r.one("quits"), err)
	}
	if _, err := r.provider(t, "fixture-beta").Issue(t.Context(), ask("fixture-beta", nil), limits("fixture-beta")); err != nil {
		t.Fatalf("another plugin suffers: %v", err)
	}
	m := testManifest("alpha") // the same kind, by a program that works
	m.Name, m.Kinds, m.Version = "quits", []string{"fixture-quits"}, "2.0.0"
	good := filepath.Join(t.TempDir(), "good")
	if err := buildFixture(good, "-X main.as=good -X main.version=2.0.0"); err != nil {
		t.Fatal(err)
	}
	row := r.install(t, r.cfg.Store, r.pack(t, m, good), 3)
	if err := r.Sync(t.Context(), []Installed{row, r.rows[1]}, r.publisher.trust); err != nil {
		t.Fatal(err)
	}
	if _, err := r.provider(t, "fixture-quits").Issue(t.Context(), ask("fixture-quits", nil), limits("fixture-quits")); err != nil {
		t.Fatal(err)
	}
}

// What must not run starts as soon as the reason is gone.
func TestHost_StartsWhenTheReasonGoes(t *testing.T) {
	alpha, other := testManifest("alpha"), testManifest("beta")
	other.Kinds = []string{"fixture-alpha", "fixture-beta"}
	r := newRig(t, func(c *Config) { c.CoolDown, c.Eager = time.Hour, true }, alpha, other)
	if s := r.one("beta"); s.State != Refused || s.Reason != ReasonConflict || len(s.Instances) != 0 {
		t.Fatalf("status %+v", s)
	}
	sync := func(trust Trust, rows ...Installed) {
		t.Helper()
		if err := r.Sync(t.Context(), rows, trust); err != nil {
			t.Fatal(err)
		}
	}
	sync(r.publisher.trust, r.rows[1]) // the older one is removed
	if s := r.one("beta"); s.Reason == ReasonConflict {
		t.Fatalf("status %+v", s)
	}
	sync(Trust{}, r.rows[0])
	if s := r.one("alpha"); s.Reason != ReasonBadSignature {
		t.Fatalf("status %+v", s)
	}
	sync(r.publisher.trust, r.rows[0])
	warm(t, r.provider(t, "fixture-alpha"), "fixture-alpha")
	// A digest that differs is found at the start, by the life itself.
	broken := newRig(t, func(c *Config) { c.CoolDown = time.Hour }, testManifest("alpha"))
	file := broken.executable(t, 0)
	flip(t, file)
	_, err := broken.provider(t, "fixture-alpha").Issue(t.Context(), ask("fixture-alpha", nil), limits("fixture-alpha"))
	if ReasonOf(err) != ReasonDigest {
		t.Fatalf("got %v", err)
	}
	flip(t, file)
	if err := broken.Sync(t.Context(), broken.rows, broken.publisher.trust); err != nil {
		t.Fatal(err)
	}
	warm(t, broken.provider(t, "fixture-alpha"), "fixture-alpha")
}

func TestHost_Counts(t *testing.T) {
	m := obs.NewMetrics()
	r := newRig(t, func(c *Config) { c.Metrics, c.CallTimeout = m, time.Minute }, testManifest("alpha"), testManifest("liar"))
	p := r.provider(t, "fixture-alpha")
	for _, do := range []string{"", "refuse", "fail", "exit"} {
		_, _ = p.Issue(t.Context(), ask("fixture-alpha", map[string]any{"do": do}), limits("fixture-alpha"))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _ = p.Issue(ctx, ask("fixture-alpha", nil), limits("fixture-alpha"))
	_, _ = r.provider(t, "fixture-liar").Issue(t.Context(), ask("fixture-liar", nil), limits("fixture-liar"))
	warm(t, p, "fixture-alpha")
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for _, want := range []string{
		`sallyport_plugin_state{plugin="alpha",reason="OK",state="ready"} 1`,
		`sallyport_plugin_state{plugin="liar",reason="INCOMPATIBLE",state="refused"} 1`,
		`sallyport_plugin_starts_total{plugin="alpha"} 3`,
		`sallyport_plugin_crashes_total{plugin="alpha"} 2`,
		`sallyport_plugin_calls_total{outcome="refused",plugin="alpha"} 1`,
		`sallyport_plugin_calls_total{outcome="failed",plugin="alpha"} 1`,
		`sallyport_plugin_calls_total{outcome="lost",plugin="alpha"} 1`,
		`sallyport_plugin_calls_total{outcome="abandoned",plugin="alpha"} 1`,
		`sallyport_plugin_calls_total{outcome="down",plugin="liar"} 1`,
		`sallyport_plugin_calls_in_flight{plugin="alpha"} 0`,
		`sallyport_plugin_calls_waiting{plugin="alpha"} 0`,
		`sallyport_plugin_call_duration_seconds_count{plugin="alpha"} 6`,
	} {
		if !strings.Contains(w.Body.String(), want+"\n") {
			t.Errorf("%s is missing", want)
		}
	}
	if t.Failed() {
		for line := range strings.Lines(w.Body.String()) {
			if strings.HasPrefix(line, "sallyport_plugin") && !strings.Contains(line, "bucket") {
				t.Log(strings.TrimSpace(line))
			}
		}
	}
}
