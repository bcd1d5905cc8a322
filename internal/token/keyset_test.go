package token

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-project/sallyport/internal/fault"
)

func set(t testing.TB, keys ...jose.JSONWebKey) KeySet {
	t.Helper()
	text, err := json.Marshal(jose.JSONWebKeySet{Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	s, err := ParseKeySet(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func publicPEM(t testing.TB, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// What one server publishes is what another trusts.
func TestTrust_ReadsTokensOfAPublishedSet(t *testing.T) {
	key := p256(t)
	text, err := MarshalKeySet([]SignerKey{{Public: key.Public()}, {Public: p256(t).Public()}})
	if err != nil {
		t.Fatal(err)
	}
	published, err := ParseKeySet(text)
	if err != nil {
		t.Fatal(err)
	}
	tok := mint(t, minter(t, key))
	tr := trust(t, start, TrustConfig{Sets: []KeySet{published}})
	if a, err := tr.Verify(tok); err != nil || a.Own {
		t.Fatalf("a token of the published key: %v", err)
	}
	tr.ReplaceSets(nil)
	if _, err := tr.Verify(tok); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("a token of a key that was taken out, and was remembered: %v", err)
	}
	if _, err := trust(t, start, TrustConfig{Insecure: true}).Verify(tok); err != nil {
		t.Errorf("the insecure switch: %v", err)
	}
}

func TestTrust_FindsKeysByID(t *testing.T) {
	key, other := p256(t), p256(t)
	claims := map[string]any{"exp": start.Add(time.Minute).Unix(), "tee-pubkey": json.RawMessage(teeJWK)}
	named := func(kid any) string {
		return forge(t, jose.ES256, key, map[jose.HeaderKey]any{"kid": kid, "typ": "JWT"}, claims)
	}
	cfg := TrustConfig{Sets: []KeySet{set(t, jose.JSONWebKey{Key: other.Public(), KeyID: "other", Algorithm: "ES256"}), set(
		t,
		jose.JSONWebKey{Key: key.Public(), KeyID: "good", Algorithm: "ES256"}, jose.JSONWebKey{Key: key.Public(), KeyID: "vague"},
		jose.JSONWebKey{Key: key.Public(), Algorithm: "ES256"},
	)}}
	for kid, want := range map[string]bool{"good": true, "other": false, "vague": false, "": false, "GOOD": false} {
		if _, err := trust(t, start, cfg).Verify(named(kid)); (err == nil) != want {
			t.Errorf("kid %q: %v", kid, err)
		}
	}
	// A header with a key of its own is judged by that key, whatever it names.
	swapped := forge(t, jose.ES256, other, map[jose.HeaderKey]any{"kid": "good", "jwk": jose.JSONWebKey{Key: other.Public(), Algorithm: "ES256"}}, claims)
	cfg.Sets = cfg.Sets[1:]
	if _, err := trust(t, start, cfg).Verify(swapped); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("another key under a trusted kid: %v", err)
	}
}

func TestParseKeySet_RefusesWhatIsNoSet(t *testing.T) {
	key := p256(t)
	private, _ := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key, KeyID: "x"}}})
	small, _ := rsa.GenerateKey(rand.Reader, 2048)
	smallPEM := publicPEM(t, &small.PublicKey)
	for name, text := range map[string]string{
		"nothing": ``, "no keys": `{"keys":[]}`, "unknown kinds": `{"keys":[{"kty":"new"}]}`, "private": string(private),
		"for encryption": `{"keys":[{"kty":"EC","use":"enc","crv":"P-256","x":"` + teeX(t) + `","y":"` + teeY(t) + `"}]}`,
		"a secret":       `{"keys":[{"kty":"oct","k":"AAAA","alg":"HS256"}]}`,
		"PEM of a key":   "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
	} {
		if _, err := ParseKeySet([]byte(text)); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if s, err := ParseKeySet(append(smallPEM, publicPEM(t, key.Public())...)); err != nil || len(s.keys) != 2 {
		t.Errorf("two keys in PEM: %d %v", len(s.keys), err)
	}
}

func teeX(t testing.TB) string { return teeMember(t, "x") }
func teeY(t testing.TB) string { return teeMember(t, "y") }

func teeMember(t testing.TB, name string) string {
	t.Helper()
	var m map[string]string
	if err := json.Unmarshal([]byte(teeJWK), &m); err != nil {
		t.Fatal(err)
	}
	return m[name]
}

// The matrix of kinds of key and what can be wrong.
func TestBearers_Check(t *testing.T) {
	public, eddsa, _ := ed25519.GenerateKey(rand.Reader)
	ec := p256(t)
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	sets := []KeySet{}
	for _, key := range []any{public, &ec.PublicKey, &r.PublicKey} {
		s, err := ParseKeySet(publicPEM(t, key))
		if err != nil {
			t.Fatal(err)
		}
		sets = append(sets, s)
	}
	b, err := NewBearers(BearersConfig{
		Issuers: []Issuer{{Name: "issuer", Audience: "kbs", Keys: func() []KeySet { return sets }}},
		Access: []Access{
			{Role: "admin", Endpoints: []string{"^/kbs/.+$"}},
			{Role: "team", Endpoints: []string{"^/kbs/v0/resource/team/[^/]+/[^/]+$", "^/kbs/v0/a$|^/kbs/v0/b$"}},
		}, Now: func() time.Time { return start },
	})
	if err != nil {
		t.Fatal(err)
	}
	good := func(change map[string]any) map[string]any {
		c := map[string]any{"iss": "issuer", "aud": []string{"kbs"}, "role": "admin", "exp": start.Add(time.Hour).Unix(), "sub": "anybody"}
		for k, v := range change {
			if c[k] = v; v == nil {
				delete(c, k)
			}
		}
		return c
	}
	const uri = "/kbs/v0/resource-policy"
	for alg, key := range map[jose.SignatureAlgorithm]any{jose.EdDSA: eddsa, jose.ES256: ec, jose.RS256: r, jose.PS512: r} {
		if _, err := b.Check(forge(t, alg, key, nil, good(nil)), uri); err != nil {
			t.Errorf("%s: %v", alg, err)
		}
	}
	for name, c := range map[string]struct {
		change map[string]any
		uri    string
		kind   fault.Kind
	}{
		"expired":         {map[string]any{"exp": start.Unix()}, uri, fault.Unauthenticated},
		"no expiry":       {map[string]any{"exp": nil}, uri, fault.Unauthenticated},
		"expiry as text":  {map[string]any{"exp": "4000000000"}, uri, fault.Unauthenticated},
		"not yet":         {map[string]any{"nbf": start.Add(time.Hour).Unix()}, uri, fault.Unauthenticated},
		"another issuer":  {map[string]any{"iss": "other"}, uri, fault.Unauthenticated},
		"no issuer":       {map[string]any{"iss": nil}, uri, fault.Unauthenticated},
		"another place":   {map[string]any{"aud": "other"}, uri, fault.Unauthenticated},
		"no place":        {map[string]any{"aud": nil}, uri, fault.Unauthenticated},
		"no role":         {map[string]any{"role": nil}, uri, fault.Denied},
		"unknown role":    {map[string]any{"role": "root"}, uri, fault.Denied},
		"other path":      {map[string]any{"role": "team"}, uri, fault.Denied},
		"path and more":   {map[string]any{"role": "team"}, "/kbs/v0/resource/team/a/b/c", fault.Denied},
		"bars hold":       {map[string]any{"role": "team"}, "/kbs/v0/a/more", fault.Denied},
		"bars hold again": {map[string]any{"role": "team"}, "/x/kbs/v0/b", fault.Denied},
	} {
		if _, err := b.Check(forge(t, jose.EdDSA, eddsa, nil, good(c.change)), c.uri); !fault.Is(err, c.kind) {
			t.Errorf("%s: %v", name, err)
		}
	}
	who, err := b.Check(forge(t, jose.EdDSA, eddsa, nil, good(map[string]any{"role": "team", "sub": "bob"})), "/kbs/v0/resource/team/key/1")
	if err != nil || who.Subject != "bob" {
		t.Errorf("a path of the role: %v", err)
	}
	stranger, _ := ecdsa.GenerateKey(ec.Curve, rand.Reader)
	if _, err := b.Check(forge(t, jose.ES256, stranger, nil, good(nil)), uri); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("a stranger's key: %v", err)
	}
	// alg confusion: the public key as the secret of a MAC, and no signature at all.
	if _, err := b.Check(forge(t, jose.HS256, publicPEM(t, public), nil, good(nil)), uri); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("HS256: %v", err)
	}
	if _, err := b.Check(encode([]byte(`{"alg":"none"}`))+"."+encode([]byte(`{"role":"admin"}`))+".", uri); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("none: %v", err)
	}
	for _, bad := range []string{"/kbs/.*$", "^/kbs/.*", "^/v1/.*$", "^/kbs/($"} {
		if _, err := NewBearers(BearersConfig{Issuers: []Issuer{{}}, Access: []Access{{"r", []string{bad}}}, Now: time.Now}); !fault.Is(err, fault.Invalid) {
			t.Errorf("endpoint %s: %v", bad, err)
		}
	}
}

func FuzzKeySet(f *testing.F) {
	f.Add([]byte(`{"keys":[{"kty":"EC","crv":"P-256","kid":"a","alg":"ES256","x":"` + teeX(f) + `","y":"` + teeY(f) + `"}]}`))
	f.Add(publicPEM(f, p256(f).Public()))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := ParseKeySet(data)
		if err != nil && !fault.Is(err, fault.Invalid) {
			t.Fatalf("kind of %v", err)
		}
		if (err == nil) != (len(s.keys) > 0) {
			t.Fatal("a set without keys, or keys with an error")
		}
	})
}

func FuzzBearer(f *testing.F) {
	key := p256(f)
	s := set(f, jose.JSONWebKey{Key: key.Public(), KeyID: "k"})
	b, err := NewBearers(BearersConfig{
		Issuers: []Issuer{{Keys: func() []KeySet { return []KeySet{s} }}}, Access: []Access{{"admin", []string{"^/kbs/.*$"}}}, Now: func() time.Time { return start },
	})
	if err != nil {
		f.Fatal(err)
	}
	tok := forge(f, jose.ES256, key, nil, map[string]any{"role": "admin", "exp": start.Add(time.Hour).Unix()})
	f.Add(tok)
	f.Fuzz(func(t *testing.T, raw string) {
		if _, err := b.Check(raw, "/kbs/v0/x"); err == nil && raw != tok || err != nil && !fault.Is(err, fault.Unauthenticated) {
			t.Fatalf("%v", err)
		}
	})
}
