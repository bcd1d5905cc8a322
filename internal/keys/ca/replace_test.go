package ca_test

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/keys"
	"github.com/sallyport-project/sallyport/internal/keys/ca"
)

// take stores what a rotation has changed.
func (h *house) take(turn keys.Rotation) {
	for _, k := range append(append([]keys.Key{turn.Fresh}, turn.Under...), turn.Changed...) {
		h.rows[k.ID] = k
	}
}

func (h *house) replace(t testing.TB) keys.Rotation {
	t.Helper()
	turn, err := ca.Replace(t.Context(), h.vault, h.list(), h.config())
	if err != nil {
		t.Fatal(err)
	}
	h.take(turn)
	return turn
}

// shown is the chain that a server of the authority shows.
func shown(t testing.TB, a *ca.Authority) []*x509.Certificate {
	t.Helper()
	s, err := ca.NewServer(a, []string{"localhost"})
	if err != nil {
		t.Fatal(err)
	}
	pair, err := s.GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	var chain []*x509.Certificate
	for _, der := range pair.Certificate {
		chain = append(chain, parse(t, der))
	}
	return chain
}

func TestReplace(t *testing.T) {
	h := newHouse(t)
	before := h.load(t)
	old, _ := issue(t, before)
	turn := h.replace(t)
	after := h.load(t)
	fresh, _ := issue(t, after)
	if after.KeyHash() == before.KeyHash() || len(after.Roots()) != 2 || ca.KeyHash(after.Roots()[0]) != after.KeyHash() {
		t.Errorf("the new root is not the present one")
	}
	chain := shown(t, after)
	for name, hash := range map[string][32]byte{"old": before.KeyHash(), "new": after.KeyHash()} {
		root, err := ca.VerifyPinned(chain, hash, "localhost", h.at)
		if err != nil || ca.KeyHash(root) != hash {
			t.Errorf("who has pinned the %s root: %v", name, err)
		}
	}
	if _, err := ca.VerifyPinned(shown(t, before), after.KeyHash(), "localhost", h.at); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("the new root in an old chain: %v", err)
	}
	// Who trusts the old root alone accepts what stands below the new one, and
	// never the other way round.
	made := h.made(t)
	for _, by := range []*ca.Authority{before, after} {
		for name, leaf := range map[string]ca.Leaf{"old": old, "fresh": fresh} {
			_, err := parse(t, leaf.DER).Verify(x509.VerifyOptions{
				Roots: pool(by.Roots()[0]), Intermediates: pool(made...), CurrentTime: h.at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
			})
			if good := by == before || name == "fresh"; (err == nil) != good {
				t.Errorf("the %s leaf below %s: %v", name, by.Roots()[0].Subject.CommonName, err)
			}
		}
	}
	for name, leaf := range map[string]ca.Leaf{"old": old, "fresh": fresh} {
		if _, err := after.Verify([]*x509.Certificate{parse(t, leaf.DER)}, h.at); err != nil {
			t.Errorf("the %s leaf: %v", name, err)
		}
	}
	if _, err := ca.Replace(t.Context(), h.vault, h.list(), h.config()); !fault.Is(err, fault.Conflict) {
		t.Errorf("a third root while the first is trusted: %v", err)
	}
	h.retire(t, before, after, turn, old, fresh)
}

// retire ends the old intermediate and the old root.
func (h *house) retire(t *testing.T, before, after *ca.Authority, turn keys.Rotation, old, fresh ca.Leaf) {
	t.Helper()
	for _, p := range []keys.Purpose{keys.CAIntermediate, keys.CARoot} {
		for _, k := range turn.Changed {
			if k.Purpose != p {
				continue
			}
			why, err := "", error(nil)
			if p == keys.CARoot {
				why, err = ca.Below(h.list(), k, h.at)
			}
			if why != "" || err != nil {
				t.Errorf("the old root is needed: %s, %v", why, err)
			}
			if h.rows[k.ID], err = h.vault.Advance(t.Context(), k, keys.Retired, time.Time{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	last := h.load(t)
	if len(last.Roots()) != 1 || last.KeyHash() != after.KeyHash() || len(shown(t, last)) != 3 {
		t.Errorf("after it has retired there are %d roots, and the server shows %d certificates", len(last.Roots()), len(shown(t, last)))
	}
	if _, err := last.Verify([]*x509.Certificate{parse(t, old.DER)}, h.at); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("a leaf below the retired root: %v", err)
	}
	if _, err := last.Verify([]*x509.Certificate{parse(t, fresh.DER)}, h.at); err != nil {
		t.Errorf("a leaf below the new root: %v", err)
	}
	if _, err := ca.VerifyPinned(shown(t, last), before.KeyHash(), "localhost", h.at); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("who has pinned the retired root: %v", err)
	}
	h.replace(t) // and the next one is possible
}

func TestBelow_NamesTheIntermediate(t *testing.T) {
	h := newHouse(t)
	turn := h.replace(t)
	for _, k := range turn.Changed {
		if k.Purpose != keys.CARoot {
			continue
		}
		if why, err := ca.Below(h.list(), k, h.at); why == "" || err != nil {
			t.Errorf("%q, %v", why, err)
		}
		if why, err := ca.Below(h.list(), k, h.at.Add(ca.IntermediateLife)); why != "" || err != nil {
			t.Errorf("when its intermediate is over: %q, %v", why, err)
		}
	}
}

// TestAuthority_NeverStrandsALeaf walks random years of renewals and one
// replacement of the root: every leaf is accepted to its own end, and its holder is
// served by whatever root was there when it was issued.
func TestAuthority_NeverStrandsALeaf(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		h := newHouse(t)
		type held struct {
			leaf ca.Leaf
			hash [32]byte
		}
		var all []held
		replaced := false
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			h.at = h.at.Add(time.Duration(rapid.IntRange(0, 20).Draw(rt, "hours")) * time.Hour)
			a := h.load(t)
			for _, x := range all {
				if h.at.Before(x.leaf.NotAfter) {
					if _, err := a.Verify([]*x509.Certificate{parse(t, x.leaf.DER)}, h.at); err != nil {
						rt.Fatalf("a leaf until %s at %s: %v", x.leaf.NotAfter, h.at, err)
					}
				}
				if _, err := ca.VerifyPinned(shown(t, a), x.hash, "localhost", h.at); err != nil {
					rt.Fatalf("a pinned root: %v", err)
				}
			}
			switch act := rapid.IntRange(0, 3).Draw(rt, "act"); {
			case act == 0 && !replaced:
				h.replace(t)
				replaced = true
			case act == 1:
				turn, err := ca.Renew(t.Context(), h.vault, h.list(), h.config())
				if err != nil {
					rt.Fatal(err)
				}
				h.take(turn)
			default:
				leaf, _ := issue(t, a)
				all = append(all, held{leaf, a.KeyHash()})
			}
		}
	})
}

// TestReplace_LeakedRootIsNotBelieved forges a server's leaf with the key of a
// root that was replaced, and shows every certificate that there is: who trusts
// only the new root is not deceived, now and years later.
func TestReplace_LeakedRootIsNotBelieved(t *testing.T) {
	h := newHouse(t)
	old := h.load(t).Roots()[0]
	var leaked crypto.Signer
	for _, k := range h.list() {
		if k.Purpose == keys.CARoot {
			var err error
			if leaked, err = h.vault.Signer(t.Context(), k); err != nil {
				t.Fatal(err)
			}
		}
	}
	turn := h.replace(t)
	after := h.load(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), NotBefore: h.at.Add(-time.Minute), NotAfter: h.at.Add(20 * ca.RootLife), DNSNames: []string{"localhost"},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, old, leaked.Public(), leaked)
	if err != nil {
		t.Fatal(err)
	}
	forged, made := parse(t, der), h.made(t)
	for _, c := range made {
		if ca.KeyHash(c) == ca.KeyHash(old) && !c.Equal(old) {
			t.Errorf("%s signs the key of the root that it replaces", c.Issuer.CommonName)
		}
	}
	for _, later := range []time.Duration{0, ca.IntermediateLife, ca.RootLife - 24*time.Hour} {
		at := h.at.Add(later)
		believed := func(root *x509.Certificate) error {
			_, err := forged.Verify(x509.VerifyOptions{
				DNSName: "localhost", Roots: pool(root), Intermediates: pool(made...), CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
			})
			return err
		}
		if err := believed(old); err != nil {
			t.Fatalf("the forgery is no good one: %v", err)
		}
		if believed(after.Roots()[0]) == nil {
			t.Errorf("%s later, who trusts the new root believes the old one", later)
		}
		chain := append([]*x509.Certificate{forged}, certificates(t, turn.Fresh.Public)...)
		if _, err := ca.VerifyPinned(chain, after.KeyHash(), "localhost", at); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("%s later, who has pinned the new root: %v", later, err)
		}
	}
}

// made is every certificate in the rows.
func (h *house) made(t testing.TB) []*x509.Certificate {
	t.Helper()
	var all []*x509.Certificate
	for _, k := range h.list() {
		if k.Purpose == keys.CARoot || k.Purpose == keys.CAIntermediate {
			all = append(all, certificates(t, k.Public)...)
		}
	}
	return all
}

func pool(all ...*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range all {
		p.AddCert(c)
	}
	return p
}

// certificates reads a row's public part.
func certificates(t testing.TB, text string) []*x509.Certificate {
	t.Helper()
	var all []*x509.Certificate
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return all
		}
		all = append(all, parse(t, block.Bytes))
	}
}
