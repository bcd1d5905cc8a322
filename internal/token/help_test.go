package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-project/sallyport/internal/secret"
)

var start = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// clock is a clock that tests move.
type clock struct{ at time.Time }

func (c *clock) read() time.Time { return c.at }

func (c *clock) pass(d time.Duration) { c.at = c.at.Add(d) }

func seed(b byte) secret.Bytes {
	s := make([]byte, ed25519.SeedSize)
	for i := range s {
		s[i] = b
	}
	return secret.New(s)
}

func ringOf(t testing.TB, keys ...Key) *Ring {
	t.Helper()
	r, err := NewRing(keys)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func monthKey(name string, b byte) Key {
	return Key{ID: name, Seed: seed(b), NotBefore: start.Add(-time.Hour), RetireAt: start.Add(30 * 24 * time.Hour)}
}

type desk struct {
	*clock
	*Sessions
	ring *Ring
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newDesk(t testing.TB) *desk {
	t.Helper()
	c := &clock{start}
	ring := ringOf(t, monthKey("k1", 1))
	s, err := NewSessions(SessionsConfig{Issuer: "https://sallyport.test", Ring: ring, Now: c.read})
	if err != nil {
		t.Fatal(err)
	}
	key := p256(t)
	return &desk{c, s, ring, certificate(t, key, start.Add(-time.Hour), start.Add(4*time.Hour)), key}
}

// open makes the session that most tests begin with.
func (d *desk) open(t testing.TB, scopes ...string) Issued {
	t.Helper()
	if len(scopes) == 0 {
		scopes = []string{"vend:ssh-user-cert", "read:resource/team-a/**"}
	}
	out, err := d.Open(Opening{Subject: "01HZXAMPLE", Certificate: d.cert, Scopes: scopesOf(t, scopes...)})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func scopesOf(t testing.TB, list ...string) Scopes {
	t.Helper()
	s, err := ParseScopes(list)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func raw(i Issued) string { return string(i.Token.Reveal()) }

func p256(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func certificate(t testing.TB, key crypto.Signer, from, to time.Time) *x509.Certificate {
	t.Helper()
	tpl := &x509.Certificate{SerialNumber: big.NewInt(from.UnixNano()), Subject: pkix.Name{CommonName: "agent"}, NotBefore: from, NotAfter: to, BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// forge signs any header and payload, the way an attacker with a key would.
func forge(t testing.TB, alg jose.SignatureAlgorithm, key any, header map[jose.HeaderKey]any, payload any) string {
	t.Helper()
	text, err := json.Marshal(payload)
	if err != nil {
		t.Fatal(err)
	}
	out, err := signCompact(jose.SigningKey{Algorithm: alg, Key: key}, &jose.SignerOptions{ExtraHeaders: header}, text)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// vectors is the folder of shared test vectors beside the module.
func vectors(t testing.TB, name string) []byte {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Fatal("no go.mod above the test")
		}
		dir = up
	}
	data, err := os.ReadFile(filepath.Join(dir, "..", "shared", "vectors", filepath.FromSlash(name)))
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("needs the shared vectors: %v", err)
		}
		t.Skipf("SKIPPED: needs the shared vectors: %v", err)
	}
	return data
}
