package sallyport

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"time"
)

// maxChain is how many certificates a server may present.
const maxChain = 6

// pin makes a handshake succeed only if the server's chain leads up to a root
// whose public key has the given SHA-256. The server must send its root. Nothing
// is sent to the peer before that: the check is part of the handshake. With
// root, the root that was found is stored there.
func pin(security *tls.Config, hash [sha256.Size]byte, name string, now func() time.Time, root **x509.Certificate) {
	// The standard verification cannot start from a hash; the one below stands
	// in its place and runs on every connection, resumed ones included.
	security.InsecureSkipVerify = true
	security.VerifyConnection = func(state tls.ConnectionState) error {
		found, err := verifyPinned(state.PeerCertificates, hash, name, now())
		if err == nil && root != nil {
			*root = found
		}
		return err
	}
}

// verifyPinned checks a presented chain, leaf first, for a server's name.
func verifyPinned(chain []*x509.Certificate, hash [sha256.Size]byte, name string, now time.Time) (*x509.Certificate, error) {
	if len(chain) == 0 || len(chain) > maxChain {
		return nil, &Error{Kind: Unauthenticated, Detail: "the server presents no usable chain of certificates"}
	}
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	var root *x509.Certificate
	for _, c := range chain[1:] {
		got := RootHash(c)
		if c.IsCA && subtle.ConstantTimeCompare(got[:], hash[:]) == 1 && c.CheckSignatureFrom(c) == nil {
			root = c
			roots.AddCert(c)
			continue
		}
		intermediates.AddCert(c)
	}
	if root == nil {
		return nil, &Error{
			Kind: Unauthenticated,
			Detail: "the server's authority is not the expected one: ask the operator for a new token, " +
				"and make sure that nobody stands between you and the server",
		}
	}
	if _, err := chain[0].Verify(x509.VerifyOptions{
		DNSName: name, Roots: roots, Intermediates: intermediates, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}); err != nil {
		return nil, &Error{Kind: Unauthenticated, Detail: "the server's certificate does not hold for this address", cause: err}
	}
	return root, nil
}

// RootHash is the SHA-256 of a certificate's public key (SPKI), by which join
// tokens name a server's authority.
func RootHash(c *x509.Certificate) [sha256.Size]byte { return sha256.Sum256(c.RawSubjectPublicKeyInfo) }

// untrusted reports whether a handshake failed because of who the server is.
func untrusted(err error) bool {
	var (
		verification *tls.CertificateVerificationError
		authority    x509.UnknownAuthorityError
		host         x509.HostnameError
		other        x509.CertificateInvalidError
	)
	return errors.As(err, &verification) || errors.As(err, &authority) || errors.As(err, &host) || errors.As(err, &other)
}
