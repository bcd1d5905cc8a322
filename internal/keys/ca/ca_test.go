package ca_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/id"
	"github.com/sallyport-project/sallyport/internal/keys"
	"github.com/sallyport-project/sallyport/internal/keys/ca"
	"github.com/sallyport-project/sallyport/internal/keys/file"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const domain = "test.example"

// house is an authority with a clock that a test moves.
type house struct {
	vault *keys.Vault
	rows  map[string]keys.Key
	at    time.Time
}

func newHouse(t testing.TB) *house {
	t.Helper()
	h := &house{rows: map[string]keys.Key{}, at: start}
	kek, err := file.Create(file.Config{Path: t.TempDir() + "/kek"})
	if err != nil {
		t.Fatal(err)
	}
	v, _, err := keys.Create(t.Context(), keys.Config{KEK: kek, Now: h.now})
	if err != nil {
		t.Fatal(err)
	}
	h.vault = v
	root, intermediate, err := ca.Found(t.Context(), v, h.config())
	if err != nil {
		t.Fatal(err)
	}
	h.rows[root.ID], h.rows[intermediate.ID] = root, intermediate
	return h
}

func (h *house) now() time.Time { return h.at }

func (h *house) config() ca.Config { return ca.Config{TrustDomain: domain, Now: h.now} }

func (h *house) list() []keys.Key {
	var all []keys.Key
	for _, k := range h.rows {
		all = append(all, k)
	}
	return all
}

func (h *house) load(t testing.TB) *ca.Authority {
	t.Helper()
	a, err := ca.Load(t.Context(), h.vault, h.list(), h.config())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func newSigner(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func csr(t testing.TB, k crypto.Signer, asks x509.CertificateRequest) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &asks, k)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func parse(t testing.TB, der []byte) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func issue(t testing.TB, a *ca.Authority) (ca.Leaf, string) {
	t.Helper()
	subject := id.New()
	leaf, err := a.Issue(ca.Request{CSR: csr(t, newSigner(t), x509.CertificateRequest{}), Subject: subject, Kind: "agent"})
	if err != nil {
		t.Fatal(err)
	}
	return leaf, subject
}

func TestAuthority_Issue(t *testing.T) {
	h := newHouse(t)
	a := h.load(t)
	leaf, subject := issue(t, a)
	c := parse(t, leaf.DER)
	got, err := a.Verify([]*x509.Certificate{c}, start)
	if err != nil {
		t.Fatal(err)
	}
	want := ca.Identity{SubjectID: subject, Kind: "agent", Serial: leaf.Serial, Fingerprint: leaf.Fingerprint, NotAfter: start.Add(24 * time.Hour)}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if !c.NotBefore.Equal(start.Add(-time.Minute)) {
		t.Errorf("begins at %s", c.NotBefore)
	}
	if len(leaf.Serial) != 32 || len(leaf.Fingerprint) != 64 {
		t.Errorf("serial %s, fingerprint %s", leaf.Serial, leaf.Fingerprint)
	}
	t.Run("verifies from the PEM that the client gets, by the bundle alone", func(t *testing.T) {
		var chain []*x509.Certificate
		for rest := []byte(leaf.PEM); ; {
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil {
				break
			}
			chain = append(chain, parse(t, block.Bytes))
		}
		if len(chain) != 2 {
			t.Fatalf("%d certificates", len(chain))
		}
		block, _ := pem.Decode([]byte(a.Bundle()))
		alone := ca.NewVerifier(domain, []*x509.Certificate{parse(t, block.Bytes)}, nil)
		if _, err := alone.Verify(chain, start); err != nil {
			t.Fatal(err)
		}
		if _, err := alone.Verify(chain[:1], start); !fault.Is(err, fault.Unauthenticated) {
			t.Fatalf("a leaf without its chain: %v", err)
		}
	})
	t.Run("ignores all that the request asks for", func(t *testing.T) {
		greedy := csr(t, newSigner(t), x509.CertificateRequest{
			Subject:  pkix.Name{CommonName: "admin", OrganizationalUnit: []string{"operator"}},
			DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, EmailAddresses: []string{"a@b"},
			URIs:            []*url.URL{{Scheme: "spiffe", Host: domain, Path: "/operator/" + id.New()}},
			ExtraExtensions: []pkix.Extension{{Id: []int{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 3, 1, 1, 0xff}}},
		})
		leaf, err := a.Issue(ca.Request{CSR: greedy, Subject: subject, Kind: "agent"})
		if err != nil {
			t.Fatal(err)
		}
		c := parse(t, leaf.DER)
		if c.IsCA || len(c.DNSNames)+len(c.IPAddresses)+len(c.EmailAddresses) > 0 || len(c.URIs) != 1 || c.Subject.CommonName != subject || len(c.Subject.OrganizationalUnit) > 0 {
			t.Fatalf("the request got its way: %+v", c.Subject)
		}
		if who, err := a.Verify([]*x509.Certificate{c}, start); err != nil || who.SubjectID != subject || who.Kind != "agent" {
			t.Fatalf("%+v, %v", who, err)
		}
	})
	t.Run("never outlives its issuer", func(t *testing.T) {
		h := newHouse(t)
		a := h.load(t)
		h.at = start.Add(ca.IntermediateLife - time.Hour)
		leaf, _ := issue(t, a)
		if !leaf.NotAfter.Equal(start.Add(ca.IntermediateLife)) {
			t.Errorf("ends at %s", leaf.NotAfter)
		}
		h.at = start.Add(ca.IntermediateLife - 30*time.Second)
		if _, err := a.Issue(ca.Request{CSR: csr(t, newSigner(t), x509.CertificateRequest{}), Subject: subject, Kind: "agent"}); !fault.Is(err, fault.Unavailable) {
			t.Errorf("at its end: %v", err)
		}
	})
}

func TestAuthority_Issue_refuses(t *testing.T) {
	a := newHouse(t).load(t)
	subject := id.New()
	good := csr(t, newSigner(t), x509.CertificateRequest{})
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: good})
	forged := append([]byte(nil), good...)
	forged[len(forged)-1] ^= 1
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"nothing": nil, "text": []byte("hello"), "a forged signature": forged, "a cut request": good[:40],
		"a byte more": append(append([]byte(nil), good...), 0), "too large": make([]byte, ca.MaxRequest+1),
		"text after the PEM": append(append([]byte(nil), text...), "more"...),
		"another PEM":        pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: good}),
		"RSA of 1024 bits":   csr(t, weak, x509.CertificateRequest{}),
		"P-521":              csr(t, p521, x509.CertificateRequest{}),
	} {
		if _, err := a.Issue(ca.Request{CSR: b, Subject: subject, Kind: "agent"}); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	for name, r := range map[string]ca.Request{
		"a life beyond the limit": {CSR: good, Subject: subject, Kind: "agent", Life: 25 * time.Hour},
		"a life of seconds":       {CSR: good, Subject: subject, Kind: "agent", Life: time.Second},
		"a negative life":         {CSR: good, Subject: subject, Kind: "agent", Life: -time.Hour},
		"no subject":              {CSR: good, Kind: "agent"},
		"a subject with a slash":  {CSR: good, Subject: "a/b", Kind: "agent"},
		"no kind":                 {CSR: good, Subject: subject},
		"a kind with a slash":     {CSR: good, Subject: subject, Kind: "agent/x"},
	} {
		if _, err := a.Issue(r); err == nil {
			t.Errorf("%s: issued", name)
		}
	}
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	strong, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"PEM": text, "Ed25519": csr(t, edwards, x509.CertificateRequest{}), "RSA of 2048 bits": csr(t, strong, x509.CertificateRequest{}),
	} {
		if _, err := a.Issue(ca.Request{CSR: b, Subject: subject, Kind: "agent"}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestVerifier_Verify_refuses signs changed leaves under the trusted root, as a
// careless authority would.
func TestVerifier_Verify_refuses(t *testing.T) {
	rootKey, key := newSigner(t), newSigner(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, NotBefore: start.Add(-time.Hour), NotAfter: start.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	sign := func(c *x509.Certificate) *x509.Certificate {
		t.Helper()
		der, err := x509.CreateCertificate(rand.Reader, c, template, key.Public(), rootKey)
		if err != nil {
			t.Fatal(err)
		}
		return parse(t, der)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, rootKey.Public(), rootKey)
	if err != nil {
		t.Fatal(err)
	}
	root, subject := parse(t, der), id.New()
	v := ca.NewVerifier(domain, []*x509.Certificate{root}, nil)
	leaf := func(name string) *x509.Certificate {
		t.Helper()
		u, err := url.Parse(name)
		if err != nil {
			t.Fatal(err)
		}
		return &x509.Certificate{
			SerialNumber: big.NewInt(2), NotBefore: start.Add(-time.Minute), NotAfter: start.Add(time.Minute), URIs: []*url.URL{u},
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true,
		}
	}
	good := "spiffe://" + domain + "/agent/" + subject
	if _, err := v.Verify([]*x509.Certificate{sign(leaf(good))}, start); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*x509.Certificate){
		"an authority":           func(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, c.KeyUsage|x509.KeyUsageCertSign },
		"a server's":             func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} },
		"no usage":               func(c *x509.Certificate) { c.ExtKeyUsage = nil },
		"any usage":              func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} },
		"no signatures":          func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment },
		"no name":                func(c *x509.Certificate) { c.URIs = nil },
		"two names":              func(c *x509.Certificate) { c.URIs = append(c.URIs, c.URIs[0]) },
		"a DNS name too":         func(c *x509.Certificate) { c.DNSNames = []string{"localhost"} },
		"an address too":         func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)} },
		"an e-mail address too":  func(c *x509.Certificate) { c.EmailAddresses = []string{"a@b.c"} },
		"expired":                func(c *x509.Certificate) { c.NotAfter = start },
		"not yet valid":          func(c *x509.Certificate) { c.NotBefore = start.Add(time.Second) },
		"an unknown extension":   func(c *x509.Certificate) { c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3}, Critical: true}} },
		"another trust domain":   func(c *x509.Certificate) { c.URIs[0].Host = "other.example" },
		"a domain with more":     func(c *x509.Certificate) { c.URIs[0].Host = domain + ".evil.example" },
		"a port":                 func(c *x509.Certificate) { c.URIs[0].Host = domain + ":1" },
		"a user":                 func(c *x509.Certificate) { c.URIs[0].User = url.User("x") },
		"another scheme":         func(c *x509.Certificate) { c.URIs[0].Scheme = "https" },
		"a query":                func(c *x509.Certificate) { c.URIs[0].RawQuery = "a=b" },
		"a fragment":             func(c *x509.Certificate) { c.URIs[0].Fragment = "a" },
		"a longer path":          func(c *x509.Certificate) { c.URIs[0].Path += "/x" },
		"a trailing slash":       func(c *x509.Certificate) { c.URIs[0].Path += "/" },
		"no kind":                func(c *x509.Certificate) { c.URIs[0].Path = "/" + subject },
		"an id in lower case":    func(c *x509.Certificate) { c.URIs[0].Path = strings.ToLower(c.URIs[0].Path) },
		"a kind with dots":       func(c *x509.Certificate) { c.URIs[0].Path = "/../" + subject },
		"a kind in upper case":   func(c *x509.Certificate) { c.URIs[0].Path = "/Agent/" + subject },
		"an escape in the path":  func(c *x509.Certificate) { c.URIs[0].Path, c.URIs[0].RawPath = "/agent/"+subject, "/%61gent/"+subject },
		"an empty path":          func(c *x509.Certificate) { c.URIs[0].Path = "" },
		"a name without the uri": func(c *x509.Certificate) { c.URIs = nil; c.Subject.CommonName = subject },
	} {
		t.Run(name, func(t *testing.T) {
			c := leaf(good)
			change(c)
			if who, err := v.Verify([]*x509.Certificate{sign(c)}, start); !fault.Is(err, fault.Unauthenticated) {
				t.Fatalf("got %+v, %v", who, err)
			}
		})
	}
	t.Run("the root itself", func(t *testing.T) {
		if _, err := v.Verify([]*x509.Certificate{root}, start); !fault.Is(err, fault.Unauthenticated) {
			t.Fatalf("got %v", err)
		}
	})
	t.Run("nothing, and too much", func(t *testing.T) {
		c := sign(leaf(good))
		for _, chain := range [][]*x509.Certificate{nil, {c, root, root, root, root, root}} {
			if _, err := v.Verify(chain, start); !fault.Is(err, fault.Unauthenticated) {
				t.Fatalf("%d certificates: %v", len(chain), err)
			}
		}
	})
	t.Run("another house's leaf of the same trust domain", func(t *testing.T) {
		theirs, _ := issue(t, newHouse(t).load(t))
		if _, err := v.Verify([]*x509.Certificate{parse(t, theirs.DER)}, start); !fault.Is(err, fault.Unauthenticated) {
			t.Fatalf("got %v", err)
		}
	})
}

func TestRenew(t *testing.T) {
	h := newHouse(t)
	before := h.load(t)
	if before.Due(start) || !before.Due(start.Add(ca.IntermediateLife-ca.RenewBefore+time.Second)) {
		t.Error("not due exactly before its end")
	}
	h.at = start.Add(ca.IntermediateLife - ca.RenewBefore)
	old, _ := issue(t, before)
	turn, err := ca.Renew(t.Context(), h.vault, h.list(), h.config())
	if err != nil {
		t.Fatal(err)
	}
	h.rows[turn.Fresh.ID] = turn.Fresh
	for _, k := range turn.Changed {
		h.rows[k.ID] = k
	}
	after := h.load(t)
	fresh, _ := issue(t, after)
	for name, leaf := range map[string]ca.Leaf{"old": old, "fresh": fresh} {
		if _, err := after.Verify([]*x509.Certificate{parse(t, leaf.DER)}, h.at); err != nil {
			t.Errorf("the %s leaf: %v", name, err)
		}
	}
	if after.KeyHash() != before.KeyHash() {
		t.Error("the hash of the root's key changed with the intermediate")
	}
	if len(turn.Changed) != 1 || turn.Changed[0].State != keys.Retiring {
		t.Errorf("changed %v", turn.Changed)
	}
	h.at = start.Add(ca.IntermediateLife + time.Hour)
	last, err := ca.Renew(t.Context(), h.vault, h.list(), h.config())
	if err != nil {
		t.Fatal(err)
	}
	states := map[keys.State]int{}
	for _, k := range last.Changed {
		states[k.State]++
	}
	if states[keys.Retired] != 1 || states[keys.Retiring] != 1 {
		t.Errorf("after its end: %v", states)
	}
}

func TestLoad_refuses(t *testing.T) {
	h, other := newHouse(t), newHouse(t)
	t.Run("an intermediate of another root", func(t *testing.T) {
		var mixed []keys.Key
		for _, k := range h.list() {
			if k.Purpose == keys.CAIntermediate {
				mixed = append(mixed, k)
			}
		}
		for _, k := range other.list() {
			if k.Purpose == keys.CARoot {
				mixed = append(mixed, k)
			}
		}
		if _, err := ca.Load(t.Context(), h.vault, mixed, h.config()); !fault.Is(err, fault.Internal) {
			t.Fatalf("got %v", err)
		}
	})
	t.Run("a swapped certificate", func(t *testing.T) {
		var rows []keys.Key
		var root string
		for _, k := range h.list() {
			if k.Purpose == keys.CARoot {
				root = k.Public
			}
		}
		for _, k := range h.list() {
			k.Public = root
			rows = append(rows, k)
		}
		if _, err := ca.Load(t.Context(), h.vault, rows, h.config()); !fault.Is(err, fault.Internal) {
			t.Fatalf("got %v", err)
		}
	})
	t.Run("an ended intermediate", func(t *testing.T) {
		h.at = start.Add(2 * ca.IntermediateLife)
		defer func() { h.at = start }()
		if _, err := ca.Load(t.Context(), h.vault, h.list(), h.config()); !fault.Is(err, fault.Unavailable) {
			t.Fatalf("got %v", err)
		}
	})
	for _, bad := range []string{"", "UPPER", "a b", "x/y", "-x", "x.", "spiffe://x"} {
		if _, _, err := ca.Found(t.Context(), h.vault, ca.Config{TrustDomain: bad}); !fault.Is(err, fault.Invalid) {
			t.Errorf("trust domain %q: %v", bad, err)
		}
	}
}

func FuzzAuthority_Issue(f *testing.F) {
	a := newHouse(f).load(f)
	subject := id.New()
	good := csr(f, newSigner(f), x509.CertificateRequest{})
	f.Add(good)
	f.Add(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: good}))
	f.Add([]byte("-----BEGIN CERTIFICATE REQUEST-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := a.Issue(ca.Request{CSR: b, Subject: subject, Kind: "agent"}); err != nil && !fault.Is(err, fault.Invalid) {
			t.Fatal(err)
		}
	})
}
