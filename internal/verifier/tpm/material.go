package tpm

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"path"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// The kinds of endorsements, and what their keys are.
const (
	KindAuthorities = "tpm-ek-ca" // name of the bundle
	KindCRL         = "tpm-crl"   // of the authority: see authorityID
)

// RecogniseAuthorities reads a bundle of manufacturers' certificates, which an
// operator trusts to issue certificates of endorsement keys. Nothing but the
// operator's word makes it good. Its name is that of the file.
func RecogniseAuthorities(file string, data []byte) ([]evidence.Endorsement, error) {
	name := path.Base(strings.ReplaceAll(file, "\\", "/"))
	if name == "." || name == "/" || len(name) > 128 || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return nil, fault.Invalidf("a bundle's file has a name of 1 to 128 bytes without spaces")
	}
	a, err := NewAuthorities(data)
	if err != nil {
		return nil, err
	}
	e := evidence.Endorsement{Kind: KindAuthorities, Key: name, Data: data}
	for _, c := range a.all { // one that has ended ends by itself: the bundle does with the last
		if c.NotAfter.After(e.NotAfter) {
			e.NotAfter = c.NotAfter
		}
	}
	return []evidence.Endorsement{e}, nil
}

// Recognise reads a revocation list, PEM or DER; whether a known authority signed
// it is for [Vouch]. Other files are nil without an error.
func Recognise(data []byte) ([]evidence.Endorsement, error) {
	if block, _ := pem.Decode(data); block != nil && block.Type == "X509 CRL" {
		data = block.Bytes
	}
	list, err := x509.ParseRevocationList(data)
	if err != nil {
		return nil, nil //nolint:nilerr // of another kind
	}
	return []evidence.Endorsement{{
		Kind: KindCRL, Key: authorityID(list.AuthorityKeyId, list.RawIssuer), Data: data, NotBefore: list.ThisUpdate, NotAfter: list.NextUpdate,
	}}, nil
}

// authorityID names an authority: by its key's identifier, else by the digest of
// its name.
func authorityID(key, name []byte) string {
	if len(key) > 0 && len(key) <= 64 {
		return hex.EncodeToString(key)
	}
	sum := sha256.Sum256(name)
	return "name-" + hex.EncodeToString(sum[:])
}

// Vouch verifies that an authority in one of the bundles signed a revocation list.
func Vouch(e evidence.Endorsement, from evidence.Shelf) error {
	if e.Kind != KindCRL {
		return nil
	}
	list, err := x509.ParseRevocationList(e.Data)
	if err != nil {
		return fault.Invalidf("the revocation list cannot be read").Because(err)
	}
	for _, b := range from.Of(KindAuthorities) {
		a, err := NewAuthorities(b.Data)
		if err != nil {
			return err
		}
		for _, c := range a.all {
			if authorityID(c.SubjectKeyId, c.RawSubject) == e.Key && list.CheckSignatureFrom(c) == nil {
				return nil
			}
		}
	}
	return fault.Invalidf("the revocation list is not signed by anybody known; import the certificate of its authority first: sallyport reference ek-ca import FILE")
}

// Bundles makes the authorities of all bundles that are stored, with their
// revocation lists.
func Bundles(from evidence.Shelf) (*Authorities, error) {
	var texts [][]byte
	for _, b := range from.Of(KindAuthorities) {
		texts = append(texts, b.Data)
	}
	a, err := NewAuthorities(texts...)
	if err != nil {
		return nil, err
	}
	a.lists = from
	return a, nil
}

// judgeRevocation asks, for each certificate of a chain, the list of the one that
// issued it.
func (a *Authorities) judgeRevocation(c *evidence.Checks, chain []*x509.Certificate, at time.Time) {
	for i := range len(chain) - 1 {
		cert, issuer := chain[i], chain[i+1]
		k := evidence.Check{Name: "ek-revocation", Expected: "not revoked by " + issuer.Subject.CommonName, Section: "RFC 5280, 6.3"}
		der := a.lists.Find(KindCRL, authorityID(issuer.SubjectKeyId, issuer.RawSubject))
		if der == nil {
			k.Reason = "no revocation list of " + issuer.Subject.CommonName + " was imported"
			c.Skip(k)
			continue
		}
		list, err := x509.ParseRevocationList(der)
		switch {
		case err != nil || list.CheckSignatureFrom(issuer) != nil:
			k.Reason = "the revocation list is not signed by " + issuer.Subject.CommonName
		case at.Before(list.ThisUpdate) || list.NextUpdate.IsZero() || at.After(list.NextUpdate):
			k.Reason = "the revocation list is valid from " + day(list.ThisUpdate) + " to " + day(list.NextUpdate) + ", import a current one"
		default:
			k.Seen = "a list of " + day(list.ThisUpdate)
			for _, r := range list.RevokedCertificateEntries {
				if r.SerialNumber.Cmp(cert.SerialNumber) == 0 {
					k.Reason = "certificate " + r.SerialNumber.Text(16) + " is revoked"
				}
			}
		}
		c.That(k.Reason == "", k)
	}
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02") }
