package token

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// Limits of a set of keys.
const (
	MaxKeySet  = 256 << 10
	maxSetKeys = 64
)

// KeySet are public keys that an operator trusts, from a JWK set (RFC 7517) or a
// PEM file. The zero value trusts nothing.
type KeySet struct {
	keys []jose.JSONWebKey
}

// ParseKeySet reads a JWK set, or PEM with public keys or certificates. Keys that
// no token here can be signed with are left out; a set without any other is
// Invalid. A private key in it is Invalid: it should not be where it is.
func ParseKeySet(data []byte) (KeySet, error) {
	if len(data) > MaxKeySet {
		return KeySet{}, fault.Invalidf("the key set is larger than %d bytes", MaxKeySet)
	}
	if bytes.Contains(data, []byte("-----BEGIN")) {
		return parsePEMSet(data)
	}
	var list struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := canon.Lenient(data, MaxKeySet, 8, &list); err != nil {
		return KeySet{}, fault.Invalidf("the key set is no JWK set and no PEM").Because(err)
	}
	if len(list.Keys) > maxSetKeys {
		return KeySet{}, fault.Invalidf("the key set has more than %d keys", maxSetKeys)
	}
	var out KeySet
	for _, raw := range list.Keys {
		var k jose.JSONWebKey
		if err := k.UnmarshalJSON(raw); err != nil || !k.Valid() {
			continue // a kind of key that is newer than this program
		}
		if !k.IsPublic() {
			return KeySet{}, fault.Invalidf("the key set holds a private key: take it away from there, and make a new one")
		}
		if k.Use == "enc" || len(algorithms(k)) == 0 {
			continue
		}
		out.keys = append(out.keys, k)
	}
	if len(out.keys) == 0 {
		return KeySet{}, fault.Invalidf("the key set holds no key that tokens can be signed with")
	}
	return out, nil
}

func parsePEMSet(data []byte) (KeySet, error) {
	var out KeySet
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		key, err := parsePublic(block)
		if err != nil {
			return KeySet{}, err
		}
		k := jose.JSONWebKey{Key: key}
		if len(algorithms(k)) == 0 || len(out.keys) == maxSetKeys {
			return KeySet{}, fault.Invalidf("a key must be Ed25519, P-256, P-384, P-521 or RSA of 2048 to 8192 bits, and there can be %d", maxSetKeys)
		}
		out.keys = append(out.keys, k)
	}
	if len(out.keys) == 0 {
		return KeySet{}, fault.Invalidf("the PEM holds no public key")
	}
	return out, nil
}

func parsePublic(block *pem.Block) (crypto.PublicKey, error) {
	var key crypto.PublicKey
	var err error
	switch block.Type {
	case "PUBLIC KEY":
		key, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		key, err = x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		var c *x509.Certificate
		if c, err = x509.ParseCertificate(block.Bytes); err == nil {
			key = c.PublicKey
		}
	default:
		return nil, fault.Invalidf("the PEM must hold public keys or certificates, and nothing else")
	}
	if err != nil {
		return nil, fault.Invalidf("the PEM holds a public key that cannot be read").Because(err)
	}
	return key, nil
}

// algorithms are those that a key may sign with: the one that it names, or those
// that fit it.
func algorithms(k jose.JSONWebKey) []jose.SignatureAlgorithm {
	var fit []jose.SignatureAlgorithm
	switch key := k.Key.(type) {
	case ed25519.PublicKey:
		fit = []jose.SignatureAlgorithm{jose.EdDSA}
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256():
			fit = []jose.SignatureAlgorithm{jose.ES256}
		case elliptic.P384():
			fit = []jose.SignatureAlgorithm{jose.ES384}
		case elliptic.P521():
			fit = []jose.SignatureAlgorithm{jose.ES512}
		}
	case *rsa.PublicKey:
		if n := key.N.BitLen(); n >= 2048 && n <= 8192 {
			fit = []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512}
		}
	}
	if k.Algorithm == "" {
		return fit
	}
	for _, alg := range fit {
		if string(alg) == k.Algorithm {
			return []jose.SignatureAlgorithm{alg}
		}
	}
	return nil
}

// byID finds the key that a header names. Keys without an id are never named.
func byID(sets []KeySet, kid string) (jose.JSONWebKey, bool) {
	if kid == "" {
		return jose.JSONWebKey{}, false
	}
	for _, s := range sets {
		for _, k := range s.keys {
			if k.KeyID == kid {
				return k, true
			}
		}
	}
	return jose.JSONWebKey{}, false
}

// has reports whether some set has this very key.
func has(sets []KeySet, key crypto.PublicKey) bool {
	for _, s := range sets {
		for _, k := range s.keys {
			if e, ok := k.Key.(interface{ Equal(crypto.PublicKey) bool }); ok && e.Equal(key) {
				return true
			}
		}
	}
	return false
}

// MarshalKeySet writes our own keys as a JWK set, for whoever verifies our
// attestation results. The kid of a key is its thumbprint (RFC 7638).
func MarshalKeySet(keys []SignerKey) ([]byte, error) {
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	for _, k := range keys {
		thumb, err := Thumbprint(k.Public)
		if err != nil {
			return nil, err
		}
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: k.Public, KeyID: thumb, Algorithm: string(jose.ES256), Use: "sig"})
	}
	text, err := json.Marshal(set)
	return text, fault.Wrap(err, "encode key set")
}
