package seal

import (
	"crypto/ecdh"
	"crypto/mlkem"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/json"
	"math/big"

	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// MaxKey is the size limit of a JWK, in bytes: an RSA key of 8192 bits with
// room for members that are ignored.
const MaxKey = 8 << 10

const (
	minRSABits = 2048
	maxRSABits = 8192
)

// PublicKey is a key that secrets can be sealed to. Make it with ParseKey or
// PrivateKey.Public; the zero value seals nothing.
//
// It keeps the JWK members as they were received, because evidence binds to
// exactly these texts.
type PublicKey struct {
	kty, crv, alg, x, y, n, e, pub string

	ec  *ecdh.PublicKey
	rsa *rsa.PublicKey
	kem *mlkem.EncapsulationKey768
}

// jwk has the members that a TEE key may have; others are dropped.
type jwk struct {
	Kty string `json:"kty"`
	Crv string `json:"crv"`
	Alg string `json:"alg"`
	X   string `json:"x"`
	Y   string `json:"y"`
	N   string `json:"n"`
	E   string `json:"e"`
	Pub string `json:"pub"`
	// Private parts: their presence is an error of the sender.
	D    any `json:"d"`
	Priv any `json:"priv"`
}

// ParseKey reads the JWK of a TEE key (KBS protocol, member tee-pubkey). Its
// alg must be present and fit the key; coordinates must have the width of the
// curve and lie on it; unknown members are dropped. What is wrong is Invalid,
// and the text says what is accepted.
func ParseKey(data []byte) (PublicKey, error) {
	var j jwk
	if err := canon.Lenient(data, MaxKey, 8, &j); err != nil {
		return PublicKey{}, errNoKey().Because(err)
	}
	return j.key()
}

// KeyOf is [ParseKey] for a JWK that is part of a larger document, which was decoded
// already. Of the limits that of the size counts for the members which are kept.
func KeyOf(members map[string]any) (PublicKey, error) {
	j := jwk{D: members["d"], Priv: members["priv"]}
	size := 0
	for _, m := range [...]struct {
		name string
		to   *string
	}{{"kty", &j.Kty}, {"crv", &j.Crv}, {"alg", &j.Alg}, {"x", &j.X}, {"y", &j.Y}, {"n", &j.N}, {"e", &j.E}, {"pub", &j.Pub}} {
		v := members[m.name]
		if v == nil { // as ParseKey takes null
			continue
		}
		text, ok := v.(string)
		if size += len(text); !ok || size > MaxKey {
			return PublicKey{}, errNoKey()
		}
		*m.to = text
	}
	return j.key()
}

func errNoKey() *fault.Error {
	return fault.Invalidf("the TEE key is not a JSON Web Key object of at most %d bytes", MaxKey)
}

func (j jwk) key() (PublicKey, error) {
	if j.D != nil || j.Priv != nil {
		return PublicKey{}, fault.Invalidf("the TEE key holds a private part: send the public key only, and make a new one")
	}
	switch j.Kty {
	case "EC":
		return parseEC(j)
	case "RSA":
		return parseRSA(j)
	case "AKP":
		return parseAKP(j)
	default:
		return PublicKey{}, fault.Invalidf("the TEE key's kty must be EC, RSA or AKP")
	}
}

func curveOf(crv string) (ecdh.Curve, int) {
	switch crv {
	case "P-256":
		return ecdh.P256(), 32
	case "P-384":
		return ecdh.P384(), 48
	case "P-521":
		return ecdh.P521(), 66
	default:
		return nil, 0
	}
}

func parseEC(j jwk) (PublicKey, error) {
	curve, width := curveOf(j.Crv)
	if curve == nil {
		return PublicKey{}, fault.Invalidf("the TEE key's crv must be P-256, P-384 or P-521")
	}
	if j.Alg != ECDH {
		return PublicKey{}, fault.Invalidf("the alg of an EC TEE key must be %s", ECDH)
	}
	key, err := point(curve, width, j.X, j.Y)
	if err != nil {
		return PublicKey{}, err
	}
	return PublicKey{kty: "EC", crv: j.Crv, alg: j.Alg, x: j.X, y: j.Y, ec: key}, nil
}

func point(curve ecdh.Curve, width int, xs, ys string) (*ecdh.PublicKey, error) {
	x, okX := decode(xs)
	y, okY := decode(ys)
	if !okX || !okY || len(x) != width || len(y) != width {
		return nil, fault.Invalidf("the key's x and y must be base64url of %d bytes, without padding", width)
	}
	raw := make([]byte, 0, 1+2*width)
	raw = append(raw, 4)
	raw = append(raw, x...)
	raw = append(raw, y...)
	key, err := curve.NewPublicKey(raw)
	if err != nil {
		return nil, fault.Invalidf("the key's point is not on its curve").Because(err)
	}
	return key, nil
}

func parseRSA(j jwk) (PublicKey, error) {
	if j.Alg != OAEP && j.Alg != RSA15 {
		return PublicKey{}, fault.Invalidf("the alg of an RSA TEE key must be %s", OAEP)
	}
	nb, okN := decode(j.N)
	eb, okE := decode(j.E)
	if !okN || !okE || len(nb) == 0 || len(eb) == 0 || nb[0] == 0 || eb[0] == 0 {
		return PublicKey{}, fault.Invalidf("the RSA key's n and e must be base64url without padding and without leading zeros")
	}
	n := new(big.Int).SetBytes(nb)
	if n.BitLen() < minRSABits || n.BitLen() > maxRSABits || n.Bit(0) == 0 {
		return PublicKey{}, fault.Invalidf("an RSA TEE key must have an odd modulus of %d to %d bits", minRSABits, maxRSABits)
	}
	e := new(big.Int).SetBytes(eb)
	if e.BitLen() > 31 || e.Int64() < 65537 || e.Bit(0) == 0 {
		return PublicKey{}, fault.Invalidf("the RSA key's exponent must be odd, at least 65537 and below 2^31")
	}
	key := &rsa.PublicKey{N: n, E: int(e.Int64())}
	return PublicKey{kty: "RSA", alg: j.Alg, n: j.N, e: j.E, rsa: key}, nil
}

// Members are the typed members of the JWK, as received: kty, crv, alg, x, y,
// or kty, alg, n, e, or kty, alg, pub. This is the form that evidence binds to. It is nil for
// the zero key.
func (k PublicKey) Members() map[string]any {
	switch k.kty {
	case "EC":
		return map[string]any{"kty": k.kty, "crv": k.crv, "alg": k.alg, "x": k.x, "y": k.y}
	case "RSA":
		return map[string]any{"kty": k.kty, "alg": k.alg, "n": k.n, "e": k.e}
	case "AKP":
		return map[string]any{"kty": k.kty, "alg": k.alg, "pub": k.pub}
	default:
		return nil
	}
}

// MarshalJSON writes the typed members. The zero key is refused.
func (k PublicKey) MarshalJSON() ([]byte, error) {
	m := k.Members()
	if m == nil {
		return nil, fault.Internalf("encode a zero key")
	}
	return json.Marshal(m)
}

// IsZero reports whether k is no key.
func (k PublicKey) IsZero() bool { return k.kty == "" }

// Algorithm is ECDH, OAEP, MLKEM or RSA15, empty for the zero key.
func (k PublicKey) Algorithm() string { return k.alg }

// Legacy reports whether only [SealLegacy] seals to this key.
func (k PublicKey) Legacy() bool { return k.alg == RSA15 }

// ErrLegacy is what a guest with a key of RSA1_5 is told, Invalid.
func ErrLegacy() error {
	return fault.Invalidf("RSA1_5 is refused because it can be attacked in the guest, use %s", OAEP)
}

// Equal reports whether both are the same typed JWK.
func (k PublicKey) Equal(o PublicKey) bool {
	return k.kty == o.kty && k.crv == o.crv && k.alg == o.alg && k.x == o.x && k.y == o.y && k.n == o.n && k.e == o.e && k.pub == o.pub
}

// Thumbprint is the RFC 7638 thumbprint with SHA-256, base64url: a name for
// the key. It is empty for the zero key.
func (k PublicKey) Thumbprint() string {
	var text string
	switch k.kty {
	case "EC":
		text = `{"crv":"` + k.crv + `","kty":"EC","x":"` + k.x + `","y":"` + k.y + `"}`
	case "RSA":
		text = `{"e":"` + k.e + `","kty":"RSA","n":"` + k.n + `"}`
	case "AKP": // draft-ietf-cose-dilithium names alg too
		text = `{"alg":"` + k.alg + `","kty":"AKP","pub":"` + k.pub + `"}`
	default:
		return ""
	}
	sum := sha256.Sum256([]byte(text))
	return encode(sum[:])
}
