package sshca

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/binary"
	"encoding/pem"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"pgregory.net/rapid"
)

// holderKeys are one key of each accepted algorithm, as the library reads them.
func holderKeys(t testing.TB) []ssh.PublicKey {
	t.Helper()
	point, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	long, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	raw := []any{point, &long.PublicKey}
	for _, c := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		k, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		raw = append(raw, &k.PublicKey)
	}
	var all []ssh.PublicKey
	for _, r := range raw {
		k, err := ssh.NewPublicKey(r)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, k)
	}
	curve := publicKey{ssh.KeyAlgoECDSA256, all[2].Marshal()}
	for algorithm, parts := range map[string][]byte{
		ssh.KeyAlgoSKED25519:  appendString(nil, point),
		ssh.KeyAlgoSKECDSA256: curve.parts(),
	} {
		k, err := ssh.ParsePublicKey(appendString(append(appendString(nil, algorithm), parts...), "ssh:"))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, k)
	}
	return all
}

func unsigned(c *ssh.Certificate) []byte {
	bare := *c
	bare.Signature = nil
	b := bare.Marshal()
	return b[:len(b)-4]
}

// byLibrary reads a certificate without signature as the library does: it reads
// whole ones only, so it is lent an empty signature.
func byLibrary(tbs []byte) (*ssh.Certificate, bool) {
	k, err := ssh.ParsePublicKey(append(bytes.Clone(tbs), 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0))
	if err != nil {
		return nil, false
	}
	c, ok := k.(*ssh.Certificate)
	return c, ok
}

// same compares what both parsers read.
func same(c certificate, l *ssh.Certificate) bool {
	options := func(list []option) map[string]string {
		out := map[string]string{}
		for _, o := range list {
			out[o.name] = o.value
		}
		return out
	}
	key := publicKey{c.form.key, append(appendString(nil, c.form.key), c.key...)}
	return c.form.certificate == l.Type() && bytes.Equal(c.nonce, l.Nonce) && bytes.Equal(key.wire, l.Key.Marshal()) &&
		c.serial == l.Serial && c.kind == l.CertType && c.keyID == l.KeyId && slices.Equal(c.principals, l.ValidPrincipals) &&
		c.after == l.ValidAfter && c.before == l.ValidBefore && maps.Equal(options(c.critical), l.CriticalOptions) &&
		maps.Equal(options(c.extensions), l.Extensions) && bytes.Equal(c.reserved, l.Reserved) && bytes.Equal(c.authority, l.SignatureKey.Marshal())
}

// TestParse_agreesWithLibrary holds the parser against certificates of every
// algorithm that the library writes.
func TestParse_agreesWithLibrary(t *testing.T) {
	holders := holderKeys(t)
	if len(holders) != len(forms) {
		t.Fatalf("%d keys for %d forms", len(holders), len(forms))
	}
	words := rapid.SliceOfN(rapid.StringN(0, 20, 40), 0, 5)
	data := rapid.SliceOfN(rapid.Byte(), 0, 70)
	options := rapid.MapOfN(rapid.StringN(0, 20, 40), rapid.StringN(0, 20, 40), 0, 5)
	rapid.Check(t, func(t *rapid.T) {
		c := &ssh.Certificate{
			Key: rapid.SampledFrom(holders).Draw(t, "key"), SignatureKey: holders[0], Nonce: data.Draw(t, "nonce"),
			Serial: rapid.Uint64().Draw(t, "serial"), CertType: rapid.Uint32().Draw(t, "type"), KeyId: rapid.String().Draw(t, "id"),
			ValidPrincipals: words.Draw(t, "principals"), ValidAfter: rapid.Uint64().Draw(t, "after"), ValidBefore: rapid.Uint64().Draw(t, "before"),
			Reserved: data.Draw(t, "reserved"),
		}
		c.CriticalOptions, c.Extensions = options.Draw(t, "critical"), options.Draw(t, "extensions")
		got, err := parse(unsigned(c))
		if err != nil {
			t.Fatal(err)
		}
		if !same(got, c) {
			t.Fatalf("read %+v of %+v", got, c)
		}
	})
}

// FuzzParse_agreesWithLibrary: what is accepted reads the same in the library
// and encodes to the same bytes again, so that nothing was skipped or read
// loosely; and what the library reads and writes alike is accepted. Keys are
// left out: their bytes are compared with known ones, not read.
func FuzzParse_agreesWithLibrary(f *testing.F) {
	for _, k := range holderKeys(f) {
		f.Add(unsigned(&ssh.Certificate{
			Key: k, SignatureKey: k, Nonce: make([]byte, 32), Serial: 7, CertType: 1, KeyId: "id", ValidPrincipals: []string{"a", "b"},
			Permissions: ssh.Permissions{CriticalOptions: map[string]string{"force-command": "x"}, Extensions: map[string]string{"permit-pty": ""}},
		}))
	}
	f.Fuzz(func(t *testing.T, tbs []byte) {
		l, readable := byLibrary(tbs)
		c, err := parse(tbs)
		if !readable {
			return
		}
		canonical := len(tbs) <= MaxToBeSigned && bytes.Equal(unsigned(l), tbs)
		keys := err == nil && bytes.HasSuffix(l.Key.Marshal(), c.key) && bytes.Equal(l.SignatureKey.Marshal(), c.authority)
		switch {
		case canonical && err != nil:
			t.Fatal(err)
		case canonical && !same(c, l):
			t.Fatalf("%+v is read by the library as %+v", c, l)
		case !canonical && keys:
			t.Fatal("a certificate that is not canonical was accepted")
		}
	})
}

// TestIssuer_Sign_writesLikeLibrary signs for a key of every algorithm. Ed25519
// is deterministic, so the library's line is the same.
func TestIssuer_Sign_writesLikeLibrary(t *testing.T) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i, err := New(private)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	lineOf := func(k ssh.PublicKey) string { return strings.TrimSuffix(string(ssh.MarshalAuthorizedKey(k)), "\n") }
	if i.Public() != lineOf(signer.PublicKey()) {
		t.Errorf("the CA's key is written as %s", i.Public())
	}
	from := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, k := range holderKeys(t) {
		c := &ssh.Certificate{
			Key: k, SignatureKey: signer.PublicKey(), Nonce: []byte("thirty-two bytes that are random"), Serial: 1 << 63, CertType: ssh.UserCert,
			KeyId: "grant", ValidPrincipals: []string{"deploy"}, ValidAfter: uint64(from.Unix()), ValidBefore: uint64(from.Unix()) + 60,
		}
		d := Decision{
			PublicKey: lineOf(k), Principals: c.ValidPrincipals, ValidAfter: from, ValidBefore: from.Add(time.Minute), Serial: c.Serial, KeyID: c.KeyId,
		}
		got, err := i.Sign(unsigned(c), d)
		if err != nil {
			t.Fatalf("%s: %v", k.Type(), err)
		}
		if c.Signature, err = signer.Sign(rand.Reader, unsigned(c)); err != nil {
			t.Fatal(err)
		}
		if got != lineOf(c) {
			t.Errorf("%s: signed %s, the library writes %s", k.Type(), got, lineOf(c))
		}
	}
}

// TestParsePublic_shortWay: what the short way for Ed25519 reads, the library
// reads the same; changed lines go either way and never to another key.
func TestParsePublic_shortWay(t *testing.T) {
	public, _, err := FreshPair("x")
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := plainEd25519(public); !ok {
		t.Fatal("the usual line goes the long way")
	}
	rapid.Check(t, func(t *rapid.T) {
		line := []byte(public + rapid.SampledFrom([]string{"", " ", " me@host", "\t", " a b "}).Draw(t, "comment"))
		for range rapid.IntRange(0, 2).Draw(t, "changes") {
			line[rapid.IntRange(0, len(line)-1).Draw(t, "at")] = rapid.SampledFrom([]byte("Aa0+/= \t,\"-")).Draw(t, "byte")
		}
		k, ok := plainEd25519(string(line))
		if !ok {
			return
		}
		l, _, options, rest, err := ssh.ParseAuthorizedKey(line)
		if err != nil || len(options) > 0 || len(rest) > 0 || !bytes.Equal(l.Marshal(), k.wire) || l.Type() != k.algorithm {
			t.Fatalf("%q is read as %v, by the library as %v, %v", line, k, l, err)
		}
	})
}

// TestFreshPair_writesLikeLibrary: comments of every length modulo the padding.
// The library's file differs in the check number alone.
func TestFreshPair_writesLikeLibrary(t *testing.T) {
	for n := range 17 {
		comment := strings.Repeat("c", n)
		public, private, err := FreshPair(comment)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := ssh.ParseRawPrivateKey(private.Reveal())
		if err != nil {
			t.Fatalf("comment of %d: %v", n, err)
		}
		key, ok := raw.(*ed25519.PrivateKey)
		if !ok || ed25519Key(key.Public().(ed25519.PublicKey)).line() != public {
			t.Fatalf("comment of %d: the parts are no pair", n)
		}
		want, err := ssh.MarshalPrivateKey(*key, comment)
		if err != nil {
			t.Fatal(err)
		}
		got, rest := pem.Decode(private.Reveal())
		if got == nil || len(rest) > 0 || got.Type != want.Type {
			t.Fatal("not the library's PEM")
		}
		// The check numbers stand behind the length of the private part.
		at := bytes.LastIndex(want.Bytes[:len(want.Bytes)-64], []byte("ssh-ed25519")) - 4 - 8
		if binary.BigEndian.Uint32(want.Bytes[at:]) != binary.BigEndian.Uint32(want.Bytes[at+4:]) {
			t.Fatal("the test looks at the wrong place")
		}
		clear(want.Bytes[at : at+8])
		if !bytes.Equal(got.Bytes, want.Bytes) {
			t.Errorf("comment of %d: %x, the library writes %x", n, got.Bytes, want.Bytes)
		}
	}
}
