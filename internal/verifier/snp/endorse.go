package snp

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// The kinds of endorsements, and what their keys are.
const (
	KindVCEK = "snp-vcek" // generation/hardware id/TCB, see Wanted
	KindCRL  = "snp-crl"  // generation
)

// Extensions of an endorsement key (VCEK specification 57230, table 8).
var (
	oidBootloader = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1, 3, 1}
	oidTEE        = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1, 3, 2}
	oidSNP        = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1, 3, 3}
	oidMicrocode  = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1, 3, 8}
	oidFMC        = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1, 3, 9}
	oidHardware   = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1, 4}
)

// endorser is a VCEK or VLEK whose chain was verified. Dates and revocation are
// not: they are checked with each use.
type endorser struct {
	cert     *x509.Certificate
	key      *ecdsa.PublicKey
	vlek     bool
	tcb      TCB
	hardware []byte // nil in a VLEK
	chain    []*x509.Certificate
}

// generationOf is which generation's keys issued a certificate, by the name of
// the issuer; the signature then proves it.
func generationOf(cert *x509.Certificate) (g Generation, vlek bool) {
	name, vlek := strings.CutPrefix(cert.Issuer.CommonName, "SEV-VLEK-")
	if !vlek {
		name, _ = strings.CutPrefix(cert.Issuer.CommonName, "SEV-")
	}
	return Generation(name), vlek
}

// endorse parses an endorsement key and verifies that the generation's keys
// signed it.
func (m *makers) endorse(der []byte) (*endorser, Generation, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, "", fault.Invalidf("the endorsement key is no certificate").Because(err)
	}
	g, vlek := generationOf(cert)
	maker, ok := m.by[g]
	if !ok {
		return nil, "", fault.Invalidf("the endorsement key was not issued for a known generation")
	}
	e := &endorser{cert: cert, vlek: vlek, chain: []*x509.Certificate{maker.ask, maker.ark}}
	if vlek {
		e.chain[0] = maker.asvk
	}
	if err := signedBy(cert, e.chain[0]); err != nil {
		return nil, g, err
	}
	key, ok := cert.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P384() {
		return nil, g, fault.Invalidf("the endorsement key is not on P-384")
	}
	e.key = key
	return e, g, e.extensions(g)
}

// signedBy checks the one signature algorithm that the manufacturer uses
// (57230, section 3.1.1).
func signedBy(cert, issuer *x509.Certificate) error {
	if cert.SignatureAlgorithm != x509.SHA384WithRSAPSS {
		return fault.Invalidf("%s is not signed with RSA-PSS and SHA-384", cert.Subject.CommonName)
	}
	if !bytes.Equal(cert.RawIssuer, issuer.RawSubject) {
		return fault.Invalidf("%s was not issued by %s", cert.Subject.CommonName, issuer.Subject.CommonName)
	}
	if err := issuer.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature); err != nil {
		return fault.Invalidf("the signature of %s does not verify", cert.Subject.CommonName).Because(err)
	}
	return nil
}

func (e *endorser) extensions(g Generation) error {
	for _, f := range []struct {
		oid  asn1.ObjectIdentifier
		into *uint8
	}{{oidBootloader, &e.tcb.Bootloader}, {oidTEE, &e.tcb.TEE}, {oidSNP, &e.tcb.SNP}, {oidMicrocode, &e.tcb.Microcode}, {oidFMC, &e.tcb.FMC}} {
		if f.into == &e.tcb.FMC && g != Turin {
			continue
		}
		var n int
		rest, err := asn1.Unmarshal(e.extension(f.oid), &n)
		if err != nil || len(rest) > 0 || n < 0 || n > 0xff {
			return fault.Invalidf("the endorsement key has no version in extension %s", f.oid)
		}
		*f.into = uint8(n)
	}
	if e.vlek {
		return nil
	}
	want := 64
	if g == Turin {
		want = 8
	}
	value := e.extension(oidHardware)
	if len(value) != want { // older ones are not DER
		var octets []byte
		if rest, err := asn1.Unmarshal(value, &octets); err == nil && len(rest) == 0 {
			value = octets
		}
	}
	if len(value) != want {
		return fault.Invalidf("the endorsement key names no chip of %d bytes", want)
	}
	e.hardware = value
	return nil
}

// extension is the value of the only extension with an id, nil if there is none
// or more than one.
func (e *endorser) extension(oid asn1.ObjectIdentifier) []byte {
	var value []byte
	found := 0
	for _, x := range e.cert.Extensions {
		if x.Id.Equal(oid) {
			value = x.Value
			found++
		}
	}
	if found != 1 {
		return nil
	}
	return value
}

// cache keeps endorsers whose chain was verified, by the digest of their bytes.
type cache struct {
	mu   sync.Mutex
	held map[[sha256.Size]byte]kept
}

type kept struct {
	e *endorser
	g Generation
}

// maxKept bounds the cache: a fleet has some thousand chips.
const maxKept = 4096

func (c *cache) endorse(m *makers, der []byte) (*endorser, Generation, error) {
	sum := sha256.Sum256(der)
	c.mu.Lock()
	k, ok := c.held[sum]
	c.mu.Unlock()
	if ok {
		return k.e, k.g, nil
	}
	e, g, err := m.endorse(der)
	if err != nil {
		return nil, g, err
	}
	c.mu.Lock()
	if c.held == nil || len(c.held) >= maxKept {
		c.held = map[[sha256.Size]byte]kept{}
	}
	c.held[sum] = kept{e, g}
	c.mu.Unlock()
	return e, g, nil
}

// wantedBy is the key under which the VCEK for a report is looked up.
func wantedBy(r *Report, g Generation) string {
	chip := r.ChipID()
	if g == Turin {
		chip = chip[:8]
	}
	return wanted(g, chip, r.Reported(g))
}

func wanted(g Generation, chip []byte, t TCB) string {
	b := t.bytes(g)
	return fmt.Sprintf("%s/%x/%x", g, chip, b[:])
}

func hexOf(b []byte) string { return hex.EncodeToString(b) }

func day(t time.Time) string { return t.UTC().Format("2006-01-02") }
