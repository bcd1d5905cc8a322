package seal

import (
	"crypto/mlkem"
	"crypto/sha3"
	"encoding/binary"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/secret"
)

// kemKEK is the length of the key-encryption key of ML-KEM-768+A192KW.
const kemKEK = 24

// parseAKP reads a key of type AKP (draft-ietf-jose-pqc-kem): the encoded
// encapsulation key in pub.
func parseAKP(j jwk) (PublicKey, error) {
	if j.Alg != MLKEM {
		return PublicKey{}, fault.Invalidf("the alg of an AKP TEE key must be %s", MLKEM)
	}
	raw, ok := decode(j.Pub)
	if !ok || len(raw) != mlkem.EncapsulationKeySize768 {
		return PublicKey{}, fault.Invalidf("the AKP key's pub must be base64url of %d bytes, without padding", mlkem.EncapsulationKeySize768)
	}
	key, err := mlkem.NewEncapsulationKey768(raw)
	if err != nil {
		return PublicKey{}, fault.Invalidf("the AKP key's pub is no ML-KEM-768 encapsulation key").Because(err)
	}
	return PublicKey{kty: "AKP", alg: j.Alg, pub: j.Pub, kem: key}, nil
}

// GenerateKEM makes an ML-KEM-768 key, for brokers that take one: what is
// recorded today stays sealed also to those who can break elliptic curves later.
func GenerateKEM() (PrivateKey, error) {
	k, err := mlkem.GenerateKey768()
	if err != nil {
		return PrivateKey{}, fault.Wrap(err, "make TEE key")
	}
	return NewPrivateKey(k)
}

// wrapKEM wraps a content key for the holder of the encapsulation key. It gives
// the wrapped key and the KEM's ciphertext, which the header carries as ek.
func wrapKEM(key *mlkem.EncapsulationKey768, alg string, cek []byte) (wrapped, ek []byte, err error) {
	shared, ek := key.Encapsulate()
	defer clear(shared)
	kek := kemKDF(shared, alg)
	defer clear(kek)
	wrapped, err = wrapKey(kek, cek)
	return wrapped, ek, err
}

// unwrapKEM is the inverse. A wrong ciphertext gives another shared secret
// (implicit rejection), which the key wrap then finds out.
func unwrapKEM(key *mlkem.DecapsulationKey768, alg string, ek, wrapped []byte) ([]byte, error) {
	shared, err := key.Decapsulate(ek)
	if err != nil {
		return nil, errOpen()
	}
	defer clear(shared)
	kek := kemKDF(shared, alg)
	defer clear(kek)
	cek, err := unwrapKey(kek, wrapped)
	if err != nil || len(cek) != cekSize {
		return nil, errOpen()
	}
	return cek, nil
}

// kemKDF derives the key-encryption key: KMAC256 (SP 800-185) with the shared
// secret as key over the length-prefixed algorithm and the length in bits.
func kemKDF(shared []byte, alg string) []byte {
	x := binary.BigEndian.AppendUint32(nil, uint32(len(alg))) // #nosec G115 -- the length of a constant
	x = append(x, alg...)
	x = binary.BigEndian.AppendUint32(x, 8*kemKEK)
	return kmac256(shared, x, kemKEK, nil)
}

// kmac256 is KMAC256 of SP 800-185 section 4.3, on the standard library's cSHAKE.
func kmac256(key, x []byte, size int, custom []byte) []byte {
	const rate = 136
	h := sha3.NewCSHAKE256([]byte("KMAC"), custom)
	head := append(leftEncode(rate), leftEncode(8*len(key))...)
	head = append(head, key...)
	for len(head)%rate != 0 {
		head = append(head, 0)
	}
	defer clear(head)
	_, _ = h.Write(head) // never fails, says its documentation
	_, _ = h.Write(x)
	tail := leftEncode(8 * size) // right_encode has the count of bytes behind them
	_, _ = h.Write(append(tail[1:], tail[0]))
	out := make([]byte, size)
	_, _ = h.Read(out)
	return out
}

// leftEncode is left_encode of SP 800-185 section 2.3.1.
func leftEncode(n int) []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(n)) // #nosec G115 -- lengths
	for len(b) > 1 && b[0] == 0 {
		b = b[1:]
	}
	return append([]byte{byte(len(b))}, b...) // #nosec G115 -- at most 8
}

// SealLegacy is [Seal] that seals also to keys of RSA1_5. A guest that opens such
// a message can be made to tell what it decrypts to (Bleichenbacher), so the
// operator has to ask for this by name.
func SealLegacy(key PublicKey, plaintext secret.Bytes) (JWE, error) {
	return sealTo(key, plaintext, nil)
}
