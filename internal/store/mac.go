package store

import (
	"context"
	"log/slog"
	"strings"
	"unicode/utf8"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// seal checks the types of a whole row and appends its MAC.
func (s *Store) seal(t *table, columns []any) ([]any, error) {
	row := make([]any, len(columns), len(columns)+1)
	for i, c := range columns {
		good := false
		switch v := c.(type) {
		case string:
			if !storable(v) {
				return nil, fault.Invalidf("a text must be UTF-8 without zero bytes")
			}
			good = t.columns[i].kind == text
		case int64:
			good = t.columns[i].kind == number
		case []byte:
			if good = t.columns[i].kind == blob; v == nil {
				c = []byte{} // nothing is stored as NULL
			}
		}
		if !good {
			return nil, fault.Internalf("column %s of %s cannot be a %T", t.columns[i].name, t.name, c)
		}
		row[i] = c
	}
	if !t.mac {
		return row, nil
	}
	m := s.mac.Load()
	if m == nil {
		return nil, fault.Unavailablef("the row-MAC key is not open yet")
	}
	mac := (*m).Sum(t.name, row)
	if len(mac) == 0 {
		return nil, fault.Internalf("no MAC for a row of %s", t.name)
	}
	return append(row, mac), nil
}

// storable reports whether both engines keep a text as it is.
func storable(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }

// raw is one stored row before it is believed.
type raw struct {
	texts   []string
	numbers []int64
	blobs   [][]byte
	dest    []any
	values  []any
}

// newRaw makes room for a row of the table.
func newRaw(t *table) *raw {
	n := t.width()
	r := &raw{
		texts: make([]string, n), numbers: make([]int64, n), blobs: make([][]byte, n),
		dest: make([]any, n), values: make([]any, len(t.columns)),
	}
	for i := range n {
		k := blob
		if i < len(t.columns) {
			k = t.columns[i].kind
		}
		switch k {
		case text:
			r.dest[i] = &r.texts[i]
		case number:
			r.dest[i] = &r.numbers[i]
		default:
			r.dest[i] = &r.blobs[i]
		}
	}
	return r
}

// believe checks the MAC of a scanned row and fills the value from it. A row
// that does not match is never served: the fault names table and id, and the
// operator's log does too.
func (s *Store) believe(ctx context.Context, t *table, r *raw, row scanned) error {
	for i, c := range t.columns {
		switch c.kind {
		case text:
			r.values[i] = r.texts[i]
		case number:
			r.values[i] = r.numbers[i]
		default:
			if r.blobs[i] == nil {
				r.blobs[i] = []byte{}
			}
			r.values[i] = r.blobs[i]
		}
	}
	if err := s.genuine(t, r); err != nil {
		if fault.Is(err, fault.Unavailable) {
			return err
		}
		s.reportDamage(ctx, t.name, r.texts[0], err)
		return fault.Internalf("row %.128q of %s is damaged", r.texts[0], t.name).Because(err)
	}
	return fault.Wrap(row.Scan(r.scan), "read row of %s", t.name)
}

// mostDamaged bounds the memory of what was reported already.
const mostDamaged = 1 << 16

// reportDamage counts and logs a damaged row once for as long as the store is
// open, however often it is met.
func (s *Store) reportDamage(ctx context.Context, table, row string, err error) {
	s.damageMu.Lock()
	known := s.damage[table+"/"+row]
	if !known && len(s.damage) < mostDamaged {
		s.damage[table+"/"+row] = true
	}
	s.damageMu.Unlock()
	if known {
		return
	}
	s.broken.Add(1)
	s.log.LogAttrs(ctx, slog.LevelError, "a stored row is damaged and is not served",
		slog.String("table", table), slog.String("row", row), slog.Any("err", err))
}

func (s *Store) genuine(t *table, r *raw) error {
	if !t.mac {
		return nil
	}
	m := s.mac.Load()
	if m == nil {
		if t.name == "keys" {
			return nil // the MAC's own key is among them; the KEK authenticates what is needed to open it
		}
		return fault.Unavailablef("the row-MAC key is not open yet")
	}
	return (*m).Check(t.name, r.values, r.blobs[len(t.columns)])
}

// scan is the unit.Scanner over a believed row.
func (r *raw) scan(dest ...any) error {
	if len(dest) != len(r.values) {
		return fault.Internalf("a row has %d columns, not %d", len(r.values), len(dest))
	}
	for i, d := range dest {
		good := false
		switch d := d.(type) {
		case *string:
			if v, ok := r.values[i].(string); ok {
				*d, good = v, true
			}
		case *int64:
			if v, ok := r.values[i].(int64); ok {
				*d, good = v, true
			}
		case *[]byte:
			if v, ok := r.values[i].([]byte); ok {
				if len(v) == 0 {
					v = nil
				}
				*d, good = v, true
			}
		}
		if !good {
			return fault.Internalf("column %d of a row cannot be read into a %T", i+1, d)
		}
	}
	return nil
}

// scanned is a pointer to a row's value.
type scanned interface {
	Scan(unit.Scanner) error
}
