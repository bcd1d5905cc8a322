package seal

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/mlkem"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"math/big"

	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/secret"
)

// maxHeader bounds the decoded protected header: an ML-KEM ek needs 1,500 bytes.
const maxHeader = 2 << 10

// PrivateKey opens what was sealed to its public key. It prints as a
// redaction.
type PrivateKey struct {
	public PublicKey
	ec     *ecdh.PrivateKey
	rsa    *rsa.PrivateKey
	kem    *mlkem.DecapsulationKey768
}

// GenerateKey makes a P-256 key, which every key broker accepts.
func GenerateKey() (PrivateKey, error) {
	k, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return PrivateKey{}, fault.Wrap(err, "make TEE key")
	}
	return NewPrivateKey(k)
}

// NewPrivateKey takes an *ecdh.PrivateKey, *ecdsa.PrivateKey, *rsa.PrivateKey
// or *mlkem.DecapsulationKey768 within the limits of ParseKey; others are Invalid.
func NewPrivateKey(key any) (PrivateKey, error) {
	switch k := key.(type) {
	case *ecdsa.PrivateKey:
		e, err := k.ECDH()
		if err != nil {
			return PrivateKey{}, fault.Invalidf("the EC key's curve is not supported").Because(err)
		}
		return NewPrivateKey(e)
	case *ecdh.PrivateKey:
		name := ""
		switch k.Curve() {
		case ecdh.P256():
			name = "P-256"
		case ecdh.P384():
			name = "P-384"
		case ecdh.P521():
			name = "P-521"
		}
		x, y := coordinates(k.PublicKey())
		public, err := parseEC(jwk{Kty: "EC", Crv: name, Alg: ECDH, X: x, Y: y})
		return PrivateKey{public: public, ec: k}, err
	case *rsa.PrivateKey:
		e := big.NewInt(int64(k.E))
		public, err := parseRSA(jwk{Kty: "RSA", Alg: OAEP, N: encode(k.N.Bytes()), E: encode(e.Bytes())})
		return PrivateKey{public: public, rsa: k}, err
	case *mlkem.DecapsulationKey768:
		public, err := parseAKP(jwk{Kty: "AKP", Alg: MLKEM, Pub: encode(k.EncapsulationKey().Bytes())})
		return PrivateKey{public: public, kem: k}, err
	default:
		return PrivateKey{}, fault.Invalidf("the private key must be EC, RSA or ML-KEM-768")
	}
}

// ParsePrivateKey reads a PEM key: PKCS#1 RSA, SEC 1 EC, or PKCS#8 of either.
// Trailing data and anything else is Invalid.
func ParsePrivateKey(text secret.Bytes) (PrivateKey, error) {
	block, rest := pem.Decode(text.Reveal())
	if block == nil || len(rest) > 0 && len(rest) != countSpace(rest) {
		return PrivateKey{}, fault.Invalidf("the key file must hold exactly one PEM block")
	}
	defer clear(block.Bytes)
	var key any
	var err error
	switch block.Type {
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	default:
		return PrivateKey{}, fault.Invalidf("the key file must hold a private key in PKCS#1, SEC 1 or PKCS#8")
	}
	if err != nil {
		// The parser's text may quote key material: it is not kept.
		return PrivateKey{}, fault.Invalidf("the private key cannot be read")
	}
	return NewPrivateKey(key)
}

func countSpace(b []byte) (n int) {
	for _, c := range b {
		if c == ' ' || c == '\n' || c == '\r' || c == '\t' {
			n++
		}
	}
	return n
}

// Public is the key to seal to.
func (k PrivateKey) Public() PublicKey { return k.public }

// String prints a redaction.
func (k PrivateKey) String() string { return secret.Redacted }

// GoString prints a redaction.
func (k PrivateKey) GoString() string { return secret.Redacted }

// header is the protected header; any other member, crit and zip among them, is
// refused.
type header struct {
	Alg string `json:"alg"`
	Enc string `json:"enc"`
	Epk *epk   `json:"epk"`
	Ek  string `json:"ek"`
}

type epk struct {
	Crv string `json:"crv"`
	Kty string `json:"kty"`
	X   string `json:"x"`
	Y   string `json:"y"`
}

// Open decrypts a message sealed to key. Algorithm and curve must be those of
// the key. A message that is malformed is Invalid, and so is one that does not
// authenticate: which check failed is not told.
func Open(key PrivateKey, message JWE) (secret.Bytes, error) {
	size := len(message.Protected) + len(message.EncryptedKey) + len(message.IV) + len(message.Ciphertext) + len(message.Tag)
	if size > MaxJWE {
		return secret.Bytes{}, fault.Invalidf("the sealed message is larger than %d bytes", MaxJWE)
	}
	head, ok := decode(message.Protected)
	wrapped, ok1 := decode(message.EncryptedKey)
	iv, ok2 := decode(message.IV)
	body, ok3 := decode(message.Ciphertext)
	tag, ok4 := decode(message.Tag)
	if !ok || !ok1 || !ok2 || !ok3 || !ok4 || len(iv) != ivSize || len(tag) != tagSize {
		return secret.Bytes{}, fault.Invalidf("the sealed message has a malformed member")
	}
	var h header
	if err := canon.Strict(head, maxHeader, 3, &h); err != nil {
		return secret.Bytes{}, fault.Invalidf("the sealed message's header cannot be read").Because(err)
	}
	if h.Enc != contentEncryption || key.public.alg == "" || h.Alg != key.public.alg {
		return secret.Bytes{}, fault.Invalidf("the sealed message uses another algorithm than its key")
	}
	cek, err := unseal(key, h, wrapped)
	if err != nil {
		return secret.Bytes{}, err
	}
	defer clear(cek)
	aead, err := gcm(cek)
	if err != nil {
		return secret.Bytes{}, err
	}
	plain, err := aead.Open(nil, iv, append(body, tag...), []byte(message.Protected))
	if err != nil {
		return secret.Bytes{}, errOpen()
	}
	return secret.New(plain), nil
}

func errOpen() error {
	return fault.Invalidf("the sealed message was changed, or was sealed to another key")
}

// unseal recovers the content key.
func unseal(key PrivateKey, h header, wrapped []byte) ([]byte, error) {
	switch {
	case (h.Epk != nil) != (key.ec != nil) || (h.Ek != "") != (key.kem != nil):
		return nil, fault.Invalidf("the sealed message's header does not fit its algorithm")
	case key.kem != nil:
		ek, ok := decode(h.Ek)
		if !ok {
			return nil, fault.Invalidf("the sealed message has a malformed member")
		}
		return unwrapKEM(key.kem, h.Alg, ek, wrapped)
	case key.rsa != nil:
		cek, err := rsa.DecryptOAEP(sha256.New(), nil, key.rsa, wrapped, nil)
		if err != nil || len(cek) != cekSize {
			return nil, errOpen()
		}
		return cek, nil
	}
	if h.Epk.Kty != "EC" || h.Epk.Crv != key.public.crv {
		return nil, fault.Invalidf("the sealed message's ephemeral key is not on the key's curve")
	}
	curve, width := curveOf(key.public.crv)
	public, err := point(curve, width, h.Epk.X, h.Epk.Y)
	if err != nil {
		return nil, err
	}
	kek, err := agree(key.ec, public, h.Alg)
	if err != nil {
		return nil, err
	}
	defer clear(kek)
	cek, err := unwrapKey(kek, wrapped)
	if err != nil || len(cek) != cekSize {
		return nil, errOpen()
	}
	return cek, nil
}

// coordinates are x and y in base64url, padded to the width of the curve.
func coordinates(k *ecdh.PublicKey) (x, y string) {
	raw := k.Bytes()[1:]
	return encode(raw[:len(raw)/2]), encode(raw[len(raw)/2:])
}
