package evidence

import (
	"maps"
	"slices"
	"time"
)

// Endorsement is reference material in the sense of RFC 9334: what the maker of
// a device says about it. A certificate of a chip, a revocation list, the state
// of a platform's firmware.
//
// Nothing is believed because it is here: a verifier checks the signature and
// the dates of each endorsement whenever it uses it.
type Endorsement struct {
	Kind string // of the verifier that understands it: snp-vcek
	Key  string // what it is about, in the form of its kind
	Data []byte // exactly as the maker signed it
	// NotBefore and NotAfter are when the maker's word begins and ends; zero if it
	// does not say.
	NotBefore, NotAfter time.Time
}

// Want names an endorsement that somebody looks for.
type Want struct{ Kind, Key string }

// Endorsements are where a verifier finds reference material. Find is nil if
// there is none; the result is not changed. Safe for concurrent use.
type Endorsements interface {
	Find(kind, key string) []byte
}

// Shelf is reference material in memory. It is filled first and then only read.
// A nil Shelf is empty.
type Shelf map[string]map[string]Endorsement

var _ Endorsements = Shelf(nil)

// Put adds an endorsement in place of an older one about the same thing.
func (s Shelf) Put(e Endorsement) {
	if s[e.Kind] == nil {
		s[e.Kind] = map[string]Endorsement{}
	}
	s[e.Kind][e.Key] = e
}

// Find implements Endorsements.
func (s Shelf) Find(kind, key string) []byte { return s[kind][key].Data }

// Of lists the endorsements of one kind, ordered by key.
func (s Shelf) Of(kind string) []Endorsement {
	var out []Endorsement
	for _, key := range slices.Sorted(maps.Keys(s[kind])) {
		out = append(out, s[kind][key])
	}
	return out
}

// Clone is a shelf of its own with the same endorsements.
func (s Shelf) Clone() Shelf {
	out := make(Shelf, len(s))
	for kind, all := range s {
		out[kind] = maps.Clone(all)
	}
	return out
}

// All lists what is on the shelf, ordered by kind and key.
func (s Shelf) All() []Endorsement {
	var out []Endorsement
	for _, kind := range slices.Sorted(maps.Keys(s)) {
		out = append(out, s.Of(kind)...)
	}
	return out
}
