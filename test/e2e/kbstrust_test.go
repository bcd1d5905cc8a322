package e2e

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/attester/guest"
	"github.com/sallyport-project/sallyport/internal/attester/sample"
	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/policy"
	"github.com/sallyport-project/sallyport/internal/seal"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// guests is a listener of the key broker alone, without TLS.
func guestDoor() []any {
	return []any{map[string]any{"name": "guests", "address": "127.0.0.1:0", "doors": []string{"kbs"}, "plain": true}}
}

func believesSamples() map[string]any {
	return map[string]any{"sample": map[string]any{"insecure": true}}
}

// TestKBS_Passport takes an attestation token from one server to another, which
// believes the first one's published keys, and loses that trust again.
func TestKBS_Passport(t *testing.T) {
	first := start(t, found(t, Options{Further: guestDoor(), Config: map[string]any{
		"verifiers": believesSamples(),
		"kbs":       map[string]any{"attestation_results": map[string]any{"issuer": "first", "life": "10m", "certificate": true}},
	}}))
	issuer := "http://" + first.Bound["guests"]
	set := plainly(t, "GET", issuer+"/.well-known/jwks.json", "", nil)
	if set.status != 200 || strings.Contains(set.body, `"d"`) || !strings.Contains(set.body, `"alg":"ES256"`) {
		t.Fatalf("the published keys: %+v", set)
	}
	second := start(t, found(t, Options{Further: guestDoor(), Config: map[string]any{
		"kbs": map[string]any{"attestation_token": map[string]any{"trusted_key_sets": []string{issuer + "/.well-known/jwks.json"}}},
	}}))
	byChain := start(t, found(t, Options{Further: guestDoor(), Config: map[string]any{
		"kbs": map[string]any{"attestation_token": map[string]any{"trusted_certificates": []string{filepath.Join(first.House.Dir, "contexts", "operator", "ca.pem")}}},
	}}))
	stranger := start(t, found(t, Options{Further: guestDoor()}))
	for _, w := range []*world{second, byChain, stranger} {
		_, err := w.admin.SetPolicy(t.Context(), policy.ResourceName, "kbs-resource", policy.ResourceAllowAll())
		must(t, err)
		_, err = w.admin.PutResource(t.Context(), "default", "key", "disk", []byte("the disk's key"))
		must(t, err)
	}
	g, key := newGuest(t, issuer, nil)
	passport, err := g.Attest(t.Context())
	must(t, err)
	says := claimsOf(t, passport)
	if life := says["exp"].(float64) - says["iat"].(float64); says["iss"] != "first" || life != 600 {
		t.Errorf("the passport is by %v for %v seconds", says["iss"], life)
	}
	get := func(w *world, token string) reply {
		return plainly(t, "GET", "http://"+w.Bound["guests"]+"/kbs/v0/resource/default/key/disk", "", map[string]string{"Authorization": "Bearer " + token})
	}
	for range 2 { // admitted once, and known from then on
		got := get(second, passport)
		if got.status != 200 {
			t.Fatalf("the passport is answered %d %s", got.status, got.body)
		}
		sealed, err := seal.ParseJWE([]byte(got.body))
		must(t, err)
		if plain, err := seal.Open(key, sealed); err != nil || string(plain.Reveal()) != "the disk's key" {
			t.Fatalf("the answer does not open: %v", err)
		}
	}
	if got := get(byChain, passport); got.status != 200 {
		t.Errorf("who trusts the root of its certificate answers %d %s", got.status, got.body)
	}
	if got := get(stranger, passport); got.status != 401 || !strings.Contains(got.body, "TokenVerifierError") {
		t.Errorf("a server that trusts nobody answers %d %s", got.status, got.body)
	}
	if got := plainly(t, "GET", "http://"+second.Bound["guests"]+"/kbs/v0/resource/default/key/disk", "", map[string]string{"Authorization": "Bearer " + passport[:len(passport)-6] + "AAAAAA"}); got.status != 401 {
		t.Errorf("a forged passport is answered %d %s", got.status, got.body)
	}

	// After a rotation the second server fetches the new key by itself.
	_, err = first.admin.RotateKey(t.Context(), "ear")
	must(t, err)
	fresh, err := g.Attest(t.Context())
	must(t, err)
	if got := get(byChain, fresh); got.status != 200 { // at once: the new key has a certificate too
		t.Errorf("by the chain of the rotated key: %d %s", got.status, got.body)
	}
	for late := time.Now().Add(time.Minute); get(second, fresh).status != 200; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(late) {
			t.Fatal("the rotated key is not believed")
		}
	}
	if got := get(second, passport); got.status != 200 {
		t.Errorf("a passport of the key before, which overlaps, is answered %d %s", got.status, got.body)
	}

	// A workload is locked at the second server like one that attested there.
	workloads, err := second.admin.Subjects(t.Context(), sallyport.SubjectQuery{Kind: "workload"})
	must(t, err)
	if len(workloads.Items) != 1 {
		t.Fatalf("workloads: %+v", workloads.Items)
	}
	_, err = second.admin.ChangeSubject(t.Context(), workloads.Items[0].ID, sallyport.SubjectChange{Act: "lock", Reason: "a test"})
	must(t, err)
	if got := get(second, passport); got.status != 401 {
		t.Errorf("the passport of a locked workload is answered %d %s", got.status, got.body)
	}
}

// claimsOf reads a token without checking it.
func claimsOf(t *testing.T, token string) (claims map[string]any) {
	t.Helper()
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	must(t, err)
	must(t, json.Unmarshal(payload, &claims))
	return claims
}

// adminToken signs like an identity provider.
func adminToken(t *testing.T, key ed25519.PrivateKey, claims map[string]any) string {
	t.Helper()
	text, err := json.Marshal(claims)
	must(t, err)
	raw := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"EdDSA","typ":"JWT"}`)) + "." + base64.RawURLEncoding.EncodeToString(text)
	return raw + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(key, []byte(raw)))
}

// TestKBS_AdminModes tries every mode with every way to administer.
func TestKBS_AdminModes(t *testing.T) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	der, err := x509.MarshalPKIXPublicKey(public)
	must(t, err)
	file := filepath.Join(t.TempDir(), "admin.pub")
	must(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600))
	claims := func(role string) map[string]any {
		return map[string]any{"iss": "issuer", "aud": []string{"kbs"}, "role": role, "sub": "ci-of-" + role, "exp": time.Now().Add(time.Hour).Unix()}
	}
	bearer := func(role string) map[string]string {
		return map[string]string{"Authorization": "Bearer " + adminToken(t, private, claims(role))}
	}
	jwt := map[string]any{
		"mode": "bearer_jwt", "as": "operator",
		"identity_providers": []any{map[string]any{"issuer": "issuer", "audience": "kbs", "public_key": file}},
		"access": []any{
			map[string]any{"role": "admin", "endpoints": []string{"^/kbs/.+$"}},
			map[string]any{"role": "team", "endpoints": []string{"^/kbs/v0/resource/team/[^/]+/[^/]+$"}},
		},
	}
	for name, c := range map[string]struct {
		admin                               map[string]any
		operator, nobody, admins, team, ill int
	}{
		"operators":        {map[string]any{}, 200, 401, 401, 401, 401},
		"deny all":         {map[string]any{"mode": "deny_all"}, 401, 401, 401, 401, 401},
		"tokens":           {jwt, 200, 401, 200, 401, 401},
		"anybody":          {map[string]any{"mode": "insecure_allow_all", "as": "operator"}, 200, 200, 200, 200, 200},
		"no such operator": {map[string]any{"mode": "insecure_allow_all", "as": "nobody"}, 200, 401, 401, 401, 401},
	} {
		t.Run(name, func(t *testing.T) {
			h := found(t, Options{Further: guestDoor(), Config: map[string]any{"kbs": map[string]any{"admin": c.admin}}})
			w := start(t, h)
			url := "http://" + w.Bound["guests"] + "/kbs/v0/resource/default/key/1"
			if got := w.send(shown{method: "POST", path: "/kbs/v0/resource/default/key/1", body: "x", certificate: &h.Operator}); got.status != c.operator {
				t.Errorf("the operator's certificate: %d %s", got.status, got.body)
			}
			for who, want := range map[string]int{"": c.nobody, "admin": c.admins, "team": c.team, "root": c.ill} {
				header := map[string]string{}
				if who != "" {
					header = bearer(who)
				}
				got := plainly(t, "POST", url, "x", header)
				if got.status != want || want == 401 && !strings.Contains(got.body, "errors/AdminAuthAccess") {
					t.Errorf("role %q: %d %s", who, got.status, got.body)
				}
			}
			status, err := w.admin.Status(t.Context())
			must(t, err)
			if weak := strings.Contains(strings.Join(status.Weak, " "), "ANYBODY WHO REACHES"); weak != (c.admin["mode"] == "insecure_allow_all") {
				t.Errorf("the weak switches are %v", status.Weak)
			}
			if name != "tokens" {
				return
			}
			if got := plainly(t, "POST", strings.Replace(url, "default/key", "team/key", 1), "x", bearer("team")); got.status != 200 {
				t.Errorf("the team's own path: %d %s", got.status, got.body)
			}
			if got := plainly(t, "POST", strings.Replace(url, "default/key/1", "te%61m/key/1", 1), "x", bearer("admin")); got.status != 401 {
				t.Errorf("a path in disguise: %d %s", got.status, got.body)
			}
			if got := plainly(t, "GET", strings.Replace(url, "/default/key/1", "", 1), "", bearer("admin")); got.status != 200 || got.body != `["default/key/1","team/key/1"]` {
				t.Errorf("the list of resources: %d %s", got.status, got.body)
			}
			for late := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
				records, err := w.admin.Records(t.Context(), sallyport.RecordQuery{Type: "resource.stored"})
				must(t, err)
				if text, _ := json.Marshal(records); strings.Contains(string(text), `"kbs-token"`) && strings.Contains(string(text), `"sub":"ci-of-`) {
					break
				}
				if time.Now().After(late) {
					t.Fatal("the ledger does not say that a token was used")
				}
			}
		})
	}
}

// TestKBS_HandshakesAreBounded asks for challenges from one address.
func TestKBS_HandshakesAreBounded(t *testing.T) {
	w := start(t, found(t, Options{Further: guestDoor(), Config: map[string]any{
		"verifiers": believesSamples(), "kbs": map[string]any{"handshakes": map[string]any{"per_second": 1, "burst": 3}},
	}}))
	url := "http://" + w.Bound["guests"]
	refused := 0
	for range 10 {
		got := plainly(t, "POST", url+"/kbs/v0/auth", `{"version":"0.4.0","tee":"sample","extra-params":""}`, nil)
		if got.status == 429 {
			refused++
			if got.header.Get("Retry-After") == "" || !strings.Contains(got.body, "errors/AttestationError") {
				t.Errorf("too many handshakes are answered %+v", got)
			}
		}
	}
	if refused == 0 {
		t.Error("one address begins ten handshakes at once")
	}
	// Nor does one challenge, answered again and again, cost more.
	var cookie string
	for late := time.Now().Add(30 * time.Second); cookie == ""; time.Sleep(100 * time.Millisecond) {
		got := plainly(t, "POST", url+"/kbs/v0/auth", `{"version":"0.4.0","tee":"sample","extra-params":""}`, nil)
		if cookie, _, _ = strings.Cut(got.header.Get("Set-Cookie"), ";"); time.Now().After(late) {
			t.Fatal("a handshake is never taken again")
		}
	}
	refused = 0
	for range 10 {
		if got := plainly(t, "POST", url+"/kbs/v0/attest", "{}", map[string]string{"Cookie": cookie}); got.status == 429 {
			refused++
		}
	}
	if refused == 0 {
		t.Error("one address answers one challenge ten times at once")
	}
	meteredAsInTrustee(t, w, url)
}

// meteredAsInTrustee looks for the names that dashboards know.
func meteredAsInTrustee(t *testing.T, w *world, url string) {
	t.Helper()
	metrics := plainly(t, "GET", url+"/metrics", "", nil).body
	for _, name := range []string{
		"kbs_http_requests_total", "kbs_http_request_duration_seconds_bucket", "kbs_http_request_size_bytes_bucket", "kbs_http_response_size_bytes_bucket",
		"kbs_http_active_connections", "kbs_policy_evaluations_total", "kbs_policy_approvals_total", "kbs_policy_violations_total",
		"kbs_policy_errors_total", "kbs_attestation_requests_total", `kbs_attestation_successes_total{tee_type="sample"}`, `kbs_attestation_failures_total{tee_type="snp"}`,
		"kbs_attestation_errors_total", "kbs_auth_requests_total", "kbs_auth_successes_total", "kbs_auth_errors_total", "kbs_build_info",
	} {
		if !strings.Contains(metrics, "\n"+name) {
			t.Errorf("the metric %s is missing", name)
		}
	}
	program, err := buildinfo.ReadFile(w.House.Server)
	must(t, err)
	setting := func(key string) string {
		i := slices.IndexFunc(program.Settings, func(s debug.BuildSetting) bool { return s.Key == key })
		if i < 0 { // built outside of git
			return ""
		}
		return program.Settings[i].Value
	}
	if info := fmt.Sprintf("kbs_build_info{build_date=%q,git_hash=%q,version=", setting("vcs.time"), setting("vcs.revision")); !strings.Contains(metrics, info) {
		t.Errorf("there is no %s", info)
	}
	if got := plainly(t, "POST", url+"/metrics", "", nil); got.status != 405 {
		t.Errorf("POST /metrics: %d", got.status)
	}
}

// TestKBS_CompositeEvidence shows a device beside the CPU.
func TestKBS_CompositeEvidence(t *testing.T) {
	w := start(t, found(t, Options{Further: guestDoor(), Config: map[string]any{"verifiers": believesSamples()}}))
	cpu, err := sample.New(evidence.Sample)
	must(t, err)
	device, err := sample.New(evidence.SampleDevice)
	must(t, err)
	key, err := seal.GenerateKEM()
	must(t, err)
	g, err := guest.New(guest.Config{URL: "http://" + w.Bound["guests"], Attester: cpu, Devices: []evidence.Attester{device}, Key: key})
	must(t, err)
	token, err := g.Attest(t.Context())
	must(t, err)
	text, err := json.Marshal(claimsOf(t, token))
	must(t, err)
	var claims struct {
		Submods map[string]struct {
			Policy string `json:"ear.appraisal-policy-id"`
		} `json:"submods"`
	}
	must(t, json.Unmarshal(text, &claims))
	if claims.Submods["cpu0"].Policy != "default_cpu" || claims.Submods["gpu0"].Policy != "default_gpu" || len(claims.Submods) != 2 {
		t.Errorf("the submods are %+v", claims.Submods)
	}
}
