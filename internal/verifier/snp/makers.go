package snp

import (
	"crypto/x509"
	"embed"
	"encoding/pem"
	"strings"
	"sync"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// The manufacturer's certificates, a file for each generation: ASK, ARK, ASVK,
// as https://kdsintf.amd.com hands them out. The ARK is the trust anchor; its
// fingerprint is in the test.
//
//go:embed roots/*.pem
var roots embed.FS

// maker is the certificates of one generation.
type maker struct{ ask, ark, asvk *x509.Certificate }

// makers are the manufacturer's certificates, verified.
type makers struct{ by map[Generation]maker }

// amd are the real ones.
var amd = sync.OnceValues(func() (*makers, error) {
	m := &makers{by: map[Generation]maker{}}
	for _, g := range []Generation{Milan, Genoa, Turin} {
		text, err := roots.ReadFile("roots/" + strings.ToLower(string(g)) + ".pem")
		if err != nil {
			return nil, fault.Wrap(err, "read embedded certificates")
		}
		one, err := newMaker(text)
		if err != nil {
			return nil, err
		}
		m.by[g] = one
	}
	return m, nil
})

// newMaker reads ASK, ARK and ASVK in this order, and verifies that the ARK
// signed all three.
func newMaker(text []byte) (maker, error) {
	var list []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return maker{}, fault.Wrap(err, "parse embedded certificate")
		}
		list = append(list, cert)
	}
	if len(list) != 3 {
		return maker{}, fault.Internalf("a generation has ASK, ARK and ASVK")
	}
	one := maker{list[0], list[1], list[2]}
	for _, c := range list {
		if err := signedBy(c, one.ark); err != nil {
			return maker{}, err
		}
	}
	return one, nil
}

// revocations says what is wrong with a revocation list of this generation;
// nothing if it is signed and current.
func (m maker) revocations(list *x509.RevocationList, at time.Time) string {
	switch err := list.CheckSignatureFrom(m.ark); {
	case err != nil:
		return "the revocation list is not signed by " + m.ark.Subject.CommonName
	case at.Before(list.ThisUpdate):
		return "the revocation list begins on " + day(list.ThisUpdate)
	case list.NextUpdate.IsZero() || at.After(list.NextUpdate):
		return "the revocation list has expired on " + day(list.NextUpdate) + ", import a newer one"
	}
	return ""
}

// revoked reports whether a list names a certificate that the same issuer gave.
func revoked(list *x509.RevocationList, chain []*x509.Certificate) (string, bool) {
	for _, c := range chain {
		if string(c.RawIssuer) != string(list.RawIssuer) {
			continue
		}
		for _, r := range list.RevokedCertificateEntries {
			if r.SerialNumber.Cmp(c.SerialNumber) == 0 {
				return c.Subject.CommonName, true
			}
		}
	}
	return "", false
}
