package tpm

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"encoding/binary"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/secret"
)

// Credential is a secret that only the TPM of one endorsement key gives out, and
// only if the object of one name is in it (TPM2_ActivateCredential).
type Credential struct {
	Blob   []byte // TPM2B_ID_OBJECT
	Secret []byte // TPM2B_ENCRYPTED_SECRET
}

// MakeCredential seals a secret of at most 32 bytes to an endorsement key and a
// name, as TPM2_MakeCredential does (TPM 2.0 Library part 1, 24). Whoever gives
// the secret back has the attestation key of that name in the TPM of that
// endorsement key. An endorsement key that is no restricted decryption key is
// Invalid.
func MakeCredential(ek *Public, name []byte, value secret.Bytes) (Credential, error) {
	need := uint32(attrRestricted | attrDecrypt | attrFixedTPM | attrFixedParent)
	hash := ek.hash.Hash()
	switch {
	case ek.Attributes&need != need || ek.Attributes&attrSign != 0 || ek.symmetric == 0:
		return Credential{}, fault.Invalidf("this is no endorsement key: it must be restricted to decryption, with AES")
	case value.Len() == 0 || value.Len() > hash.Size() || value.Len() > 32:
		return Credential{}, fault.Invalidf("a credential holds 1 to 32 bytes")
	case len(name) < 2 || len(name) > maxName:
		return Credential{}, fault.Invalidf("this is no name of an object")
	}
	seed, encrypted, err := share(ek, hash)
	if err != nil {
		return Credential{}, err
	}
	block, err := aes.NewCipher(kdfa(hash, seed, "STORAGE", name, int(ek.symmetric)))
	if err != nil {
		return Credential{}, fault.Wrap(err, "make cipher")
	}
	identity := sized(value.Reveal())
	cfb(block, identity)
	mac := hmac.New(hash.New, kdfa(hash, seed, "INTEGRITY", nil, hash.Size()*8))
	mac.Write(identity)
	mac.Write(name)
	return Credential{Blob: sized(append(sized(mac.Sum(nil)), identity...)), Secret: sized(encrypted)}, nil
}

// share makes a seed and the form in which the endorsement key gets it (part 1,
// B.10.3 and C.6.4).
func share(ek *Public, hash crypto.Hash) (seed, encrypted []byte, err error) {
	const label = "IDENTITY\x00"
	switch key := ek.Key.(type) {
	case *rsa.PublicKey:
		seed = make([]byte, hash.Size())
		if _, err := rand.Read(seed); err != nil {
			return nil, nil, fault.Wrap(err, "draw seed")
		}
		encrypted, err = rsa.EncryptOAEP(hash.New(), rand.Reader, key, seed, []byte(label))
		return seed, encrypted, fault.Wrap(err, "encrypt seed")
	case *ecdsa.PublicKey:
		static, err := key.ECDH()
		if err != nil {
			return nil, nil, fault.Wrap(err, "read endorsement key")
		}
		fresh, err := static.Curve().GenerateKey(rand.Reader)
		if err != nil {
			return nil, nil, fault.Wrap(err, "make key")
		}
		z, err := fresh.ECDH(static)
		if err != nil {
			return nil, nil, fault.Wrap(err, "agree on seed")
		}
		mine, theirs := coordinates(fresh.PublicKey()), coordinates(static)
		seed = kdfe(hash, z, label, mine[0], theirs[0])
		return seed, append(sized(mine[0]), sized(mine[1])...), nil
	}
	return nil, nil, fault.Internalf("an endorsement key of another kind")
}

// coordinates are X and Y of a point, each as long as the curve.
func coordinates(key *ecdh.PublicKey) [2][]byte {
	b := key.Bytes()[1:]
	return [2][]byte{b[:len(b)/2], b[len(b)/2:]}
}

func sized(b []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...) //nolint:gosec // short
}

// kdfa is the key derivation of part 1, 11.4.10.2, without the second context.
func kdfa(hash crypto.Hash, key []byte, label string, context []byte, bits int) []byte {
	var out []byte
	for i := uint32(1); len(out)*8 < bits; i++ {
		m := hmac.New(hash.New, key)
		m.Write(binary.BigEndian.AppendUint32(nil, i))
		m.Write(append([]byte(label), 0))
		m.Write(context)
		m.Write(binary.BigEndian.AppendUint32(nil, uint32(bits))) //nolint:gosec // small
		out = m.Sum(out)
	}
	return out[:bits/8]
}

// kdfe is the key derivation of part 1, 11.4.10.3, of as many bits as the hash
// has. The label ends in its zero.
func kdfe(hash crypto.Hash, z []byte, label string, u, v []byte) []byte {
	h := hash.New()
	h.Write(binary.BigEndian.AppendUint32(nil, 1))
	h.Write(z)
	h.Write([]byte(label))
	h.Write(u)
	h.Write(v)
	return h.Sum(nil)
}

// cfb encrypts in place with cipher feedback and an IV of zero (part 1, 24.4):
// the seed is fresh, and so is the key.
func cfb(block cipher.Block, data []byte) {
	feedback := make([]byte, block.BlockSize())
	pad := make([]byte, block.BlockSize())
	for len(data) > 0 {
		block.Encrypt(pad, feedback)
		for i := range min(len(data), len(pad)) {
			data[i] ^= pad[i]
		}
		n := copy(feedback, data)
		data = data[n:]
	}
}
