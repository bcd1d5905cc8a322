package seal

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/secret"
)

// The vector of kbs.md 2.6: every random value is a hash of its name.
const (
	vectorX = "rOy3DyWZGju2zGna07LFolgPlokBDrgF-JENNSyLD-c"
	vectorY = "W2G4oFImrmBHkuETU0CjwzVmX5bx3Ho7BlnqhAbbJHc"
)

var vectorJWE = JWE{
	Protected:    "eyJhbGciOiJFQ0RILUVTK0EyNTZLVyIsImVuYyI6IkEyNTZHQ00iLCJlcGsiOnsiY3J2IjoiUC0yNTYiLCJrdHkiOiJFQyIsIngiOiJFWEpNcHRESUlESE1UVGhmQUZGXzkxRGdRSUlLMjc4b1FlWWlyN0s1bm00IiwieSI6ImpIcUkzRVF4OGFheklGck4xd05MR0VwTWE5ZkVERmdLVnd1aHBsdFVYUEEifX0",
	EncryptedKey: "4K5gre57AW3s0NQBAXHI42h5mCQDoae3GbQkyloB_F2MhyKeWacCpA",
	IV:           "CrMGgjA1Zhu426Ic",
	Ciphertext:   "pHlkIVYyBhZ8",
	Tag:          "JB8Ll_TYUSvsg-V9F7JG1w",
}

func hash(s string) []byte {
	h := sha256.Sum256([]byte(s))
	return h[:]
}

func vectorKey(t testing.TB) PrivateKey {
	t.Helper()
	k, err := ecdh.P256().NewPrivateKey(hash("tee"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := NewPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func ecKey(t testing.TB, curve elliptic.Curve) (*ecdsa.PrivateKey, PrivateKey) {
	t.Helper()
	k, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p, err := NewPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return k, p
}

func rsaKey(t testing.TB, bits int) (*rsa.PrivateKey, PrivateKey) {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	p, err := NewPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return k, p
}

func TestSeal_MatchesVector(t *testing.T) {
	key := vectorKey(t)
	if key.public.x != vectorX || key.public.y != vectorY {
		t.Fatal("the vector's key has other coordinates")
	}
	eph, err := ecdh.P256().NewPrivateKey(hash("eph"))
	if err != nil {
		t.Fatal(err)
	}
	z, err := eph.ECDH(key.public.ec)
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(z); got != "f8bd854c7f65824e62b48f3e39274af1d049d68ae5198722b3145ab405a9075d" {
		t.Errorf("Z = %s", got)
	}
	if got := hex.EncodeToString(concatKDF(z, ECDH)); got != "f4b8825f1169cf8785b3f5a6db77e86cf6ef0b92fed0a9b8cc328d86547d7486" {
		t.Errorf("KEK = %s", got)
	}
	got, err := seal(key.Public(), secret.FromString("hello kbs"), material{hash("cek"), hash("iv")[:ivSize], eph})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(vectorJWE, got); d != "" {
		t.Error(d)
	}
	plain, err := Open(key, vectorJWE)
	if err != nil || string(plain.Reveal()) != "hello kbs" {
		t.Errorf("open the vector: %q, %v", plain.Reveal(), err)
	}
}

// RFC 3394 4.6: 256 bits of key data with a 256-bit key.
func TestWrapKey_MatchesRFC3394(t *testing.T) {
	kek, _ := hex.DecodeString("000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F")
	key, _ := hex.DecodeString("00112233445566778899AABBCCDDEEFF000102030405060708090A0B0C0D0E0F")
	want := "28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21"
	got, err := wrapKey(kek, key)
	if err != nil || hex.EncodeToString(got) != want {
		t.Fatalf("wrap = %x, %v", got, err)
	}
	back, err := unwrapKey(kek, got)
	if err != nil || !bytes.Equal(back, key) {
		t.Fatalf("unwrap = %x, %v", back, err)
	}
	for i := range got {
		got[i] ^= 1
		if _, err := unwrapKey(kek, got); !errors.Is(err, errUnwrap) {
			t.Errorf("byte %d changed: %v", i, err)
		}
		got[i] ^= 1
	}
	for _, n := range []int{0, 8, 16, 23, 39} {
		if _, err := unwrapKey(kek, got[:n]); err == nil {
			t.Errorf("%d bytes were unwrapped", n)
		}
	}
}

// Both directions against a general JOSE library, for every key we accept.
func TestSeal_AgreesWithLibrary(t *testing.T) {
	type pair struct {
		name string
		alg  jose.KeyAlgorithm
		std  any
		pub  any
		key  PrivateKey
	}
	var pairs []pair
	for _, c := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		for i := range 8 { // coordinates and Z with leading zeros come up by chance
			k, p := ecKey(t, c)
			pairs = append(pairs, pair{fmt.Sprint(c.Params().Name, "/", i), jose.ECDH_ES_A256KW, k, &k.PublicKey, p})
		}
	}
	k, p := rsaKey(t, 2048)
	pairs = append(pairs, pair{"RSA", jose.RSA_OAEP_256, k, &k.PublicKey, p})
	for _, c := range pairs {
		t.Run(c.name, func(t *testing.T) {
			for _, n := range []int{0, 1, 15, 16, 17, 1000} {
				plain := make([]byte, n)
				_, _ = rand.Read(plain)
				sealed, err := Seal(c.key.Public(), secret.New(bytes.Clone(plain)), nil)
				if err != nil {
					t.Fatal(err)
				}
				text, err := json.Marshal(sealed)
				if err != nil {
					t.Fatal(err)
				}
				theirs, err := jose.ParseEncryptedJSON(string(text), []jose.KeyAlgorithm{c.alg}, []jose.ContentEncryption{jose.A256GCM})
				if n == 0 && err != nil {
					continue // the library wants a ciphertext; ours opens it below all the same
				}
				if err != nil {
					t.Fatal(err)
				}
				if got, err := theirs.Decrypt(c.std); err != nil || !bytes.Equal(got, plain) {
					t.Fatalf("library opens ours: %v", err)
				}
				enc, err := jose.NewEncrypter(jose.A256GCM, jose.Recipient{Algorithm: c.alg, Key: c.pub}, nil)
				if err != nil {
					t.Fatal(err)
				}
				obj, err := enc.Encrypt(plain)
				if err != nil {
					t.Fatal(err)
				}
				parsed, err := ParseJWE([]byte(obj.FullSerialize()))
				if err != nil {
					t.Fatal(err)
				}
				if got, err := Open(c.key, parsed); err != nil || !bytes.Equal(got.Reveal(), plain) {
					t.Fatalf("we open the library's: %v", err)
				}
			}
		})
	}
}

func TestSeal_WritesTheOneHeaderOrder(t *testing.T) {
	_, p := ecKey(t, elliptic.P521())
	j, err := Seal(p.Public(), secret.FromString("x"), nil)
	if err != nil {
		t.Fatal(err)
	}
	head, _ := decode(j.Protected)
	dec := json.NewDecoder(bytes.NewReader(head))
	var names []string
	depth := 0
	expect := true
	for {
		tok, err := dec.Token()
		if err != nil {
			break
		}
		switch v := tok.(type) {
		case json.Delim:
			if v == '{' {
				depth++
			} else {
				depth--
			}
			expect = true
		case string:
			if expect {
				names = append(names, v)
			}
			expect = !expect
		}
	}
	if d := cmp.Diff([]string{"alg", "enc", "epk", "crv", "kty", "x", "y"}, names); d != "" || depth != 0 {
		t.Error(d)
	}
	if bytes.ContainsAny(head, " \n") {
		t.Error("the header is not compact")
	}
}

func TestSeal_RefusesWhatItCannotKeep(t *testing.T) {
	_, p := ecKey(t, elliptic.P256())
	if _, err := Seal(PublicKey{}, secret.FromString("x"), nil); !fault.Is(err, fault.Internal) {
		t.Errorf("zero key: %v", err)
	}
	if _, err := Seal(p.Public(), secret.New(make([]byte, MaxPlaintext+1)), nil); !fault.Is(err, fault.Invalid) {
		t.Errorf("too large: %v", err)
	}
	if _, err := Seal(p.Public(), secret.FromString("x"), strings.NewReader("short")); err == nil {
		t.Error("sealed without enough randomness")
	}
	large, err := Seal(p.Public(), secret.New(make([]byte, MaxPlaintext)), nil)
	if err != nil {
		t.Fatal(err)
	}
	text, _ := json.Marshal(large)
	back, err := ParseJWE(text)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Open(p, back); err != nil || got.Len() != MaxPlaintext {
		t.Errorf("largest message: %d bytes, %v", got.Len(), err)
	}
}

func TestSeal_NeverRepeatsItself(t *testing.T) {
	_, p := ecKey(t, elliptic.P256())
	seen := map[string]bool{}
	for range 64 {
		j, err := Seal(p.Public(), secret.FromString("same"), nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range []string{j.Protected, j.EncryptedKey, j.IV, j.Ciphertext} {
			if seen[v] {
				t.Fatal("two messages share a random part")
			}
			seen[v] = true
		}
	}
}

// Every single-bit change of every member is refused.
func TestOpen_RefusesEveryChangedBit(t *testing.T) {
	_, ec := ecKey(t, elliptic.P256())
	_, rs := rsaKey(t, 2048)
	for name, key := range map[string]PrivateKey{"EC": ec, "RSA": rs} {
		j, err := Seal(key.Public(), secret.FromString("the value"), nil)
		if err != nil {
			t.Fatal(err)
		}
		fields := []*string{&j.Protected, &j.EncryptedKey, &j.IV, &j.Ciphertext, &j.Tag}
		mutants := 0
		for f, field := range fields {
			whole := *field
			raw, _ := decode(whole)
			for bit := 0; bit < 8*len(raw); bit += 1 + f%2*2 {
				raw[bit/8] ^= 1 << (bit % 8)
				*field = encode(raw)
				if got, err := Open(key, j); err == nil || got.Len() > 0 {
					t.Fatalf("%s: member %d, bit %d changed and opened", name, f, bit)
				}
				raw[bit/8] ^= 1 << (bit % 8)
				mutants++
			}
			// The same bytes in another text are refused as well.
			for _, text := range []string{whole + "=", whole + "\n", "\r" + whole, whole[:len(whole)-1]} {
				*field = text
				if _, err := Open(key, j); err == nil {
					t.Errorf("%s: member %d as %q opened", name, f, text)
				}
			}
			*field = whole
		}
		if mutants < 1000 {
			t.Errorf("only %d mutants", mutants)
		}
		if _, err := Open(key, j); err != nil {
			t.Errorf("the unchanged message: %v", err)
		}
	}
}

func TestOpen_RefusesForeignHeaders(t *testing.T) {
	key := vectorKey(t)
	head, _ := decode(vectorJWE.Protected)
	for name, h := range map[string]string{
		"crit":           strings.Replace(string(head), `{"alg"`, `{"crit":["x"],"alg"`, 1),
		"zip":            strings.Replace(string(head), `{"alg"`, `{"zip":"DEF","alg"`, 1),
		"apu":            strings.Replace(string(head), `{"alg"`, `{"apu":"eA","alg"`, 1),
		"twice":          strings.Replace(string(head), `{"alg"`, `{"enc":"A256GCM","alg"`, 1),
		"other case":     strings.Replace(string(head), `"alg"`, `"ALG"`, 1),
		"other alg":      strings.Replace(string(head), ECDH, "ECDH-ES", 1),
		"direct":         strings.Replace(string(head), ECDH, "dir", 1),
		"RSA":            `{"alg":"RSA-OAEP-256","enc":"A256GCM"}`,
		"other enc":      strings.Replace(string(head), "A256GCM", "A128GCM", 1),
		"no epk":         `{"alg":"ECDH-ES+A256KW","enc":"A256GCM"}`,
		"other curve":    strings.Replace(string(head), "P-256", "P-384", 1),
		"point off":      strings.Replace(string(head), `"x":"E`, `"x":"F`, 1),
		"private member": strings.Replace(string(head), `"crv"`, `"d":"eA","crv"`, 1),
		"no JSON":        "hello",
	} {
		j := vectorJWE
		j.Protected = encode([]byte(h))
		if _, err := Open(key, j); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, other := ecKey(t, elliptic.P256())
	if _, err := Open(other, vectorJWE); !fault.Is(err, fault.Invalid) {
		t.Errorf("another key: %v", err)
	}
	if _, err := Open(PrivateKey{}, vectorJWE); err == nil {
		t.Error("a zero key opened something")
	}
}

func TestParsePrivateKey_ReadsTheUsualFiles(t *testing.T) {
	r, _ := rsaKey(t, 2048)
	e, _ := ecKey(t, elliptic.P256())
	pkcs8, _ := x509.MarshalPKCS8PrivateKey(e)
	sec1, _ := x509.MarshalECPrivateKey(e)
	for kind, der := range map[string][]byte{"RSA PRIVATE KEY": x509.MarshalPKCS1PrivateKey(r), "PRIVATE KEY": pkcs8, "EC PRIVATE KEY": sec1} {
		text := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
		k, err := ParsePrivateKey(secret.New(bytes.Clone(text)))
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		j, err := Seal(k.Public(), secret.FromString("x"), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Open(k, j); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		if _, err := ParsePrivateKey(secret.New(append(bytes.Clone(text), text...))); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s twice: %v", kind, err)
		}
		if got := fmt.Sprintf("%v %+v %#v %s", k, k, k, k); strings.Contains(got, "big") || !strings.Contains(got, secret.Redacted) {
			t.Errorf("%s prints %s", kind, got)
		}
	}
	for _, bad := range []string{"", "x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"} {
		if _, err := ParsePrivateKey(secret.FromString(bad)); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func BenchmarkSeal(b *testing.B) {
	_, ec := ecKey(b, elliptic.P256())
	_, rs := rsaKey(b, 3072)
	for name, k := range map[string]PrivateKey{"P-256": ec, "RSA-3072": rs} {
		plain := secret.New(make([]byte, 1024))
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Seal(k.Public(), plain, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
