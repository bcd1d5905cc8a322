package cli

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
)

func newCertificate(t testing.TB, authority bool) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(5), NotAfter: time.Now().Add(time.Hour), IsCA: authority, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func asPEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func TestShell_CertificateName(t *testing.T) {
	leaf, authority := newCertificate(t, false), newCertificate(t, true)
	parsed, err := x509.ParseCertificate(leaf)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(parsed.RawTBSCertificate)
	name := hex.EncodeToString(sum[:])
	dir := t.TempDir()
	file := func(name string, parts ...[]byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, bytes.Join(parts, nil), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	colons := strings.ToUpper(name[:2])
	for i := 2; i < len(name); i += 2 {
		colons += ":" + strings.ToUpper(name[i:i+2])
	}
	for what, c := range map[string]struct {
		given, want string
		kind        fault.Kind
	}{
		"a fingerprint":             {given: name, want: name},
		"as openssl writes it":      {given: colons, want: name},
		"a serial":                  {given: "00:Ab", want: "00ab"},
		"PEM":                       {given: file("pem", asPEM("CERTIFICATE", leaf)), want: name},
		"PEM with chain":            {given: file("chain", []byte("text\n"), asPEM("CERTIFICATE", leaf), asPEM("CERTIFICATE", authority)), want: name},
		"PEM behind its key":        {given: file("key", asPEM("PRIVATE KEY", []byte{1}), asPEM("CERTIFICATE", leaf)), want: name},
		"DER":                       {given: file("der", leaf), want: name},
		"neither":                   {given: strings.Repeat("a", 41), kind: fault.Invalid},
		"too long":                  {given: name + "00", kind: fault.NotFound},
		"no file":                   {given: filepath.Join(dir, "none"), kind: fault.NotFound},
		"an authority":              {given: file("ca", asPEM("CERTIFICATE", authority), asPEM("CERTIFICATE", leaf)), kind: fault.Invalid},
		"a broken one first":        {given: file("broken", asPEM("CERTIFICATE", leaf[1:]), asPEM("CERTIFICATE", leaf)), kind: fault.Invalid},
		"something else":            {given: file("text", []byte("hello")), kind: fault.Invalid},
		"something behind the DER":  {given: file("tail", leaf, []byte{0}), kind: fault.Invalid},
		"an empty file":             {given: file("empty"), kind: fault.Invalid},
		"a fingerprint with a typo": {given: "g" + name[1:], kind: fault.NotFound},
	} {
		t.Run(what, func(t *testing.T) {
			got, file, err := (&shell{}).certificateName(c.given)
			if err == nil && file != strings.HasPrefix(c.given, dir) {
				t.Errorf("taken for a file: %v", file)
			}
			if got != c.want || (err != nil) != (c.want == "") || err != nil && !fault.Is(err, c.kind) {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

func FuzzLeafFingerprint(f *testing.F) {
	leaf := newCertificate(f, false)
	f.Add(leaf)
	f.Add(asPEM("CERTIFICATE", leaf))
	f.Add(asPEM("CERTIFICATE", newCertificate(f, true)))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if got, err := leafFingerprint(text); (len(got) == 64) != (err == nil) || err != nil && !fault.Is(err, fault.Invalid) {
			t.Fatalf("got %q, %v", got, err)
		}
	})
}
