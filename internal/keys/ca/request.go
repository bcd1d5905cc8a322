package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// MaxRequest is the largest signing request, in bytes.
const MaxRequest = 16 << 10

// requestKey takes the public key out of a signing request (RFC 2986) whose
// signature proves possession. The key is judged before the signature is
// checked, so that an enormous modulus costs nothing.
func requestKey(csr []byte) (crypto.PublicKey, error) {
	if len(csr) == 0 || len(csr) > MaxRequest {
		return nil, fault.Invalidf("the signing request has %d bytes: send 1 to %d", len(csr), MaxRequest)
	}
	der := csr
	if csr[0] != 0x30 { // not a DER sequence
		block, rest := pem.Decode(csr)
		if block == nil || (block.Type != "CERTIFICATE REQUEST" && block.Type != "NEW CERTIFICATE REQUEST") || len(block.Headers) > 0 {
			return nil, fault.Invalidf("the signing request is neither DER nor PEM of type CERTIFICATE REQUEST")
		}
		for _, c := range rest {
			if c != '\n' && c != '\r' && c != ' ' && c != '\t' {
				return nil, fault.Invalidf("the signing request has something after its PEM block")
			}
		}
		der = block.Bytes
	}
	request, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fault.Invalidf("the signing request is not well-formed PKCS #10").Because(err)
	}
	if err := checkKey(request.PublicKey); err != nil {
		return nil, err
	}
	if err := request.CheckSignature(); err != nil {
		return nil, fault.Invalidf("the signing request is not signed by the key in it").Because(err)
	}
	return request.PublicKey, nil
}

// checkKey accepts ECDSA on P-256 and P-384, Ed25519, and RSA of 2048 to 8192
// bits.
func checkKey(public crypto.PublicKey) error {
	switch p := public.(type) {
	case ed25519.PublicKey:
		if len(p) == ed25519.PublicKeySize {
			return nil
		}
	case *ecdsa.PublicKey:
		if p.Curve == elliptic.P256() || p.Curve == elliptic.P384() {
			return nil
		}
	case *rsa.PublicKey:
		if bits := p.N.BitLen(); bits < 2048 || bits > 8192 {
			return fault.Invalidf("an RSA key of %d bits is not accepted: use 2048 to 8192, or better ECDSA P-256", bits)
		}
		if p.E >= 65537 && p.E&1 == 1 {
			return nil
		}
		return fault.Invalidf("an RSA key with a small or even exponent is not accepted: use 65537")
	}
	return fault.Invalidf("this type of key is not accepted: use ECDSA P-256 or P-384, Ed25519, or RSA of at least 2048 bits")
}
