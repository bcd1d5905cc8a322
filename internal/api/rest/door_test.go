package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/sallyport-project/sallyport/internal/id"
	"github.com/sallyport-project/sallyport/internal/subject"
)

var update = flag.Bool("update", false, "write api/openapi.yaml anew")

const golden = "../../../api/openapi.yaml"

func TestDocument_IsTheCommittedOne(t *testing.T) {
	h := newHouse(t, nil)
	got, err := documentYAML(h.door.routes, "1")
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("the API has changed: run go test ./internal/api/rest -run Document -update and read the difference")
	}
}

func TestDocument_DescribesEveryRoute(t *testing.T) {
	h := newHouse(t, nil)
	var doc struct {
		Paths map[string]map[string]struct {
			ID       string `json:"operationId"`
			Security []any  `json:"security"`
		} `json:"paths"`
	}
	if err := json.Unmarshal(h.door.document, &doc); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, r := range h.door.routes {
		op, ok := doc.Paths[strings.ReplaceAll(r.path, "...}", "}")][strings.ToLower(r.method)]
		if !ok || op.ID != r.id || seen[r.id] {
			t.Errorf("%s: described as %+v", r.template(), op)
		}
		seen[r.id] = true
	}
	if bytes.Contains(h.door.document, []byte("$schema")) {
		t.Error("the document links schemas into bodies")
	}
}

// fill makes a path of a route's template.
func fill(r route, value string) string {
	return pathName.ReplaceAllString(r.path, value)
}

func (h *house) send(t testing.TB, c *http.Client, method, path, kind string, body io.Reader, header ...string) (*http.Response, problem) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, h.server.URL+path, body)
	if err != nil {
		t.Fatal(err)
	}
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	var p problem
	if res.StatusCode >= 400 {
		if res.Header.Get("Content-Type") != "application/problem+json" || json.Unmarshal(data, &p) != nil {
			t.Errorf("%s %s: status %d with %s: %s", method, path, res.StatusCode, res.Header.Get("Content-Type"), data)
		}
	}
	res.Body = io.NopCloser(bytes.NewReader(data))
	return res, p
}

// Nobody gets past the door unrecognised, on any route but the listed ones.
func TestDoor_RecognisesBeforeAnythingElse(t *testing.T) {
	h := newHouse(t, nil)
	open := map[string]bool{
		"enrol": true, "read-ca": true, "read-ssh-ca": true, "read-ssh-krl": true, "read-ledger-keys": true, "read-openapi": true,
		"read-repository": true,
	}
	for _, r := range h.door.routes {
		t.Run(r.id, func(t *testing.T) {
			if r.open != open[r.id] {
				t.Fatalf("open: %v", r.open)
			}
			if r.open {
				return
			}
			res, p := h.send(t, h.plain(nil), r.method, fill(r, "x")+"?nonsense=1", "text/plain", strings.NewReader("{{{"))
			if res.StatusCode != http.StatusUnauthorized || p.Kind != "unauthenticated" || len(res.Header.Values("WWW-Authenticate")) != 2 {
				t.Errorf("status %d, %+v", res.StatusCode, p)
			}
		})
	}
	if len(h.gate.calls) != 0 {
		t.Errorf("strangers reached %v", h.gate.calls)
	}
}

// Whatever is wrong with a request, its values do not come back.
func TestDoor_NeverRepeatsWhatItRefuses(t *testing.T) {
	const canary = "CANARY-s3cr3t"
	h := newHouse(t, nil)
	_, who := h.newcomer(t, subject.Operator)
	c := h.plain(&who)
	before := len(h.gate.calls)
	bodies := map[string]string{
		"not JSON":        canary,
		"JSON string":     `"` + canary + `"`,
		"unknown member":  `{"` + canary + `":1}`,
		"unknown value":   `{"nonsense":"` + canary + `"}`,
		"twice":           `{"` + canary + `":1,"` + canary + `":2}`,
		"cut off":         `{"secret":"` + canary,
		"deep":            strings.Repeat(`{"`+canary+`":`, 40) + "1" + strings.Repeat("}", 40),
		"trailing":        `{} ` + canary,
		"list":            `["` + canary + `"]`,
		"number":          `{"ttl_seconds":"` + canary + `","kind":7}`,
		"too large":       `{"secret":"` + strings.Repeat(canary, 40000) + `"}`,
		"invalid UTF-8":   "{\"kind\":\"\xff" + canary + `"}`,
		"known, unformed": `{"kind":{"` + canary + `":"` + canary + `"},"secret":["` + canary + `"],"scopes":"` + canary + `","reason":5,"csr":{"x":"` + canary + `"}}`,
	}
	for _, r := range h.door.routes {
		if r.in == reflect.TypeFor[none]() || r.in == reflect.TypeFor[blob]() || r.in == reflect.TypeFor[stream]() {
			continue
		}
		for name, body := range bodies {
			t.Run(r.id+"/"+name, func(t *testing.T) {
				res, p := h.send(t, c, r.method, fill(r, "lock"), "application/json", strings.NewReader(body))
				if res.StatusCode != http.StatusBadRequest || p.Kind != "invalid" || p.RequestID != res.Header.Get(requestHeader) {
					t.Errorf("status %d, %+v", res.StatusCode, p)
				}
				said := fmt.Sprint(p, res.Header)
				if strings.Contains(said, "CANARY") || strings.Contains(said, "s3cr3t") {
					t.Errorf("comes back in %s", said)
				}
			})
		}
	}
	for _, path := range []string{
		"/v1/subjects?kind=" + canary, "/v1/subjects?" + canary + "=1", "/v1/subjects?limit=" + canary, "/v1/credentials?state=" + canary,
		"/v1/records?from=" + canary, "/v1/records?newest=" + canary, "/v1/policies/base?version=" + canary, "/v1/ledger/tile/" + canary + "/000",
		"/v1/ledger/tile/0/" + canary, "/v1/" + canary, "/v1/whoami?%zz" + canary,
	} {
		res, p := h.send(t, c, http.MethodGet, path, "", nil)
		if res.StatusCode != http.StatusBadRequest && res.StatusCode != http.StatusNotFound || strings.Contains(fmt.Sprint(p, res.Header), "CANARY") {
			t.Errorf("%s: status %d, %+v", path, res.StatusCode, p)
		}
	}
	for _, header := range []string{"Bearer " + canary, "DPoP " + canary, "Basic " + canary, canary, "Bearer " + canary + " " + canary} {
		res, p := h.send(t, c, http.MethodGet, "/v1/whoami", "", nil, "Authorization", header, "DPoP", canary)
		if res.StatusCode != http.StatusUnauthorized || strings.Contains(fmt.Sprint(p, res.Header), "CANARY") {
			t.Errorf("%s: status %d, %+v", header, res.StatusCode, p)
		}
	}
	if len(h.gate.calls) != before {
		t.Errorf("malformed requests reached %v", h.gate.calls[before:])
	}
	if strings.Contains(h.log.String(), "CANARY") {
		t.Errorf("the log has it: %s", h.log)
	}
}

func TestDoor_TakesOneCredentialAtATime(t *testing.T) {
	h := newHouse(t, nil)
	_, who := h.newcomer(t, subject.Operator)
	c := h.plain(&who)
	for name, headers := range map[string][]string{
		"two tokens":    {"Authorization", "Bearer a", "Authorization", "Bearer b"},
		"no token":      {"Authorization", "Bearer "},
		"no proof":      {"Authorization", "DPoP a"},
		"two proofs":    {"Authorization", "DPoP a", "DPoP", "x", "DPoP", "y"},
		"empty":         {"Authorization", ""},
		"control bytes": {"Authorization", "Bearer a\tb"},
	} {
		if res, _ := h.send(t, c, http.MethodGet, "/v1/whoami", "", nil, headers...); res.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s: status %d", name, res.StatusCode)
		}
	}
	if res, _ := h.send(t, c, http.MethodGet, "/v1/whoami", "", nil); res.StatusCode != http.StatusOK {
		t.Errorf("the certificate alone: status %d", res.StatusCode)
	}
}

// A certificate of a stranger's authority that names our subject is nobody's.
func TestDoor_TakesNoUnverifiedCertificate(t *testing.T) {
	h := newHouse(t, nil)
	r := httptest.NewRequest(http.MethodGet, "https://x/v1/whoami", nil)
	_, who := h.newcomer(t, subject.Operator)
	r.TLS.PeerCertificates = append(r.TLS.PeerCertificates, who.Certificate.Leaf)
	r.TLS.VerifiedChains = nil
	if p, err := Presented(r); err != nil || p.Certificate != nil {
		t.Errorf("%+v, %v", p.Certificate, err)
	}
	r.Header.Set("X-Forwarded-For", "10.9.9.9")
	r.RemoteAddr = "[::ffff:192.0.2.7]:1234"
	if p, _ := Presented(r); p.Address != "192.0.2.7" {
		t.Errorf("address %q", p.Address)
	}
}

func TestDoor_BoundsBodies(t *testing.T) {
	h := newHouse(t, nil)
	_, who := h.newcomer(t, subject.Operator)
	c := h.plain(&who)
	for _, step := range []struct {
		method, path, kind string
		size               int
		status             int
	}{
		{http.MethodPut, "/v1/resources/a/b/c", binaryKind, 2 << 20, 200},
		{http.MethodPut, "/v1/resources/a/b/c", binaryKind, 2<<20 + 1, 400},
		{http.MethodPost, "/v1/plugins", binaryKind, 3 << 20, 201},
		{http.MethodGet, "/v1/whoami", "text/plain", 1, 400},
		{http.MethodDelete, "/v1/policies/base", "text/plain", 1, 400},
	} {
		res, p := h.send(t, c, step.method, step.path, step.kind, io.LimitReader(zeros{}, int64(step.size)))
		if res.StatusCode != step.status {
			t.Errorf("%s %s with %d bytes: %d %+v", step.method, step.path, step.size, res.StatusCode, p)
		}
	}
	// A package that announces too much is refused before it is sent.
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, h.server.URL+"/v1/plugins", io.LimitReader(zeros{}, packageBody+1))
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = packageBody + 1
	if res, err := c.Do(req); err == nil {
		if res.StatusCode != http.StatusBadRequest {
			t.Errorf("a huge package: status %d", res.StatusCode)
		}
		res.Body.Close()
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestDoor_TakesJSONAlone(t *testing.T) {
	h := newHouse(t, nil)
	_, who := h.newcomer(t, subject.Operator)
	c := h.plain(&who)
	const body = `{"kind":"ssh-user-cert","ttl_seconds":60}`
	for kind, status := range map[string]int{
		"application/json": 201, "application/json; charset=utf-8": 201, "text/plain": 400, "": 400, "application/x-www-form-urlencoded": 400,
	} {
		if res, _ := h.send(t, c, http.MethodPost, "/v1/credentials", kind, strings.NewReader(body)); res.StatusCode != status {
			t.Errorf("%q: status %d", kind, res.StatusCode)
		}
	}
}

func TestVend_ChecksTheIdempotencyKey(t *testing.T) {
	h := newHouse(t, nil)
	_, who := h.newcomer(t, subject.Operator)
	c := h.plain(&who)
	const body = `{"kind":"ssh-user-cert","ttl_seconds":60}`
	for _, bad := range []string{"", strings.Repeat("k", 129), "a b", "ä"} {
		if res, _ := h.send(t, c, http.MethodPost, "/v1/credentials", "application/json", strings.NewReader(body), "Idempotency-Key", bad); res.StatusCode != http.StatusBadRequest {
			t.Errorf("%q: status %d", bad, res.StatusCode)
		}
	}
	for i, want := range []int{201, 200} {
		res, _ := h.send(t, c, http.MethodPost, "/v1/credentials", "application/json", strings.NewReader(body), "Idempotency-Key", strings.Repeat("k", 128))
		if res.StatusCode != want || (res.Header.Get("Idempotent-Replay") == "true") != (i == 1) {
			t.Errorf("call %d: status %d, %v", i, res.StatusCode, res.Header)
		}
	}
}

func TestDoor_SetsHeadersOnEveryAnswer(t *testing.T) {
	h := newHouse(t, nil)
	for _, path := range []string{"/v1/ca", "/v1/whoami", "/v1/none", "/openapi.json"} {
		res, _ := h.send(t, h.plain(nil), http.MethodGet, path, "", nil, requestHeader, "chosen-outside", "X-Request-Id", "chosen-outside")
		if !id.Valid(res.Header.Get(requestHeader)) || res.Header.Get("Cache-Control") != "no-store" || res.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %v", path, res.Header)
		}
	}
}

func TestDoor_RefusesWhatIsNoOperation(t *testing.T) {
	h := newHouse(t, nil)
	c := h.plain(nil)
	for path, status := range map[string]int{
		"/": 404, "/v1": 404, "/v1/": 404, "/v1/whoami/": 404, "/v1//whoami": 404, "/v1/subjects/..": 404, "/v1/subjects/%2e%2e": 404,
		"/v1/./whoami": 404, "/v2/whoami": 404, "/v1/ledger/tile/entries": 404, "/v1/enrol": 405, "/v1/credentials/x/revoke": 405,
	} {
		res, _ := h.send(t, c, http.MethodGet, path, "", nil)
		if res.StatusCode != status || status == 405 && res.Header.Get("Allow") != "POST" {
			t.Errorf("%s: status %d, %v", path, res.StatusCode, res.Header)
		}
	}
}

func TestDoor_ServesNoPlainHTTPAndNoForeignPage(t *testing.T) {
	h := newHouse(t, nil)
	w := httptest.NewRecorder()
	h.door.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://x/v1/ca", nil))
	if w.Code != http.StatusBadRequest {
		t.Errorf("plain HTTP: status %d", w.Code)
	}
	_, who := h.newcomer(t, subject.Operator)
	res, _ := h.send(t, h.plain(&who), http.MethodPost, "/v1/subjects/x/revoke", "", nil, "Sec-Fetch-Site", "cross-site")
	if res.StatusCode != http.StatusForbidden || h.gate.count("ChangeSubject") != 0 {
		t.Errorf("a page of another origin: status %d", res.StatusCode)
	}
}

func TestDoor_SurvivesAPanic(t *testing.T) {
	h := newHouse(t, func(c *Config) {
		c.SSHRevocations = func(ctx context.Context) ([]byte, error) { panic("CANARY " + fmt.Sprint(ctx != nil)) }
		c.SSHAuthority = func(context.Context) ([]byte, error) { panic(errors.New("CANARY")) }
	})
	for _, path := range []string{"/v1/ssh/krl", "/v1/ssh/ca"} {
		res, p := h.send(t, h.plain(nil), http.MethodGet, path, "", nil)
		if res.StatusCode != http.StatusInternalServerError || p.Kind != "internal" || strings.Contains(p.Detail, "CANARY") {
			t.Errorf("status %d, %+v", res.StatusCode, p)
		}
		if !strings.Contains(h.log.String(), p.RequestID) {
			t.Error("the log does not tell of it")
		}
	}
	if strings.Contains(h.log.String(), "CANARY") {
		t.Error("the log has the panic's value")
	}
	if res, _ := h.send(t, h.plain(nil), http.MethodGet, "/v1/ca", "", nil); res.StatusCode != http.StatusOK {
		t.Errorf("afterwards: status %d", res.StatusCode)
	}
}
