// Package secret holds bytes that must appear in no log, error, argument list
// or event.
//
// A value prints as a redaction under every fmt verb, in JSON, in text
// encodings and in slog. The only way out is Reveal, which can be grepped and
// whose callers internal/arch lists. The package does not protect memory
// against a debugger; [Bytes.Wipe] shortens the time that a copy stays.
package secret

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
)

// Redacted stands wherever a secret would have been printed.
const Redacted = "[redacted]"

// Bytes is a secret byte string. The zero value is empty and ready to use.
// Copies share the same memory, so Wipe clears all of them.
//
// The bytes lie behind a pointer because fmt goes past every method of a value
// for %p and prints what it finds: an address, then.
type Bytes struct {
	_ [0]func() // not comparable: == would compare addresses
	b *[]byte
}

// New takes ownership of b: the caller must not use it afterwards.
func New(b []byte) Bytes { return Bytes{b: &b} }

// FromString copies s, which stays in memory until it is collected; prefer
// reading secrets as bytes.
func FromString(s string) Bytes { return New([]byte(s)) }

// Reveal gives the bytes themselves, not a copy. Keep them inside the smallest
// scope and hand them to nothing that may print.
func (s Bytes) Reveal() []byte {
	if s.b == nil {
		return nil
	}
	return *s.b
}

// Len is the number of bytes.
func (s Bytes) Len() int { return len(s.Reveal()) }

// Wipe overwrites the bytes with zeros.
func (s Bytes) Wipe() { clear(s.Reveal()) }

// Equal compares in constant time for equal lengths.
func (s Bytes) Equal(o Bytes) bool { return subtle.ConstantTimeCompare(s.Reveal(), o.Reveal()) == 1 }

// SHA256 is the digest of the bytes.
func (s Bytes) SHA256() [32]byte { return sha256.Sum256(s.Reveal()) }

// Format prints the redaction under every verb and flag.
func (s Bytes) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, Redacted) }

// String returns the redaction.
func (s Bytes) String() string { return Redacted }

// GoString returns the redaction.
func (s Bytes) GoString() string { return Redacted }

// LogValue returns the redaction.
func (s Bytes) LogValue() slog.Value { return slog.StringValue(Redacted) }

// MarshalJSON returns the redaction: a secret leaves only by Reveal.
func (s Bytes) MarshalJSON() ([]byte, error) { return []byte(`"` + Redacted + `"`), nil }

// MarshalText returns the redaction.
func (s Bytes) MarshalText() ([]byte, error) { return []byte(Redacted), nil }

// MarshalBinary refuses, so that gob and its like cannot carry a secret.
func (s Bytes) MarshalBinary() ([]byte, error) {
	return nil, fmt.Errorf("a secret has no binary form")
}
