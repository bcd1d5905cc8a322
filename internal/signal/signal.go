// Package signal is about reasons to take something back: that a credential
// leaked, that evidence failed again. A signal names a value or its digest,
// never a grant: which grants it concerns is found out, not believed.
package signal

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/secret"
)

// MaxValue is the longest value that can be reported, in bytes.
const MaxValue = 64 << 10

// Signal is one report.
type Signal struct {
	Value    secret.Bytes // the leaked value itself, or
	Digest   string       // the SHA-256 of the trimmed value, lower-case hex
	Source   string       // who found it: a scanner, a person, a repository
	Location string       // where it was seen, for people
	Reason   string
	Seen     time.Time // when it was seen; zero for now
}

// Sum is the SHA-256 by which the grants are looked up: of the value without
// ASCII space around it, or the reported one. A signal must have exactly one of
// the two; else the fault is Invalid.
func (s Signal) Sum() ([sha256.Size]byte, error) {
	var sum [sha256.Size]byte
	switch {
	case s.Value.Len() > MaxValue:
		return sum, fault.Invalidf("the reported value is longer than %d bytes", MaxValue)
	case s.Value.Len() > 0 && s.Digest != "":
		return sum, fault.Invalidf("report either the value or its fingerprint, not both")
	case s.Value.Len() > 0:
		return sha256.Sum256(Trim(s.Value.Reveal())), nil
	case len(s.Digest) == hex.EncodedLen(sha256.Size):
		if _, err := hex.Decode(sum[:], []byte(s.Digest)); err != nil {
			return sum, fault.Invalidf("the fingerprint is not hexadecimal")
		}
		return sum, nil
	case s.Digest != "":
		return sum, fault.Invalidf("a fingerprint is the SHA-256 of the trimmed value: %d hexadecimal digits", hex.EncodedLen(sha256.Size))
	}
	return sum, fault.Invalidf("report the leaked value, or its fingerprint")
}

// Bare reports whether the signal shows only a digest: it then proves nothing
// about having seen the value.
func (s Signal) Bare() bool { return s.Value.Len() == 0 }

// shortest is the length from which a value counts as one that a text may not
// repeat; shorter ones stand in every other text by chance.
const shortest = 8

// Validate bounds what people wrote, all of which is recorded.
func (s Signal) Validate() error {
	value := Trim(s.Value.Reveal())
	for _, text := range []string{s.Source, s.Location, s.Reason} {
		if len(text) > 512 {
			return fault.Invalidf("source, location and reason have at most 512 bytes each")
		}
		if len(value) >= shortest && bytes.Contains([]byte(text), value) {
			return fault.Invalidf("source, location and reason are recorded: leave the leaked value out of them")
		}
	}
	_, err := s.Sum()
	return err
}

// Trim removes ASCII space around a value, which copying adds and removes.
func Trim(value []byte) []byte { return bytes.Trim(value, " \t\r\n\v\f") }
