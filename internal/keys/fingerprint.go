package keys

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/secret"
)

// whitespace is what reporters of leaked values add and lose at both ends.
const whitespace = " \t\n\v\f\r"

// Digest is SHA-256 of a value without ASCII white space at its ends: the form
// in which others report a leak.
func Digest(value secret.Bytes) [sha256.Size]byte {
	return sha256.Sum256(bytes.Trim(value.Reveal(), whitespace))
}

// Fingerprint is the index entry of a credential: lower-case hex of HMAC-SHA-256
// under the pepper over the digest of the trimmed value. A reported SHA-256 so
// finds the grant, while a stolen index does not tell which of two guesses is
// right.
func Fingerprint(pepper secret.Bytes, digest [sha256.Size]byte) string {
	h := hmac.New(sha256.New, pepper.Reveal())
	h.Write(digest[:])
	return hex.EncodeToString(h.Sum(nil))
}

// Peppers are the keys of the fingerprint index: one for writing, old ones for
// reading. Safe for concurrent use.
type Peppers struct {
	ids     []string // newest first
	peppers []secret.Bytes
}

// NewPeppers opens the pepper keys of a ring.
func NewPeppers(ctx context.Context, v *Vault, r *Ring) (*Peppers, error) {
	now := v.now()
	newest, err := r.Signing(now)
	if err != nil {
		return nil, err
	}
	p := &Peppers{}
	for _, k := range append([]Key{newest}, r.Verifying(now)...) {
		if k.Purpose != Pepper {
			return nil, fault.Internalf("key %s is a %s key, not a pepper", k.ID, k.Purpose)
		}
		if len(p.ids) > 0 && k.ID == newest.ID {
			continue
		}
		material, err := v.Reveal(ctx, k)
		if err != nil {
			return nil, err
		}
		p.ids, p.peppers = append(p.ids, k.ID), append(p.peppers, material)
	}
	return p, nil
}

// ID names the pepper that Fingerprint writes with.
func (p *Peppers) ID() string { return p.ids[0] }

// Fingerprint is the index entry of a digest under the newest pepper.
func (p *Peppers) Fingerprint(digest [sha256.Size]byte) string {
	return Fingerprint(p.peppers[0], digest)
}

// FingerprintValue is the index entry of a value under the newest pepper.
func (p *Peppers) FingerprintValue(value secret.Bytes) string { return p.Fingerprint(Digest(value)) }

// Candidates are the index entries under which a digest may be found, one for
// each pepper, newest first.
func (p *Peppers) Candidates(digest [sha256.Size]byte) []string {
	entries := make([]string, len(p.peppers))
	for i, pepper := range p.peppers {
		entries[i] = Fingerprint(pepper, digest)
	}
	return entries
}
