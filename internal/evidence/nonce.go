package evidence

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"io"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// NonceSize is the number of random bytes in a nonce.
const NonceSize = 32

// Nonce is a challenge: standard base64 with padding of NonceSize bytes. It is
// compared as text and is good for one attempt; the store keeps [Nonce.ID]
// under a unique key.
type Nonce string

// NewNonce draws a nonce from random, or from the system when random is nil.
func NewNonce(random io.Reader) (Nonce, error) {
	if random == nil {
		random = rand.Reader
	}
	var b [NonceSize]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return "", fault.Wrap(err, "draw nonce")
	}
	return NonceOf(b), nil
}

// NonceOf is the nonce of known bytes.
func NonceOf(b [NonceSize]byte) Nonce { return Nonce(base64.StdEncoding.EncodeToString(b[:])) }

// ParseNonce accepts exactly the form that NewNonce gives.
func ParseNonce(s string) (Nonce, error) {
	if b, err := base64.StdEncoding.Strict().DecodeString(s); err == nil && len(b) == NonceSize && len(s) == 44 {
		return Nonce(s), nil
	}
	return "", fault.Invalidf("the nonce must be the one of the challenge: %d bytes in standard base64", NonceSize)
}

// Bytes are the random bytes, nil for a nonce that did not come from this
// package's constructors and is malformed.
func (n Nonce) Bytes() []byte {
	b, err := base64.StdEncoding.Strict().DecodeString(string(n))
	if err != nil || len(b) != NonceSize {
		return nil
	}
	return b
}

// ID is the name under which the nonce's use is recorded: the SHA-256 of its
// text, in hex. It does not reveal the nonce.
func (n Nonce) ID() string {
	sum := sha256.Sum256([]byte(n))
	return hex.EncodeToString(sum[:])
}
