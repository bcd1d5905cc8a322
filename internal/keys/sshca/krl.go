package sshca

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// The constants of PROTOCOL.krl.
const (
	krlMagic   = 0x5353484b524c0a00 // "SSHKRL\n\0"
	krlVersion = 1

	sectionCertificates = 1
	serialList          = 0x20
	serialRange         = 0x21
	serialBitmap        = 0x22
)

// Limits of lists that are written and read.
const (
	MaxKRL        = 64 << 20
	maxKRLSerials = 8 << 20
	maxKRLComment = 1024
)

// KRL is a key revocation list to be written.
type KRL struct {
	Version   uint64 // grows with every change
	Generated time.Time
	Comment   string
	Revoked   []Revoked
}

// Revoked is the revoked serials of one CA key, in any order, doubles allowed.
type Revoked struct {
	CA      string // authorized_keys line
	Serials []uint64
}

// Marshal writes the list (PROTOCOL.krl), for each CA key in the shortest mix of
// lists, ranges and bitmaps. A list without serials is valid and revokes
// nothing. Serial zero cannot be revoked and is Invalid, as is a CA key that
// does not parse or comes twice. Equal input gives equal bytes.
func (k KRL) Marshal() ([]byte, error) {
	if len(k.Comment) > maxKRLComment || strings.ContainsRune(k.Comment, 0) || k.Generated.Unix() < 0 {
		return nil, fault.Invalidf("a revocation list takes a comment of up to %d bytes, and a time after 1970", maxKRLComment)
	}
	b := binary.BigEndian.AppendUint64(nil, krlMagic)
	b = binary.BigEndian.AppendUint32(b, krlVersion)
	b = binary.BigEndian.AppendUint64(b, k.Version)
	b = binary.BigEndian.AppendUint64(b, uint64(k.Generated.Unix())) //nolint:gosec // not negative
	b = binary.BigEndian.AppendUint64(b, 0)                          // flags
	b = appendString(b, "")                                          // reserved
	b = appendString(b, []byte(k.Comment))
	var seen [][]byte
	total := 0
	for _, r := range k.Revoked {
		ca, err := parsePublic(r.CA)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(seen, func(s []byte) bool { return bytes.Equal(s, ca.wire) }) {
			return nil, fault.Invalidf("a CA key comes twice in a revocation list")
		}
		seen = append(seen, ca.wire)
		if total += len(r.Serials); total > maxKRLSerials {
			return nil, fault.Invalidf("%d revoked serials are too many for a list: drop those of expired certificates", total)
		}
		section, err := certificateSection(ca.wire, r.Serials)
		if err != nil {
			return nil, err
		}
		if section != nil {
			b = appendString(append(b, sectionCertificates), section)
		}
	}
	return b, nil
}

// certificateSection is the body of a section for one CA key, nil for no
// serials.
func certificateSection(ca []byte, serials []uint64) ([]byte, error) {
	runs := runsOf(serials)
	if len(runs) == 0 {
		return nil, nil
	}
	if runs[0].low == 0 {
		return nil, fault.Invalidf("serial zero cannot be revoked: OpenSSH takes it for no serial")
	}
	b := appendString(nil, ca)
	b = appendString(b, "") // reserved
	for _, p := range plan(runs) {
		b = appendString(append(b, p.kind), p.body())
	}
	return b, nil
}

// run is serials without a gap, both ends included.
type run struct{ low, high uint64 }

// runsOf sorts a copy of the serials and joins neighbours.
func runsOf(serials []uint64) []run {
	sorted := slices.Clone(serials)
	slices.Sort(sorted)
	var runs []run
	for _, s := range sorted {
		if n := len(runs); n > 0 && (s == runs[n-1].high || s == runs[n-1].high+1) {
			runs[n-1].high = s
			continue
		}
		runs = append(runs, run{s, s})
	}
	return runs
}

// part is one serial section.
type part struct {
	kind byte
	runs []run
}

func (p part) body() []byte {
	switch p.kind {
	case serialRange:
		return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, p.runs[0].low), p.runs[0].high)
	case serialBitmap:
		return p.bitmap()
	}
	var b []byte
	for _, r := range p.runs {
		for s := r.low; ; s++ {
			b = binary.BigEndian.AppendUint64(b, s)
			if s == r.high {
				break
			}
		}
	}
	return b
}

// bitmap writes the offset and an mpint (RFC 4251) in which bit n stands for
// the serial offset + n.
func (p part) bitmap() []byte {
	offset, last := p.runs[0].low, p.runs[len(p.runs)-1].high
	size := (last-offset)/8 + 1
	bits := make([]byte, size+1) // the first byte keeps the number positive
	for _, r := range p.runs {
		for n := r.low - offset; n <= r.high-offset; n++ {
			bits[size-n/8] |= 1 << (n % 8)
		}
	}
	if bits[1] < 0x80 {
		bits = bits[1:]
	}
	return appendString(binary.BigEndian.AppendUint64(nil, offset), bits)
}

// CAOf gives the CA key in a certificate line, for finding its section.
func CAOf(certificate string) (ca string, serial uint64, err error) {
	if len(certificate) > 2*MaxToBeSigned {
		return "", 0, fault.Invalidf("the certificate is longer than %d bytes", 2*MaxToBeSigned)
	}
	k, _, _, _, err := ssh.ParseAuthorizedKey([]byte(certificate))
	if err != nil {
		return "", 0, fault.Invalidf("this is not an OpenSSH certificate line")
	}
	c, ok := k.(*ssh.Certificate)
	if !ok {
		return "", 0, fault.Invalidf("this is a public key, not a certificate")
	}
	return textLine(c.SignatureKey.Type(), c.SignatureKey.Marshal()), c.Serial, nil
}
