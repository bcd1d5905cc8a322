package keys

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"sync"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// MACLength is how long a row's MAC is: the id of the key and HMAC-SHA-256.
const MACLength = idLength + sha256.Size

// MAC guards rows of the store against change behind our back: HMAC-SHA-256
// over table, id, version and all other columns. It does not tell an old copy
// of a whole row from the row; versions and the ledger do. Safe for concurrent
// use.
type MAC struct {
	newest string
	pools  map[string]*sync.Pool // of *macState, by key id
}

// macState is what one computation needs, kept between uses so that a row costs
// one allocation.
type macState struct {
	hmac  hash.Hash
	input []byte
	sum   [sha256.Size]byte
}

// NewMAC opens the row-MAC keys of a ring; the signing key writes, all check.
func NewMAC(ctx context.Context, v *Vault, r *Ring) (*MAC, error) {
	now := v.now()
	newest, err := r.Signing(now)
	if err != nil {
		return nil, err
	}
	m := &MAC{newest: newest.ID, pools: map[string]*sync.Pool{}}
	for _, k := range r.Verifying(now) {
		if k.Purpose != RowMAC {
			return nil, fault.Internalf("key %s is a %s key, not for MACs", k.ID, k.Purpose)
		}
		material, err := v.Reveal(ctx, k)
		if err != nil {
			return nil, err
		}
		if material.Len() != 32 {
			return nil, fault.Internalf("row-MAC key %s has %d bytes, not 32", k.ID, material.Len())
		}
		m.pools[k.ID] = &sync.Pool{New: func() any {
			return &macState{hmac: hmac.New(sha256.New, material.Reveal()), input: make([]byte, 0, 512)}
		}}
	}
	return m, nil
}

// Sum is the MAC of a row, to be stored beside it. Columns are those of
// unit.Row: id, version, and the others in order; each is a string, int64,
// []byte or nil. A column of any other type gives nil, which no table takes and
// Check refuses.
func (m *MAC) Sum(table string, columns []any) []byte {
	pool := m.pools[m.newest]
	s, ok := pool.Get().(*macState)
	if !ok || !s.compute(table, columns) {
		return nil
	}
	mac := make([]byte, 0, MACLength)
	mac = append(append(mac, m.newest...), s.sum[:]...)
	pool.Put(s)
	return mac
}

// Check compares a row with its MAC in constant time. Anything but a match is a
// fault of kind Internal that names table and row to the operator.
func (m *MAC) Check(table string, columns []any, mac []byte) error {
	if len(mac) != MACLength {
		return fault.Internalf("row %s of %s has a MAC of %d bytes, not %d: it was written or changed by someone else", rowName(columns), table, len(mac), MACLength)
	}
	pool, ok := m.pools[string(mac[:idLength])]
	if !ok {
		return fault.Internalf("row %s of %s has a MAC under a key that this store does not have: it was changed, or belongs to another store", rowName(columns), table)
	}
	s, ok := pool.Get().(*macState)
	good := ok && s.compute(table, columns) && hmac.Equal(s.sum[:], mac[idLength:])
	if ok {
		pool.Put(s)
	}
	if !good {
		return fault.Internalf("row %s of %s does not match its MAC: it was changed outside of Sallyport or damaged; restore it from a backup", rowName(columns), table)
	}
	return nil
}

// The tags of the encoding. Every variable part has its length before it, so
// two different rows never have the same input.
const (
	tagNil    = 0
	tagInt    = 1
	tagString = 2
	tagBytes  = 3
)

const macDomain = "sallyport/keys/row/v1"

func (s *macState) compute(table string, columns []any) bool {
	b := append(s.input[:0], macDomain...)
	b = appendTagged(b, tagString, table)
	b = binary.BigEndian.AppendUint32(b, uint32(len(columns))) //nolint:gosec // a row has a few dozen columns
	for _, c := range columns {
		switch c := c.(type) {
		case nil:
			b = append(b, tagNil)
		case int64:
			b = binary.BigEndian.AppendUint64(append(b, tagInt), uint64(c)) //nolint:gosec // the bits are authenticated
		case string:
			b = appendTagged(b, tagString, c)
		case []byte:
			b = appendTagged(b, tagBytes, c)
		default:
			return false
		}
	}
	s.hmac.Reset()
	s.hmac.Write(b)
	s.hmac.Sum(s.sum[:0])
	if cap(b) <= 64<<10 { // a rare large row must not stay in the pool
		s.input = b
	}
	return true
}

func appendTagged[T string | []byte](b []byte, tag byte, v T) []byte {
	b = binary.BigEndian.AppendUint64(append(b, tag), uint64(len(v)))
	return append(b, v...)
}

// rowName is the id column for a message.
func rowName(columns []any) string {
	if len(columns) > 0 {
		if s, ok := columns[0].(string); ok {
			if len(s) > 128 {
				s = s[:128]
			}
			return s
		}
	}
	return "(without id)"
}
