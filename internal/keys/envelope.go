package keys

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"io"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/id"
	"github.com/sallyport-project/sallyport/internal/secret"
)

// A sealed value is
//
//	byte      format, 1
//	26 bytes  id of the root, a ULID
//	32 bytes  salt
//	n + 16    AES-256-GCM of the plaintext
//
// The key of the value is HKDF-SHA-256 (RFC 5869) of the root under the random
// salt. It encrypts exactly one value, hence the nonce is constant and the
// bounds on random nonces under one key do not apply. Associated data are
// format, root id, table, row id and version.
const (
	sealedFormat = 1
	idLength     = 26
	saltLength   = 32
	tagLength    = 16
	headLength   = 1 + idLength + saltLength

	valueDomain = "sallyport/keys/value/v1"
)

// MaxPlaintext is the largest value, in bytes, that [Vault.Seal] takes.
const MaxPlaintext = 64 << 20

// Overhead is how many bytes a sealed value is longer than its plaintext.
const Overhead = headLength + tagLength

// Seal encrypts a value of one row under the newest root and binds it to table,
// row id and version: moved to another row, or kept through a change of
// version, it does not open. The plaintext stays the caller's. Too large a
// value is Invalid. Safe for concurrent use.
func (v *Vault) Seal(table, row string, version int64, plaintext secret.Bytes) ([]byte, error) {
	if plaintext.Len() > MaxPlaintext {
		return nil, fault.Invalidf("the value has %d bytes, more than the %d that can be stored", plaintext.Len(), MaxPlaintext)
	}
	sealed := make([]byte, headLength, Overhead+plaintext.Len())
	sealed[0] = sealedFormat
	copy(sealed[1:], v.newest)
	salt := sealed[1+idLength : headLength]
	if _, err := io.ReadFull(v.rand, salt); err != nil {
		return nil, fault.Wrap(err, "read randomness for a sealed value")
	}
	aead, err := valueCipher(v.roots[v.newest], salt)
	if err != nil {
		return nil, err
	}
	var nonce [12]byte
	return aead.Seal(sealed, nonce[:], plaintext.Reveal(), binding(valueDomain, v.newest, table, row, version)), nil
}

// Open decrypts what Seal made for the same table, row id and version. The
// result is a copy of its own. Anything else, and a single flipped bit, is a
// fault of kind Internal that names table and row to the operator. Safe for
// concurrent use.
func (v *Vault) Open(table, row string, version int64, sealed []byte) (secret.Bytes, error) {
	root, err := SealedBy(sealed)
	if err != nil {
		return secret.Bytes{}, fault.Wrap(err, "open the value of %s %s version %d", table, row, version)
	}
	material, ok := v.roots[root]
	if !ok {
		return secret.Bytes{}, fault.Internalf(
			"the value of %s %s version %d was sealed under root key %s, which this store does not have: the row was changed, or belongs to another store",
			table, row, version, root)
	}
	aead, err := valueCipher(material, sealed[1+idLength:headLength])
	if err != nil {
		return secret.Bytes{}, err
	}
	var nonce [12]byte
	plain, err := aead.Open(nil, nonce[:], sealed[headLength:], binding(valueDomain, root, table, row, version))
	if err != nil {
		return secret.Bytes{}, fault.Internalf(
			"the value of %s %s version %d does not open: it was changed, moved from another row, or kept from another version; restore it from a backup",
			table, row, version).Because(err)
	}
	return secret.New(plain), nil
}

// SealedBy gives the id of the root that a value was sealed under, for finding
// values to seal again. It proves nothing about the value.
func SealedBy(sealed []byte) (string, error) {
	if len(sealed) < Overhead || len(sealed) > Overhead+MaxPlaintext {
		return "", fault.Internalf("a sealed value of %d bytes was cut or extended", len(sealed))
	}
	if sealed[0] != sealedFormat {
		return "", fault.Internalf("a sealed value has format %d, this release knows %d", sealed[0], sealedFormat)
	}
	root := string(sealed[1 : 1+idLength])
	if !id.Valid(root) {
		return "", fault.Internalf("a sealed value names no root key: its first bytes were changed")
	}
	return root, nil
}

// valueCipher derives the key of one value.
func valueCipher(root secret.Bytes, salt []byte) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, root.Reveal(), salt, valueDomain, 32)
	if err != nil {
		return nil, fault.Wrap(err, "derive the key of a value")
	}
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fault.Wrap(err, "start AES")
	}
	aead, err := cipher.NewGCM(block)
	return aead, fault.Wrap(err, "start GCM")
}
