package audit

import (
	"crypto/sha256"
	"encoding/base64"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// HashSize is the length of a [Hash] in bytes.
const HashSize = sha256.Size

// Hash is a node of the tree. As text it is standard base64.
type Hash [HashSize]byte

// EmptyRoot is the root of a tree without leaves (RFC 6962 section 2.1).
func EmptyRoot() Hash { return sha256.Sum256(nil) }

// HashLeaf is the leaf's hash in the tree (RFC 6962 section 2.1).
func HashLeaf(leaf []byte) Hash {
	var few [1024]byte // the prefix is its zero byte
	if len(leaf) < len(few) {
		n := copy(few[1:], leaf)
		return sha256.Sum256(few[:1+n])
	}
	h := sha256.New()
	h.Write([]byte{0})
	h.Write(leaf)
	return Hash(h.Sum(nil))
}

// hashNode is the hash of an inner node (RFC 6962 section 2.1).
func hashNode(left, right []byte) Hash {
	var b [1 + 2*HashSize]byte
	b[0] = 1
	copy(b[1:], left)
	copy(b[1+HashSize:], right)
	return sha256.Sum256(b[:])
}

// hashes is the hasher that the merkle library takes.
type hashes struct{}

func (hashes) EmptyRoot() []byte               { h := EmptyRoot(); return h[:] }
func (hashes) HashLeaf(leaf []byte) []byte     { h := HashLeaf(leaf); return h[:] }
func (hashes) HashChildren(l, r []byte) []byte { h := hashNode(l, r); return h[:] }
func (hashes) Size() int                       { return HashSize }

// String is the hash in standard base64.
func (h Hash) String() string { return base64.StdEncoding.EncodeToString(h[:]) }

// MarshalText is [Hash.String] for encoders.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads exactly what MarshalText writes; anything else is
// Invalid.
func (h *Hash) UnmarshalText(text []byte) error {
	var got Hash
	if len(text) != base64.StdEncoding.EncodedLen(HashSize) {
		return fault.Invalidf("a hash is not 32 bytes in base64")
	}
	b, err := base64.StdEncoding.Strict().DecodeString(string(text))
	if err != nil || copy(got[:], b) != HashSize || got.String() != string(text) {
		return fault.Invalidf("a hash is not 32 bytes in base64")
	}
	*h = got
	return nil
}
