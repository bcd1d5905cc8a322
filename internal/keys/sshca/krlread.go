package sshca

import (
	"cmp"
	"math/big"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// List is a key revocation list that was read.
type List struct {
	Version   uint64
	Generated time.Time
	Comment   string
	revoked   map[string][]run // by CA key in wire form
}

// Revokes reports whether the list revokes the serial of a CA key, given as an
// authorized_keys line.
func (l *List) Revokes(ca string, serial uint64) bool {
	k, err := parsePublic(ca)
	if err != nil {
		return false
	}
	runs := l.revoked[string(k.wire)]
	// The first run that begins beyond the serial; the one before may hold it.
	n, _ := slices.BinarySearchFunc(runs, serial, func(r run, s uint64) int {
		if r.low <= s {
			return -1
		}
		return 1
	})
	return n > 0 && serial <= runs[n-1].high
}

// joined sorts runs and melts those that touch or overlap.
func joined(runs []run) []run {
	slices.SortFunc(runs, func(a, b run) int { return cmp.Compare(a.low, b.low) })
	out := runs[:0]
	for _, r := range runs {
		if n := len(out); n > 0 && (r.low <= out[n-1].high || r.low == out[n-1].high+1) {
			out[n-1].high = max(out[n-1].high, r.high)
			continue
		}
		out = append(out, r)
	}
	return out
}

// Len is the number of ranges of serials in the list.
func (l *List) Len() int {
	n := 0
	for _, runs := range l.revoked {
		n += len(runs)
	}
	return n
}

// ReadKRL reads a list of the kind that [KRL.Marshal] writes: certificates by
// serial. Sections of any other kind are Invalid: a list that is understood in
// part must not pass for a whole one.
func ReadKRL(b []byte) (*List, error) {
	if len(b) > MaxKRL {
		return nil, fault.Invalidf("the revocation list is larger than %d bytes", MaxKRL)
	}
	r := &reader{b: b}
	if r.uint64() != krlMagic || r.uint32() != krlVersion || r.bad {
		return nil, fault.Invalidf("this is not an OpenSSH revocation list of format %d", krlVersion)
	}
	l := &List{Version: r.uint64(), revoked: map[string][]run{}}
	generated := r.uint64()
	if generated > 253402300799 { // the end of the year 9999
		r.bad = true
	}
	l.Generated = time.Unix(int64(generated&(1<<62-1)), 0).UTC()
	if r.uint64() != 0 {
		r.bad = true // flags: none are defined
	}
	r.string() // reserved, ignored by specification
	l.Comment = string(r.string())
	for !r.bad && len(r.b) > 0 {
		kind, body := r.byte(), &reader{b: r.string()}
		if r.bad || kind != sectionCertificates {
			return nil, fault.Invalidf("the revocation list has a section that is cut or of a kind not read here")
		}
		if err := l.readSection(body); err != nil {
			return nil, err
		}
	}
	if r.bad {
		return nil, fault.Invalidf("the revocation list is cut or damaged")
	}
	return l, nil
}

func (l *List) readSection(r *reader) error {
	ca := r.string()
	r.string() // reserved
	if r.bad || len(ca) > MaxPublicKey {
		return fault.Invalidf("the revocation list is cut or damaged")
	}
	if _, err := ssh.ParsePublicKey(ca); err != nil {
		return fault.Invalidf("the revocation list has a CA key that does not parse")
	}
	runs := l.revoked[string(ca)]
	for !r.bad && len(r.b) > 0 {
		kind, body := r.byte(), &reader{b: r.string()}
		if r.bad {
			break
		}
		switch kind {
		case serialList:
			for !body.bad && len(body.b) > 0 {
				s := body.uint64()
				runs = append(runs, run{s, s})
			}
		case serialRange:
			low, high := body.uint64(), body.uint64()
			if low > high {
				body.bad = true
			}
			runs = append(runs, run{low, high})
		case serialBitmap:
			runs = append(runs, body.bitmap()...)
		default:
			return fault.Invalidf("the revocation list has serials in a form not read here")
		}
		if body.bad || len(body.b) > 0 {
			r.bad = true
		}
		if len(runs) > maxKRLSerials {
			return fault.Invalidf("the revocation list has more than %d entries", maxKRLSerials)
		}
	}
	if r.bad {
		return fault.Invalidf("the revocation list is cut or damaged")
	}
	l.revoked[string(ca)] = joined(runs)
	return nil
}

// bitmap reads offset and mpint.
func (r *reader) bitmap() []run {
	offset, number := r.uint64(), r.string()
	// RFC 4251: no needless leading byte, and never negative here.
	if r.bad || len(number) == 0 || number[0] >= 0x80 || len(number) > maxBitmap/8+1 ||
		(number[0] == 0 && (len(number) == 1 || number[1] < 0x80)) {
		r.bad = true
		return nil
	}
	bits := new(big.Int).SetBytes(number)
	var runs []run
	for n := range bits.BitLen() {
		if bits.Bit(n) == 0 {
			continue
		}
		s := offset + uint64(n)
		if s < offset {
			r.bad = true // past the last serial
			return nil
		}
		if k := len(runs); k > 0 && runs[k-1].high+1 == s {
			runs[k-1].high = s
			continue
		}
		runs = append(runs, run{s, s})
	}
	return runs
}
