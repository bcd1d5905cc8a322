package store

import (
	"bytes"
	"context"
	"log/slog"
	"slices"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
)

var (
	_ audit.Tiles  = (*Store)(nil)
	_ audit.Source = (*Store)(nil)
)

// headRow is the committed end of the ledger.
type headRow struct {
	size, epoch int64
	root        audit.Hash
	note        string
}

func (s *Store) headRow(ctx context.Context) (headRow, error) {
	var h headRow
	var root string
	err := s.query(ctx, "SELECT size, epoch, root, note FROM heads WHERE name = 'ledger'", nil, func(rows foundRow) error {
		return rows.Scan(&h.size, &h.epoch, &root, &h.note)
	})
	if err != nil {
		return h, fault.Wrap(err, "read head")
	}
	if err := h.root.UnmarshalText([]byte(root)); err != nil || h.size < 0 || h.epoch < 1 {
		return h, fault.Internalf("the head of the ledger is damaged").Because(err)
	}
	return h, nil
}

// Head is the latest signed checkpoint. NotFound until the first record has
// its place; Unavailable before [Store.UseSigner]; Internal if the stored note
// is not a checkpoint of ours for the stored tree.
func (s *Store) Head(ctx context.Context) (audit.Checkpoint, error) {
	h, err := s.headRow(ctx)
	if err != nil {
		return audit.Checkpoint{}, err
	}
	return s.checkpoint(h)
}

func (s *Store) checkpoint(h headRow) (audit.Checkpoint, error) {
	l := s.ledger.Load()
	if l == nil {
		return audit.Checkpoint{}, fault.Unavailablef("the ledger's key is not open yet")
	}
	if h.note == "" && h.size == 0 {
		return audit.Checkpoint{}, fault.NotFoundf("the ledger has no checkpoint yet")
	}
	c, err := audit.ParseCheckpoint(h.note, l.keys)
	if err != nil {
		return c, fault.Internalf("the head of the ledger is not signed by its key").Because(err)
	}
	if c.Size != uint64(h.size) || c.Root != h.root { //nolint:gosec // not negative
		return c, fault.Internalf("the head of the ledger is damaged: its note is for another tree")
	}
	return c, nil
}

// Tile reads a stored tile, as audit.Tiles demands.
func (s *Store) Tile(ctx context.Context, level int, index uint64) ([]byte, error) {
	var data []byte
	err := s.query(ctx, "SELECT data FROM tiles WHERE level = $1 AND idx = $2", []any{level, int64(index)}, func(rows foundRow) error { //nolint:gosec // below 2^53
		return rows.Scan(&data)
	})
	if err == nil && data == nil {
		err = fault.NotFoundf("the ledger has no tile %d of level %d", index, level)
	}
	return data, err
}

// Leaves reads exactly n leaves from a position on, as they are stored and
// without a judgement: for exports, whose verification judges.
func (s *Store) Leaves(ctx context.Context, from uint64, n int) ([][]byte, error) {
	list := make([][]byte, 0, n)
	err := s.query(ctx, "SELECT leaf FROM ledger WHERE position >= $1 AND position < $2 ORDER BY position",
		[]any{int64(from), int64(from) + int64(n)}, func(rows foundRow) error { //nolint:gosec // below 2^53
			var leaf []byte
			err := rows.Scan(&leaf)
			list = append(list, leaf)
			return err //nolint:wrapcheck // query's
		})
	if err == nil && len(list) != n {
		err = fault.NotFoundf("the ledger has only %d of the %d records from position %d on", len(list), n, from)
	}
	return list, err
}

// covered admits the records that the committed head covers.
const covered = "l.position < (SELECT size FROM heads WHERE name = 'ledger')"

// Records lists records in their order, or the newest first. A record whose
// bytes are not what the tree has at its place is not served: the fault is
// Internal and names the position.
func (s *Store) Records(ctx context.Context, f audit.Filter) ([]audit.Entry, error) {
	if f.Subject != "" || f.Grant != "" {
		return s.recordsNamed(ctx, f)
	}
	w, order := recordsWhere(f)
	clause := w.clause(order, f.Limit)
	return s.entries(ctx, clause, w.args...)
}

// recordsWhere is the condition of a filter, and the order.
func recordsWhere(f audit.Filter) (where, string) {
	w, order := where{}, "l.position"
	first := int64(f.From) //nolint:gosec // below 2^53
	switch {
	case f.Newest && f.From > 0:
		w.and("l.position < ?", first)
	case !f.Newest:
		w.and("l.position >= ?", first)
	}
	if f.Newest {
		order = "l.position DESC"
	}
	if n := len(f.Type); n > 0 && f.Type[n-1] == '.' {
		w.and("l.type >= ?", f.Type)
		w.and("l.type < ?", f.Type[:n-1]+"/") // the byte after the dot
	} else if n > 0 {
		w.and("l.type = ?", f.Type)
	}
	if f.Subject != "" {
		w.and("l.subject = ?", f.Subject)
	}
	if f.Grant != "" {
		w.and("l.grant_id = ?", f.Grant)
	}
	w.parts = append(w.parts, covered)
	return w, order
}

// recordsNamed lists the records of a subject or of a grant: those that the
// names of runs point at, and those behind the runs.
func (s *Store) recordsNamed(ctx context.Context, f audit.Filter) ([]audit.Entry, error) {
	name := f.Grant
	if name == "" {
		name = f.Subject
	}
	positions, rest, err := s.named(ctx, name)
	if err != nil {
		return nil, err
	}
	at, _ := slices.BinarySearch(positions, int64(f.From)) //nolint:gosec // below 2^53
	switch {
	case !f.Newest:
		positions = positions[at:]
	case f.From > 0:
		positions = positions[:at]
	}
	if f.Newest {
		slices.Reverse(positions)
	}
	var list []audit.Entry
	most := int(page(f.Limit))
	more := func(restrict func(*where)) error {
		w, order := recordsWhere(f)
		restrict(&w)
		clause := w.clause(order, most-len(list))
		found, err := s.entries(ctx, clause, w.args...)
		list = append(list, found...)
		return err
	}
	behind := func() error { return more(func(w *where) { w.and("l.position >= ?", rest) }) }
	if f.Newest {
		err = behind()
	}
	for at := range slices.Chunk(positions, chunk) {
		if err != nil || len(list) >= most {
			return list, err
		}
		err = more(func(w *where) { among(w, "l.position", at) })
	}
	if !f.Newest && err == nil && len(list) < most {
		err = behind()
	}
	return list, err
}

// RecordByID reads a record by its id; NotFound until it has its place.
func (s *Store) RecordByID(ctx context.Context, id string) (audit.Entry, error) {
	positions, rest, err := s.named(ctx, id)
	if err != nil {
		return audit.Entry{}, err
	}
	look := func(restrict func(*where)) ([]audit.Entry, error) {
		w := where{}
		restrict(&w)
		w.and("l.id = ?", id)
		w.parts = append(w.parts, covered)
		clause := w.clause("l.position", 1)
		return s.entries(ctx, clause, w.args...)
	}
	for at := range slices.Chunk(positions, chunk) {
		list, err := look(func(w *where) { among(w, "l.position", at) })
		if err != nil || len(list) > 0 {
			return only(list), err
		}
	}
	list, err := look(func(w *where) { w.and("l.position >= ?", rest) })
	if err != nil || len(list) > 0 {
		return only(list), err
	}
	return audit.Entry{}, fault.NotFoundf("the ledger has no such record, or not yet")
}

// only is the one entry of a list, or none.
func only(list []audit.Entry) (e audit.Entry) {
	if len(list) > 0 {
		e = list[0]
	}
	return e
}

func (s *Store) entries(ctx context.Context, clause string, args ...any) ([]audit.Entry, error) {
	var list []audit.Entry
	err := s.query(ctx, "SELECT l.position, l.leaf FROM ledger l "+clause, args, func(rows foundRow) error {
		var e audit.Entry
		err := rows.Scan(&e.Position, &e.Leaf)
		list = append(list, e)
		return err //nolint:wrapcheck // query's
	})
	if err != nil {
		return nil, err
	}
	var tile []byte
	have := ^uint64(0)
	for _, e := range list {
		if at := e.Position / audit.TileWidth; at != have {
			if tile, err = s.Tile(ctx, 0, at); err != nil {
				return nil, fault.Wrap(err, "check record %d", e.Position)
			}
			have = at
		}
		k := int(e.Position%audit.TileWidth) * audit.HashSize
		hash := audit.HashLeaf(e.Leaf)
		if k+audit.HashSize > len(tile) || !bytes.Equal(tile[k:k+audit.HashSize], hash[:]) {
			s.broken.Add(1)
			s.log.ErrorContext(ctx, "a record of the ledger is damaged and is not served", slog.Any("position", e.Position))
			return nil, fault.Internalf("record %d of the ledger is damaged", e.Position)
		}
	}
	return list, nil
}

// PendingCount is how many records are committed and have no place yet.
func (s *Store) PendingCount(ctx context.Context) (int64, error) {
	return s.number(ctx, "table", "SELECT count(*) FROM pending")
}
