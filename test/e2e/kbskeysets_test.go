package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/policy"
	"github.com/sallyport-project/sallyport/internal/seal"
)

// issuer signs tokens with keys that have names.
type issuer struct {
	t    *testing.T
	keys map[string]*ecdsa.PrivateKey
}

func (i issuer) key(name string) *ecdsa.PrivateKey {
	i.t.Helper()
	if i.keys[name] == nil {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		must(i.t, err)
		i.keys[name] = key
	}
	return i.keys[name]
}

// jwk is the public half of a key.
func (i issuer) jwk(name string) map[string]any {
	point, err := i.key(name).PublicKey.Bytes()
	must(i.t, err)
	b64 := base64.RawURLEncoding.EncodeToString
	return map[string]any{"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": name, "x": b64(point[1:33]), "y": b64(point[33:])}
}

func (i issuer) set(names ...string) []byte {
	list := []any{}
	for _, name := range names {
		list = append(list, i.jwk(name))
	}
	text, err := json.Marshal(map[string]any{"keys": list})
	must(i.t, err)
	return text
}

// token signs claims with a key; more are members of the header.
func (i issuer) token(by string, claims, more map[string]any) string {
	i.t.Helper()
	header := map[string]any{"alg": "ES256", "typ": "JWT"}
	maps.Copy(header, more)
	part := func(v any) string {
		text, err := json.Marshal(v)
		must(i.t, err)
		return base64.RawURLEncoding.EncodeToString(text)
	}
	signed := part(header) + "." + part(claims)
	sum := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, i.key(by), sum[:])
	must(i.t, err)
	raw := make([]byte, 64)
	r.FillBytes(raw[:32])
	s.FillBytes(raw[32:])
	return signed + "." + base64.RawURLEncoding.EncodeToString(raw)
}

// provider publishes what tests change, over https.
type provider struct {
	*httptest.Server
	mu    sync.Mutex
	files map[string][]byte
}

func newProvider(t *testing.T) *provider {
	p := &provider{files: map[string][]byte{}}
	p.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		text, ok := p.files[r.URL.Path]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
		}
		_, _ = w.Write(text)
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *provider) put(path string, text []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.files[path] = text
}

// TestKBS_BelievesPublishedKeys has tokens of attestation services whose keys lie
// in a file, at an https address, and where an OpenID Connect issuer says, which
// then replaces its key; and administrators of the same issuer.
func TestKBS_BelievesPublishedKeys(t *testing.T) {
	i, p, dir := issuer{t, map[string]*ecdsa.PrivateKey{}}, newProvider(t), t.TempDir()
	p.put("/set.json", i.set("of-the-set"))
	p.put("/.well-known/openid-configuration", []byte(`{"issuer":"`+p.URL+`","jwks_uri":"`+p.URL+`/keys"}`))
	p.put("/keys", i.set("of-the-issuer"))
	file := filepath.Join(dir, "keys.json")
	must(t, os.WriteFile(file, i.set("of-the-file"), 0o600))
	w, url := broker(t, map[string]any{
		"key_set_ca":        writePEM(t, filepath.Join(dir, "provider.pem"), "CERTIFICATE", p.Certificate().Raw),
		"attestation_token": map[string]any{"trusted_key_sets": []string{"file://" + file, p.URL + "/set.json", p.URL}},
		"admin": map[string]any{
			"mode": "bearer_jwt", "as": "operator", "identity_providers": []any{map[string]any{"issuer": p.URL, "audience": "kbs", "key_set": p.URL}},
			"access": []any{map[string]any{"role": "admin", "endpoints": []string{"^/kbs/.+$"}}},
		},
	})
	key, err := seal.GenerateKey()
	must(t, err)
	says := map[string]any{"exp": time.Now().Add(time.Hour).Unix(), "tee-pubkey": key.Public(), "submods": map[string]any{"cpu0": map[string]any{"ear.status": "affirming"}}}
	get := func(token string) reply {
		return plainly(t, "GET", url+"/kbs/v0/resource/default/key/disk", "", map[string]string{"Authorization": "Bearer " + token})
	}
	named := func(kid, by string) string { return i.token(by, says, map[string]any{"kid": kid}) }
	opens := func(what string, got reply) {
		t.Helper()
		sealed, err := seal.ParseJWE([]byte(got.body))
		if got.status != 200 || err != nil {
			t.Fatalf("%s: %d %s", what, got.status, got.body)
		}
		if plain, err := seal.Open(key, sealed); err != nil || string(plain.Reveal()) != "the disk's key" {
			t.Errorf("%s: the answer does not open: %v", what, err)
		}
	}
	for _, name := range []string{"of-the-file", "of-the-set", "of-the-issuer"} {
		opens(name, get(named(name, name)))
	}
	for what, token := range map[string]string{
		"a key that nobody published":     named("mallory", "mallory"),
		"the name of a key, and another":  named("of-the-set", "mallory"),
		"a key that the token brings":     i.token("mallory", says, map[string]any{"jwk": i.jwk("mallory")}),
		"no name and no key":              i.token("of-the-set", says, nil),
		"an algorithm that signs nothing": strings.Join(append([]string{base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","kid":"of-the-set"}`))}, strings.Split(named("of-the-set", "of-the-set"), ".")[1:]...), "."),
	} {
		if got := get(token); got.status != 401 || !strings.Contains(got.body, "errors/TokenVerifierError") {
			t.Errorf("%s: %d %s", what, got.status, got.body)
		}
	}
	store := func(by string) int {
		claims := map[string]any{"iss": p.URL, "aud": []string{"kbs"}, "role": "admin", "exp": time.Now().Add(time.Hour).Unix()}
		return plainly(t, "POST", url+"/kbs/v0/resource/default/key/"+by, "x", map[string]string{"Authorization": "Bearer " + i.token(by, claims, map[string]any{"kid": by})}).status
	}
	if a, b := store("of-the-issuer"), store("of-the-set"); a != 200 || b != 401 {
		t.Errorf("administrators of the issuer, and of another: %d %d", a, b)
	}

	// The issuer replaces its key: nobody tells the server, and nobody starts it anew.
	p.put("/keys", i.set("of-the-issuer-2"))
	must(t, Eventually(time.Minute, func() error {
		return unlike(200, get(named("of-the-issuer-2", "of-the-issuer-2")).status, store("of-the-issuer-2"))
	}))
	must(t, unlike(401, get(named("of-the-issuer", "of-the-issuer")).status, store("of-the-issuer")))
	opens("another source", get(named("of-the-set", "of-the-set")))
	if status, err := w.admin.Status(t.Context()); err != nil || slices.ContainsFunc(status.Weak, func(s string) bool { return strings.Contains(s, "header_key") }) {
		t.Errorf("weak switches: %v %v", status.Weak, err)
	}
}

// TestKBS_AnybodysTokensAreASwitch believes a key that a token brings along, where
// that is asked for by name, and says so.
func TestKBS_AnybodysTokensAreASwitch(t *testing.T) {
	i := issuer{t, map[string]*ecdsa.PrivateKey{}}
	w, url := broker(t, map[string]any{"attestation_token": map[string]any{"insecure_header_key": true, "tee_key_pointers": []string{"/where/it/is"}}})
	key, err := seal.GenerateKey()
	must(t, err)
	says := map[string]any{"exp": time.Now().Add(time.Hour).Unix(), "where": map[string]any{"it": map[string]any{"is": key.Public()}}, "submods": map[string]any{"cpu0": map[string]any{"ear.status": "affirming"}}}
	get := func(by string) reply {
		token := i.token(by, says, map[string]any{"jwk": i.jwk("mallory")})
		return plainly(t, "GET", url+"/kbs/v0/resource/default/key/disk", "", map[string]string{"Authorization": "Bearer " + token})
	}
	must(t, unlike(200, get("mallory").status))
	must(t, unlike(401, get("another").status)) // signed by another key than it brings
	status, err := w.admin.Status(t.Context())
	if err != nil || !strings.Contains(strings.Join(status.Weak, " "), "ATTESTATION TOKENS OF ANYBODY ARE BELIEVED") {
		t.Errorf("the switch is not shown: %v %v", status.Weak, err)
	}
	_, err = w.admin.SetPolicy(t.Context(), policy.ResourceName, "kbs-resource", policy.ResourceDenyAll())
	must(t, err)
	must(t, unlike(401, get("mallory").status))
}
