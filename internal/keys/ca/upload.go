package ca

import (
	"crypto/sha256"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/id"
	"github.com/sallyport-project/sallyport/internal/secret"
)

// UploadToken is what a publisher's build gets to bring packages into the
// server's own repository. Its text is that of a [ticket] with the id of the
// server's row as label. What it is good for is in that row.
type UploadToken struct {
	Address string // host:port
	KeyHash [sha256.Size]byte
	Secret  secret.Bytes // 32 bytes
	ID      string
	Expires time.Time // whole seconds
}

// uploads is the form of upload tokens.
var uploads = form{prefix: "spupload1_", what: "upload token", label: func(name string) error {
	if !id.Valid(name) {
		return fault.Invalidf("an upload token needs the id of its row")
	}
	return nil
}}

// Text is the whole token, to be shown once. A token that Parse would not take
// is Invalid.
func (t UploadToken) Text() (secret.Bytes, error) {
	return uploads.text(ticket{label: t.ID, address: t.Address, keyHash: t.KeyHash, secret: t.Secret, expires: t.Expires})
}

// IsUploadToken reports whether a text claims to be an upload token.
func IsUploadToken(text string) bool { return strings.HasPrefix(text, uploads.prefix) }

// ParseUploadToken reads the text of a token, without white space around it. Any
// other text is Invalid; the fault never repeats it.
func ParseUploadToken(text secret.Bytes) (UploadToken, error) {
	t, err := uploads.parse(text)
	return UploadToken{Address: t.address, KeyHash: t.keyHash, Secret: t.secret, ID: t.label, Expires: t.expires}, err
}
