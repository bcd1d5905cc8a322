package keys

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"io"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/secret"
)

// generate makes the private bytes of a key and the text of its public part.
func generate(random io.Reader, algorithm Algorithm) (secret.Bytes, string, error) {
	var private any
	switch algorithm {
	case Random256:
		b := make([]byte, 32)
		_, err := io.ReadFull(random, b)
		return secret.New(b), "", fault.Wrap(err, "read randomness for a key")
	case Ed25519:
		seed := make([]byte, ed25519.SeedSize)
		if _, err := io.ReadFull(random, seed); err != nil {
			return secret.Bytes{}, "", fault.Wrap(err, "read randomness for a key")
		}
		private = ed25519.NewKeyFromSeed(seed)
		clear(seed)
	case ECDSAP256:
		key, err := ecdsa.GenerateKey(elliptic.P256(), random)
		if err != nil {
			return secret.Bytes{}, "", fault.Wrap(err, "generate an ECDSA key")
		}
		private = key
	default:
		return secret.Bytes{}, "", fault.Internalf("a key of the unknown algorithm %q was asked for", string(algorithm))
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return secret.Bytes{}, "", fault.Wrap(err, "encode a private key")
	}
	signer, ok := private.(crypto.Signer)
	if !ok {
		return secret.Bytes{}, "", fault.Internalf("a generated %s key cannot sign", algorithm)
	}
	public, err := PublicPEM(signer.Public())
	return secret.New(der), public, err
}

// PublicPEM is the PKIX form of a public key (RFC 7468).
func PublicPEM(public crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "", fault.Wrap(err, "encode a public key")
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), nil
}

// Signer opens the private part of an asymmetric key. Where Public is PKIX PEM,
// it must belong to it. Faults are those of [Vault.Reveal].
func (v *Vault) Signer(ctx context.Context, k Key) (crypto.Signer, error) {
	private, err := v.Reveal(ctx, k)
	if err != nil {
		return nil, err
	}
	defer private.Wipe()
	parsed, err := x509.ParsePKCS8PrivateKey(private.Reveal())
	if err != nil {
		// The cause is left out: it is about private bytes.
		return nil, fault.Internalf("%s key %s holds no private key of algorithm %s", k.Purpose, k.ID, k.Algorithm)
	}
	var signer crypto.Signer
	switch p := parsed.(type) {
	case ed25519.PrivateKey:
		if k.Algorithm == Ed25519 {
			signer = p
		}
	case *ecdsa.PrivateKey:
		if k.Algorithm == ECDSAP256 && p.Curve == elliptic.P256() {
			signer = p
		}
	}
	if signer == nil {
		return nil, fault.Internalf("%s key %s is not of its algorithm %s", k.Purpose, k.ID, k.Algorithm)
	}
	if block, _ := pem.Decode([]byte(k.Public)); block != nil && block.Type == "PUBLIC KEY" {
		if public, err := PublicPEM(signer.Public()); err != nil || public != k.Public {
			return nil, fault.Internalf("%s key %s: public and private part do not belong together", k.Purpose, k.ID)
		}
	}
	return signer, nil
}
