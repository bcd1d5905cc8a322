package ca

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/id"
	"github.com/sallyport-project/sallyport/internal/keys"
)

// Authority issues leaves under the active intermediate and verifies those of
// every usable one. It never changes after it was made and is safe for
// concurrent use; after a renewal the caller loads a new one.
type Authority struct {
	*Verifier
	cfg    Config
	roots  []*x509.Certificate // the one above the issuer first
	issuer *x509.Certificate
	cross  []*x509.Certificate // by which the other roots vouch for that one
	signer crypto.Signer
}

// Load makes the authority from the rows of table keys. The root's private key
// stays sealed.
func Load(ctx context.Context, v *keys.Vault, rows []keys.Key, cfg Config) (*Authority, error) {
	cfg, err := cfg.filled()
	if err != nil {
		return nil, err
	}
	now := cfg.Now()
	roots, err := certificatesOf(keys.CARoot, rows, now)
	if err != nil {
		return nil, err
	}
	intermediates, err := certificatesOf(keys.CAIntermediate, rows, now)
	if err != nil {
		return nil, err
	}
	ring, err := keys.NewRing(keys.CAIntermediate, rows)
	if err != nil {
		return nil, err
	}
	active, err := ring.Signing(now)
	if err != nil {
		return nil, err
	}
	a := &Authority{Verifier: NewVerifier(cfg.TrustDomain, roots, intermediates), cfg: cfg, roots: roots}
	if a.issuer, err = certificateOf(active); err != nil {
		return nil, err
	}
	if a.signer, err = signerOf(ctx, v, active, a.issuer); err != nil {
		return nil, err
	}
	if _, err := a.issuer.Verify(x509.VerifyOptions{Roots: a.pool, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		return nil, fault.Internalf("intermediate %s is not of any root in the store, or its time is over: run `sallyport key rotate ca-intermediate`", active.ID).Because(err)
	}
	return a, a.order(rows, now)
}

// order puts the root above the issuer first and finds who vouches for it.
func (a *Authority) order(rows []keys.Key, now time.Time) error {
	ring, err := keys.NewRing(keys.CARoot, rows)
	if err != nil {
		return err
	}
	top := slices.IndexFunc(a.roots, func(r *x509.Certificate) bool { return a.issuer.CheckSignatureFrom(r) == nil })
	if top < 0 {
		return fault.Internalf("the intermediate in use is not of any root in the store: restore the keys table")
	}
	row, above := ring.Verifying(now)[top], a.roots[top] // both are youngest first
	a.roots = append([]*x509.Certificate{above}, slices.Delete(a.roots, top, top+1)...)
	a.cross, err = crosses(row, a.roots)
	return err
}

// certificatesOf gives the usable certificates of a purpose, youngest first.
func certificatesOf(purpose keys.Purpose, rows []keys.Key, now time.Time) ([]*x509.Certificate, error) {
	ring, err := keys.NewRing(purpose, rows)
	if err != nil {
		return nil, err
	}
	var all []*x509.Certificate
	for _, k := range ring.Verifying(now) {
		c, err := certificateOf(k)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}

// Due reports whether the intermediate should be renewed now.
func (a *Authority) Due(now time.Time) bool { return now.Add(RenewBefore).After(a.issuer.NotAfter) }

// KeyHash identifies the authority to newcomers, by the root above the active
// intermediate; see [KeyHash].
func (a *Authority) KeyHash() [sha256.Size]byte { return KeyHash(a.roots[0]) }

// Bundle is the roots in PEM, the present one first: what peers trust.
func (a *Authority) Bundle() string {
	var b strings.Builder
	for _, r := range a.roots {
		b.WriteString(pemOf(r.Raw))
	}
	return b.String()
}

// Request asks for a client leaf.
type Request struct {
	CSR     []byte        // PKCS #10, PEM or DER; only its key is used
	Subject string        // id of the subject
	Kind    string        // of the subject: workload, machine, agent or operator
	Life    time.Duration // zero: the longest allowed
}

// Leaf is an issued certificate.
type Leaf struct {
	DER         []byte
	PEM         string // the leaf and its intermediate
	Serial      string // see SerialText
	Fingerprint string // SHA-256 of the DER, lower-case hex
	NotBefore   time.Time
	NotAfter    time.Time
}

var kindGrammar = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)

// Issue makes a client leaf for a subject. The signing request proves
// possession of the key; every name and extension that it asks for is ignored.
// A request that does not parse, or whose key is weak, and a life that is too
// long are Invalid; an intermediate near its end is Unavailable.
func (a *Authority) Issue(req Request) (Leaf, error) {
	if !kindGrammar.MatchString(req.Kind) || !id.Valid(req.Subject) {
		return Leaf{}, fault.Internalf("a certificate was asked for subject %.40q of kind %.40q", req.Subject, req.Kind)
	}
	public, err := requestKey(req.CSR)
	if err != nil {
		return Leaf{}, err
	}
	life := req.Life
	if life == 0 {
		life = a.cfg.MaxLife
	}
	if life < time.Minute || life > a.cfg.MaxLife {
		return Leaf{}, fault.Invalidf("a certificate of %s cannot be issued: ask for a minute to %s", life, a.cfg.MaxLife)
	}
	return a.sign(&x509.Certificate{
		Subject:     pkix.Name{Organization: []string{a.cfg.TrustDomain}, CommonName: req.Subject},
		URIs:        []*url.URL{{Scheme: "spiffe", Host: a.cfg.TrustDomain, Path: "/" + req.Kind + "/" + req.Subject}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, public, life)
}

// IssueServer makes a leaf for our own listener, for DNS names and addresses.
func (a *Authority) IssueServer(public crypto.PublicKey, names []string) (Leaf, error) {
	if err := checkKey(public); err != nil {
		return Leaf{}, err
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{Organization: []string{a.cfg.TrustDomain}, CommonName: "Sallyport server"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if len(names) == 0 || len(names) > 64 {
		return Leaf{}, fault.Invalidf("a server certificate needs 1 to 64 names, not %d", len(names))
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
			continue
		}
		if !dnsGrammar.MatchString(name) || len(name) > 253 {
			return Leaf{}, fault.Invalidf("server name %.64q is neither an IP address nor a DNS name", name)
		}
		template.DNSNames = append(template.DNSNames, strings.ToLower(name))
	}
	return a.sign(template, public, ServerLife)
}

// documentSigning is id-kp-documentSigning (RFC 9336): with it alone a certificate
// is good for neither end of a TLS connection.
var documentSigning = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 36}

// IssueResults makes a leaf for a key that signs attestation results, with the
// chain that leads to a root, which is left out: what x5c holds.
func (a *Authority) IssueResults(public crypto.PublicKey, life time.Duration) ([]*x509.Certificate, error) {
	if err := checkKey(public); err != nil {
		return nil, err
	}
	leaf, err := a.sign(&x509.Certificate{
		Subject:            pkix.Name{Organization: []string{a.cfg.TrustDomain}, CommonName: "Sallyport attestation results"},
		UnknownExtKeyUsage: []asn1.ObjectIdentifier{documentSigning},
	}, public, life)
	if err != nil {
		return nil, err
	}
	made, err := parseLeaf(leaf.DER)
	return append([]*x509.Certificate{made, a.issuer}, a.cross...), err
}

var dnsGrammar = regexp.MustCompile(`^(?:\*\.)?(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)

// sign completes a leaf's template and signs it. A leaf never outlives its
// issuer.
func (a *Authority) sign(template *x509.Certificate, public crypto.PublicKey, life time.Duration) (Leaf, error) {
	now := a.cfg.Now().UTC().Truncate(time.Second)
	template.NotBefore, template.NotAfter = now.Add(-Backdate), now.Add(life)
	if template.NotBefore.Before(a.issuer.NotBefore) {
		template.NotBefore = a.issuer.NotBefore
	}
	if template.NotAfter.After(a.issuer.NotAfter) {
		template.NotAfter = a.issuer.NotAfter
	}
	if template.NotAfter.Sub(now) < time.Minute {
		return Leaf{}, fault.Unavailablef("the issuing certificate is at its end: the operator must run `sallyport key rotate ca-intermediate`")
	}
	serial, err := newSerial(a.cfg.Rand)
	if err != nil {
		return Leaf{}, err
	}
	template.SerialNumber = serial
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.BasicConstraintsValid = true
	der, err := x509.CreateCertificate(a.cfg.Rand, template, a.issuer, public, a.signer)
	if err != nil {
		return Leaf{}, fault.Wrap(err, "sign a certificate")
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		return Leaf{}, fault.Wrap(err, "read the certificate that was signed")
	}
	return Leaf{
		DER: der, PEM: pemOf(der) + pemOf(a.issuer.Raw), Serial: SerialText(serial),
		Fingerprint: FingerprintOf(made), NotBefore: template.NotBefore, NotAfter: template.NotAfter,
	}, nil
}

// chain is what a server presents below a leaf: intermediate and roots, for a
// newcomer that knows the hash of a root's key only, and between them how a root
// that was replaced vouches for the present one.
func (a *Authority) chain() [][]byte {
	chain := [][]byte{a.issuer.Raw}
	for _, c := range append(slices.Clone(a.cross), a.roots...) {
		chain = append(chain, c.Raw)
	}
	return chain
}

// Roots gives the trusted roots, the present one first.
func (a *Authority) Roots() []*x509.Certificate { return slices.Clone(a.roots) }
