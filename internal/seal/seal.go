// Package seal encrypts a secret to the key of an attested workload, as JSON
// Web Encryption in the flattened form that Confidential Containers guests
// read.
//
// The guest parses the protected header and writes it again before it checks
// the authentication tag, so one byte order works with every client: alg, enc,
// epk, and inside epk crv, kty, x, y. General JOSE libraries write another
// order. The primitives come from the standard library; what is ours is their
// arrangement (RFC 7516, RFC 7518 4.6 and 4.3, RFC 3394), which the tests
// check against a general library in both directions.
//
// Content encryption is always A256GCM with a fresh key for each message. Key
// management follows the recipient's key: ECDH-ES+A256KW on P-256, P-384 and
// P-521, RSA-OAEP-256 from 2048 to 8192 bits, ML-KEM-768+A192KW
// (draft-ietf-jose-pqc-kem). RSA1_5 is refused because a guest cannot implement
// it safely; [SealLegacy] is the exception that has to be asked for.
//
// All functions are safe for concurrent use.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"io"

	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/secret"
)

// The algorithms of a JWE and of the key it is sealed to.
const (
	ECDH  = "ECDH-ES+A256KW"
	OAEP  = "RSA-OAEP-256"
	MLKEM = "ML-KEM-768+A192KW"
	RSA15 = "RSA1_5" // see SealLegacy
)

// Limits of what is sealed and opened, in bytes.
const (
	MaxPlaintext = 4 << 20
	MaxJWE       = 6 << 20 // the JSON text; fits MaxPlaintext in base64
)

const (
	contentEncryption = "A256GCM"
	cekSize           = 32
	ivSize            = 12
	tagSize           = 16
)

// JWE is a sealed message in flattened JSON form, without the members aad and
// header. Every member is base64url without padding. It is public: encode it
// with encoding/json.
type JWE struct {
	Protected    string `json:"protected"`
	EncryptedKey string `json:"encrypted_key"`
	IV           string `json:"iv"`
	Ciphertext   string `json:"ciphertext"`
	Tag          string `json:"tag"`
}

// Seal encrypts plaintext to key. Randomness comes from random, or from the
// system when random is nil; the ephemeral key and the OAEP seed always come
// from the system.
//
// An oversized plaintext is Invalid, and so is a key of RSA1_5. A zero key or
// failing randomness is Internal.
func Seal(key PublicKey, plaintext secret.Bytes, random io.Reader) (JWE, error) {
	if key.Legacy() {
		return JWE{}, ErrLegacy()
	}
	return sealTo(key, plaintext, random)
}

func sealTo(key PublicKey, plaintext secret.Bytes, random io.Reader) (JWE, error) {
	if random == nil {
		random = rand.Reader
	}
	m := material{cek: make([]byte, cekSize), iv: make([]byte, ivSize)}
	defer clear(m.cek)
	if _, err := io.ReadFull(random, m.cek); err != nil {
		return JWE{}, fault.Wrap(err, "read content key")
	}
	if _, err := io.ReadFull(random, m.iv); err != nil {
		return JWE{}, fault.Wrap(err, "read initialisation vector")
	}
	if key.ec != nil {
		e, err := key.ec.Curve().GenerateKey(rand.Reader)
		if err != nil {
			return JWE{}, fault.Wrap(err, "make ephemeral key")
		}
		m.ephemeral = e
	}
	return seal(key, plaintext, m)
}

// material is everything random in a message. Using one twice breaks the
// encryption, so only Seal and the vector test make one.
type material struct {
	cek, iv   []byte
	ephemeral *ecdh.PrivateKey
}

func seal(key PublicKey, plaintext secret.Bytes, m material) (JWE, error) {
	if plaintext.Len() > MaxPlaintext {
		return JWE{}, fault.Invalidf("the value has %d bytes, at most %d can be sealed", plaintext.Len(), MaxPlaintext)
	}
	head, wrapped, err := wrap(key, m)
	if err != nil {
		return JWE{}, fault.Wrap(err, "wrap content key")
	}
	protected := encode([]byte(head))
	aead, err := gcm(m.cek)
	if err != nil {
		return JWE{}, err
	}
	out := aead.Seal(nil, m.iv, plaintext.Reveal(), []byte(protected))
	body := len(out) - tagSize
	return JWE{
		Protected: protected, EncryptedKey: encode(wrapped), IV: encode(m.iv),
		Ciphertext: encode(out[:body]), Tag: encode(out[body:]),
	}, nil
}

// wrap is the seam between content encryption and key management: it gives the
// protected header and the content key wrapped for one key.
func wrap(key PublicKey, m material) (head string, wrapped []byte, err error) {
	begin := `{"alg":"` + key.alg + `","enc":"` + contentEncryption + `"`
	switch {
	case key.ec != nil:
		wrapped, err = wrapEC(m.ephemeral, key.ec, key.alg, m.cek)
		return ecHeader(key.alg, key.crv, m.ephemeral.PublicKey()), wrapped, err
	case key.Legacy():
		wrapped, err = rsa.EncryptPKCS1v15(rand.Reader, key.rsa, m.cek) //nolint:staticcheck // asked for by name, see SealLegacy
		return begin + "}", wrapped, err
	case key.rsa != nil:
		wrapped, err = rsa.EncryptOAEP(sha256.New(), rand.Reader, key.rsa, m.cek, nil)
		return begin + "}", wrapped, err
	case key.kem != nil:
		wrapped, ek, err := wrapKEM(key.kem, key.alg, m.cek)
		return begin + `,"ek":"` + encode(ek) + `"}`, wrapped, err
	}
	return "", nil, fault.Internalf("seal to a zero key")
}

// ecHeader writes the one member order that every client reproduces. The
// values come from this package and need no JSON escapes.
func ecHeader(alg, crv string, epk *ecdh.PublicKey) string {
	x, y := coordinates(epk)
	return `{"alg":"` + alg + `","enc":"` + contentEncryption + `","epk":{"crv":"` + crv +
		`","kty":"EC","x":"` + x + `","y":"` + y + `"}}`
}

// ParseJWE reads a flattened JWE of at most MaxJWE bytes. Unknown and repeated
// members are refused as Invalid; the members themselves are checked by Open.
func ParseJWE(data []byte) (JWE, error) {
	var j JWE
	if err := canon.Strict(data, MaxJWE, 2, &j); err != nil {
		return JWE{}, fault.Invalidf("the sealed message is not a flattened JWE").Because(err)
	}
	return j, nil
}

func gcm(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fault.Wrap(err, "make cipher")
	}
	aead, err := cipher.NewGCM(block)
	return aead, fault.Wrap(err, "make AEAD")
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// decode accepts exactly one text for each byte string: no padding, no line
// breaks, no stray bits at the end.
func decode(s string) ([]byte, bool) {
	for i := range len(s) {
		if s[i] == '\r' || s[i] == '\n' {
			return nil, false
		}
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	return b, err == nil
}
