// Package eventlog reads the event logs of firmware: the TCG PC Client log of a
// TPM in both its forms, and the CC log of a confidential guest, which has the
// same form with other registers.
//
// A log is what the machine says of itself and proves nothing. [Log.Replay]
// computes which registers it leads to; only if a quote has these very values
// are its digests true. Even then most events carry data that nobody hashed:
// [Event.Hashed] says whether an event's data are what its digest is of, and only
// then they are as true as the digest.
package eventlog

import (
	"bytes"
	"crypto"
	_ "crypto/sha1"   //nolint:gosec // banks of old logs
	_ "crypto/sha256" // banks
	"crypto/sha512"
	"encoding/binary"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// Limits of a log: real ones have some hundred events and up to 100 kB, and a
// CC log is a fixed area that may be padded to 1 MiB.
const (
	MaxSize   = 1 << 20
	maxEvents = 4096
	maxBanks  = 8
	maxEvent  = 128 << 10
	registers = 24
)

// Algorithm is a hash algorithm by its TPM_ALG_ID.
type Algorithm uint16

// The algorithms whose banks are replayed. Digests of others are kept out.
const (
	SHA1   Algorithm = 0x04
	SHA256 Algorithm = 0x0b
	SHA384 Algorithm = 0x0c
	SHA512 Algorithm = 0x0d
)

// Hash is the algorithm's function, 0 for one that is not replayed.
func (a Algorithm) Hash() crypto.Hash {
	switch a {
	case SHA1:
		return crypto.SHA1
	case SHA256:
		return crypto.SHA256
	case SHA384:
		return crypto.SHA384
	case SHA512:
		return crypto.SHA512
	}
	return 0
}

// Digest is a digest in one bank.
type Digest struct {
	Algorithm Algorithm
	Value     []byte
}

// Event is one event. Its slices share memory with the log.
type Event struct {
	Register uint32
	Type     Type
	Digests  []Digest
	Data     []byte
}

// Digest is the event's digest in a bank, nil if it has none.
func (e Event) Digest(a Algorithm) []byte {
	for _, d := range e.Digests {
		if d.Algorithm == a {
			return d.Value
		}
	}
	return nil
}

// Hashed reports whether the event's data are what its digests are of: every
// bank that we know must say so.
func (e Event) Hashed() bool {
	known := false
	var out [sha512.Size]byte
	for _, d := range e.Digests {
		h := d.Algorithm.Hash()
		if h == 0 {
			continue
		}
		sum := h.New()
		sum.Write(e.Data)
		if !bytes.Equal(sum.Sum(out[:0]), d.Value) {
			return false
		}
		known = true
	}
	return known
}

// Log is a log that was read.
type Log struct {
	Banks  []Algorithm // as its header says; SHA-1 alone in the old form
	Events []Event     // without the header
}

// reader takes little-endian fields from the front.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) take(n uint64) []byte {
	if r.bad || n > uint64(len(r.rest)) {
		r.bad = true
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) u8() uint8 {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) u16() uint16 {
	if b := r.take(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if b := r.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

// Parse reads a log of at most MaxSize bytes (TCG PC Client Platform Firmware
// Profile, section 10). A log that ends within an event, names a register that
// does not exist, or whose header is no header, is Invalid. Padding of zeros or
// ones behind the last event is left out. It allocates no more than twice the
// size of the log.
func Parse(data []byte) (*Log, error) {
	if len(data) > MaxSize {
		return nil, fault.Invalidf("the event log is larger than %d bytes", MaxSize)
	}
	r := &reader{rest: data}
	first := r.legacy()
	if r.bad {
		return nil, fault.Invalidf("the event log ends within its first event")
	}
	l := &Log{Banks: []Algorithm{SHA1}}
	sizes := map[Algorithm]int{}
	next := r.legacy
	if first.Type == NoAction {
		var err error
		if l.Banks, sizes, err = header(first); err != nil {
			return nil, err
		}
		next = func() Event { return r.agile(sizes) }
	} else {
		l.Events = append(l.Events, first)
	}
	for len(r.rest) > 0 && !padding(r.rest) {
		e := next()
		if r.bad {
			return nil, fault.Invalidf("event %d of the event log is cut short, or of banks that its header does not name", len(l.Events))
		}
		if len(l.Events) >= maxEvents {
			return nil, fault.Invalidf("the event log has more than %d events", maxEvents)
		}
		l.Events = append(l.Events, e)
	}
	for i, e := range l.Events {
		if e.Register >= registers {
			return nil, fault.Invalidf("event %d of the event log is for register %d, which does not exist", i, e.Register)
		}
	}
	return l, nil
}

// legacy reads an event of the old form, which the header of the new one has too
// (section 10.2.1).
func (r *reader) legacy() Event {
	e := Event{Register: r.u32(), Type: Type(r.u32())}
	e.Digests = []Digest{{SHA1, r.take(20)}}
	e.Data = r.data()
	return e
}

// agile reads an event of the new form: a digest for each bank (section 10.2.2).
func (r *reader) agile(sizes map[Algorithm]int) Event {
	e := Event{Register: r.u32(), Type: Type(r.u32())}
	n := r.u32()
	if int64(n) != int64(len(sizes)) {
		r.bad = true
		return e
	}
	e.Digests = make([]Digest, 0, n)
	for range n {
		a := Algorithm(r.u16())
		size, ok := sizes[a]
		if !ok || e.Digest(a) != nil {
			r.bad = true
			return e
		}
		e.Digests = append(e.Digests, Digest{a, r.take(uint64(size))}) //nolint:gosec // a size of the header
	}
	e.Data = r.data()
	return e
}

func (r *reader) data() []byte {
	n := r.u32()
	if n > maxEvent {
		r.bad = true
		return nil
	}
	return r.take(uint64(n))
}

func padding(rest []byte) bool {
	for _, c := range rest {
		if c != rest[0] {
			return false
		}
	}
	return rest[0] == 0 && len(rest) >= 8 || rest[0] == 0xff
}

// header reads the specification event that begins a log of the new form
// (section 10.4.5.1).
func header(e Event) ([]Algorithm, map[Algorithm]int, error) {
	bad := fault.Invalidf("the event log begins with an event that is neither measured nor its header")
	r := &reader{rest: e.Data}
	if !bytes.Equal(r.take(16), []byte("Spec ID Event03\x00")) {
		return nil, nil, bad
	}
	r.take(8) // platform class, version, size of a machine word
	n := r.u32()
	if n == 0 || n > maxBanks {
		return nil, nil, bad
	}
	var banks []Algorithm
	sizes := map[Algorithm]int{}
	for range n {
		a, size := Algorithm(r.u16()), int(r.u16())
		if h := a.Hash(); h != 0 && h.Size() != size || size == 0 || size > 64 || sizes[a] != 0 {
			return nil, nil, bad
		}
		banks, sizes[a] = append(banks, a), size
	}
	r.take(uint64(r.u8())) // the vendor's
	if r.bad || len(r.rest) > 0 {
		return nil, nil, bad
	}
	return banks, sizes, nil
}

// Replay gives the values of the registers that events of the log extend, in one
// bank. A log without that bank, or with a start-up event that makes no sense, is
// Invalid.
func (l *Log) Replay(a Algorithm) (map[uint32][]byte, error) {
	h := a.Hash()
	if h == 0 {
		return nil, fault.Invalidf("digests of algorithm %#x cannot be replayed", uint16(a))
	}
	out := map[uint32][]byte{}
	sum := h.New()
	for i, e := range l.Events {
		if e.Type == NoAction {
			if locality, ok := e.startup(); ok {
				if e.Register != 0 || out[0] != nil || locality != 0 && locality != 3 && locality != 4 {
					return nil, fault.Invalidf("event %d names the start-up locality at a wrong place", i)
				}
				out[0] = make([]byte, h.Size())
				out[0][h.Size()-1] = locality
			}
			continue
		}
		d := e.Digest(a)
		if len(d) != h.Size() {
			return nil, fault.Invalidf("the event log has no digests of algorithm %#x", uint16(a))
		}
		if out[e.Register] == nil {
			out[e.Register] = make([]byte, h.Size())
		}
		sum.Reset()
		sum.Write(out[e.Register])
		sum.Write(d)
		out[e.Register] = sum.Sum(out[e.Register][:0])
	}
	return out, nil
}

// startup reads the event that says at which locality the TPM was started, which
// is what register 0 begins with (section 10.4.5.3).
func (e Event) startup() (byte, bool) {
	mark := []byte("StartupLocality\x00")
	if len(e.Data) == len(mark)+1 && bytes.HasPrefix(e.Data, mark) {
		return e.Data[len(mark)], true
	}
	return 0, false
}
