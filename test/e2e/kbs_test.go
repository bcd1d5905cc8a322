package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/sallyport-project/sallyport/internal/attester/guest"
	"github.com/sallyport-project/sallyport/internal/attester/sample"
	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/policy"
	"github.com/sallyport-project/sallyport/internal/seal"
)

// wiretap keeps what a guest sent and got.
type wiretap struct {
	requests []recordedCall
}

type recordedCall struct {
	method, url, cookie string
	body                []byte
	status              int
	answer              []byte
}

// RoundTrip implements http.RoundTripper.
func (w *wiretap) RoundTrip(r *http.Request) (*http.Response, error) {
	c := recordedCall{method: r.Method, url: r.URL.String(), cookie: r.Header.Get("Cookie")}
	if r.Body != nil {
		c.body, _ = io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(c.body))
	}
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	c.status = res.StatusCode
	c.answer, _ = io.ReadAll(res.Body)
	_ = res.Body.Close()
	res.Body = io.NopCloser(bytes.NewReader(c.answer))
	w.requests = append(w.requests, c)
	return res, nil
}

func newGuest(t *testing.T, url string, transport http.RoundTripper) (*guest.Client, seal.PrivateKey) {
	t.Helper()
	attester, err := sample.New(evidence.Sample)
	must(t, err)
	key, err := seal.GenerateKey()
	must(t, err)
	g, err := guest.New(guest.Config{URL: url, HTTP: transport, Attester: attester, Key: key})
	must(t, err)
	return g, key
}

// TestKBS_ServesAGuest runs the whole protocol over a listener that has nothing
// else and speaks plain HTTP, as guests of Confidential Containers do.
func TestKBS_ServesAGuest(t *testing.T) {
	h := found(t, Options{
		Further: []any{map[string]any{"name": "guests", "address": "127.0.0.1:0", "doors": []string{"kbs"}, "plain": true}},
		Config:  map[string]any{"verifiers": map[string]any{"sample": map[string]any{"insecure": true}}},
	})
	w := start(t, h)
	url := "http://" + w.Bound["guests"]
	_, err := w.admin.PutResource(t.Context(), "default", "key", "disk", []byte("the disk's key"))
	must(t, err)
	tap := &wiretap{}
	g, _ := newGuest(t, url, tap)
	token, err := g.Attest(t.Context())
	must(t, err)
	if strings.Count(token, ".") != 2 {
		t.Errorf("the attestation result is no JWT: %s", token)
	}

	// The policy of a new installation refuses what the sample verifier vouches for.
	if _, _, err := g.Resource(t.Context(), "default/key/disk"); !fault.Is(err, fault.Denied) {
		t.Fatalf("the default policy: %v", err)
	}
	upload := object("policy", base64.RawURLEncoding.EncodeToString([]byte(policy.ResourceAllowAll())))
	if got := plainly(t, "POST", url+"/kbs/v0/resource-policy", upload, nil); got.status != 401 {
		t.Errorf("a stranger sets the resource policy: %+v", got)
	}
	if got := w.send(shown{method: "POST", path: "/kbs/v0/resource-policy", body: upload, certificate: &h.Operator}); got.status != 200 {
		t.Fatalf("the operator cannot set the resource policy: %+v", got)
	}
	attestationPolicy(t, w, g)
	plain, sealed, err := g.Resource(t.Context(), "default/key/disk")
	must(t, err)
	if string(plain.Reveal()) != "the disk's key" {
		t.Errorf("the resource is %q", plain.Reveal())
	}
	stranger, err := seal.GenerateKey()
	must(t, err)
	if _, err := seal.Open(stranger, sealed); err == nil {
		t.Error("another key opens the answer")
	}
	if _, _, err := g.Resource(t.Context(), "default/key/nothing"); err == nil {
		t.Error("a resource that does not exist was released")
	}
	for _, c := range tap.requests {
		if bytes.Contains(c.answer, []byte("the disk's key")) {
			t.Errorf("%s %s answers the secret in the clear", c.method, c.url)
		}
	}
	replay(t, url, tap)
	errorsAreTheProtocols(t, url, token)
	listenerHasOneDoor(t, url)
	if status, err := w.admin.Status(t.Context()); err != nil || !strings.Contains(strings.Join(status.Weak, " "), "the sample verifier is on") {
		t.Errorf("the weak switch is not shown: %v %v", status.Weak, err)
	}
}

// attestationPolicy uploads one as operators of Trustee do: an id without a class is
// that of the CPU, the type is not looked at.
func attestationPolicy(t *testing.T, w *world, g *guest.Client) {
	t.Helper()
	rego := base64.RawURLEncoding.EncodeToString([]byte("package policy\n\ntrust_claims := {\"hardware\": 33}\n"))
	upload := object("policy_id", "default", "policy", rego, "type", "rego")
	for name, want := range map[string]int{upload: 200, object("policy", rego): 401, object("policy_id", "default", "policy", "bm8"): 401} {
		got := w.send(shown{method: "POST", path: "/kbs/v0/attestation-policy", body: name, certificate: &w.House.Operator})
		if got.status != want || want == 401 && !strings.Contains(got.body, "errors/ParsePolicyError") {
			t.Fatalf("%s is answered %d %s", name, got.status, got.body)
		}
	}
	token, err := g.Attest(t.Context())
	must(t, err)
	text, err := json.Marshal(claimsOf(t, token))
	must(t, err)
	if !strings.Contains(string(text), `"ear.trustworthiness-vector":{"hardware":33}`) {
		t.Errorf("the uploaded policy appraised nothing: %s", text)
	}
}

// replay sends a consumed answer to a challenge once more.
func replay(t *testing.T, url string, tap *wiretap) {
	t.Helper()
	replayed := 0
	for _, c := range tap.requests {
		if !strings.HasSuffix(c.url, "/attest") {
			continue
		}
		replayed++
		for range 2 {
			got := plainly(t, "POST", url+"/kbs/v0/attest", string(c.body), map[string]string{"Cookie": c.cookie})
			if got.status != 401 || !strings.Contains(got.body, "errors/AttestationError") {
				t.Errorf("a replayed attestation is answered %d: %s", got.status, got.body)
			}
		}
		// Fresh challenge, old evidence.
		fresh := plainly(t, "POST", url+"/kbs/v0/auth", `{"version":"0.4.0","tee":"sample","extra-params":{}}`, nil)
		cookie, _, _ := strings.Cut(fresh.header.Get("Set-Cookie"), ";")
		got := plainly(t, "POST", url+"/kbs/v0/attest", string(c.body), map[string]string{"Cookie": cookie})
		if got.status != 401 {
			t.Errorf("old evidence for a fresh challenge is answered %d: %s", got.status, got.body)
		}
	}
	if replayed == 0 {
		t.Error("no attestation was seen on the wire")
	}
}

func errorsAreTheProtocols(t *testing.T, url, token string) {
	t.Helper()
	for name, c := range map[string]struct {
		method, path, body string
		header             map[string]string
		status             int
		variant            string
	}{
		"no cookie":           {"POST", "/attest", "{}", nil, 401, "AttestationError"},
		"a forged cookie":     {"POST", "/attest", "{}", map[string]string{"Cookie": "kbs-session-id=AAAA"}, 401, "AttestationError"},
		"a bad request":       {"POST", "/auth", "{", nil, 401, "AttestationError"},
		"another version":     {"POST", "/auth", `{"version":"9.9.9","tee":"sample","extra-params":{}}`, nil, 401, "AttestationError"},
		"an unknown TEE":      {"POST", "/auth", `{"version":"0.4.0","tee":"tdx","extra-params":{}}`, nil, 401, "AttestationError"},
		"no attestation":      {"GET", "/resource/default/key/disk", "", nil, 401, "TokenNotFound"},
		"a forged token":      {"GET", "/resource/default/key/disk", "", map[string]string{"Authorization": "Bearer " + token[:len(token)-4] + "AAAA"}, 401, "TokenVerifierError"},
		"a path with dots":    {"GET", "/resource/default/%2e%2e/disk", "", map[string]string{"Authorization": "Bearer " + token}, 401, "PluginInternalError"},
		"a slash in disguise": {"GET", "/resource/default/key%2fdisk", "", map[string]string{"Authorization": "Bearer " + token}, 401, "PluginInternalError"},
		"an unknown path":     {"GET", "/nothing/here", "", nil, 404, "PluginNotFound"},
		"an external plugin":  {"GET", "/external/x/y", "", nil, 404, "PluginNotFound"},
		"an operator's act":   {"POST", "/resource/default/key/disk", "x", nil, 401, "AdminAuthAccess"},
	} {
		got := plainly(t, c.method, url+"/kbs/v0"+c.path, c.body, c.header)
		var problem struct{ Type, Detail string }
		if err := json.Unmarshal([]byte(got.body), &problem); err != nil || got.header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: the error is not JSON: %s", name, got.body)
		}
		if got.status != c.status || problem.Type != "https://github.com/confidential-containers/kbs/errors/"+c.variant || problem.Detail == "" {
			t.Errorf("%s: answered %d %s", name, got.status, got.body)
		}
	}
	if got := plainly(t, "GET", url+"/kbs/v0/resource/default/key/disk", "", map[string]string{"Authorization": "Bearer " + token}); got.status != 200 {
		t.Errorf("the token of the handshake, as bearer: %d %s", got.status, got.body)
	}
}

// listenerHasOneDoor asks the listener of the key broker for everything else.
func listenerHasOneDoor(t *testing.T, url string) {
	t.Helper()
	for path, want := range map[string]int{
		"/v1/status": 404, "/v1/ca": 404, "/openapi.json": 404, "/": 404, "/healthz": 200, "/metrics": 200, "/readyz": 404,
	} {
		if got := plainly(t, "GET", url+path, "", nil); got.status != want {
			t.Errorf("%s on the listener for guests answers %d, want %d", path, got.status, want)
		}
	}
}

// plainly sends one request without TLS.
func plainly(t *testing.T, method, url, body string, header map[string]string) reply {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	must(t, err)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	got, err := exchange(http.DefaultClient, req)
	must(t, err)
	return got
}
