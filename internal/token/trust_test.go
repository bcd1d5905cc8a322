package token

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/seal"
)

func TestTrust_ReadsOurOwn(t *testing.T) {
	key := p256(t)
	tok := mint(t, minter(t, key))
	a, err := trust(t, start, TrustConfig{Keys: []SignerKey{{Public: key.Public()}}}).Verify(tok)
	if err != nil {
		t.Fatal(err)
	}
	if !a.Own || !a.Key.Equal(teeKey(t)) || a.Status() != evidence.Warning || a.Expires.Sub(start) != EARLife || !a.IssuedAt.Equal(start) || len(a.ID) != 64 {
		t.Errorf("%+v", a)
	}
	retire := []SignerKey{{Public: key.Public(), RetireAt: start}}
	early := []SignerKey{{Public: key.Public(), NotBefore: start.Add(time.Hour)}}
	for name, cfg := range map[string]TrustConfig{
		"nobody": {}, "another key": {Keys: []SignerKey{{Public: p256(t).Public()}}}, "retired": {Keys: retire}, "not yet": {Keys: early},
		"an anchor, no chain": {Anchors: []*x509.Certificate{certificate(t, key, start.Add(-time.Hour), start.Add(time.Hour))}},
	} {
		if _, err := trust(t, start, cfg).Verify(tok); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTrust_KeepsTimes(t *testing.T) {
	key := p256(t)
	tok := mint(t, minter(t, key))
	cfg := TrustConfig{Keys: []SignerKey{{Public: key.Public()}}}
	for at, want := range map[time.Duration]bool{
		-61 * time.Second: false, -60 * time.Second: true, 0: true, EARLife: true, EARLife + 59*time.Second: true, EARLife + 60*time.Second: false, 24 * time.Hour: false,
	} {
		if _, err := trust(t, start.Add(at), cfg).Verify(tok); (err == nil) != want {
			t.Errorf("%s: %v", at, err)
		}
	}
}

// signEAR signs any claims with a key that is trusted.
func signEAR(t testing.TB, key crypto.Signer, alg jose.SignatureAlgorithm, jwk any, claims any, more ...any) string {
	t.Helper()
	h := map[jose.HeaderKey]any{"typ": "JWT", "jwk": jwk}
	for i := 0; i < len(more); i += 2 {
		h[jose.HeaderKey(more[i].(string))] = more[i+1]
	}
	return forge(t, alg, key, h, claims)
}

func TestTrust_RefusesOddTokens(t *testing.T) {
	key := p256(t)
	tr := trust(t, start, TrustConfig{Keys: []SignerKey{{Public: key.Public()}}})
	jwk := map[string]any{}
	text, err := json.Marshal(jose.JSONWebKey{Key: key.Public(), Algorithm: "ES256"})
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &jwk); err != nil {
		t.Fatal(err)
	}
	with := func(name string, v any) map[string]any {
		m := map[string]any{}
		for k, x := range jwk {
			m[k] = x
		}
		m[name] = v
		return m
	}
	without := with("alg", "ES256")
	delete(without, "alg")
	private, err := json.Marshal(jose.JSONWebKey{Key: key, Algorithm: "ES256"})
	if err != nil {
		t.Fatal(err)
	}
	claims := func(change func(map[string]any)) map[string]any {
		var tee any
		_ = json.Unmarshal([]byte(teeJWK), &tee)
		m := map[string]any{"exp": start.Add(time.Minute).Unix(), "tee-pubkey": tee}
		if change != nil {
			change(m)
		}
		return m
	}
	if a, err := tr.Verify(signEAR(t, key, jose.ES256, jwk, claims(nil))); err != nil || a.Status() != evidence.Contraindicated {
		t.Fatalf("the plain one: %v, %v", a.Status(), err)
	}
	thief := p256(t)
	plain := encode([]byte(`{"alg":"none","jwk":`+string(text)+`}`)) + "." + encode([]byte(`{"exp":1900000000}`)) + "."
	for name, tok := range map[string]string{
		"signed by another":     signEAR(t, thief, jose.ES256, jwk, claims(nil)),
		"no jwk":                forge(t, jose.ES256, key, map[jose.HeaderKey]any{"typ": "JWT"}, claims(nil)),
		"kid only":              forge(t, jose.ES256, key, map[jose.HeaderKey]any{"kid": "x"}, claims(nil)),
		"jwk without alg":       signEAR(t, key, jose.ES256, without, claims(nil)),
		"jwk with another alg":  signEAR(t, key, jose.ES256, with("alg", "ES384"), claims(nil)),
		"private jwk":           signEAR(t, key, jose.ES256, json.RawMessage(private), claims(nil)),
		"jwk off the curve":     signEAR(t, key, jose.ES256, with("x", encode(make([]byte, 32))), claims(nil)),
		"symmetric":             signEAR2(t, jose.HS256, []byte("0123456789abcdef0123456789abcdef"), jwk, claims(nil)),
		"crit":                  signEAR(t, key, jose.ES256, jwk, claims(nil), "crit", []string{"b64"}),
		"session typ":           signEAR(t, key, jose.ES256, jwk, claims(nil), "typ", sessionType),
		"none":                  plain,
		"none with a signature": plain + "AAAA",
		"no exp":                signEAR(t, key, jose.ES256, jwk, claims(func(m map[string]any) { delete(m, "exp") })),
		"exp as text":           signEAR(t, key, jose.ES256, jwk, claims(func(m map[string]any) { m["exp"] = "1900000000" })),
		"exp huge":              signEAR(t, key, jose.ES256, jwk, claims(func(m map[string]any) { m["exp"] = 1e300 })),
		"exp null":              signEAR(t, key, jose.ES256, jwk, claims(func(m map[string]any) { m["exp"] = nil })),
		"expired":               signEAR(t, key, jose.ES256, jwk, claims(func(m map[string]any) { m["exp"] = start.Add(-time.Hour).Unix() })),
		"nbf to come":           signEAR(t, key, jose.ES256, jwk, claims(func(m map[string]any) { m["nbf"] = start.Add(time.Hour).Unix() })),
		"iat as text":           signEAR(t, key, jose.ES256, jwk, claims(func(m map[string]any) { m["iat"] = "x" })),
		"no TEE key":            signEAR(t, key, jose.ES256, jwk, claims(func(m map[string]any) { delete(m, "tee-pubkey") })),
		"odd TEE key":           signEAR(t, key, jose.ES256, jwk, claims(func(m map[string]any) { m["tee-pubkey"] = "x" })),
		"payload no object":     signEAR(t, key, jose.ES256, jwk, []int{1}),
		"too deep":              signEAR(t, key, jose.ES256, jwk, claims(func(m map[string]any) { m["x"] = json.RawMessage(strings.Repeat("[", 60) + strings.Repeat("]", 60)) })),
		"too long":              signEAR(t, key, jose.ES256, jwk, claims(func(m map[string]any) { m["x"] = strings.Repeat("x", MaxEAR) })),
		"empty":                 "",
	} {
		if _, err := tr.Verify(tok); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func signEAR2(t testing.TB, alg jose.SignatureAlgorithm, key, jwk, claims any) string {
	return forge(t, alg, key, map[jose.HeaderKey]any{"jwk": jwk}, claims)
}

func TestTrust_FindsTheTEEKeyInOrder(t *testing.T) {
	key := p256(t)
	other, err := seal.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	in := func(path []string, v any) map[string]any {
		for i := len(path) - 1; i >= 0; i-- {
			v = map[string]any{path[i]: v}
		}
		m, _ := v.(map[string]any)
		return m
	}
	jwk := jose.JSONWebKey{Key: key.Public(), Algorithm: "ES256"}
	cfg := TrustConfig{Keys: []SignerKey{{Public: key.Public()}}, Pointers: []string{"/a~1b/0"}}
	tr := trust(t, start, cfg)
	for i, p := range tr.pointers[1:] {
		m := in(p, teeKey(t).Members())
		m["exp"] = start.Add(time.Minute).Unix()
		if i < len(tr.pointers)-2 {
			m["tee-pubkey"] = other.Public().Members()
		}
		a, err := tr.Verify(signEAR(t, key, jose.ES256, jwk, m))
		if err != nil || !a.Key.Equal(teeKey(t)) {
			t.Errorf("%v: %v", p, err)
		}
		m["a/b"] = []any{other.Public().Members()}
		a, err = tr.Verify(signEAR(t, key, jose.ES256, jwk, m))
		if err != nil || !a.Key.Equal(other.Public()) {
			t.Errorf("the configured pointer does not come first: %v", err)
		}
	}
	for _, bad := range []string{"", "a", "/a~", "/a~2", "/" + strings.Repeat("x", 600)} {
		if _, err := NewTrust(TrustConfig{Now: time.Now, Pointers: []string{bad}}); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	for _, path := range []string{"/01", "/-1", "/1", "/x", "/0/y"} {
		p, _ := pointer(path)
		if _, ok := follow([]any{"v"}, p); ok {
			t.Errorf("%s leads somewhere", path)
		}
	}
}

// The key trust scenarios of Trustee's tree: 01 and 05 are good; 02 has another
// key than its certificate, 03 no chain, 04 a wrong anchor.
func TestTrust_MatchesTrusteeScenarios(t *testing.T) {
	at := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	for name, want := range map[string]bool{"01": true, "02": false, "03": false, "04": false, "05": true} {
		t.Run(name, func(t *testing.T) {
			jwk := vectors(t, "jwk/scenario"+name+"-jwk.json")
			rest := vectors(t, "jwk/scenario"+name+"-trust.pem")
			var anchors []*x509.Certificate
			for {
				var block *pem.Block
				if block, rest = pem.Decode(rest); block == nil {
					break
				}
				c, err := x509.ParseCertificate(block.Bytes)
				if err != nil {
					t.Fatal(err)
				}
				anchors = append(anchors, c)
			}
			if len(anchors) == 0 {
				t.Fatal("no anchors")
			}
			by, err := trust(t, at, TrustConfig{Anchors: anchors}).shown(jwk, nil, at)
			if (err == nil) != want || by.own {
				t.Errorf("accepted %v, want %v: %v", err == nil, want, err)
			}
			if want && (by.alg == "" || by.until.IsZero()) {
				t.Error("no algorithm")
			}
			if _, err := trust(t, at.AddDate(20, 0, 0), TrustConfig{Anchors: anchors}).shown(jwk, nil, at.AddDate(20, 0, 0)); err == nil {
				t.Error("accepted after its certificates expired")
			}
		})
	}
}

// Tokens of another service, by certificate chain, with EC and RSA keys.
func TestTrust_ReadsForeignTokensByChain(t *testing.T) {
	rootKey, midKey, leafKey := p256(t), p256(t), p256(t)
	root := certificate(t, rootKey, start.Add(-time.Hour), start.Add(time.Hour))
	issue := func(pub any, parent *x509.Certificate, by crypto.Signer, ca bool) *x509.Certificate {
		tpl := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "x"}, NotBefore: start.Add(-time.Hour), NotAfter: start.Add(time.Hour), IsCA: ca, BasicConstraintsValid: true}
		der, err := x509.CreateCertificate(rand.Reader, tpl, parent, pub, by)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	mid := issue(midKey.Public(), root, rootKey, true)
	leaf := issue(leafKey.Public(), mid, midKey, false)
	cfg := TrustConfig{Anchors: []*x509.Certificate{root}}
	tok := mint(t, minter(t, leafKey, leaf, mid))
	a, err := trust(t, start, cfg).Verify(tok)
	if err != nil || a.Own {
		t.Fatalf("%v", err)
	}
	if _, err := trust(t, start, cfg).Verify(mint(t, minter(t, leafKey, leaf))); err == nil {
		t.Error("a chain with a gap")
	}
	if _, err := trust(t, start, TrustConfig{Anchors: []*x509.Certificate{certificate(t, p256(t), start.Add(-time.Hour), start.Add(time.Hour))}}).Verify(tok); err == nil {
		t.Error("a wrong anchor")
	}
	rk, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	rleaf := issue(rk.Public(), mid, midKey, false)
	var tee any
	_ = json.Unmarshal([]byte(teeJWK), &tee)
	claims := map[string]any{"exp": start.Add(time.Minute).Unix(), "tee-pubkey": tee}
	for alg, want := range map[jose.SignatureAlgorithm]bool{jose.RS256: true, jose.RS512: true, jose.PS384: true} {
		jwk := jose.JSONWebKey{Key: rk.Public(), Algorithm: string(alg), Certificates: []*x509.Certificate{rleaf, mid}}
		if _, err := trust(t, start, cfg).Verify(signEAR(t, rk, alg, jwk, claims)); (err == nil) != want {
			t.Errorf("%s: %v", alg, err)
		}
		jwk.Algorithm = "RS384"
		if _, err := trust(t, start, cfg).Verify(signEAR(t, rk, alg, jwk, claims)); err == nil {
			t.Errorf("%s with a jwk for RS384", alg)
		}
	}
	swapped := jose.JSONWebKey{Key: leafKey.Public(), Algorithm: "ES256"}
	text, _ := json.Marshal(swapped)
	var m map[string]any
	_ = json.Unmarshal(text, &m)
	m["x5c"] = []string{"AAAA"}
	if _, err := trust(t, start, cfg).Verify(signEAR(t, leafKey, jose.ES256, m, claims)); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("a chain of nonsense: %v", err)
	}
	m["x5c"] = make([]string, maxChain+1)
	if _, err := trust(t, start, cfg).Verify(signEAR(t, leafKey, jose.ES256, m, claims)); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("a long chain: %v", err)
	}
}

func TestTrust_RefusesEveryMutant(t *testing.T) {
	key := p256(t)
	tok := mint(t, minter(t, key))
	tr := trust(t, start, TrustConfig{Keys: []SignerKey{{Public: key.Public()}}})
	mutants := 0
	for i := range tok {
		for _, r := range []string{"", "A", "_", ".", "=", "\n", tok[i:i+1] + "A"} {
			m := tok[:i] + r + tok[i+1:]
			if m == tok {
				continue
			}
			mutants++
			if _, err := tr.Verify(m); !fault.Is(err, fault.Unauthenticated) {
				t.Fatalf("mutant at %d: %v", i, err)
			}
		}
	}
	if mutants < 1000 {
		t.Errorf("only %d mutants", mutants)
	}
}

func TestAttested_StatusDoubtsWhatItCannotRead(t *testing.T) {
	for text, want := range map[string]evidence.Tier{
		`{}`: evidence.Contraindicated, `{"submods":{}}`: evidence.Contraindicated, `{"submods":[]}`: evidence.Contraindicated,
		`{"submods":{"cpu0":{"ear.status":"affirming"}}}`:                                   evidence.Affirming,
		`{"submods":{"cpu0":{"ear.status":"affirming"},"gpu0":{}}}`:                         evidence.Contraindicated,
		`{"submods":{"cpu0":{"ear.status":"affirming"},"gpu0":{"ear.status":"none"}}}`:      evidence.Affirming,
		`{"submods":{"cpu0":{"ear.status":"affirming"},"gpu0":{"ear.status":"Affirming"}}}`: evidence.Contraindicated,
		`{"submods":{"cpu0":{"ear.status":2}}}`:                                             evidence.Contraindicated,
	} {
		var a Attested
		if err := json.Unmarshal([]byte(text), &a.Claims); err != nil {
			t.Fatal(err)
		}
		if got := a.Status(); got != want {
			t.Errorf("%s is %s", text, got)
		}
	}
}

func FuzzEAR(f *testing.F) {
	key := p256(f)
	tok := mint(f, minter(f, key))
	head := strings.Split(tok, ".")[0]
	f.Add(tok)
	f.Add(head + ".e30.AAAA")
	tr := trust(f, start, TrustConfig{Keys: []SignerKey{{Public: key.Public()}}, Anchors: []*x509.Certificate{certificate(f, key, start.Add(-time.Hour), start.Add(time.Hour))}})
	f.Fuzz(func(t *testing.T, s string) {
		a, err := tr.Verify(s)
		if err != nil {
			if !fault.Is(err, fault.Unauthenticated) {
				t.Fatalf("kind of %v", err)
			}
		} else if s != tok {
			t.Fatalf("a second token was accepted: %v", a.Claims)
		}
		// The header's key is parsed before anything is proven: try it bare.
		if _, err := tr.shown(json.RawMessage(s), nil, start); err != nil && !fault.Is(err, fault.Unauthenticated) {
			t.Fatalf("kind of %v", err)
		}
	})
}

// A remembered token ends when a fresh one would: with its expiry, its signer's
// retirement, its chain, or a clock that goes back.
func TestTrust_RemembersNoLongerThanItTrusts(t *testing.T) {
	key := p256(t)
	c := &clock{start}
	check := func(name string, tok string, cfg TrustConfig, ends time.Duration) {
		t.Helper()
		c.at = start
		cfg.Now = c.read
		tr, err := NewTrust(cfg)
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range []time.Duration{0, ends - time.Second, ends, ends + time.Hour, 0, -time.Hour} {
			c.at = start.Add(at)
			fresh, err := NewTrust(cfg)
			if err != nil {
				t.Fatal(err)
			}
			_, want := fresh.Verify(tok)
			_, got := tr.Verify(tok)
			if (got == nil) != (want == nil) || (got == nil) != (at >= 0 && at < ends) {
				t.Errorf("%s at %s: remembered %v, fresh %v", name, at, got, want)
			}
		}
	}
	tok := mint(t, minter(t, key))
	check("expiry", tok, TrustConfig{Keys: []SignerKey{{Public: key.Public()}}}, EARLife+leeway)
	check("retirement", tok, TrustConfig{Keys: []SignerKey{{Public: key.Public(), RetireAt: start.Add(time.Minute)}}}, time.Minute)
	// crypto/x509 counts the last second of a certificate in; we may end early.
	cert := certificate(t, key, start.Add(-time.Minute), start.Add(2*time.Minute))
	chained := mint(t, minter(t, key, cert))
	c.at = start
	tr, err := NewTrust(TrustConfig{Anchors: []*x509.Certificate{cert}, Now: c.read})
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[time.Duration]bool{0: true, time.Minute: true, 2*time.Minute + time.Second: false} {
		c.at = start
		if _, err := tr.Verify(chained); err != nil {
			t.Fatal(err)
		}
		c.at = start.Add(at)
		if _, err := tr.Verify(chained); (err == nil) != want {
			t.Errorf("chain at %s: %v", at, err)
		}
	}
}

func TestTrust_RemembersABoundedNumber(t *testing.T) {
	var s seen[Attested]
	for i := range 3 * maxSeen {
		s.keep([32]byte{byte(i), byte(i >> 8), 1}, sighting[Attested]{at: start})
		s.keep([32]byte{byte(i), byte(i >> 8), 1}, sighting[Attested]{at: start})
	}
	if len(s.known) != maxSeen || len(s.order) != maxSeen {
		t.Errorf("%d are kept in the order of %d", len(s.known), len(s.order))
	}
	for i := range 3 * maxSeen {
		s.keep([32]byte{byte(i), byte(i >> 8), 2}, sighting[Attested]{at: start, weight: maxSeenSize})
	}
	if most := maxSeenSum / maxSeenSize; len(s.known) != most || len(s.order) != most || s.sum != maxSeenSum {
		t.Errorf("%d of %d bytes are kept in the order of %d", len(s.known), s.sum, len(s.order))
	}
}

func BenchmarkTrust(b *testing.B) {
	key := p256(b)
	tok := mint(b, minter(b, key))
	cfg := TrustConfig{Keys: []SignerKey{{Public: key.Public()}}}
	b.Run("first", func(b *testing.B) {
		tr := trust(b, start, cfg)
		b.ReportAllocs()
		for b.Loop() {
			tr.seen = seen[Attested]{}
			if _, err := tr.Verify(tok); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("again", func(b *testing.B) {
		tr := trust(b, start, cfg)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := tr.Verify(tok); err != nil {
				b.Fatal(err)
			}
		}
	})
}
