package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-project/sallyport/internal/fault"
)

const place = "https://sallyport.test/v1/credentials"

func edKey(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func thumb(t testing.TB, k crypto.Signer) string {
	t.Helper()
	s, err := Thumbprint(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// delegate gives a verified parent and a child bound to key.
func (d *desk) delegate(t testing.TB, key crypto.Signer, scopes ...string) (Session, Issued) {
	t.Helper()
	parent, err := d.Verify(raw(d.open(t)), Presentation{Certificate: d.cert})
	if err != nil {
		t.Fatal(err)
	}
	child, err := d.Delegate(parent, Delegation{KeyThumb: thumb(t, key), Scopes: scopesOf(t, scopes...)})
	if err != nil {
		t.Fatal(err)
	}
	return parent, child
}

func (d *desk) prove(t testing.TB, key crypto.Signer, tok string) Presentation {
	t.Helper()
	p, err := NewProof(key, "POST", place, tok, d.at)
	if err != nil {
		t.Fatal(err)
	}
	return Presentation{Proof: p, Method: "POST", URL: place}
}

func TestDelegate_GivesANarrowerSession(t *testing.T) {
	for name, key := range map[string]crypto.Signer{"Ed25519": edKey(t), "P-256": p256(t)} {
		d := newDesk(t)
		parent, child := d.delegate(t, key, "read:resource/team-a/db/*")
		x, err := d.Verify(raw(child), d.prove(t, key, raw(child)))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !x.Delegated() || x.Parent != parent.ID || x.Subject != parent.Subject || x.Certificate != "" || x.Expires.Sub(start) != DelegateLife {
			t.Errorf("%s: %+v", name, x)
		}
		if x.Allows("vend", "ssh-user-cert") || !x.Allows("read", "resource/team-a/db/key") {
			t.Errorf("%s: scopes %v", name, x.Scopes)
		}
		if len(x.Proof.Use) != 43 || x.Proof.Until.Sub(start) != ProofWindow {
			t.Errorf("%s: proof %+v", name, x.Proof)
		}
		y, err := d.Verify(raw(child), d.prove(t, key, raw(child)))
		if err != nil || y.Proof.Use == x.Proof.Use {
			t.Errorf("%s: two proofs have one name", name)
		}
	}
}

func TestDelegate_OnlyNarrows(t *testing.T) {
	d := newDesk(t)
	parent, _ := d.delegate(t, edKey(t), "vend:ssh-user-cert")
	for _, wide := range [][]string{{"*:**"}, {"vend:*"}, {"vend:ssh-user-cert", "vend:github-pat"}, {"read:**"}, {"read:resource/**"}, {"read:resource/team-b/x"}} {
		_, err := d.Delegate(parent, Delegation{KeyThumb: thumb(t, edKey(t)), Scopes: scopesOf(t, wide...)})
		if !fault.Is(err, fault.Denied) {
			t.Errorf("%v: %v", wide, err)
		}
	}
	for name, g := range map[string]Delegation{
		"no scopes": {KeyThumb: thumb(t, edKey(t))}, "no key": {Scopes: scopesOf(t, "vend:ssh-user-cert")},
		"odd key":  {KeyThumb: "x", Scopes: scopesOf(t, "vend:ssh-user-cert")},
		"negative": {KeyThumb: thumb(t, edKey(t)), Scopes: scopesOf(t, "vend:ssh-user-cert"), Life: -time.Second},
	} {
		if _, err := d.Delegate(parent, g); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDelegate_NeverOutlivesTheParent(t *testing.T) {
	d := newDesk(t)
	parent, _ := d.delegate(t, edKey(t), "vend:ssh-user-cert")
	ask := Delegation{KeyThumb: thumb(t, edKey(t)), Scopes: scopesOf(t, "vend:ssh-user-cert"), Life: time.Hour}
	d.pass(12 * time.Minute)
	child, err := d.Delegate(parent, ask)
	if err != nil || !child.Session.Expires.Equal(parent.Expires) {
		t.Errorf("child ends %s, parent %s, %v", child.Session.Expires, parent.Expires, err)
	}
	d.pass(3 * time.Minute)
	if _, err := d.Delegate(parent, ask); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("an expired parent: %v", err)
	}
}

// A delegate can neither open, nor refresh, nor delegate; and the parent's
// certificate does not stand in for the delegate's key, nor the other way.
func TestDelegate_CannotGoFurther(t *testing.T) {
	d := newDesk(t)
	key := edKey(t)
	parent, child := d.delegate(t, key, "vend:ssh-user-cert")
	x, err := d.Verify(raw(child), d.prove(t, key, raw(child)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Refresh(x); !fault.Is(err, fault.Denied) {
		t.Errorf("refresh: %v", err)
	}
	if _, err := d.Delegate(x, Delegation{KeyThumb: thumb(t, edKey(t)), Scopes: x.Scopes}); !fault.Is(err, fault.Denied) {
		t.Errorf("delegate: %v", err)
	}
	if _, err := d.Verify(raw(child), Presentation{Certificate: d.cert, Method: "POST", URL: place}); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("the parent's certificate: %v", err)
	}
	if _, err := d.Delegate(parent, Delegation{KeyThumb: thumb(t, d.key), Scopes: x.Scopes}); !fault.Is(err, fault.Denied) {
		t.Errorf("bound to the parent's key: %v", err)
	}
	whole := raw(d.open(t))
	if _, err := d.Verify(whole, d.prove(t, d.key, whole)); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("a proof instead of the certificate: %v", err)
	}
	for _, forged := range []Session{{}, {ID: parent.ID, Subject: parent.Subject, Scopes: scopesOf(t, "*:**"), Expires: start.Add(time.Hour)}} {
		if _, err := d.Delegate(forged, Delegation{KeyThumb: thumb(t, key), Scopes: x.Scopes}); err == nil {
			t.Error("a made-up session delegates")
		}
	}
}

func TestProof_IsForOneRequestOfOneToken(t *testing.T) {
	d := newDesk(t)
	key := edKey(t)
	_, child := d.delegate(t, key, "vend:ssh-user-cert")
	_, other := d.delegate(t, key, "vend:ssh-user-cert")
	good := d.prove(t, key, raw(child))
	for name, change := range map[string]func(*Presentation){
		"other method":  func(p *Presentation) { p.Method = "GET" },
		"other case":    func(p *Presentation) { p.Method = "post" },
		"other path":    func(p *Presentation) { p.URL += "/x" },
		"other host":    func(p *Presentation) { p.URL = strings.Replace(p.URL, "sallyport", "evil", 1) },
		"other scheme":  func(p *Presentation) { p.URL = strings.Replace(p.URL, "https", "http", 1) },
		"other port":    func(p *Presentation) { p.URL = strings.Replace(p.URL, ".test", ".test:8443", 1) },
		"no URL":        func(p *Presentation) { p.URL = "" },
		"no proof":      func(p *Presentation) { p.Proof = "" },
		"the token":     func(p *Presentation) { p.Proof = raw(child) },
		"two proofs":    func(p *Presentation) { p.Proof += ", " + p.Proof },
		"too long":      func(p *Presentation) { p.Proof = strings.Repeat("a", MaxProof+1) },
		"other's proof": func(p *Presentation) { p.Proof = d.prove(t, edKey(t), raw(child)).Proof },
		"other token":   func(p *Presentation) { p.Proof = d.prove(t, key, raw(other)).Proof },
	} {
		p := good
		change(&p)
		if _, err := d.Verify(raw(child), p); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, same := range []string{place + "?a=b", place + "#x", "HTTPS://SALLYPORT.test:443/v1/credentials"} {
		p := good
		p.URL = same
		if _, err := d.Verify(raw(child), p); err != nil {
			t.Errorf("%s: %v", same, err)
		}
	}
	for _, at := range []time.Duration{-61 * time.Second, 61 * time.Second} {
		d.at = start.Add(at)
		if _, err := d.Verify(raw(child), good); err == nil {
			t.Errorf("a proof seen at %s", at)
		}
	}
}

func TestProof_RefusesOddHeadersAndClaims(t *testing.T) {
	d := newDesk(t)
	key, ec := edKey(t), p256(t)
	_, child := d.delegate(t, key, "vend:ssh-user-cert")
	ath := sha256.Sum256(child.Token.Reveal())
	claims := func(change func(map[string]any)) map[string]any {
		m := map[string]any{"jti": "1", "htm": "POST", "htu": place, "iat": start.Unix(), "ath": encode(ath[:])}
		if change != nil {
			change(m)
		}
		return m
	}
	pub := jose.JSONWebKey{Key: key.Public()}
	head := func(more ...any) map[jose.HeaderKey]any {
		m := map[jose.HeaderKey]any{"typ": proofType, "jwk": pub}
		for i := 0; i < len(more); i += 2 {
			m[jose.HeaderKey(more[i].(string))] = more[i+1]
		}
		return m
	}
	ok := Presentation{Proof: forge(t, jose.EdDSA, key, head(), claims(nil)), Method: "POST", URL: place}
	if _, err := d.Verify(raw(child), ok); err != nil {
		t.Fatalf("the plain one: %v", err)
	}
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public, _ := key.Public().(ed25519.PublicKey)
	for name, proof := range map[string]string{
		"typ JWT":         forge(t, jose.EdDSA, key, head("typ", "JWT"), claims(nil)),
		"private jwk":     forge(t, jose.EdDSA, key, head("jwk", jose.JSONWebKey{Key: key}), claims(nil)),
		"no jwk":          forge(t, jose.EdDSA, key, map[jose.HeaderKey]any{"typ": proofType}, claims(nil)),
		"crit":            forge(t, jose.EdDSA, key, head("crit", []string{"b64"}), claims(nil)),
		"symmetric":       forge(t, jose.HS256, []byte(public), head(), claims(nil)),
		"RSA":             forge(t, jose.RS256, weak, head("jwk", jose.JSONWebKey{Key: &weak.PublicKey}), claims(nil)),
		"P-384":           forge(t, jose.ES384, p384, head("jwk", jose.JSONWebKey{Key: &p384.PublicKey}), claims(nil)),
		"mixed":           forge(t, jose.ES256, ec, head(), claims(nil)),
		"signed by other": forge(t, jose.EdDSA, edKey(t), head(), claims(nil)),
		"no jti":          forge(t, jose.EdDSA, key, head(), claims(func(m map[string]any) { delete(m, "jti") })),
		"long jti":        forge(t, jose.EdDSA, key, head(), claims(func(m map[string]any) { m["jti"] = strings.Repeat("x", 200) })),
		"no ath":          forge(t, jose.EdDSA, key, head(), claims(func(m map[string]any) { delete(m, "ath") })),
		"no iat":          forge(t, jose.EdDSA, key, head(), claims(func(m map[string]any) { delete(m, "iat") })),
		"no htm":          forge(t, jose.EdDSA, key, head(), claims(func(m map[string]any) { delete(m, "htm") })),
		"no htu":          forge(t, jose.EdDSA, key, head(), claims(func(m map[string]any) { delete(m, "htu") })),
		"htu with user":   forge(t, jose.EdDSA, key, head(), claims(func(m map[string]any) { m["htu"] = strings.Replace(place, "//", "//u@", 1) })),
		"unknown claim":   forge(t, jose.EdDSA, key, head(), claims(func(m map[string]any) { m["admin"] = true })),
	} {
		p := ok
		p.Proof = proof
		if _, err := d.Verify(raw(child), p); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNewProof_RefusesOtherKeys(t *testing.T) {
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []crypto.Signer{weak, p384} {
		if _, err := NewProof(k, "GET", place, "x", start); !fault.Is(err, fault.Invalid) {
			t.Error(err)
		}
	}
	if _, err := Thumbprint("x"); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
}

func FuzzProof(f *testing.F) {
	d := newDesk(f)
	key := edKey(f)
	_, child := d.delegate(f, key, "vend:ssh-user-cert")
	good := d.prove(f, key, raw(child))
	f.Add(good.Proof, place)
	f.Add(raw(child), "")
	f.Fuzz(func(t *testing.T, proof, at string) {
		_, err := d.Verify(raw(child), Presentation{Proof: proof, Method: "POST", URL: at})
		if err == nil && (proof != good.Proof || !sameURL(at, place)) {
			t.Fatal("a second proof was accepted")
		}
		if err != nil && !fault.Is(err, fault.Unauthenticated) {
			t.Fatalf("kind of %v", err)
		}
		var h proofHeader
		if json.Unmarshal([]byte(proof), &h) == nil {
			_, _ = h.key()
		}
	})
}
