package tdx

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	_ "embed"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// The trust anchor: the certificate of Intel's SGX root. Its fingerprint is in
// the test.
//
//go:embed roots/intel.pem
var rootPEM []byte

var intelRoot = sync.OnceValues(func() (*x509.Certificate, error) {
	block, _ := pem.Decode(rootPEM)
	if block == nil {
		return nil, fault.Internalf("the embedded root is no PEM")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	return cert, fault.Wrap(err, "parse embedded root")
})

// Names of Intel's authorities.
const (
	namePCK       = "Intel SGX PCK Certificate"
	namePlatform  = "Intel SGX PCK Platform CA"
	nameProcessor = "Intel SGX PCK Processor CA"
	nameSigning   = "Intel SGX TCB Signing"
)

// pck is a provisioning certification key: it stands for one platform, and its
// certificate says which firmware that had.
type pck struct {
	key      *ecdsa.PublicKey
	chain    []*x509.Certificate // leaf, authority, root
	fmspc    string              // lower-case hex
	pceID    []byte
	svns     [16]int
	pceSVN   int
	instance []byte // of the platform, nil if the certificate does not say
	firmware string // the versions, for people
}

// parsePCK reads the chain of a quote and verifies it up to the root. Dates and
// revocation are for each use.
func parsePCK(text []byte, root *x509.Certificate) (*pck, error) {
	var list []*x509.Certificate
	rest := bytes.TrimRight(text, "\x00")
	for len(bytes.TrimSpace(rest)) > 0 && len(list) < 3 {
		block, after := pem.Decode(rest)
		if block == nil || block.Type != "CERTIFICATE" || !bytes.HasPrefix(bytes.TrimSpace(rest), []byte("-----BEGIN")) {
			return nil, fault.Invalidf("the PCK chain is no list of certificates in PEM")
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fault.Invalidf("a certificate of the PCK chain cannot be read").Because(err)
		}
		list, rest = append(list, cert), after
	}
	if len(list) != 3 || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fault.Invalidf("the PCK chain must have three certificates")
	}
	if !list[2].Equal(root) {
		return nil, fault.Invalidf("the PCK chain does not end in the root of Intel's SGX")
	}
	if name := list[1].Subject.CommonName; name != namePlatform && name != nameProcessor || !list[1].IsCA || list[0].IsCA || list[0].Subject.CommonName != namePCK {
		return nil, fault.Invalidf("the PCK chain has certificates of other names")
	}
	for i, cert := range list {
		if err := issuedBy(cert, list[min(i+1, 2)]); err != nil {
			return nil, err
		}
	}
	p := &pck{chain: list}
	var ok bool
	if p.key, ok = list[0].PublicKey.(*ecdsa.PublicKey); !ok || p.key.Curve != elliptic.P256() {
		return nil, fault.Invalidf("the PCK is not on P-256")
	}
	return p, p.extension()
}

func issuedBy(cert, issuer *x509.Certificate) error {
	if cert.SignatureAlgorithm != x509.ECDSAWithSHA256 || !bytes.Equal(cert.RawIssuer, issuer.RawSubject) ||
		issuer.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature) != nil {
		return fault.Invalidf("the certificate %q was not issued by %q", cert.Subject.CommonName, issuer.Subject.CommonName)
	}
	return nil
}

// Extension of a PCK certificate and its parts (Intel SGX PCK Certificate
// Specification, 1.3.5).
var (
	oidSGX      = asn1.ObjectIdentifier{1, 2, 840, 113741, 1, 13, 1}
	oidTCB      = append(slices.Clone(oidSGX), 2)
	oidPCEID    = append(slices.Clone(oidSGX), 3)
	oidFMSPC    = append(slices.Clone(oidSGX), 4)
	oidInstance = append(slices.Clone(oidSGX), 6)
)

type part struct {
	ID    asn1.ObjectIdentifier
	Value asn1.RawValue
}

func (p *pck) extension() error {
	bad := fault.Invalidf("the PCK certificate does not say which platform it is for")
	var value []byte
	for _, x := range p.chain[0].Extensions {
		if x.Id.Equal(oidSGX) {
			value = x.Value
		}
	}
	var parts []part
	if rest, err := asn1.Unmarshal(value, &parts); err != nil || len(rest) > 0 {
		return bad
	}
	found := 0
	for _, x := range parts {
		switch {
		case x.ID.Equal(oidFMSPC) && x.Value.Tag == asn1.TagOctetString && len(x.Value.Bytes) == 6:
			p.fmspc = hexOf(x.Value.Bytes)
			found |= 1
		case x.ID.Equal(oidPCEID) && x.Value.Tag == asn1.TagOctetString && len(x.Value.Bytes) == 2:
			p.pceID = x.Value.Bytes
			found |= 2
		case x.ID.Equal(oidTCB):
			if !p.tcb(x.Value.FullBytes) {
				return bad
			}
			found |= 4
		case x.ID.Equal(oidInstance) && x.Value.Tag == asn1.TagOctetString && len(x.Value.Bytes) == 16:
			p.instance = x.Value.Bytes
		}
	}
	if found != 7 {
		return bad
	}
	p.firmware = fmt.Sprintf("pce %d, sgx %v", p.pceSVN, p.svns)
	return nil
}

// tcb reads the 16 component versions and that of the PCE.
func (p *pck) tcb(der []byte) bool {
	var parts []part
	if rest, err := asn1.Unmarshal(der, &parts); err != nil || len(rest) > 0 {
		return false
	}
	seen := 0
	for _, x := range parts {
		n := x.ID[len(x.ID)-1]
		if len(x.ID) != len(oidTCB)+1 || !x.ID[:len(oidTCB)].Equal(oidTCB) || n < 1 || n > 17 {
			continue
		}
		var v int
		if rest, err := asn1.Unmarshal(x.Value.FullBytes, &v); err != nil || len(rest) > 0 || v < 0 || v > 0xffff {
			return false
		}
		if n == 17 {
			p.pceSVN = v
		} else {
			p.svns[n-1] = v
		}
		seen |= 1 << n
	}
	return seen == 1<<18-2
}

// cache keeps what was read and verified, by a key that stands for its bytes.
type cache[K comparable, T any] struct {
	mu   sync.Mutex
	held map[K]T
}

// digest stands for bytes of strangers.
type digest = [sha256.Size]byte

// place stands for reference material, which stays where it is.
type place struct {
	first *byte
	n     int
}

func placeOf(b []byte) place {
	if len(b) == 0 {
		return place{}
	}
	return place{&b[0], len(b)}
}

// maxKept bounds a cache: a fleet has some thousand platforms.
const maxKept = 4096

func (c *cache[K, T]) get(key K, read func() (T, error)) (T, error) {
	c.mu.Lock()
	v, ok := c.held[key]
	c.mu.Unlock()
	if ok {
		return v, nil
	}
	v, err := read()
	if err != nil {
		return v, err
	}
	c.mu.Lock()
	if c.held == nil || len(c.held) >= maxKept {
		c.held = map[K]T{}
	}
	c.held[key] = v
	c.mu.Unlock()
	return v, nil
}

func within(cert *x509.Certificate, at time.Time) bool {
	return !at.Before(cert.NotBefore) && !at.After(cert.NotAfter)
}
