package ca

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/id"
)

// Identity is who a verified client certificate names.
type Identity struct {
	SubjectID   string
	Kind        string
	Serial      string
	Fingerprint string
	NotAfter    time.Time
}

// Verifier checks client certificates against roots, our own or those of a
// client CA from a file. Safe for concurrent use.
type Verifier struct {
	domain        string
	pool          *x509.CertPool
	intermediates *x509.CertPool
}

// maxChain is how many certificates a peer may present.
const maxChain = 5

// NewVerifier trusts the roots; intermediates help peers that present a bare
// leaf and are trusted only below a root.
func NewVerifier(trustDomain string, roots, intermediates []*x509.Certificate) *Verifier {
	v := &Verifier{domain: trustDomain, pool: x509.NewCertPool(), intermediates: x509.NewCertPool()}
	for _, c := range roots {
		v.pool.AddCert(c)
	}
	for _, c := range intermediates {
		v.intermediates.AddCert(c)
	}
	return v
}

// Pool is the trusted roots, for tls.Config.ClientCAs.
func (v *Verifier) Pool() *x509.CertPool { return v.pool.Clone() }

// Verify tells whom a presented chain, leaf first, names at time now. The leaf
// must chain to a trusted root, be made for client authentication, be no
// authority, and carry exactly one name: spiffe://<trust domain>/<kind>/<id>.
// All else is Unauthenticated. It does not know of revocation. Two signatures
// are checked, so call it once for a connection, and look at NotAfter and the
// store's row with each request.
func (v *Verifier) Verify(chain []*x509.Certificate, now time.Time) (Identity, error) {
	if len(chain) == 0 || len(chain) > maxChain {
		return Identity{}, fault.Unauthenticatedf("present a client certificate and at most %d certificates above it", maxChain-1)
	}
	leaf := chain[0]
	if now.Before(leaf.NotBefore) || !now.Before(leaf.NotAfter) {
		return Identity{}, fault.Unauthenticatedf("the client certificate is valid from %s to %s, not now: enrol again, and check both clocks",
			leaf.NotBefore.UTC().Format(time.RFC3339), leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	if err := leafShape(leaf); err != nil {
		return Identity{}, err
	}
	intermediates := v.intermediates
	if len(chain) > 1 {
		intermediates = intermediates.Clone()
		for _, c := range chain[1:] {
			intermediates.AddCert(c)
		}
	}
	if _, err := leaf.Verify(x509.VerifyOptions{
		Roots: v.pool, Intermediates: intermediates, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}); err != nil {
		return Identity{}, fault.Unauthenticatedf("the client certificate is not of an authority that is trusted here: enrol with this server").Because(err)
	}
	kind, subject, err := v.names(leaf)
	if err != nil {
		return Identity{}, err
	}
	return Identity{
		SubjectID: subject, Kind: kind, Serial: SerialText(leaf.SerialNumber),
		Fingerprint: FingerprintOf(leaf), NotAfter: leaf.NotAfter.UTC(),
	}, nil
}

// leafShape refuses what our issuer never makes.
func leafShape(leaf *x509.Certificate) error {
	switch {
	case leaf.IsCA || leaf.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0:
		return fault.Unauthenticatedf("the certificate is an authority's: a client presents a leaf")
	case leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return fault.Unauthenticatedf("the certificate is not made for signatures")
	case !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth):
		// An absent or "any" usage would satisfy the chain check.
		return fault.Unauthenticatedf("the certificate is not made for client authentication")
	case len(leaf.URIs) != 1 || len(leaf.DNSNames)+len(leaf.IPAddresses)+len(leaf.EmailAddresses) > 0:
		return fault.Unauthenticatedf("the certificate must carry exactly one name, a SPIFFE id")
	}
	return nil
}

// names takes kind and subject out of the SPIFFE id. Building it again and
// comparing leaves no room for ports, users, queries and escapes.
func (v *Verifier) names(leaf *x509.Certificate) (kind, subject string, err error) {
	uri := leaf.URIs[0].String()
	rest, ok := strings.CutPrefix(uri, "spiffe://"+v.domain+"/")
	if !ok {
		return "", "", fault.Unauthenticatedf("the certificate's name is not of the trust domain %s", v.domain)
	}
	kind, subject, ok = strings.Cut(rest, "/")
	if !ok || !kindGrammar.MatchString(kind) || !id.Valid(subject) {
		return "", "", fault.Unauthenticatedf("the certificate's SPIFFE id does not name a kind and a subject")
	}
	return kind, subject, nil
}

// VerifyPinned is the newcomer's check: the presented chain, leaf first, must
// lead to a root whose key has the hash of the join token, and the leaf must be
// a server's for the given name. It gives the root, to be trusted from then on.
// A mismatch is Unauthenticated.
func VerifyPinned(chain []*x509.Certificate, hash [sha256.Size]byte, name string, now time.Time) (*x509.Certificate, error) {
	if len(chain) == 0 || len(chain) > maxChain {
		return nil, fault.Unauthenticatedf("the server presented %d certificates", len(chain))
	}
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	var root *x509.Certificate
	for _, c := range chain {
		got := KeyHash(c)
		if c.IsCA && subtle.ConstantTimeCompare(got[:], hash[:]) == 1 && c.CheckSignatureFrom(c) == nil {
			root = c
			roots.AddCert(c)
			continue
		}
		intermediates.AddCert(c)
	}
	if root == nil {
		return nil, fault.Unauthenticatedf("the server's authority is not the one that the join token names: ask for a new token, and whether someone is in between")
	}
	if _, err := chain[0].Verify(x509.VerifyOptions{
		DNSName: name, Roots: roots, Intermediates: intermediates, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}); err != nil {
		return nil, fault.Unauthenticatedf("the server's certificate does not hold for %.128q", name).Because(err)
	}
	return root, nil
}
