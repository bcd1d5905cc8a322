package sshca

import (
	"encoding/base64"
	"encoding/binary"
)

// The wire form of OpenSSH (RFC 4251 section 5): numbers are big-endian, a
// string has its length before it. It is written and read by hand because the
// library does so by reflection; the tests hold what comes out against it.

func appendString[T ~string | ~[]byte](b []byte, s T) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(s))) //nolint:gosec // bounded by MaxKRL and MaxToBeSigned
	return append(b, s...)
}

// textLine is the authorized_keys form of a key or certificate in wire form,
// without a line break.
func textLine(algorithm string, wire []byte) string {
	out := make([]byte, 0, len(algorithm)+1+base64.StdEncoding.EncodedLen(len(wire)))
	out = append(append(out, algorithm...), ' ')
	return string(base64.StdEncoding.AppendEncode(out, wire))
}

// reader cuts the members of the wire form apart. After a short read bad is
// set, and everything is zero.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n uint64) []byte {
	if r.bad || uint64(len(r.b)) < n {
		r.bad, r.b = true, nil
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (r *reader) string() []byte { return r.take(uint64(r.uint32())) }

// more reports whether something is left to read.
func (r *reader) more() bool { return !r.bad && len(r.b) > 0 }

// whole reports whether everything was read, and nothing was missing.
func (r *reader) whole() bool { return !r.bad && len(r.b) == 0 }
