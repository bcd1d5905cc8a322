package seal

import (
	"bytes"
	"crypto/mlkem"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/secret"
)

// The fourth sample of NIST's KMAC examples.
func TestKMAC_MatchesSample(t *testing.T) {
	key := make([]byte, 32)
	for i := range key {
		key[i] = byte(0x40 + i)
	}
	got := hex.EncodeToString(kmac256(key, []byte{0, 1, 2, 3}, 64, []byte("My Tagged Application")))
	const want = "20c570c31346f703c9ac36c61c03cb64c3970d0cfc787e9b79599d273a68d2f7" +
		"f69d4cc3de9d104a351689f27cf6f5951f0103f33f4f24871024d9c27773a8dd"
	if got != want {
		t.Errorf("KMAC256 is %s", got)
	}
}

func kemKey(t *testing.T) PrivateKey {
	t.Helper()
	k, err := GenerateKEM()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestSeal_ToMLKEM(t *testing.T) {
	key := kemKey(t)
	text, err := json.Marshal(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	public, err := ParseKey(text)
	if err != nil || !public.Equal(key.Public()) || public.Thumbprint() == "" || public.Legacy() {
		t.Fatalf("the key does not survive its own text: %v", err)
	}
	sealed, err := Seal(public, secret.FromString("post-quantum"), nil)
	if err != nil {
		t.Fatal(err)
	}
	head, _ := decode(sealed.Protected)
	if !strings.HasPrefix(string(head), `{"alg":"ML-KEM-768+A192KW","enc":"A256GCM","ek":"`) {
		t.Errorf("the header is %s", head)
	}
	if plain, err := Open(key, sealed); err != nil || string(plain.Reveal()) != "post-quantum" {
		t.Fatalf("the message does not open: %v", err)
	}
	for name, j := range map[string]JWE{
		"another ek":  {kemHeader(t, bytes.Repeat([]byte{7}, mlkem.CiphertextSize768)), sealed.EncryptedKey, sealed.IV, sealed.Ciphertext, sealed.Tag},
		"a short ek":  {kemHeader(t, []byte("short")), sealed.EncryptedKey, sealed.IV, sealed.Ciphertext, sealed.Tag},
		"no ek":       {encode([]byte(`{"alg":"ML-KEM-768+A192KW","enc":"A256GCM"}`)), sealed.EncryptedKey, sealed.IV, sealed.Ciphertext, sealed.Tag},
		"another key": {sealed.Protected, encode(make([]byte, 40)), sealed.IV, sealed.Ciphertext, sealed.Tag},
	} {
		if _, err := Open(key, j); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Open(kemKey(t), sealed); !fault.Is(err, fault.Invalid) {
		t.Errorf("another key opens it: %v", err)
	}
}

func kemHeader(t *testing.T, ek []byte) string {
	t.Helper()
	return encode([]byte(`{"alg":"ML-KEM-768+A192KW","enc":"A256GCM","ek":"` + encode(ek) + `"}`))
}

// RSA1_5 can be parsed, because evidence is bound to the key, and is sealed to
// only by the function that is named for it.
func TestSeal_RefusesLegacy(t *testing.T) {
	k, p := rsaKey(t, 2048)
	text, _ := json.Marshal(p.Public())
	legacy, err := ParseKey(bytes.Replace(text, []byte(OAEP), []byte(RSA15), 1))
	if err != nil || !legacy.Legacy() {
		t.Fatalf("parse: %v", err)
	}
	if _, err := Seal(legacy, secret.FromString("x"), nil); !fault.Is(err, fault.Invalid) {
		t.Errorf("RSA1_5 is sealed to: %v", err)
	}
	sealed, err := SealLegacy(legacy, secret.FromString("old"))
	if err != nil {
		t.Fatal(err)
	}
	text, _ = json.Marshal(sealed)
	theirs, err := jose.ParseEncryptedJSON(string(text), []jose.KeyAlgorithm{jose.RSA1_5}, []jose.ContentEncryption{jose.A256GCM})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := theirs.Decrypt(k); err != nil || string(got) != "old" {
		t.Errorf("a library does not open it: %v", err)
	}
}
