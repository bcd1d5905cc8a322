package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// signer is a key that is trusted, for one algorithm.
type signer struct {
	key   crypto.PublicKey
	alg   jose.SignatureAlgorithm
	own   bool
	until time.Time // when the trust ends; zero for no end
	thumb string    // of the key (RFC 7638)
}

type earHeader struct {
	Alg      string          `json:"alg"`
	Type     string          `json:"typ"`
	Kid      string          `json:"kid"`
	Key      json.RawMessage `json:"jwk"`
	Critical json.RawMessage `json:"crit"`
}

// ownHeader is the header that was met last with one of our own keys: all tokens
// of a key have the same. It counts for the set of keys by which it was judged.
type ownHeader struct {
	text string
	keys *map[string]SignerKey
	by   signer
}

// signerOf reads a header and decides whether the key is trusted that it shows,
// or names.
func (t *Trust) signerOf(header []byte, now time.Time) (signer, error) {
	keys := t.own.Load()
	if last := t.last.Load(); last != nil && last.keys == keys && last.text == string(header) {
		if !lives((*keys)[last.by.thumb], now) {
			return refuse("its key has retired", nil)
		}
		return last.by, nil
	}
	var h earHeader
	if err := canon.Lenient(header, MaxEAR, 4, &h); err != nil {
		return signer{}, errForm(err)
	}
	if len(h.Critical) > 0 || h.Type != "" && !strings.EqualFold(h.Type, "JWT") {
		return signer{}, fault.Unauthenticatedf("this is no attestation token")
	}
	by, err := t.signer(h, *keys, now)
	if err != nil {
		return signer{}, err
	}
	if h.Alg != string(by.alg) {
		return signer{}, fault.Unauthenticatedf("the attestation token's algorithm is not the one of its key")
	}
	if by.thumb, err = Thumbprint(by.key); err != nil {
		return signer{}, err
	}
	if by.own {
		t.last.Store(&ownHeader{string(header), keys, by})
	}
	return by, nil
}

// lives reports whether one of our own keys counts now.
func lives(k SignerKey, now time.Time) bool {
	return !now.Before(k.NotBefore.Add(-backdate)) && (k.RetireAt.IsZero() || now.Before(k.RetireAt))
}

func refuse(why string, cause error) (signer, error) {
	return signer{}, fault.Unauthenticatedf("the attestation token's signer is not trusted: %s", why).Because(cause)
}

// signer decides whether the key that a header shows, or names, is trusted.
func (t *Trust) signer(h earHeader, own map[string]SignerKey, now time.Time) (signer, error) {
	if len(h.Key) > 0 {
		return t.shown(h.Key, own, now)
	}
	k, ok := byID(*t.sets.Load(), h.Kid)
	if !ok {
		t.unknown()
		return refuse("its header has no jwk, and names no key of a trusted set", nil)
	}
	if k.Algorithm == "" {
		return refuse("the key that it names does not say for which algorithm it is", nil)
	}
	alg, ok := algorithm(k)
	if !ok {
		return refuse("the key that it names must be P-256 with ES256, or RSA of 2048 bits or more", nil)
	}
	return signer{key: k.Key, alg: alg}, nil
}

// shown reads the header's JWK and decides whether it is trusted: one of our own,
// one of a trusted set, or one with a certificate below a trusted anchor.
func (t *Trust) shown(raw json.RawMessage, own map[string]SignerKey, now time.Time) (signer, error) {
	var list struct {
		X5C []string `json:"x5c"`
	}
	if err := canon.Lenient(raw, MaxEAR, 4, &list); err != nil || len(list.X5C) > maxChain {
		return refuse("its jwk cannot be read", err)
	}
	var k jose.JSONWebKey
	if err := k.UnmarshalJSON(raw); err != nil || !k.Valid() || !k.IsPublic() {
		return refuse("its jwk is no public key, or differs from its certificate", err)
	}
	alg, ok := algorithm(k)
	if !ok {
		return refuse("its jwk must be P-256 with ES256, or RSA of 2048 bits or more, and name its algorithm", nil)
	}
	if thumb, err := Thumbprint(k.Key); err == nil {
		if mine, known := own[thumb]; known && alg == jose.ES256 {
			if !lives(mine, now) {
				return refuse("its key has retired", nil)
			}
			return signer{key: k.Key, alg: alg, own: true, until: mine.RetireAt}, nil
		}
	}
	if t.insecure || has(*t.sets.Load(), k.Key) {
		return signer{key: k.Key, alg: alg}, nil
	}
	if t.anchors == nil || len(k.Certificates) == 0 {
		t.unknown() // a chain says nothing to who trusts sets alone
		return refuse("its key is not ours, and no certificate chain leads to a trusted anchor", nil)
	}
	leaf, ok := k.Certificates[0].PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !leaf.Equal(k.Key) {
		return refuse("its jwk differs from its certificate", nil)
	}
	between := x509.NewCertPool()
	for _, c := range k.Certificates[1:] {
		between.AddCert(c)
	}
	chains, err := k.Certificates[0].Verify(x509.VerifyOptions{
		Roots: t.anchors, Intermediates: between, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		t.unknown()
		return refuse("its certificate chain does not lead to a trusted anchor", err)
	}
	until := k.Certificates[0].NotAfter
	for _, c := range chains[0] {
		until = earliest(until, c.NotAfter)
	}
	return signer{key: k.Key, alg: alg, until: until}, nil
}

// algorithm is the one that the JWK names, if it fits the key.
func algorithm(k jose.JSONWebKey) (jose.SignatureAlgorithm, bool) {
	alg := jose.SignatureAlgorithm(k.Algorithm)
	switch key := k.Key.(type) {
	case *ecdsa.PublicKey:
		return alg, alg == jose.ES256 && key.Curve == elliptic.P256()
	case *rsa.PublicKey:
		switch alg {
		case jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512:
			return alg, key.N.BitLen() >= 2048 && key.N.BitLen() <= 8192
		}
	}
	return "", false
}
