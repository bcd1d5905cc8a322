package tpm

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"slices"
	"time"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// profile is the specification of certificates of endorsement keys.
const profile = "TCG EK Credential Profile 2.5, 3.2"

// Object identifiers of the profile.
var (
	oidManufacturer = asn1.ObjectIdentifier{2, 23, 133, 2, 1}
	oidModel        = asn1.ObjectIdentifier{2, 23, 133, 2, 2}
	oidFirmware     = asn1.ObjectIdentifier{2, 23, 133, 2, 3}
	oidEKUsage      = asn1.ObjectIdentifier{2, 23, 133, 8, 1}
	oidAltName      = asn1.ObjectIdentifier{2, 5, 29, 17}
)

// EK is a certificate of an endorsement key.
type EK struct {
	Certificate *x509.Certificate
	// Manufacturer, Model and Firmware are as the certificate says, for people.
	Manufacturer, Model, Firmware string
}

// maxCertificate bounds a certificate: the largest area of a TPM that holds one
// has 2 kB.
const maxCertificate = 8 << 10

// ParseEK reads a certificate as it comes out of a TPM or from a maker: DER or
// PEM. It is lenient where real certificates need it: what fills up the area of
// the TPM behind the certificate is cut off, and the critical name of the TPM,
// which general software does not know, is read here.
func ParseEK(data []byte) (*EK, error) {
	if block, rest := pem.Decode(data); block != nil {
		if block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) > 0 {
			return nil, fault.Invalidf("the file holds something else than one certificate")
		}
		data = block.Bytes
	}
	if len(data) > maxCertificate {
		return nil, fault.Invalidf("the certificate is larger than %d bytes", maxCertificate)
	}
	var whole asn1.RawValue
	rest, err := asn1.Unmarshal(data, &whole)
	if err != nil {
		return nil, fault.Invalidf("the endorsement key's certificate is no DER").Because(err)
	}
	for _, c := range rest {
		if c != 0 && c != 0xff {
			return nil, fault.Invalidf("the endorsement key's certificate has %d bytes behind its end", len(rest))
		}
	}
	cert, err := x509.ParseCertificate(whole.FullBytes)
	if err != nil {
		return nil, fault.Invalidf("the endorsement key's certificate cannot be read").Because(err)
	}
	ek := &EK{Certificate: cert}
	if ek.readNames() {
		cert.UnhandledCriticalExtensions = slices.DeleteFunc(cert.UnhandledCriticalExtensions, oidAltName.Equal)
	}
	return ek, nil
}

// readNames reads the TPM's manufacturer, model and firmware from the directory
// name in the certificate's alternative name (3.2.9).
func (ek *EK) readNames() bool {
	for _, x := range ek.Certificate.Extensions {
		if !x.Id.Equal(oidAltName) {
			continue
		}
		var names []asn1.RawValue
		if rest, err := asn1.Unmarshal(x.Value, &names); err != nil || len(rest) > 0 {
			return false
		}
		for _, n := range names {
			if n.Class != asn1.ClassContextSpecific || n.Tag != 4 {
				continue
			}
			var rdns pkix.RDNSequence
			if rest, err := asn1.Unmarshal(n.Bytes, &rdns); err != nil || len(rest) > 0 {
				return false
			}
			ek.take(rdns)
		}
	}
	return ek.Manufacturer != ""
}

func (ek *EK) take(rdns pkix.RDNSequence) {
	for _, set := range rdns {
		for _, a := range set {
			text, ok := a.Value.(string)
			if !ok || len(text) > 64 {
				continue
			}
			switch {
			case a.Type.Equal(oidManufacturer):
				ek.Manufacturer = text
			case a.Type.Equal(oidModel):
				ek.Model = text
			case a.Type.Equal(oidFirmware):
				ek.Firmware = text
			}
		}
	}
}

// Authorities are the manufacturers' certificates that an operator trusts.
type Authorities struct {
	roots, between *x509.CertPool
	all            []*x509.Certificate
	lists          evidence.Shelf // with revocation lists
}

// NewAuthorities reads bundles in PEM. A certificate that signed itself is a
// root; the others only connect. One that is no authority is Invalid.
func NewAuthorities(bundles ...[]byte) (*Authorities, error) {
	a := &Authorities{roots: x509.NewCertPool(), between: x509.NewCertPool()}
	for _, text := range bundles {
		n := 0
		for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil || block.Type != "CERTIFICATE" {
				return nil, fault.Invalidf("certificate %d of the bundle cannot be read", n+1).Because(err)
			}
			switch {
			case cert.BasicConstraintsValid && !cert.IsCA:
				return nil, fault.Invalidf("certificate %d of the bundle, of %s, is no authority", n+1, cert.Subject)
			case bytes.Equal(cert.RawIssuer, cert.RawSubject) && cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature) == nil:
				a.roots.AddCert(cert)
			default:
				a.between.AddCert(cert)
			}
			a.all = append(a.all, cert)
			n++
		}
		if n == 0 {
			return nil, fault.Invalidf("a bundle of authorities holds no certificate in PEM")
		}
	}
	return a, nil
}

// Judge checks a certificate: that a manufacturer issued it, that it is valid,
// and that it is for an endorsement key. Failures stand in c.
func (ek *EK) Judge(c *evidence.Checks, a *Authorities, at time.Time) {
	cert := ek.Certificate
	chains, err := cert.Verify(x509.VerifyOptions{
		Roots: a.roots, Intermediates: a.between, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	k := evidence.Check{
		Name: "ek-chain", Expected: fmt.Sprintf("one of %d authorities, %s", len(a.all), at.UTC().Format(time.RFC3339)), Seen: cert.Issuer.String(),
		Reason: "no chain to a manufacturer: " + reason(err), Section: "RFC 5280, 6.1",
	}
	if len(chains) > 0 {
		k.Seen = chains[0][len(chains[0])-1].Subject.String()
	}
	c.That(err == nil, k)
	usage, want := ek.usage()
	c.That(usage, evidence.Check{Name: "ek-key-usage", Expected: want, Seen: fmt.Sprintf("%#x", int(cert.KeyUsage)), Reason: "the key is for something else", Section: profile + ".5"})
	extended := len(cert.ExtKeyUsage)+len(cert.UnknownExtKeyUsage) == 0 || slices.ContainsFunc(cert.UnknownExtKeyUsage, oidEKUsage.Equal)
	c.That(extended, evidence.Check{
		Name: "ek-purpose", Expected: "endorsement key (2.23.133.8.1), or none", Seen: fmt.Sprint(cert.UnknownExtKeyUsage),
		Reason: "the certificate is for another purpose", Section: profile + ".16",
	})
	c.That(!cert.IsCA, evidence.Check{Name: "ek-leaf", Expected: "no authority", Seen: fmt.Sprint(cert.IsCA), Reason: "an authority is no endorsement key", Section: profile + ".4"})
	c.That(ek.Manufacturer != "", evidence.Check{
		Name: "ek-tpm", Expected: "a name of a TPM", Seen: ek.Manufacturer + " " + ek.Model + " " + ek.Firmware,
		Reason: "the certificate does not say which TPM it is for", Section: profile + ".9",
	})
	judgeKey(c, cert.PublicKey)
	if len(chains) > 0 {
		a.judgeRevocation(c, chains[0], at)
	}
}

// usage checks what the key may be used for: RSA keys decrypt, others agree.
func (ek *EK) usage() (ok bool, want string) {
	switch ek.Certificate.PublicKey.(type) {
	case *rsa.PublicKey:
		return ek.Certificate.KeyUsage&x509.KeyUsageKeyEncipherment != 0, "key encipherment"
	case *ecdsa.PublicKey:
		return ek.Certificate.KeyUsage&x509.KeyUsageKeyAgreement != 0, "key agreement"
	}
	return false, "an RSA or elliptic curve key"
}

// reason says which of the usual things is wrong with a chain, and quotes no
// foreign text.
func reason(err error) string {
	switch e := err.(type) { //nolint:errorlint // as x509 returns it
	case x509.UnknownAuthorityError:
		return "its issuer is not among them"
	case x509.CertificateInvalidError:
		if e.Reason == x509.Expired {
			return "a certificate of the chain has expired or is not valid yet"
		}
		return "a certificate of the chain does not allow it"
	case x509.UnhandledCriticalExtension:
		return "the certificate has a critical extension that is not known"
	}
	return "it does not verify"
}

// Fits reports whether a certificate is for the key of a public area.
func (ek *EK) Fits(p *Public) bool {
	key, ok := p.Key.(interface{ Equal(crypto.PublicKey) bool })
	return ok && key.Equal(ek.Certificate.PublicKey)
}

// Serial is the certificate's number in hex.
func (ek *EK) Serial() string { return hex.EncodeToString(ek.Certificate.SerialNumber.Bytes()) }
