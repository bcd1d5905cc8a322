package seal

import (
	"crypto/aes"
	"crypto/ecdh"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"

	"github.com/sallyport-project/sallyport/internal/fault"
)

var errUnwrap = errors.New("key wrap integrity check")

// wrapEC wraps a content key for the holder of the public key (RFC 7518 4.6).
func wrapEC(private *ecdh.PrivateKey, public *ecdh.PublicKey, alg string, cek []byte) ([]byte, error) {
	kek, err := agree(private, public, alg)
	if err != nil {
		return nil, err
	}
	defer clear(kek)
	return wrapKey(kek, cek)
}

// agree derives the key-encryption key of both sides. ecdh already pads Z to
// the width of the curve.
func agree(private *ecdh.PrivateKey, public *ecdh.PublicKey, alg string) ([]byte, error) {
	z, err := private.ECDH(public)
	if err != nil {
		return nil, fault.Wrap(err, "agree on key")
	}
	defer clear(z)
	return concatKDF(z, alg), nil
}

// concatKDF is one round of the single-step KDF of NIST SP 800-56A with
// SHA-256, as RFC 7518 4.6.2 fills it: 256 bits, empty PartyU and PartyV.
func concatKDF(z []byte, alg string) []byte {
	h := sha256.New()
	word := func(n int) {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(n)) // #nosec G115 -- constants and the length of an algorithm name
		h.Write(b[:])
	}
	word(1)
	h.Write(z)
	word(len(alg))
	h.Write([]byte(alg))
	word(0)
	word(0)
	word(256)
	return h.Sum(nil)
}

// The initial value of RFC 3394 2.2.3.1.
var wrapIV = [8]byte{0xa6, 0xa6, 0xa6, 0xa6, 0xa6, 0xa6, 0xa6, 0xa6}

// wrapKey is the AES key wrap of RFC 3394 2.2.1. The key must be a multiple of
// 8 bytes and at least 16.
func wrapKey(kek, key []byte) ([]byte, error) {
	if len(key)%8 != 0 || len(key) < 16 {
		return nil, fault.Internalf("wrap a key of %d bytes", len(key))
	}
	block, err := aes.NewCipher(kek)
	if err != nil {
		return nil, fault.Wrap(err, "make key wrap cipher")
	}
	n := len(key) / 8
	out := make([]byte, 8+len(key))
	copy(out[8:], key)
	var buf [16]byte
	copy(buf[:8], wrapIV[:])
	for t := range 6 * n {
		r := out[8+8*(t%n):][:8]
		copy(buf[8:], r)
		block.Encrypt(buf[:], buf[:])
		xorCounter(buf[:8], t+1)
		copy(r, buf[8:])
	}
	copy(out, buf[:8])
	clear(buf[:])
	return out, nil
}

// unwrapKey is the inverse (RFC 3394 2.2.2); it fails if any bit was changed.
func unwrapKey(kek, wrapped []byte) ([]byte, error) {
	if len(wrapped)%8 != 0 || len(wrapped) < 24 {
		return nil, errUnwrap
	}
	block, err := aes.NewCipher(kek)
	if err != nil {
		return nil, fault.Wrap(err, "make key wrap cipher")
	}
	n := len(wrapped)/8 - 1
	key := make([]byte, 8*n)
	copy(key, wrapped[8:])
	var buf [16]byte
	copy(buf[:8], wrapped)
	for t := 6*n - 1; t >= 0; t-- {
		r := key[8*(t%n):][:8]
		xorCounter(buf[:8], t+1)
		copy(buf[8:], r)
		block.Decrypt(buf[:], buf[:])
		copy(r, buf[8:])
	}
	if subtle.ConstantTimeCompare(buf[:8], wrapIV[:]) != 1 {
		clear(key)
		return nil, errUnwrap
	}
	return key, nil
}

func xorCounter(a []byte, t int) {
	binary.BigEndian.PutUint64(a, binary.BigEndian.Uint64(a)^uint64(t)) // #nosec G115 -- t is positive and small
}
