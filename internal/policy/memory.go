package policy

import (
	"encoding/binary"
	"maps"
	"math"
	"slices"
	"sync"
)

// memory keeps answers of one set with all that they depended on: of decisions the
// verb, the kind that was asked for, and every fact that some document can look at
// ([reads]); of resources what the one document that decides can tell apart ([sight]),
// or the token; of appraisals what is said at [appraised]. Documents can call nothing
// else that changes, but time.now_ns; where one does, nothing is kept
// (docs/decisions/0015). A new set begins with an empty memory, so that no answer
// outlives its documents.
//
// Who puts something in, or takes it out, makes a copy. The zero value is empty.
type memory[T any] struct {
	mu    sync.Mutex
	known map[string]T
}

// Bounds of a memory: some MiB.
const (
	mostKnown  = 1024
	longestKey = 4 << 10 // of the facts; larger requests are decided each time
)

func (m *memory[T]) recall(key string) (T, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	x, ok := m.known[key]
	return x, ok
}

func (m *memory[T]) remember(key string, x T) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.known == nil || len(m.known) >= mostKnown {
		m.known = map[string]T{}
	}
	m.known[key] = x
}

// clone shares nothing that could be changed.
func (d Decision) clone() Decision {
	d.Reasons, d.Documents, d.Bounds.MaxParams = slices.Clone(d.Reasons), slices.Clone(d.Documents), maps.Clone(d.Bounds.MaxParams)
	for name, v := range d.Bounds.MaxParams {
		if list, ok := v.([]any); ok {
			d.Bounds.MaxParams[name] = slices.Clone(list) // of strings
		}
	}
	return d
}

// key names what a decision depends on; false if it must not be kept, or if the
// input may be none at all. Two requests have the same key only if no document
// can tell them apart.
func (r *reads) key(verb string, input map[string]any) (string, bool) {
	return r.keyed(input, verb, requestKind(input))
}

// keyed names facts, as far as they are read, of one of the things named first.
func (r *reads) keyed(input map[string]any, names ...string) (string, bool) {
	if r.clock || !decoded(input) {
		return "", false
	}
	b := make([]byte, 0, 512)
	for _, name := range names {
		b = appendText(b, name)
	}
	b, ok := r.append(b, input)
	return string(b), ok && len(b) <= longestKey
}

// append writes what is read of a fact.
func (r *reads) append(b []byte, fact any) ([]byte, bool) {
	object, ok := fact.(map[string]any)
	if !ok || r.all {
		return appendFact(b, fact)
	}
	b = append(b, '.')
	for _, m := range r.members {
		inner, there := object[m.name]
		if !there {
			b = append(b, '-')
			continue
		}
		if b, ok = m.reads.append(append(b, '+'), inner); !ok {
			return b, false
		}
	}
	return b, true
}

// appendFact writes a JSON value so that no two different values, nor two
// different Go types of numbers, have the same bytes; false for any other value,
// and for more than fits a key.
func appendFact(b []byte, fact any) (_ []byte, ok bool) {
	if len(b) > longestKey {
		return b, false
	}
	switch fact := fact.(type) {
	case nil:
		return append(b, 'n'), true
	case bool:
		if fact {
			return append(b, 't'), true
		}
		return append(b, 'f'), true
	case string:
		return appendText(append(b, 's'), fact), true
	case float64:
		return binary.BigEndian.AppendUint64(append(b, 'd'), math.Float64bits(fact)), true
	case int:
		return binary.BigEndian.AppendUint64(append(b, 'i'), uint64(fact)), true //nolint:gosec // the bits count
	case int64:
		return binary.BigEndian.AppendUint64(append(b, 'i'), uint64(fact)), true //nolint:gosec // the bits count
	case []any:
		b = binary.AppendUvarint(append(b, 'l'), uint64(len(fact)))
		for _, v := range fact {
			if b, ok = appendFact(b, v); !ok {
				return b, false
			}
		}
		return b, true
	case map[string]any:
		b = binary.AppendUvarint(append(b, 'm'), uint64(len(fact)))
		for _, name := range slices.Sorted(maps.Keys(fact)) {
			if b, ok = appendFact(appendText(b, name), fact[name]); !ok {
				return b, false
			}
		}
		return b, true
	}
	return b, false
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}
