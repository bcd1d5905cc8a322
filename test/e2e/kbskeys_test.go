package e2e

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/policy"
	"github.com/sallyport-project/sallyport/internal/seal"
)

// broker is a server that gives one secret to whoever attests.
func broker(t *testing.T, kbs map[string]any) (w *world, url string) {
	t.Helper()
	w = start(t, found(t, Options{Further: guestDoor(), Config: map[string]any{"verifiers": believesSamples(), "kbs": kbs}}))
	_, err := w.admin.PutResource(t.Context(), "default", "key", "disk", []byte("the disk's key"))
	must(t, err)
	_, err = w.admin.SetPolicy(t.Context(), policy.ResourceName, "kbs-resource", policy.ResourceAllowAll())
	must(t, err)
	return w, "http://" + w.Bound["guests"]
}

func rsaKey(t *testing.T, bits int) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	must(t, err)
	return key
}

// TestKBS_SealsToEveryKey lets guests of our own client come with each kind of key
// that a guest may have, and looks at what went over the wire.
func TestKBS_SealsToEveryKey(t *testing.T) {
	w, url := broker(t, map[string]any{})
	curve := func(c elliptic.Curve) crypto.PrivateKey {
		key, err := ecdsa.GenerateKey(c, rand.Reader)
		must(t, err)
		return key
	}
	for name, c := range map[string]struct {
		key    crypto.PrivateKey
		header string // how the protected header begins
	}{
		"P-256": {curve(elliptic.P256()), `{"alg":"ECDH-ES+A256KW","enc":"A256GCM","epk":{"crv":"P-256","kty":"EC","x":"`},
		"P-384": {curve(elliptic.P384()), `{"alg":"ECDH-ES+A256KW","enc":"A256GCM","epk":{"crv":"P-384","kty":"EC","x":"`},
		"P-521": {curve(elliptic.P521()), `{"alg":"ECDH-ES+A256KW","enc":"A256GCM","epk":{"crv":"P-521","kty":"EC","x":"`},
		"RSA":   {rsaKey(t, 2048), `{"alg":"RSA-OAEP-256","enc":"A256GCM"}`},
	} {
		der, err := x509.MarshalPKCS8PrivateKey(c.key)
		must(t, err)
		file := filepath.Join(t.TempDir(), "tee.pem")
		must(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
		get := []string{"kbs", "get", "default/key/disk", "--url", url, "--tee-key-file", file}
		if out, err := w.House.Command(t.Context(), get...); err != nil || out != "the disk's key" {
			t.Errorf("%s: %q, %v", name, out, err)
		}
		out, err := w.House.Command(t.Context(), append(get, "--show-jwe", "--protocol", "0.2.0")...)
		must(t, err)
		var sealed struct{ Protected string }
		must(t, json.Unmarshal([]byte(out), &sealed))
		header, err := base64.RawURLEncoding.DecodeString(sealed.Protected)
		if err != nil || !strings.HasPrefix(string(header), c.header) {
			t.Errorf("%s: the header is %s, %v", name, header, err)
		}
	}
}

// TestKBS_LegacyRSAIsASwitch brings a key of RSA1_5, which is sealed to where the
// switch is on, and shown as one that weakens.
func TestKBS_LegacyRSAIsASwitch(t *testing.T) {
	key := rsaKey(t, 2048)
	b64 := base64.RawURLEncoding.EncodeToString
	public, err := seal.ParseKey([]byte(fmt.Sprintf(`{"kty":"RSA","alg":"RSA1_5","n":%q,"e":%q}`, b64(key.N.Bytes()), b64(big.NewInt(int64(key.E)).Bytes()))))
	must(t, err)
	for _, on := range []bool{false, true} {
		w, url := broker(t, map[string]any{"allow_rsa1_5": on})
		cookie, challenge := handshake(t, url, "0.4.0")
		header := map[string]string{"Cookie": cookie}
		got := plainly(t, "POST", url+"/kbs/v0/attest", answerBy(t, challenge, public, evidence.V040), header)
		if (got.status == 200) != on || !on && !strings.Contains(got.body, "RSA1_5 is refused") {
			t.Fatalf("attest, switch %v: %d %s", on, got.status, got.body)
		}
		status, err := w.admin.Status(t.Context())
		must(t, err)
		if shown := strings.Contains(strings.Join(status.Weak, " "), "kbs.allow_rsa1_5"); shown != on {
			t.Errorf("switch %v: the weak ones are %v", on, status.Weak)
		}
		if !on {
			continue
		}
		got = plainly(t, "GET", url+"/kbs/v0/resource/default/key/disk", "", header)
		if got.status != 200 {
			t.Fatalf("the resource: %d %s", got.status, got.body)
		}
		if plain := openLegacy(t, key, got.body); plain != "the disk's key" {
			t.Errorf("the guest opens %q", plain)
		}
	}
}

// openLegacy opens a JWE of RSA1_5 as RFC 7518 says, 4.2.
func openLegacy(t *testing.T, key *rsa.PrivateKey, body string) string {
	t.Helper()
	var jwe map[string]string
	must(t, json.Unmarshal([]byte(body), &jwe))
	part := func(name string) []byte {
		raw, err := base64.RawURLEncoding.DecodeString(jwe[name])
		must(t, err)
		return raw
	}
	if got := string(part("protected")); got != `{"alg":"RSA1_5","enc":"A256GCM"}` {
		t.Errorf("the header is %s", got)
	}
	content := make([]byte, 32)
	must(t, rsa.DecryptPKCS1v15SessionKey(nil, key, part("encrypted_key"), content)) //nolint:staticcheck // this is RSA1_5
	block, err := aes.NewCipher(content)
	must(t, err)
	gcm, err := cipher.NewGCM(block)
	must(t, err)
	plain, err := gcm.Open(nil, part("iv"), append(part("ciphertext"), part("tag")...), []byte(jwe["protected"]))
	must(t, err)
	return string(plain)
}
