// Package ca is the embedded X.509 authority: a root of ten years, intermediates
// of one, and leaves of hours that name their holder by a SPIFFE id.
//
// A leaf says who holds a key and nothing more. Roles are not in it: they live
// in the subject's row and act on the next request. A leaf that verifies may
// still be revoked; the caller asks the store by serial.
//
// The package also has the join token, by which a newcomer knows the authority
// before it trusts it, and certificates from files in place of issued ones.
package ca

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"io"
	"math/big"
	"regexp"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/keys"
)

// The lives of certificates.
const (
	RootLife         = 10 * 365 * 24 * time.Hour
	IntermediateLife = 365 * 24 * time.Hour
	// RenewBefore is how long before its end an intermediate is replaced: far
	// longer than any leaf lives, so that each leaf outlives its issuer's turn.
	RenewBefore = 60 * 24 * time.Hour
	ServerLife  = 7 * 24 * time.Hour
	AgentLife   = 24 * time.Hour
	// Backdate is how far before its making a certificate begins, for peers
	// whose clock is behind (docs/decisions, clock).
	Backdate = 60 * time.Second
)

// Config describes an authority.
type Config struct {
	TrustDomain string           // of the SPIFFE ids: 1 to 255 of a-z, 0-9, dot, dash, underscore
	MaxLife     time.Duration    // of client leaves; zero: AgentLife
	Rand        io.Reader        // for serials and signatures; nil: crypto/rand
	Now         func() time.Time // nil: time.Now
}

var domainGrammar = regexp.MustCompile(`^[a-z0-9](?:[a-z0-9._-]{0,253}[a-z0-9])?$`)

func (c Config) filled() (Config, error) {
	if !domainGrammar.MatchString(c.TrustDomain) {
		return c, fault.Invalidf("trust domain %.64q is not well-formed: use 1 to 255 of a-z, 0-9, dot, dash and underscore, for example sallyport.example.org", c.TrustDomain)
	}
	if c.MaxLife == 0 {
		c.MaxLife = AgentLife
	}
	if c.MaxLife < time.Minute || c.MaxLife > RenewBefore/2 {
		return c, fault.Invalidf("certificates of %s cannot be issued: between a minute and %s", c.MaxLife, RenewBefore/2)
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c, nil
}

// Found makes root and intermediate of a new store; the rows go into one unit.
func Found(ctx context.Context, v *keys.Vault, cfg Config) (root, intermediate keys.Key, err error) {
	cfg, err = cfg.filled()
	if err != nil {
		return root, intermediate, err
	}
	if root, err = newRoot(ctx, v, cfg); err != nil {
		return root, intermediate, err
	}
	intermediate, err = newIntermediate(ctx, v, cfg, root)
	return root, intermediate, err
}

// newRoot makes a root that signs itself. Two authorities may stand below it: an
// intermediate, and between them the root that replaces this one.
func newRoot(ctx context.Context, v *keys.Vault, cfg Config) (keys.Key, error) {
	root, err := v.Generate(ctx, keys.CARoot, keys.ECDSAP256)
	if err != nil {
		return root, err
	}
	signer, err := v.Signer(ctx, root)
	if err != nil {
		return root, err
	}
	template, err := cfg.authority("Sallyport root "+root.ID, RootLife, 2)
	if err != nil {
		return root, err
	}
	der, err := x509.CreateCertificate(cfg.Rand, template, template, signer.Public(), signer)
	if err != nil {
		return root, fault.Wrap(err, "sign the root certificate")
	}
	root.Public, root.NotAfter = pemOf(der), template.NotAfter
	return root, nil
}

// Renew makes a new intermediate under the youngest root and turns the active
// ones to retiring, so that leaves issued under them verify to their end.
func Renew(ctx context.Context, v *keys.Vault, rows []keys.Key, cfg Config) (keys.Rotation, error) {
	cfg, err := cfg.filled()
	if err != nil {
		return keys.Rotation{}, err
	}
	roots, err := keys.NewRing(keys.CARoot, rows)
	if err != nil {
		return keys.Rotation{}, err
	}
	root, err := roots.Newest(cfg.Now())
	if err != nil {
		return keys.Rotation{}, err
	}
	fresh, err := newIntermediate(ctx, v, cfg, root)
	if err != nil {
		return keys.Rotation{}, err
	}
	ring, err := keys.NewRing(keys.CAIntermediate, rows)
	if err != nil {
		return keys.Rotation{}, err
	}
	return v.Turn(ctx, ring, fresh, 0)
}

// newIntermediate signs a fresh intermediate with a root's key, which is open
// for this one signature only.
func newIntermediate(ctx context.Context, v *keys.Vault, cfg Config, root keys.Key) (keys.Key, error) {
	parent, err := certificateOf(root)
	if err != nil {
		return keys.Key{}, err
	}
	rootSigner, err := signerOf(ctx, v, root, parent)
	if err != nil {
		return keys.Key{}, err
	}
	k, err := v.Generate(ctx, keys.CAIntermediate, keys.ECDSAP256)
	if err != nil {
		return keys.Key{}, err
	}
	signer, err := v.Signer(ctx, k)
	if err != nil {
		return keys.Key{}, err
	}
	template, err := cfg.authority("Sallyport intermediate "+k.ID, IntermediateLife, 0)
	if err != nil {
		return keys.Key{}, err
	}
	if template.NotAfter.After(parent.NotAfter) {
		template.NotAfter = parent.NotAfter
	}
	der, err := x509.CreateCertificate(cfg.Rand, template, parent, signer.Public(), rootSigner)
	if err != nil {
		return keys.Key{}, fault.Wrap(err, "sign an intermediate certificate")
	}
	k.Public, k.NotAfter = pemOf(der), template.NotAfter
	return k, nil
}

// authority is the template of a CA certificate.
func (c Config) authority(name string, life time.Duration, pathLength int) (*x509.Certificate, error) {
	serial, err := newSerial(c.Rand)
	if err != nil {
		return nil, err
	}
	now := c.Now().UTC().Truncate(time.Second)
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{Organization: []string{c.TrustDomain}, CommonName: name},
		NotBefore:    now.Add(-Backdate), NotAfter: now.Add(life),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true, IsCA: true, MaxPathLen: pathLength, MaxPathLenZero: pathLength == 0,
	}, nil
}

// newSerial draws 128 random bits, never zero.
func newSerial(random io.Reader) (*big.Int, error) {
	var b [16]byte
	for {
		if _, err := io.ReadFull(random, b[:]); err != nil {
			return nil, fault.Wrap(err, "read randomness for a serial")
		}
		if n := new(big.Int).SetBytes(b[:]); n.Sign() > 0 {
			return n, nil
		}
	}
}

// SerialText is how a serial is stored and shown: 32 digits of lower-case hex.
func SerialText(serial *big.Int) string {
	if serial.Sign() < 0 || serial.BitLen() > 128 {
		return hex.EncodeToString(serial.Bytes()) // of a foreign authority
	}
	var b [16]byte
	return hex.EncodeToString(serial.FillBytes(b[:]))
}

// FingerprintOf is SHA-256, in lower-case hex, of what of a certificate is signed
// (TBSCertificate, RFC 5280 section 4.1). It is not what others call the
// fingerprint, which covers the signature: that has several forms (an ECDSA
// signature's s or n-s, unused bits of a bit string), and whoever has a revoked
// certificate could make another of the same key and name.
func FingerprintOf(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawTBSCertificate)
	return hex.EncodeToString(sum[:])
}

// KeyHash identifies an authority by SHA-256 of its public key (the DER of
// SubjectPublicKeyInfo), which stays when its certificate is renewed.
func KeyHash(root *x509.Certificate) [sha256.Size]byte {
	return sha256.Sum256(root.RawSubjectPublicKeyInfo)
}

// certificateOf reads the certificate in a key's row.
func certificateOf(k keys.Key) (*x509.Certificate, error) {
	all, err := certificatesIn(k)
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

// certificatesIn reads all certificates in a key's row: its own, and for a root
// that has replaced another one that by which the other one signs it.
func certificatesIn(k keys.Key) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for rest := []byte(k.Public); len(rest) > 0 || len(all) == 0; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil || block.Type != "CERTIFICATE" || len(all) > 0 && k.Purpose != keys.CARoot {
			return nil, fault.Internalf("%s key %s has no certificate in its row", k.Purpose, k.ID)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fault.Internalf("%s key %s has a broken certificate", k.Purpose, k.ID).Because(err)
		}
		if !c.IsCA || !c.BasicConstraintsValid {
			return nil, fault.Internalf("%s key %s has a certificate that is no authority", k.Purpose, k.ID)
		}
		all = append(all, c)
	}
	return all, nil
}

// signerOf opens a key and checks that the certificate is its own.
func signerOf(ctx context.Context, v *keys.Vault, k keys.Key, c *x509.Certificate) (crypto.Signer, error) {
	signer, err := v.Signer(ctx, k)
	if err != nil {
		return nil, err
	}
	public, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(c.PublicKey) {
		return nil, fault.Internalf("%s key %s: certificate and private key do not belong together", k.Purpose, k.ID)
	}
	return signer, nil
}

func pemOf(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}
