package snp

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math/big"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/evidence/evidencetest"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// authority is a made-up manufacturer: its keys make evidence that no chip can.
type authority struct {
	ark, ask, asvk             *rsa.PrivateKey
	arkCert, askCert, asvkCert *x509.Certificate
}

var keys = sync.OnceValue(func() [3]*rsa.PrivateKey {
	var out [3]*rsa.PrivateKey
	for i := range out {
		out[i] = must(rsa.GenerateKey(rand.Reader, 2048))
	}
	return out
})

func newAuthority(g Generation) *authority {
	k := keys()
	a := &authority{ark: k[0], ask: k[1], asvk: k[2]}
	ca := func(name string, serial int64, key *rsa.PrivateKey, parent *x509.Certificate) *x509.Certificate {
		c := &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
			KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, NotBefore: evidencetest.Now.AddDate(-5, 0, 0), NotAfter: evidencetest.Now.AddDate(20, 0, 0),
			SignatureAlgorithm: x509.SHA384WithRSAPSS, SubjectKeyId: []byte{byte(serial)},
		}
		if parent == nil {
			parent = c
		}
		return must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, c, parent, key.Public(), a.ark))))
	}
	a.arkCert = ca("ARK-"+string(g), 1, a.ark, nil)
	a.askCert = ca("SEV-"+string(g), 2, a.ask, a.arkCert)
	a.asvkCert = ca("SEV-VLEK-"+string(g), 3, a.asvk, a.arkCert)
	return a
}

func (a *authority) maker() maker { return maker{a.askCert, a.arkCert, a.asvkCert} }

// chip is a made-up processor with its endorsement key.
type chip struct {
	g    Generation
	vlek bool
	tcb  TCB
	id   [64]byte
	from time.Time
	to   time.Time
	alg  x509.SignatureAlgorithm
	drop asn1.ObjectIdentifier // an extension to leave out
}

func newChip(g Generation) chip {
	c := chip{g: g, tcb: TCB{Bootloader: 10, SNP: 23, Microcode: 200}, from: evidencetest.Now.AddDate(-1, 0, 0), to: evidencetest.Now.AddDate(6, 0, 0), alg: x509.SHA384WithRSAPSS}
	n := 64
	if g == Turin {
		c.tcb.FMC, n = 3, 8
	}
	for i := range n {
		c.id[i] = byte(i + 1)
	}
	return c
}

func (c chip) endorse(a *authority, key *ecdsa.PrivateKey) []byte {
	name, parent, signer := "SEV-VCEK", a.askCert, a.ask
	if c.vlek {
		name, parent, signer = "SEV-VLEK", a.asvkCert, a.asvk
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(77), Subject: pkix.Name{CommonName: name}, NotBefore: c.from, NotAfter: c.to, SignatureAlgorithm: c.alg,
	}
	add := func(oid asn1.ObjectIdentifier, value []byte) {
		if !oid.Equal(c.drop) {
			t.ExtraExtensions = append(t.ExtraExtensions, pkix.Extension{Id: oid, Value: value})
		}
	}
	number := func(oid asn1.ObjectIdentifier, n uint8) { add(oid, must(asn1.Marshal(int(n)))) }
	number(oidBootloader, c.tcb.Bootloader)
	number(oidTEE, c.tcb.TEE)
	number(oidSNP, c.tcb.SNP)
	number(oidMicrocode, c.tcb.Microcode)
	if c.g == Turin {
		number(oidFMC, c.tcb.FMC)
		add(oidHardware, must(asn1.Marshal(c.id[:8])))
	} else if !c.vlek {
		add(oidHardware, c.id[:])
	}
	return must(x509.CreateCertificate(rand.Reader, t, parent, key.Public(), signer))
}

// report makes a report of the chip; change may spoil it before it is signed.
func (c chip) report(key *ecdsa.PrivateKey, change func(*Report)) *Report {
	r := &Report{}
	binary.LittleEndian.PutUint32(r[0:], 3)
	binary.LittleEndian.PutUint64(r[atPolicy:], 3<<16)
	binary.LittleEndian.PutUint32(r[atAlgorithm:], 1)
	if c.vlek {
		r[atKey] = 1 << 2
	}
	copy(r[atCPUID:], map[Generation][]byte{Milan: {0x19, 1, 1}, Genoa: {0x19, 0x11, 1}, Turin: {0x1a, 2, 1}}[c.g])
	for _, at := range []int{atCurrentTCB, atReportedTCB, atCommittedTCB, atLaunchTCB} {
		b := c.tcb.bytes(c.g)
		copy(r[at:], b[:])
	}
	copy(r[atReportData:], bound)
	copy(r[atHost:], inits)
	copy(r[atChip:], c.id[:])
	if change != nil {
		change(r)
	}
	sum := sha512.Sum384(r.signed())
	x, y := must2(ecdsa.Sign(rand.Reader, key, sum[:]))
	little := func(at int, n *big.Int) {
		b := n.FillBytes(make([]byte, 48))
		for i := range b {
			r[at+i] = b[47-i]
		}
	}
	little(atR, x)
	little(atS, y)
	return r
}

func must2[A, B any](a A, b B, err error) (A, B) {
	if err != nil {
		panic(err)
	}
	return a, b
}

var (
	bound    = []byte("forty-eight bytes of a digest, which binds a key")
	inits    = []byte("thirty-two bytes of an init-data")
	leafKey  = must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	otherKey = must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
)

// judge verifies evidence by a made-up manufacturer and gives the checks.
func judge(t testing.TB, v *Verifier, body json.RawMessage, b evidence.Binding, at time.Time) (evidence.Claims, evidence.Checks, error) {
	t.Helper()
	claims, err := v.Verify(context.Background(), evidence.Evidence{TEE: evidence.Snp, Body: body}, b, at)
	if err == nil {
		return claims, claims.Checks, nil
	}
	r, ok := errors.AsType[*evidence.RefusedError](err)
	if !ok {
		t.Fatalf("no refusal: %v", err)
	}
	if claims.Values != nil {
		t.Fatal("a refusal has claims")
	}
	return claims, r.Checks, err
}

func verifierOf(t testing.TB, a *authority, g Generation, from evidence.Endorsements) *Verifier {
	t.Helper()
	v, err := New(Config{Endorsements: from, makers: &makers{by: map[Generation]maker{g: a.maker()}}})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func (a *authority) crl(from, to time.Time, signer crypto.Signer, issuer *x509.Certificate, serials ...int64) []byte {
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: from, NextUpdate: to, SignatureAlgorithm: x509.SHA384WithRSAPSS}
	for _, s := range serials {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(s), RevocationTime: from})
	}
	return must(x509.CreateRevocationList(rand.Reader, list, issuer, signer))
}
