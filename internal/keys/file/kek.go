package file

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"io"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/id"
	"github.com/sallyport-project/sallyport/internal/keys"
	"github.com/sallyport-project/sallyport/internal/secret"
)

// A blob is
//
//	byte      format, 1
//	26 bytes  id of the key
//	32 bytes  salt
//	n + 16    AES-256-GCM of the plaintext
//
// Each wrap has its own key, HKDF-SHA-256 of the file's key under the salt, and
// so a constant nonce. Head and associated data are authenticated.
const (
	format     = 1
	idLength   = 26
	saltLength = 32
	headLength = 1 + idLength + saltLength
	tagLength  = 16
	wrapDomain = "sallyport/keys/file/v1"

	maxWrapped = 64 << 10 // keys are small
)

// KEK wraps with the key of one file and unwraps with those of older files too.
// It never changes after it was made and is safe for concurrent use.
type KEK struct {
	newest string
	keys   map[string]secret.Bytes
	rand   io.Reader
}

var _ keys.KEK = (*KEK)(nil)

func newKEK(random io.Reader, all []key) (*KEK, error) {
	if random == nil {
		random = rand.Reader
	}
	k := &KEK{newest: all[0].id, keys: map[string]secret.Bytes{}, rand: random}
	for _, one := range all {
		if have, ok := k.keys[one.id]; ok && !have.Equal(one.material) {
			return nil, fault.Invalidf("two key files have the id %s and different keys: one of them was changed", one.id)
		}
		k.keys[one.id] = one.material
	}
	return k, nil
}

// ID is the id of the key that wraps.
func (k *KEK) ID() string { return k.newest }

// Wrap encrypts a key of up to 64 KiB; see [keys.KEK].
func (k *KEK) Wrap(_ context.Context, plaintext secret.Bytes, aad []byte) ([]byte, error) {
	if plaintext.Len() > maxWrapped {
		return nil, fault.Internalf("%d bytes are no key: the key encryption key wraps at most %d", plaintext.Len(), maxWrapped)
	}
	blob := make([]byte, headLength, headLength+plaintext.Len()+tagLength)
	blob[0] = format
	copy(blob[1:], k.newest)
	if _, err := io.ReadFull(k.rand, blob[1+idLength:]); err != nil {
		return nil, fault.Wrap(err, "read randomness for a wrap")
	}
	aead, err := aead(k.keys[k.newest], blob[1+idLength:])
	if err != nil {
		return nil, err
	}
	var nonce [12]byte
	return aead.Seal(blob, nonce[:], plaintext.Reveal(), bound(blob[:1+idLength], aad)), nil
}

// Unwrap decrypts what Wrap made with any key that was loaded; see [keys.KEK].
func (k *KEK) Unwrap(_ context.Context, blob, aad []byte) (secret.Bytes, error) {
	if len(blob) < headLength+tagLength || len(blob) > headLength+maxWrapped+tagLength || blob[0] != format {
		return secret.Bytes{}, fault.Internalf("a wrapped key of %d bytes is not of the form that key files make: it was changed, or wrapped by another kind of key", len(blob))
	}
	name := string(blob[1 : 1+idLength])
	material, ok := k.keys[name]
	if !ok {
		if !id.Valid(name) {
			return secret.Bytes{}, fault.Internalf("a wrapped key names no key encryption key: its first bytes were changed")
		}
		return secret.Bytes{}, fault.Unavailablef(
			"a key was wrapped by key encryption key %s, and only others are loaded: point the configuration at its file, or name that file among the old ones", name)
	}
	aead, err := aead(material, blob[1+idLength:headLength])
	if err != nil {
		return secret.Bytes{}, err
	}
	var nonce [12]byte
	plain, err := aead.Open(nil, nonce[:], blob[headLength:], bound(blob[:1+idLength], aad))
	if err != nil {
		return secret.Bytes{}, fault.Internalf("a key wrapped by %s does not unwrap: its row was changed, moved, or kept from another version; restore it from a backup", name).Because(err)
	}
	return secret.New(plain), nil
}

// WrappedBy is the id of the key that a blob names, empty if it is no blob of
// ours. It proves nothing about the blob.
func WrappedBy(blob []byte) string {
	if len(blob) < headLength+tagLength || blob[0] != format {
		return ""
	}
	return string(blob[1 : 1+idLength])
}

// bound joins the head, whose length is fixed, with the caller's data.
func bound(head, aad []byte) []byte {
	return append(append(make([]byte, 0, len(head)+len(aad)), head...), aad...)
}

func aead(material secret.Bytes, salt []byte) (cipher.AEAD, error) {
	derived, err := hkdf.Key(sha256.New, material.Reveal(), salt, wrapDomain, keyBytes)
	if err != nil {
		return nil, fault.Wrap(err, "derive a wrapping key")
	}
	defer clear(derived)
	block, err := aes.NewCipher(derived)
	if err != nil {
		return nil, fault.Wrap(err, "start AES")
	}
	gcm, err := cipher.NewGCM(block)
	return gcm, fault.Wrap(err, "start GCM")
}
