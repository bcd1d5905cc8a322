package plugin

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/grant"
)

func TestHost_IssuesOverTheStream(t *testing.T) {
	r := newRig(t, nil, testManifest("alpha"))
	p := r.provider(t, "fixture-alpha")
	out, err := p.Issue(t.Context(), ask("fixture-alpha", map[string]any{"a": "b"}), limits("fixture-alpha"))
	if err != nil {
		t.Fatal(err)
	}
	if out.Scope.TTL != time.Minute || out.Scope.Params["a"] != "b" || out.Value.Len() == 0 {
		t.Fatalf("issued %+v", out)
	}
	src := p.Source()
	if src.Plugin != "alpha" || src.Effects != grant.EffectsNone || !strings.HasPrefix(src.Digest, "sha256:") {
		t.Fatalf("source %+v", src)
	}
	s := r.Status()[0]
	if s.State != Ready || s.Reason != ReasonOK || s.Starts != 1 || s.Calls != 1 || s.Sandbox != "off" || s.PID == 0 {
		t.Fatalf("status %+v", s)
	}
}

func TestHost_JudgesAnswers(t *testing.T) {
	r := newRig(t, func(c *Config) { c.CallTimeout = 2 * time.Second }, testManifest("alpha"), testManifest("barestrange"))
	p := r.provider(t, "fixture-alpha")
	for _, c := range []struct {
		do   string
		kind fault.Kind
		text string
	}{
		{"refuse", fault.Denied, "not today"},
		{"fail", fault.Unavailable, "its log says why"},
		{"panic", fault.Unavailable, "its log says why"},
		{"widen", fault.Denied, "more than it may"},
		{"longer", fault.Denied, "more than it may"},
		{"other-kind", fault.Denied, "more than it may"},
		{"empty", fault.Unavailable, "size"},
		{"huge", fault.Unavailable, "cannot be sent"},
	} {
		t.Run(c.do, func(t *testing.T) {
			_, err := p.Issue(t.Context(), ask("fixture-alpha", map[string]any{"do": c.do}), limits("fixture-alpha"))
			if fault.KindOf(err) != c.kind || !strings.Contains(fault.Public(err), c.text) {
				t.Fatalf("got %v", err)
			}
			if strings.Contains(err.Error(), "canary") || strings.Contains(fault.Public(err), "\x07") {
				t.Fatalf("text leaks: %q", err)
			}
		})
	}
	if s := r.Status()[0]; s.Starts != 1 {
		t.Fatalf("a bad answer restarted the plugin: %+v", s)
	}
	if !strings.Contains(r.log.String(), "canary-in-error") {
		t.Error("the operator does not see the plugin's own error")
	}
	_, err := r.provider(t, "fixture-barestrange").Issue(t.Context(), ask("fixture-barestrange", nil), limits("fixture-barestrange"))
	if !fault.Is(err, fault.Unavailable) || !strings.Contains(fault.Public(err), "does not belong") {
		t.Fatalf("an answer to another question: %v", err)
	}
}

// Answers of the allowed size arrive although many of them together are larger
// than the window of the connection.
func TestHost_TakesLargeAnswersTogether(t *testing.T) {
	r := newRig(t, func(c *Config) { c.CallTimeout = time.Minute }, testManifest("alpha"))
	p := r.provider(t, "fixture-alpha")
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			out, err := p.Issue(context.Background(), ask("fixture-alpha", map[string]any{"do": "large"}), limits("fixture-alpha"))
			if err != nil || out.Value.Len() != maxValue {
				t.Errorf("%d bytes, %v", out.Value.Len(), err)
			}
		})
	}
	wg.Wait()
}

func TestHost_LimitsAnomalies(t *testing.T) {
	r := newRig(t, nil, testManifest("alpha"))
	out, err := r.provider(t, "fixture-alpha").Issue(t.Context(), ask("fixture-alpha", map[string]any{"do": "anomalies"}), limits("fixture-alpha"))
	if err != nil {
		t.Fatal(err)
	}
	if len(out.Anomalies) != maxAnomalies || len(out.Anomalies[0].Message) > maxReason+3 || out.Anomalies[0].Level != grant.Unspecified {
		t.Fatalf("%d anomalies, first %+v", len(out.Anomalies), out.Anomalies[0])
	}
}

func TestHost_VetFollowsTheSkipRule(t *testing.T) {
	declared := testManifest("beta")
	declared.Params = map[string]manifest.Fields{"fixture-beta": {
		"do":   {Type: manifest.TypeString},
		"list": {Type: manifest.TypeStrings, Default: []any{}},
	}}
	r := newRig(t, nil, testManifest("alpha"), declared)
	asked := r.provider(t, "fixture-alpha")
	if err := asked.Vet(t.Context(), ask("fixture-alpha", map[string]any{"do": "refuse-vet"})); !fault.Is(err, fault.Invalid) {
		t.Fatalf("without a declared form the plugin decides: %v", err)
	}
	if err := asked.Vet(t.Context(), ask("fixture-alpha", map[string]any{"host.serial": "1"})); !fault.Is(err, fault.Invalid) {
		t.Fatalf("a caller set a host parameter: %v", err)
	}
	skipped := r.provider(t, "fixture-beta")
	if err := skipped.Vet(t.Context(), ask("fixture-beta", map[string]any{"do": "refuse-vet"})); err != nil {
		t.Fatal(err)
	}
	if err := skipped.Vet(t.Context(), ask("fixture-beta", map[string]any{"unknown": "x"})); !fault.Is(err, fault.Invalid) {
		t.Fatalf("the host did not enforce the declared form: %v", err)
	}
	for _, s := range r.Status() {
		if s.Name == "beta" && s.Starts != 0 {
			t.Fatal("a declared form needs no call")
		}
	}
	out, err := skipped.Issue(t.Context(), ask("fixture-beta", map[string]any{"host.serial": "77", "do": "host"}), limits("fixture-beta"))
	if err != nil {
		t.Fatal(err)
	}
	if string(out.Value.Reveal()) != "77" {
		t.Fatal("the host's parameter did not arrive")
	}
	if _, there := out.Scope.Params["host.serial"]; there {
		t.Fatal("a host parameter became part of the grant")
	}
	if _, there := out.Scope.Params["list"]; there {
		t.Fatal("a default that nobody named became part of the grant")
	}
	bounds := limits("fixture-beta")
	bounds.MaxParams = map[string]any{"list": []any{}}
	if out, err = skipped.Issue(t.Context(), ask("fixture-beta", nil), bounds); err != nil {
		t.Fatal(err)
	}
	if _, there := out.Scope.Params["list"]; !there {
		t.Fatal("the plugin did not see the default")
	}
}

func TestHost_PluginWithoutHealthServiceStaysUp(t *testing.T) {
	r := newRig(t, func(c *Config) { c.HealthEvery = 20 * time.Millisecond }, testManifest("bare"))
	p := r.provider(t, "fixture-bare")
	first, err := p.Issue(t.Context(), ask("fixture-bare", nil), limits("fixture-bare"))
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(400 * time.Millisecond) // some twenty health checks
	second, err := p.Issue(t.Context(), ask("fixture-bare", nil), limits("fixture-bare"))
	if err != nil {
		t.Fatal(err)
	}
	if !first.Value.Equal(second.Value) {
		t.Fatal("a plugin without a health service was restarted")
	}
	if s := r.Status()[0]; s.Starts != 1 || s.Crashes != 0 {
		t.Fatalf("status %+v", s)
	}
}

func TestHost_CallHasADeadline(t *testing.T) {
	r := newRig(t, func(c *Config) { c.CallTimeout = 300 * time.Millisecond }, testManifest("alpha"))
	p := r.provider(t, "fixture-alpha")
	warm(t, p, "fixture-alpha")
	began := time.Now()
	_, err := p.Issue(t.Context(), ask("fixture-alpha", map[string]any{"do": "hang"}), limits("fixture-alpha"))
	if !fault.Is(err, fault.Unavailable) || time.Since(began) > 2*time.Second {
		t.Fatalf("after %v: %v", time.Since(began), err)
	}
	if _, err := p.Issue(t.Context(), ask("fixture-alpha", nil), limits("fixture-alpha")); err != nil {
		t.Fatalf("one slow call broke the next: %v", err)
	}
	deadline := time.Now().Add(5 * time.Second)
	for !strings.Contains(r.log.String(), "call was cancelled") {
		if time.Now().After(deadline) {
			t.Fatal("the plugin was not told that nobody waits any more")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestHost_BoundsConcurrency(t *testing.T) {
	r := newRig(t, func(c *Config) {
		c.Scale, c.CallTimeout = map[string]Scale{"alpha": {Concurrency: 2, Queue: 1}}, 400*time.Millisecond
	}, testManifest("alpha"))
	p := r.provider(t, "fixture-alpha")
	warm(t, p, "fixture-alpha")
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			_, _ = p.Issue(context.Background(), ask("fixture-alpha", map[string]any{"do": "hang"}), limits("fixture-alpha"))
		})
	}
	time.Sleep(50 * time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := p.Issue(ctx, ask("fixture-alpha", nil), limits("fixture-alpha")); !fault.Is(err, fault.Exhausted) {
		t.Fatalf("got %v", err)
	}
	wg.Wait()
}

func TestHost_ProcessIsClean(t *testing.T) {
	t.Setenv("CANARY_TOKEN", "canary-in-environment")
	leak, err := os.CreateTemp(t.TempDir(), "open")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = leak.Close() }()
	for _, name := range []string{"alpha", "akms"} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil, testManifest(name))
			kind := "fixture-" + name
			if _, err := r.provider(t, kind).Issue(t.Context(), ask(kind, nil), limits(kind)); err != nil {
				t.Fatal(err)
			}
			proc := fmt.Sprintf("/proc/%d", r.Status()[0].PID)
			env, err := os.ReadFile(proc + "/environ")
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range strings.Split(strings.Trim(string(env), "\x00"), "\x00") {
				key, _, _ := strings.Cut(v, "=")
				switch key {
				case "PLUGIN_MIN_PORT", "PLUGIN_MAX_PORT", "PLUGIN_PROTOCOL_VERSIONS", "PLUGIN_UNIX_SOCKET_DIR",
					"PLUGIN_CLIENT_CERT", "SALLYPORT_PLUGIN", "PLUGIN_MAGIC_COOKIE":
				default:
					t.Errorf("variable %s reached the plugin", key)
				}
			}
			exe, err := os.Readlink(proc + "/exe")
			if err != nil || !strings.HasPrefix(exe, "/memfd:plugin:") {
				t.Errorf("runs from %s (%v)", exe, err)
			}
			fds, err := os.ReadDir(proc + "/fd")
			if err != nil {
				t.Fatal(err)
			}
			for _, fd := range fds {
				to, _ := os.Readlink(filepath.Join(proc, "fd", fd.Name()))
				if strings.Contains(to, "open") && strings.HasPrefix(to, "/tmp") || strings.Contains(to, "memfd") {
					t.Errorf("descriptor %s is %s", fd.Name(), to)
				}
			}
			stat, err := os.ReadFile(proc + "/stat")
			if err != nil {
				t.Fatal(err)
			}
			if f := strings.Fields(string(stat)); f[4] != strconv.Itoa(r.Status()[0].PID) {
				t.Errorf("process group %s", f[4])
			}
		})
	}
}

func TestHost_RefusesBadStarts(t *testing.T) {
	for _, name := range []string{"never", "garbage", "quits", "liar", "noise", "proxy"} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(c *Config) { c.StartTimeout, c.CallTimeout = 2*time.Second, 3*time.Second }, testManifest(name))
			_, err := r.provider(t, "fixture-"+name).Issue(t.Context(), ask("fixture-"+name, nil), limits("fixture-"+name))
			if !fault.Is(err, fault.Unavailable) {
				t.Fatalf("got %v", err)
			}
			s := r.Status()[0]
			if name == "proxy" && !strings.Contains(r.log.String(), "started another: <nil>") {
				t.Fatal("the other process was not started, so nothing was tested")
			}
			if s.State == Ready || name == "liar" && (s.State != Refused || s.Reason != ReasonIncompatible) {
				t.Fatalf("status %+v", s)
			}
		})
	}
}

func TestHost_LimitsOutput(t *testing.T) {
	r := newRig(t, nil, testManifest("alpha"))
	if _, err := r.provider(t, "fixture-alpha").Issue(t.Context(), ask("fixture-alpha", map[string]any{"do": "stderr"}), limits("fixture-alpha")); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(5 * time.Second)
	for !strings.Contains(r.log.String(), "plugin=alpha") {
		if time.Now().After(deadline) {
			t.Fatal("no output in the log")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if n := strings.Count(r.log.String(), "plugin output"); n > linesPerBurst+linesPerSec*6 {
		t.Fatalf("%d lines of a flood reached the log", n)
	}
}

func TestHost_HandsOverTheConfiguration(t *testing.T) {
	r := newRig(t, func(c *Config) {
		c.Settings = func(_ context.Context, name string) ([]byte, error) { return []byte(`{"for":"` + name + `"}`), nil }
	}, testManifest("alpha"))
	out, err := r.provider(t, "fixture-alpha").Issue(t.Context(), ask("fixture-alpha", map[string]any{"do": "config"}), limits("fixture-alpha"))
	if err != nil {
		t.Fatal(err)
	}
	if string(out.Value.Reveal()) != `{"for":"alpha"}` {
		t.Fatalf("got %s", out.Value.Reveal())
	}
}

func TestHost_RefusesWhatIsNoProgram(t *testing.T) {
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("no program at all"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, func(c *Config) { c.CallTimeout = 8 * time.Second })
	row := r.install(t, r.cfg.Store, r.pack(t, testManifest("text"), text), 1)
	if err := r.Sync(t.Context(), []Installed{row}, r.publisher.trust); err != nil {
		t.Fatal(err)
	}
	if _, err := r.provider(t, "fixture-text").Issue(t.Context(), ask("fixture-text", nil), limits("fixture-text")); !fault.Is(err, fault.Unavailable) {
		t.Fatalf("got %v", err)
	}
	if s := r.Status()[0]; s.Reason != ReasonStart {
		t.Fatalf("status %+v", s)
	}
}

// A file that changes in the store after it was installed never runs, and status
// says why.
func TestHost_RefusesAChangedFileAtStart(t *testing.T) {
	r := newRig(t, func(c *Config) { c.CallTimeout = 8 * time.Second }, testManifest("alpha"))
	flip(t, r.executable(t, 0))
	if _, err := r.provider(t, "fixture-alpha").Issue(t.Context(), ask("fixture-alpha", nil), limits("fixture-alpha")); !fault.Is(err, fault.Unavailable) {
		t.Fatalf("got %v", err)
	}
	if s := r.Status()[0]; s.State != Refused || s.Reason != ReasonDigest || s.Starts != 0 {
		t.Fatalf("status %+v", s)
	}
}
