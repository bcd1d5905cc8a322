package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/plugin/external"
	"github.com/sallyport-project/sallyport/internal/policy"
	"github.com/sallyport-project/sallyport/internal/seal"
	sallyport "github.com/sallyport-project/sallyport/sdk"
	"github.com/sallyport-project/sallyport/sdk/plugin/kbs"
)

// models is an external plugin, written as its authors do.
type models struct{}

func (models) ValidateAuth(_ context.Context, r *kbs.Request) (bool, error) {
	return r.Method == http.MethodPost, nil
}

func (models) NeedsEncryption(_ context.Context, r *kbs.Request) (bool, error) {
	return r.Segment(0) != "raw", nil
}

func (models) Handle(ctx context.Context, r *kbs.Request) (*kbs.Response, error) {
	switch r.Segment(0) {
	case "missing":
		return nil, kbs.Refusef(404, "no such model")
	case "panic":
		panic("canary")
	case "slow":
		<-ctx.Done()
		return nil, ctx.Err()
	case "large":
		return &kbs.Response{Body: make([]byte, 5<<20)}, nil
	case "wrong":
		return &kbs.Response{Body: []byte("canary"), Status: 99}, nil
	}
	said, err := json.Marshal([]any{r.Method, r.Path, r.Query, len(r.Body)})
	return &kbs.Response{Body: said, ContentType: "application/x-model"}, err
}

// freeAddress is one at which nobody listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// serveModels runs it until the test ends, or the returned function is called.
func serveModels(t *testing.T, address string) (stop func()) {
	t.Helper()
	return run(t, kbs.NewServer(models{}).WithAddress(address))
}

// run serves a plugin until the test ends, or the returned function is called.
func run(t *testing.T, s *kbs.Server) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.WithLogger(slog.New(slog.DiscardHandler)).Serve(ctx) }()
	stop = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		ended <- nil
	}
	t.Cleanup(stop)
	return stop
}

// asked is one request for an external plugin, with the outcome that is expected.
type asked struct {
	method, path, body string
	header             map[string]string
	status             int
	variant            string // of a failure
	answer             string // of a success; empty for any
	kind               string
}

func (a asked) check(t *testing.T, name string, got reply) {
	t.Helper()
	var problem struct{ Type string }
	_ = json.Unmarshal([]byte(got.body), &problem)
	variant := strings.TrimPrefix(problem.Type, "https://github.com/confidential-containers/kbs/errors/")
	if got.status != a.status || variant != a.variant || a.answer != "" && got.body != a.answer || a.kind != "" && got.header.Get("Content-Type") != a.kind {
		t.Errorf("%s: answered %d %s %s, want %d %s %s", name, got.status, got.header.Get("Content-Type"), got.body, a.status, a.variant, a.answer)
	}
}

// TestExternal_IsTrustees runs plugins behind the gateway as Trustee's users know
// it, over a plain listener of the key broker alone.
func TestExternal_IsTrustees(t *testing.T) {
	far, late, strict := freeAddress(t), freeAddress(t), freeAddress(t)
	h := found(t, Options{
		Further: []any{map[string]any{"name": "guests", "address": "127.0.0.1:0", "doors": []string{"kbs"}, "plain": true}},
		Config: map[string]any{
			"verifiers": map[string]any{"sample": map[string]any{"insecure": true}},
			"kbs": map[string]any{"external": map[string]any{"backends": []any{
				map[string]any{"name": "models", "endpoint": "http://" + far},
				map[string]any{"name": "rich", "endpoint": "http://" + far, "rich": true, "encrypt": "ask"},
				map[string]any{"name": "told", "endpoint": "http://" + strict, "rich": true},
				map[string]any{"name": "untold", "endpoint": "http://" + strict},
				map[string]any{"name": "stolen", "endpoint": "http://" + strict, "rich": true},
				map[string]any{"name": "open", "endpoint": "http://" + far, "routes": []any{
					map[string]any{"path": "raw", "methods": []string{"GET"}, "floor": "public"}, map[string]any{"floor": "admin"},
				}},
				map[string]any{"name": "late", "endpoint": "http://" + late, "timeout_ms": 2000},
				map[string]any{"name": "hasty", "endpoint": "http://" + far, "timeout_ms": 300},
			}}},
		},
	})
	stop := serveModels(t, far)
	w := start(t, h) // although one of its plugins is down
	site := "http://" + w.Bound["guests"]
	must(t, done(w.admin.SetPolicy(t.Context(), policy.ResourceName, string(policy.KBSResource), "package policy\nallow if {\n\tdata.plugin == \"external\"\n\tnot \"secret\" in data[\"resource-path\"]\n}\n")))
	g, key := newGuest(t, site, nil)
	token, err := g.Attest(t.Context())
	must(t, err)
	bearer := map[string]string{"Authorization": "Bearer " + token}

	plain, sealed, err := g.External(t.Context(), "models/a/b c/", url.Values{"q": {"1", "2"}})
	must(t, err)
	if got := string(plain.Reveal()); got != `["GET",["a","b c",""],{"q":"2"},0]` || sealed == (seal.JWE{}) {
		t.Errorf("the plugin got %s, sealed %v", got, sealed)
	}
	if again, err := seal.Open(key, sealed); err != nil || !bytes.Equal(again.Reveal(), plain.Reveal()) {
		t.Error("the guest's key does not open the answer")
	}
	for name, a := range map[string]asked{
		"raw":                  {method: "GET", path: "models/raw", header: bearer, status: 200, answer: `["GET",["raw"],null,0]`, kind: "text/xml"},
		"sealed":               {method: "PUT", path: "models/x", body: "abc", header: bearer, status: 200, kind: "application/json"},
		"no segment":           {method: "DELETE", path: "models", header: bearer, status: 200},
		"nobody":               {method: "GET", path: "models/raw", status: 401, variant: "TokenNotFound"},
		"a wrong token":        {method: "GET", path: "models/raw", header: map[string]string{"Authorization": "Bearer " + token + "x"}, status: 401, variant: "TokenVerifierError"},
		"policy":               {method: "GET", path: "models/secret", header: bearer, status: 401, variant: "PolicyDeny"},
		"a guest as an admin":  {method: "POST", path: "models/x", header: bearer, status: 401, variant: "AdminAuthInitialization"},
		"a refusal":            {method: "GET", path: "models/missing", header: bearer, status: 401, variant: "PluginInternalError"},
		"a panic":              {method: "GET", path: "models/panic", header: bearer, status: 401, variant: "PluginInternalError"},
		"a slow answer":        {method: "GET", path: "hasty/slow", header: bearer, status: 401, variant: "PluginInternalError"},
		"too large an answer":  {method: "GET", path: "models/large", header: bearer, status: 401, variant: "PluginInternalError"},
		"a wrong status":       {method: "GET", path: "models/wrong", header: bearer, status: 401, variant: "PluginInternalError"},
		"an unknown name":      {method: "GET", path: "other/x", header: bearer, status: 401, variant: "PluginInternalError"},
		"no name":              {method: "GET", path: "", header: bearer, status: 401, variant: "PluginInternalError"},
		"another method":       {method: "PATCH", path: "models/raw", header: bearer, status: 405, variant: "PluginInternalError"},
		"an encoded slash":     {method: "GET", path: "models/raw/a%2fb", header: bearer, status: 404, variant: "InvalidRequestPath"},
		"dots":                 {method: "GET", path: "models/raw/%2e%2e/secret", header: bearer, status: 404, variant: "InvalidRequestPath"},
		"no text":              {method: "GET", path: "models/raw/%ff", header: bearer, status: 404, variant: "InvalidRequestPath"},
		"no query":             {method: "GET", path: "models/raw?a=%zz", header: bearer, status: 404, variant: "InvalidRequestPath"},
		"too large":            {method: "PUT", path: "models/raw", body: strings.Repeat("x", 2<<20) + "x", header: bearer, status: 413},
		"down":                 {method: "GET", path: "late/x", header: bearer, status: 401, variant: "PluginInternalError"},
		"rich":                 {method: "GET", path: "rich/raw", header: bearer, status: 200, kind: "application/x-model"},
		"a rich refusal":       {method: "GET", path: "rich/missing", header: bearer, status: 404},
		"a rich failure":       {method: "GET", path: "rich/panic", header: bearer, status: 503, variant: "PluginInternalError"},
		"public":               {method: "GET", path: "open/raw", status: 200, answer: `["GET",["raw"],null,0]`},
		"public, but for POST": {method: "POST", path: "open/raw", status: 401, variant: "AdminAuthInitialization"},
		"floor admin":          {method: "GET", path: "open/x", header: bearer, status: 401, variant: "AdminAuthInitialization"},
	} {
		a.check(t, name, plainly(t, a.method, site+"/kbs/v0/external/"+a.path, a.body, a.header))
	}
	for _, path := range []string{"models/x", "open/x"} {
		got := w.send(shown{method: "POST", path: "/kbs/v0/external/" + path, body: "new", certificate: &h.Operator})
		asked{status: 200, answer: `["POST",["x"],null,3]`, kind: "text/xml"}.check(t, "the operator at "+path, got)
	}

	saysWhoCalls(t, w, site, strict, bearer)
	comesAndGoes(t, site, bearer, late, stop)
	external := plainly(t, "GET", site+"/metrics", "", nil).body
	for _, line := range []string{
		`kbs_plugin_requests_total{plugin_name="models"}`, `kbs_plugin_errors_total{plugin_name="late"}`,
		`kbs_plugin_request_duration_seconds_bucket{plugin_name="models",le="0.001"}`, `kbs_plugin_request_duration_seconds_bucket{plugin_name="models",le="1"}`,
		`sallyport_kbs_backend_calls_total{call="Handle",outcome="refused",plugin_name="models"}`, `sallyport_kbs_backend_up{plugin_name="models"} 0`,
	} {
		if !strings.Contains(external, line) {
			t.Errorf("there is no metric %s", line)
		}
	}
	if strings.Contains(w.Log(), "canary") {
		t.Error("the plugin's panic is in the server's log")
	}
	if s, err := w.admin.Status(t.Context()); err != nil || !strings.Contains(strings.Join(s.Weak, " "), "models is called without TLS") {
		t.Errorf("plain addresses are not shown: %v %v", s.Weak, err)
	}
}

// saysWhoCalls runs a plugin that answers nobody but the broker, and only what the
// broker says, signed, of who calls.
func saysWhoCalls(t *testing.T, w *world, site, at string, bearer map[string]string) {
	t.Helper()
	keys := func(context.Context) ([]byte, error) {
		got := plainly(t, "GET", site+"/.well-known/sallyport-context-jwks.json", "", nil)
		return []byte(got.body), nil
	}
	h := kbs.HandlerFunc(func(ctx context.Context, _ *kbs.Request) (*kbs.Response, error) {
		said, err := json.Marshal(kbs.FromContext(ctx))
		return &kbs.Response{Body: said, ContentType: "application/json"}, err
	})
	run(t, kbs.NewServer(h).WithAddress(at).WithContext("told", keys))
	for deadline := time.Now().Add(30 * time.Second); plainly(t, "GET", site+"/kbs/v0/external/told/x", "", bearer).status != 200; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the plugin is not told: %s", plainly(t, "GET", site+"/kbs/v0/external/told/x", "", bearer).body)
		}
	}
	workloads, err := w.admin.Subjects(t.Context(), sallyport.SubjectQuery{Kind: "workload"})
	must(t, err)
	g, _ := newGuest(t, site, nil)
	plain, _, err := g.External(t.Context(), "told/x", nil)
	must(t, err)
	var who kbs.Context
	must(t, json.Unmarshal(plain.Reveal(), &who))
	if len(workloads.Items) == 0 || who.Caller != "guest" || who.Guest == nil || who.Guest.Devices[0].TEE != "sample" || who.Guest.Devices[0].Policy != "default_cpu" {
		t.Errorf("the plugin is told %s", plain.Reveal())
	}
	for name, want := range map[string]int{"untold": 401, "stolen": 503} { // without a context; with one for another name
		asked{status: want, variant: "PluginInternalError"}.check(t, name, plainly(t, "GET", site+"/kbs/v0/external/"+name+"/x", "", bearer))
	}
	// Who reaches the plugin's address and has no key of the broker gets nothing.
	wire, end, err := external.Connect(external.Address{Name: "told", Endpoint: "http://" + at})
	must(t, err)
	defer end()
	for _, made := range []string{"", "e30.e30.e30", strings.TrimPrefix(bearer["Authorization"], "Bearer ")} {
		if a, err := wire.Handle(t.Context(), external.Request{Method: "GET", Path: []string{"x"}, Context: made}); err == nil {
			t.Errorf("with %q it answers %s", made, a.Body)
		}
	}
	// The keys of contexts are none of attestation results.
	results := plainly(t, "GET", site+"/.well-known/jwks.json", "", nil).body
	contexts, _ := keys(t.Context())
	if strings.Contains(results, "OKP") || !strings.Contains(string(contexts), "OKP") || strings.Contains(string(contexts), `"d"`) {
		t.Errorf("the key sets are %s and %s", results, contexts)
	}
}

// comesAndGoes starts a plugin that was down, and stops one that was up.
func comesAndGoes(t *testing.T, site string, bearer map[string]string, late string, stop func()) {
	t.Helper()
	eventually := func(what string, want int, path string) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			got := plainly(t, "GET", site+"/kbs/v0/external/"+path, "", bearer)
			if got.status == want {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: answers %d %s", what, got.status, got.body)
			}
		}
	}
	serveModels(t, late)
	eventually("a plugin that has come", 200, "late/x")
	stop()
	eventually("a plugin that has gone", 401, "models/x")
	eventually("one whose statuses are shown", 503, "rich/x")
}

// A plugin that knows nothing but grpcio runs unchanged, and so does one of kbs_plugin_sdk.
func TestExternal_RunsAForeignPythonPlugin(t *testing.T) {
	python := "/usr/bin/python3"
	need(t, exec.CommandContext(t.Context(), python, "-c", "import grpc, google.protobuf").Run() == nil, "python3-grpcio")
	at, sdkAt := freeAddress(t), freeAddress(t)
	h := found(t, Options{
		Further: []any{map[string]any{"name": "guests", "address": "127.0.0.1:0", "doors": []string{"kbs"}, "plain": true}},
		Config: map[string]any{
			"verifiers": map[string]any{"sample": map[string]any{"insecure": true}},
			"kbs": map[string]any{"external": map[string]any{"backends": []any{
				map[string]any{"name": "issuer", "endpoint": "http://" + at}, map[string]any{"name": "greeter", "endpoint": "http://" + sdkAt},
			}}},
		},
	})
	w := start(t, h)
	must(t, done(w.admin.SetPolicy(t.Context(), policy.ResourceName, string(policy.KBSResource), policy.ResourceAllowAll()+"\nallow if data.plugin == \"external\"\n")))
	sdk := filepath.Join("..", "..", "python", "kbs_plugin_sdk", "src")
	for _, arguments := range [][]string{{"plugin.py", at, filepath.Join(sdk, "kbs_plugin_sdk", "plugin")}, {"withsdk.py", sdkAt}} {
		arguments[0] = filepath.Join("testdata", "foreign", arguments[0])
		cmd := exec.CommandContext(t.Context(), python, append([]string{"-B"}, arguments...)...)
		cmd.Env = append(os.Environ(), "PYTHONPATH="+sdk)
		cmd.Stderr = os.Stderr
		must(t, cmd.Start())
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	}
	g, _ := newGuest(t, "http://"+w.Bound["guests"], nil)
	token, err := g.Attest(t.Context())
	must(t, err)
	for _, a := range []struct{ path, name, want string }{{"issuer/issue", "identity", "certificate of vm-1"}, {"greeter/x", "name", "hello, vm-1"}} {
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			plain, sealed, err := g.External(t.Context(), a.path, url.Values{a.name: {"vm-1"}})
			if err == nil {
				if string(plain.Reveal()) != a.want || sealed == (seal.JWE{}) {
					t.Errorf("the guest got %q", plain.Reveal())
				}
				break
			}
			if time.Now().After(deadline) {
				t.Fatal(err)
			}
		}
	}
	bearer := map[string]string{"Authorization": "Bearer " + token}
	site := "http://" + w.Bound["guests"] + "/kbs/v0/external/issuer/"
	asked{status: 200, answer: "certificate of x"}.check(t, "raw", plainly(t, "GET", site+"issue?identity=x&raw=", "", bearer))
	asked{status: 401, variant: "PluginInternalError"}.check(t, "refused", plainly(t, "GET", site+"else", "", bearer))
	asked{status: 401, variant: "AdminAuthInitialization"}.check(t, "administrators'", plainly(t, "DELETE", site+"issue", "", bearer))
	site = "http://" + w.Bound["guests"] + "/kbs/v0/external/greeter/"
	asked{status: 200, answer: "hello, x"}.check(t, "raw, with the SDK", plainly(t, "GET", site+"x?name=x&raw=", "", bearer))
	asked{status: 401, variant: "PluginInternalError"}.check(t, "an exception", plainly(t, "GET", site+"fail", "", bearer))
	asked{status: 401, variant: "AdminAuthInitialization"}.check(t, "administrators', with the SDK", plainly(t, "DELETE", site+"x", "", bearer))
}

// What a configuration cannot mean refuses the start.
func TestExternal_RefusesToStart(t *testing.T) {
	for name, backends := range map[string][]any{
		"an unknown scheme": {map[string]any{"name": "a", "endpoint": "grpc://127.0.0.1:1"}},
		"a socket":          {map[string]any{"name": "a", "endpoint": "unix:///run/a"}},
		"no authority":      {map[string]any{"name": "a", "endpoint": "https://127.0.0.1:1"}},
		"a name twice":      {map[string]any{"name": "a", "endpoint": "http://127.0.0.1:1"}, map[string]any{"name": "a", "endpoint": "http://127.0.0.1:2"}},
		"none":              {},
		"an unknown floor":  {map[string]any{"name": "a", "endpoint": "http://127.0.0.1:1", "routes": []any{map[string]any{"floor": "x"}}}},
	} {
		h := found(t, Options{})
		h.config["kbs"] = map[string]any{"external": map[string]any{"backends": backends}}
		must(t, h.writeConfig())
		s, err := h.Start(t.Context())
		if err == nil {
			s.Kill()
			t.Errorf("%s: it starts", name)
		} else if !strings.Contains(err.Error(), "kbs.external") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
