package sallyport

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"time"
)

// jwk is a public key (RFC 7517); its members stand in the order that RFC 7638
// hashes them.
type jwk struct {
	Crv string `json:"crv"`
	Kty string `json:"kty"`
	X   string `json:"x"`
	Y   string `json:"y,omitempty"`
}

// Thumbprint is the RFC 7638 thumbprint of a delegate's public key: Ed25519 or
// ECDSA on P-256. Another key is [Invalid].
func Thumbprint(public crypto.PublicKey) (string, error) {
	k, err := publicKey(public)
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(k)
	if err != nil {
		return "", invalid("the key has no thumbprint").because(err)
	}
	sum := sha256.Sum256(text)
	return encode(sum[:]), nil
}

func publicKey(public crypto.PublicKey) (jwk, error) {
	switch k := public.(type) {
	case ed25519.PublicKey:
		if len(k) == ed25519.PublicKeySize {
			return jwk{Crv: "Ed25519", Kty: "OKP", X: encode(k)}, nil
		}
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() {
			break
		}
		point, err := k.Bytes() // 4, X, Y
		if err != nil || len(point) != 65 {
			break
		}
		return jwk{Crv: "P-256", Kty: "EC", X: encode(point[1:33]), Y: encode(point[33:])}, nil
	}
	return jwk{}, invalid("a delegate's key must be Ed25519 or ECDSA on P-256")
}

// NewProof makes the DPoP header for one request with a delegated session
// (RFC 9449): the method, the URL without query, and the token. It is good once
// and for a minute.
func NewProof(key crypto.Signer, method, target string, token Secret, now time.Time) (string, error) {
	public, err := publicKey(key.Public())
	if err != nil {
		return "", err
	}
	alg := "EdDSA"
	if public.Kty == "EC" {
		alg = "ES256"
	}
	header, err := json.Marshal(struct {
		Alg string `json:"alg"`
		JWK jwk    `json:"jwk"`
		Typ string `json:"typ"`
	}{alg, public, "dpop+jwt"})
	if err != nil {
		return "", invalid("the proof cannot be written").because(err)
	}
	ath := sha256.Sum256([]byte(token.Reveal()))
	payload, err := json.Marshal(struct {
		ID       string `json:"jti"`
		Method   string `json:"htm"`
		URL      string `json:"htu"`
		IssuedAt int64  `json:"iat"`
		Token    string `json:"ath"`
	}{newName(), method, target, now.Unix(), encode(ath[:])})
	if err != nil {
		return "", invalid("the proof cannot be written").because(err)
	}
	text := encode(header) + "." + encode(payload)
	signature, err := sign(key, alg, []byte(text))
	if err != nil {
		return "", err
	}
	return text + "." + encode(signature), nil
}

// sign makes a JWS signature: RFC 7518 wants R and S of an ECDSA signature side
// by side.
func sign(key crypto.Signer, alg string, text []byte) ([]byte, error) {
	if alg == "EdDSA" {
		out, err := key.Sign(rand.Reader, text, crypto.Hash(0))
		if err != nil {
			return nil, invalid("the delegate's key does not sign").because(err)
		}
		return out, nil
	}
	sum := sha256.Sum256(text)
	der, err := key.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		return nil, invalid("the delegate's key does not sign").because(err)
	}
	var rs struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(der, &rs); err != nil || len(rest) > 0 || rs.R.BitLen() > 256 || rs.S.BitLen() > 256 {
		return nil, invalid("the delegate's key makes an unknown form of signature")
	}
	out := make([]byte, 64)
	rs.R.FillBytes(out[:32])
	rs.S.FillBytes(out[32:])
	return out, nil
}

// newName is a fresh random name of 128 bits.
func newName() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return encode(b)
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
