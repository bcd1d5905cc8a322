package seal

import (
	"crypto"
	"crypto/elliptic"
	"encoding/json"
	"math/big"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/secret"
)

const vectorJWK = `{"kty":"EC","crv":"P-256","alg":"ECDH-ES+A256KW","x":"` + vectorX + `","y":"` + vectorY + `"}`

func rsaJWK(n, e *big.Int, alg string) string {
	return `{"kty":"RSA","alg":"` + alg + `","n":"` + encode(n.Bytes()) + `","e":"` + encode(e.Bytes()) + `"}`
}

func odd(bits uint) *big.Int {
	n := new(big.Int).Lsh(big.NewInt(1), bits-1)
	return n.Add(n, big.NewInt(1))
}

func TestParseKey_KeepsTheTypedForm(t *testing.T) {
	k, err := ParseKey([]byte(`{"kid":"me","use":"enc","key_ops":["wrapKey"],"y":"` + vectorY + `","x":"` + vectorX + `","alg":"ECDH-ES+A256KW","crv":"P-256","kty":"EC"}`))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"kty": "EC", "crv": "P-256", "alg": ECDH, "x": vectorX, "y": vectorY}
	if d := cmp.Diff(want, k.Members()); d != "" {
		t.Error(d)
	}
	text, err := json.Marshal(k)
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseKey(text)
	if err != nil || !again.Equal(k) {
		t.Errorf("round trip: %v", err)
	}
	if _, err := json.Marshal(PublicKey{}); err == nil {
		t.Error("a zero key was encoded")
	}
}

func TestParseKey_AcceptsTheLimits(t *testing.T) {
	for _, bits := range []uint{2048, 3072, 4096, 8192} {
		if _, err := ParseKey([]byte(rsaJWK(odd(bits), big.NewInt(65537), OAEP))); err != nil {
			t.Errorf("%d bits: %v", bits, err)
		}
	}
	for _, c := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		_, p := ecKey(t, c)
		text, _ := json.Marshal(p.Public())
		if k, err := ParseKey(text); err != nil || !k.Equal(p.Public()) {
			t.Errorf("%s: %v", c.Params().Name, err)
		}
	}
}

func TestParseKey_RefusesUnfitKeys(t *testing.T) {
	f4 := big.NewInt(65537)
	even := new(big.Int).Lsh(big.NewInt(1), 2047)
	xb, _ := decode(vectorX)
	yb, _ := decode(vectorY)
	point := append(xb, yb...)
	leading := append([]byte{0}, odd(2048).Bytes()...)
	replace := func(old, by string) string { return strings.Replace(vectorJWK, old, by, 1) }
	for name, text := range map[string]string{
		"empty":               ``,
		"null":                `null`,
		"array":               `[]`,
		"no members":          `{}`,
		"twice":               replace(`"kty"`, `"x":"`+vectorX+`","kty"`),
		"trailing":            vectorJWK + "{}",
		"other case":          replace(`"kty"`, `"KTY"`),
		"number":              replace(`"`+vectorX+`"`, `7`),
		"private":             replace(`"kty"`, `"d":"eA","kty"`),
		"private RSA":         strings.Replace(rsaJWK(odd(2048), f4, OAEP), `"kty"`, `"d":"eA","kty"`, 1),
		"OKP":                 `{"kty":"OKP","crv":"X25519","alg":"ECDH-ES+A256KW","x":"` + vectorX + `"}`,
		"oct":                 `{"kty":"oct","k":"eA"}`,
		"ML-KEM":              `{"kty":"AKP","alg":"ML-KEM-768+A192KW","pub":"eA"}`,
		"secp256k1":           replace("P-256", "secp256k1"),
		"no alg":              replace(`"alg":"ECDH-ES+A256KW",`, ``),
		"direct agreement":    replace(ECDH, "ECDH-ES"),
		"RSA's alg":           replace(ECDH, OAEP),
		"off the curve":       replace(`"x":"r`, `"x":"s`),
		"short x":             replace(vectorX, vectorX[:40]),
		"shifted split":       `{"kty":"EC","crv":"P-256","alg":"ECDH-ES+A256KW","x":"` + encode(point[:31]) + `","y":"` + encode(point[31:]) + `"}`,
		"leading zero":        `{"kty":"RSA","alg":"RSA-OAEP-256","n":"` + encode(leading) + `","e":"AQAB"}`,
		"padded x":            replace(vectorX, vectorX+"="),
		"standard alphabet":   replace("-c", "+c"),
		"stray bits":          replace(vectorX, vectorX[:42]+"d"),
		"line break":          replace(vectorX, vectorX[:8]+`\n`+vectorX[8:]),
		"infinity":            `{"kty":"EC","crv":"P-256","alg":"ECDH-ES+A256KW","x":"` + strings.Repeat("A", 43) + `","y":"` + strings.Repeat("A", 43) + `"}`,
		"RSA-OAEP with SHA-1": rsaJWK(odd(2048), f4, "RSA-OAEP"),
		"1024 bits":           rsaJWK(odd(1024), f4, OAEP),
		"2047 bits":           rsaJWK(odd(2047), f4, OAEP),
		"8193 bits":           rsaJWK(odd(8193), f4, OAEP),
		"even modulus":        rsaJWK(even, f4, OAEP),
		"exponent 1":          rsaJWK(odd(2048), big.NewInt(1), OAEP),
		"exponent 3":          rsaJWK(odd(2048), big.NewInt(3), OAEP),
		"even exponent":       rsaJWK(odd(2048), big.NewInt(65538), OAEP),
		"huge exponent":       rsaJWK(odd(2048), odd(33), OAEP),
		"zero exponent":       rsaJWK(odd(2048), big.NewInt(0), OAEP),
		"too long":            replace(`{`, `{"kid":"`+strings.Repeat("x", MaxKey)+`",`),
		"deep":                replace(`{`, `{"kid":`+strings.Repeat("[", 50)+strings.Repeat("]", 50)+`,`),
	} {
		k, err := ParseKey([]byte(text))
		if !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
		if !k.IsZero() {
			t.Errorf("%s: a key came with the error", name)
		}
		// Decoded before, as part of a token: only what is dropped may be larger and deeper.
		var members map[string]any
		if name == "too long" || name == "deep" || canon.Lenient([]byte(text), 1<<20, 99, &members) != nil {
			continue
		}
		if k, err := KeyOf(members); !fault.Is(err, fault.Invalid) || !k.IsZero() {
			t.Errorf("%s, decoded: %v", name, err)
		}
	}
	if _, err := KeyOf(map[string]any{"kty": "RSA", "alg": OAEP, "e": "AQAB", "n": strings.Repeat("A", MaxKey)}); !fault.Is(err, fault.Invalid) {
		t.Errorf("a long key, decoded: %v", err)
	}
}

// TestKeyOf_IsParseKey for what was decoded before.
func TestKeyOf_IsParseKey(t *testing.T) {
	_, p := ecKey(t, elliptic.P384())
	p384, _ := json.Marshal(p.Public())
	for _, text := range []string{
		vectorJWK, string(p384), rsaJWK(odd(8192), big.NewInt(65537), OAEP),
		strings.Replace(vectorJWK, `"kty"`, `"d":null,"n":null,"kid":{"x":[1]},"kty"`, 1),
	} {
		want, err := ParseKey([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		var members map[string]any
		if err := canon.Lenient([]byte(text), MaxKey, 8, &members); err != nil {
			t.Fatal(err)
		}
		if got, err := KeyOf(members); err != nil || !got.Equal(want) {
			t.Errorf("%.60s: %v", text, err)
		}
	}
}

func TestPublicKey_ThumbprintMatchesLibrary(t *testing.T) {
	e, ec := ecKey(t, elliptic.P521())
	r, rs := rsaKey(t, 2048)
	for _, c := range []struct {
		std any
		key PrivateKey
	}{{&e.PublicKey, ec}, {&r.PublicKey, rs}} {
		k := jose.JSONWebKey{Key: c.std}
		want, err := k.Thumbprint(crypto.SHA256)
		if err != nil || encode(want) != c.key.Public().Thumbprint() {
			t.Errorf("thumbprint %s, want %s, %v", c.key.Public().Thumbprint(), encode(want), err)
		}
	}
	if (PublicKey{}).Thumbprint() != "" {
		t.Error("the zero key has a thumbprint")
	}
}

func FuzzParseKey(f *testing.F) {
	f.Add([]byte(vectorJWK))
	f.Add([]byte(rsaJWK(odd(2048), big.NewInt(65537), OAEP)))
	f.Add([]byte(`{"kty":"AKP","alg":"ML-KEM-768+A192KW","pub":"eA"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		k, err := ParseKey(data)
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatalf("kind of %v", err)
			}
			return
		}
		text, err := json.Marshal(k)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := ParseKey(text); err != nil || !again.Equal(k) || again.Thumbprint() != k.Thumbprint() {
			t.Fatalf("round trip: %v", err)
		}
		if _, err := Seal(k, secret.FromString("x"), nil); err != nil {
			t.Fatalf("seal to an accepted key: %v", err)
		}
	})
}

func FuzzOpen(f *testing.F) {
	k := vectorKey(f)
	text, _ := json.Marshal(vectorJWE)
	f.Add(text)
	f.Add([]byte(`{"protected":"","encrypted_key":"","iv":"","ciphertext":"","tag":""}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		j, err := ParseJWE(data)
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatalf("kind of %v", err)
			}
			return
		}
		plain, err := Open(k, j)
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatalf("kind of %v", err)
			}
			return
		}
		if j != vectorJWE || string(plain.Reveal()) != "hello kbs" {
			t.Fatalf("a second message opened: %+v", j)
		}
	})
}
