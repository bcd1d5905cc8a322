package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"pgregory.net/rapid"
)

// someKeys has a key of every type that is certified.
func someKeys(t *testing.T) []ssh.PublicKey {
	t.Helper()
	key := func(pub any) ssh.PublicKey {
		k, err := ssh.NewPublicKey(pub)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	ed, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r, err := rsa.GenerateKey(rand.Reader, minRSABits)
	if err != nil {
		t.Fatal(err)
	}
	keys := []ssh.PublicKey{key(ed), key(r.Public())}
	point := []byte(nil)
	for _, curve := range []elliptic.Curve{elliptic.P384(), elliptic.P521(), elliptic.P256()} {
		k, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if point, err = k.PublicKey.Bytes(); err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key(k.Public()))
	}
	for _, blob := range [][]byte{
		ssh.Marshal(struct{ Name, Key, Application string }{ssh.KeyAlgoSKED25519, string(ed), "ssh:"}),
		ssh.Marshal(struct{ Name, Curve, Key, Application string }{ssh.KeyAlgoSKECDSA256, "nistp256", string(point), "ssh:"}),
	} {
		k, err := ssh.ParsePublicKey(blob)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
	}
	return keys
}

// The bytes are those of the SSH library, for every kind of key and scope.
func TestToBeSigned_EqualsTheOracle(t *testing.T) {
	keys := someKeys(t)
	text := rapid.StringMatching(`[a-zA-Z0-9 -]{1,20}`)
	rapid.Check(t, func(r *rapid.T) {
		subject, ca := rapid.SampledFrom(keys).Draw(r, "subject"), rapid.SampledFrom(keys).Draw(r, "authority")
		f := frame{
			serial: rapid.Uint64Min(1).Draw(r, "serial"), keyID: text.Draw(r, "key id"),
			key: publicKey{subject.Type(), subject.Marshal()}, ca: publicKey{ca.Type(), ca.Marshal()},
			after: time.Unix(rapid.Int64Range(0, 1<<40).Draw(r, "after"), 0),
		}
		f.before = f.after.Add(time.Duration(rapid.IntRange(1, 3600).Draw(r, "seconds")) * time.Second)
		s := certScope{
			ttl:        time.Hour,
			principals: rapid.SliceOfNDistinct(text, 1, 5, rapid.ID).Draw(r, "principals"),
			addresses:  rapid.SampledFrom([][]string{nil, {"10.0.0.0/8"}, {"::1/128", "127.0.0.1/32"}}).Draw(r, "addresses"),
			extensions: rapid.SliceOfNDistinct(rapid.SampledFrom(extensions), 0, 5, rapid.ID).Draw(r, "extensions"),
			command:    rapid.SampledFrom([]string{"", "uptime"}).Draw(r, "command"),
		}
		got, err := s.toBeSigned(f)
		if err != nil {
			r.Fatal(err)
		}
		nonceAt := 4 + len(strings.TrimSuffix(subject.Type(), "@openssh.com")+"-cert-v01@openssh.com") + 4
		c := ssh.Certificate{
			Nonce: got[nonceAt:][:32], Key: subject, Serial: f.serial, CertType: ssh.UserCert, KeyId: f.keyID, ValidPrincipals: s.principals,
			ValidAfter: uint64(f.after.Unix()), ValidBefore: uint64(f.before.Unix()), SignatureKey: ca,
			Permissions: ssh.Permissions{CriticalOptions: map[string]string{}, Extensions: map[string]string{}},
		}
		if s.addresses != nil {
			c.CriticalOptions["source-address"] = strings.Join(s.addresses, ",")
		}
		if s.command != "" {
			c.CriticalOptions["force-command"] = s.command
		}
		for _, e := range s.extensions {
			c.Extensions[e] = ""
		}
		want := c.Marshal() // ends with the length of an absent signature
		if !bytes.Equal(got, want[:len(want)-4]) {
			r.Fatalf("got  %x\nwant %x", got, want)
		}
	})
}

// An authority that changes is noticed: the remembered key is that of its line.
func TestIssuer_RemembersOneAuthority(t *testing.T) {
	one, two := newAuthority(t), newAuthority(t)
	i := new(issuer)
	for _, a := range []authority{one, one, two, one} {
		out, err := i.issue(t.Context(), request(a.host, object{"principals": words("a")}, nil))
		if err != nil {
			t.Fatal(err)
		}
		if c := a.sign(t, out.Value); !bytes.Equal(c.SignatureKey.Marshal(), a.signer.PublicKey().Marshal()) {
			t.Fatal("the certificate names another authority")
		}
	}
	bad := request(one.host, object{"principals": words("a")}, nil)
	bad.Host = map[string]string{}
	for k, v := range one.host {
		bad.Host[k] = v
	}
	bad.Host[hostCAPublicKey] += " x\nssh-rsa"
	if _, err := i.issue(t.Context(), bad); err == nil {
		t.Fatal("a line that only begins like the remembered one was taken")
	}
}

func BenchmarkIssue(b *testing.B) {
	a, i := newAuthority(b), new(issuer)
	r := request(a.host, object{"principals": words("deploy"), "source_addresses": words("127.0.0.1/32"), "extensions": words("permit-pty")}, object{
		"principals": words("deploy", "rollback"), "source_addresses": words("127.0.0.0/8", "10.0.0.0/8"), "extensions": words("permit-pty"),
	})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := i.issue(b.Context(), r); err != nil {
			b.Fatal(err)
		}
	}
}
