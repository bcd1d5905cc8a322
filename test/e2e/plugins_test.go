package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/plugin"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

const (
	loadPlugin = "load-agentkms"
	loadBody   = `{"kind":"load-token","params":{"places":["north"]},"ttl_seconds":600}`
	loadPolicy = `package sallyport

admit := {"allow": true, "reasons": ["deployers are known"]} if input.subject.role == "deployer"

release := {
	"allow": true,
	"bounds": {"kind": "load-token", "max_params": {"places": ["north"]}, "max_ttl_seconds": 900},
	"reasons": ["deployers may"],
} if {
	input.request.kind == "load-token"
	input.subject.role == "deployer"
}
`
)

// editions are versions of a plugin whose credentials only a person can take back.
// It has effects, so that no call of it may be repeated.
type editions struct {
	w      *world
	dir    string
	binary string
	m      manifest.Manifest
}

func newEditions(w *world) *editions {
	w.t.Helper()
	e := &editions{w: w, dir: w.t.TempDir()}
	e.binary = filepath.Join(e.dir, loadPlugin)
	must(w.t, compile(w.t.Context(), e.binary, "test/load/agentkms"))
	text, err := os.ReadFile(filepath.Join("..", "load", "agentkms", "plugin.json"))
	must(w.t, err)
	e.m, err = plugin.ReadSpec(text)
	must(w.t, err)
	e.m.Effects, e.m.Revocation.Address = manifest.EffectsRemote, "https://console.example.org/tokens"
	return e
}

// install builds a version, signs it with a fresh key, trusts that if wanted, and
// installs it.
func (e *editions) install(version string) error {
	e.w.t.Helper()
	e.m.Version = version
	file := filepath.Join(e.dir, version+".spk")
	spec := plugin.Spec{Manifest: e.m, Binaries: []plugin.Binary{{OS: runtime.GOOS, Arch: runtime.GOARCH, File: e.binary}}}
	_, err := plugin.Build(spec, file)
	must(e.w.t, err)
	public, err := sign(file, filepath.Join(e.dir, "key-"+version))
	must(e.w.t, err)
	_, err = e.w.admin.TrustPublisher(e.w.t.Context(), sallyport.TrustRequest{Publisher: e.m.Publisher, PublicKey: public})
	must(e.w.t, err)
	f, err := os.Open(file)
	must(e.w.t, err)
	defer func() { _ = f.Close() }()
	_, err = e.w.admin.InstallPlugin(e.w.t.Context(), f, sallyport.InstallRequest{})
	return err
}

// crowd asks for credentials without pause and counts what it gets.
type crowd struct {
	good, refused, lost atomic.Int64
	mu                  sync.Mutex
	odd                 []string
	stop                chan struct{}
	callers             sync.WaitGroup
}

func (w *world) crowd(agent person) *crowd {
	session, err := agent.client.OpenSession(w.t.Context(), nil)
	must(w.t, err)
	c := &crowd{stop: make(chan struct{})}
	client := w.HTTP(&agent.Certificate)
	for range 6 {
		c.callers.Go(func() {
			for {
				select {
				case <-c.stop:
					return
				default:
				}
				a, err := w.Post(client, "/v1/credentials", loadBody, session.Token.Reveal(), "")
				switch {
				case err == nil && a.Status == http.StatusCreated:
					c.good.Add(1)
				case err == nil && a.Status == http.StatusNotFound:
					c.refused.Add(1)
				case err == nil && a.Status == http.StatusServiceUnavailable && strings.Contains(a.Body, "not known"):
					c.lost.Add(1)
				default:
					c.mu.Lock()
					c.odd = append(c.odd, fmt.Sprintf("%d %s %v", a.Status, a.Body, err))
					c.mu.Unlock()
				}
			}
		})
	}
	return c
}

// end stops asking; nothing may have been answered in another way.
func (c *crowd) end(t testing.TB) {
	t.Helper()
	close(c.stop)
	c.callers.Wait()
	if len(c.odd) > 0 {
		t.Errorf("%d odd answers, the first: %s", len(c.odd), c.odd[0])
	}
}

// grows waits until more of something was counted.
func grows(t testing.TB, what string, n *atomic.Int64) {
	t.Helper()
	before := n.Load()
	must(t, Eventually(time.Minute, func() error {
		if n.Load() < before+20 {
			return fmt.Errorf("no more %s", what)
		}
		return nil
	}))
}

// TestPlugins_ChangeUnderLoad installs, upgrades, kills, removes and installs again
// while agents ask for credentials, all in one server that is never restarted.
func TestPlugins_ChangeUnderLoad(t *testing.T) {
	ctx := t.Context()
	w := start(t, found(t, Options{Config: map[string]any{
		"plugins": map[string]any{"scale": map[string]any{loadPlugin: map[string]any{"instances": 2}}},
	}}))
	must(t, done(w.admin.SetPolicy(ctx, "load", "sallyport", loadPolicy)))
	agent := w.enrol("agent", "deployer", "build-7")
	e := newEditions(w)
	c := w.crowd(agent)
	grows(t, "refusals without the plugin", &c.refused)
	must(t, e.install("1.0.0"))
	grows(t, "credentials", &c.good)

	for _, version := range []string{"1.0.1", "1.0.2", "1.1.0"} {
		refused := c.refused.Load()
		must(t, e.install(version))
		grows(t, "credentials after an upgrade", &c.good)
		if c.lost.Load() != 0 || c.refused.Load() != refused {
			t.Fatalf("an upgrade to %s lost %d calls and refused %d", version, c.lost.Load(), c.refused.Load()-refused)
		}
	}
	status := func() sallyport.PluginStatus {
		all, err := w.admin.Plugins(ctx)
		must(t, err)
		if len(all.Status) != 1 {
			t.Fatalf("status of %d plugins", len(all.Status))
		}
		return all.Status[0]
	}
	ready := func() error {
		if s := status(); s.Version != "1.1.0" || len(s.Instances) != 2 || s.Instances[0].State != "ready" || s.Instances[1].State != "ready" {
			return fmt.Errorf("status %+v", s)
		}
		return nil
	}
	must(t, Eventually(time.Minute, ready))
	must(t, syscall.Kill(status().PID, syscall.SIGKILL))
	grows(t, "credentials after a kill", &c.good)
	if c.lost.Load() > 6 { // one for each caller at most
		t.Errorf("a kill lost %d calls", c.lost.Load())
	}
	must(t, Eventually(time.Minute, ready))
	metrics := get(t, "http://"+w.Operations+"/metrics")
	for _, want := range []string{
		`sallyport_plugin_state{plugin="load-agentkms",reason="OK",state="ready"} 2`,
		`sallyport_plugin_crashes_total{plugin="load-agentkms"} 1`,
		`sallyport_events_total{outcome="done",type="grant.issued"} `,
		`sallyport_plugin_calls_total{outcome="ok",plugin="load-agentkms"} `,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no %s in the metrics", want)
		}
	}

	lost := c.lost.Load()
	must(t, w.admin.RemovePlugin(ctx, loadPlugin))
	grows(t, "refusals after the removal", &c.refused)
	must(t, e.install("1.2.0"))
	grows(t, "credentials after the return", &c.good)
	c.end(t)
	if c.lost.Load() != lost {
		t.Errorf("the removal lost %d calls", c.lost.Load()-lost)
	}
	must(t, w.Stop())
}

func get(t *testing.T, url string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	must(t, err)
	got, err := exchange(http.DefaultClient, req)
	must(t, err)
	http.DefaultClient.CloseIdleConnections()
	return got.body
}

// TestPlugins_LeaveTheirGrantsBehind removes a plugin whose credentials are live:
// from then on a person must take them back, and is told where.
func TestPlugins_LeaveTheirGrantsBehind(t *testing.T) {
	ctx := t.Context()
	w := start(t, found(t, Options{}))
	must(t, done(w.admin.SetPolicy(ctx, "load", "sallyport", loadPolicy)))
	agent := w.enrol("agent", "deployer", "build-7")
	e := newEditions(w)
	must(t, e.install("1.0.0"))
	got, err := agent.client.Vend(ctx, sallyport.VendRequest{Kind: "load-token", Params: map[string]any{"places": []any{"north"}}, TTL: 10 * time.Minute})
	must(t, err)
	must(t, w.admin.RemovePlugin(ctx, loadPlugin))
	g, err := agent.client.Grant(ctx, got.Grant)
	must(t, err)
	if g.State != "active" {
		t.Errorf("after the removal the grant is %s", g.State)
	}
	r, err := w.admin.ReportLeak(ctx, sallyport.Leak{Value: got.Value, Source: "scanner"})
	must(t, err)
	text, err := json.Marshal(r)
	must(t, err)
	if len(r.Matches) != 1 || !strings.Contains(string(text), "manual_revoke_required") || !strings.Contains(string(text), "https://console.example.org/tokens") {
		t.Errorf("the reaction is %s", text)
	}
	must(t, w.Stop())
}

// TestPlugins_StartWhenTheirPublisherIsTrustedAgain takes the key of a running
// plugin out of trust and back in.
func TestPlugins_StartWhenTheirPublisherIsTrustedAgain(t *testing.T) {
	ctx := t.Context()
	w := equipped(t, Options{})
	agent := w.enrol("agent", "deployer", "build-7")
	w.vend(agent, time.Minute)
	keys, err := w.admin.Publishers(ctx)
	must(t, err)
	must(t, w.admin.DistrustPublisher(ctx, keys.Items[0].Keys[0].KeyID))
	_, err = agent.client.Vend(ctx, SSH(time.Minute))
	if !sallyport.Is(err, sallyport.Unavailable) || !strings.Contains(err.Error(), "BAD_SIGNATURE") {
		t.Errorf("without trust: %v", err)
	}
	must(t, done(w.admin.TrustPublisher(ctx, sallyport.TrustRequest{Publisher: w.House.Publisher, PublicKey: w.House.PublicKey})))
	w.vend(agent, time.Minute)
	must(t, w.Stop())
}
