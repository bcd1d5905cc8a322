package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"math"
	"slices"
	"strings"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// Names find records: their own ids, their subjects, their grants, and the
// fingerprints of what their grants gave out. An index of the database would touch
// pages of its own in every commit, so names are written for a run of records at
// once, when the run is complete (docs/decisions/0011). What lies behind the last such run is searched row by
// row, which is at most a run and what is pending.
//
// A run has one row for each shard of names: entries of 8 bytes, 6 of them of
// the name's hash and 2 the record's place in the run. An entry is a hint:
// whoever follows it looks whether the record has the name.
const (
	runWidth  = 4096 // records; places fit into 2 bytes
	shards    = 64   // a power of two
	shardBits = 40   // of a row's id below its shard: the run
	entrySize = 8
)

// nameKey is the shard of a name, and what stands for it there.
func nameKey(name string) (shard int64, mark uint64) {
	sum := sha256.Sum256([]byte(name))
	return int64(sum[0] % shards), binary.BigEndian.Uint64(sum[1:]) >> 16 << 16
}

// runRows are the entries of a run, by shard.
type runRows [shards][]byte

func (r *runRows) add(shard int64, mark uint64, place int64) {
	r[shard] = binary.BigEndian.AppendUint64(r[shard], mark|uint64(place)) //nolint:gosec // below runWidth
}

// runs is how many runs have their names written.
func (s *Store) runs(ctx context.Context) (int64, error) {
	return s.number(ctx, "run", "SELECT coalesce(max(id), -1) + 1 FROM ledger_names WHERE id < $1", int64(1)<<shardBits)
}

// nameRuns writes the names of the runs that the head covers and that have none
// yet. All rows of a run are written in one transaction.
func (in *integrator) nameRuns(ctx context.Context, size int64) error {
	for (in.named+1)*runWidth <= size {
		rows, here := in.s.tail.run(in.named)
		if !here {
			var err error
			if rows, err = in.s.namesOf(ctx, in.named); err != nil {
				return err
			}
		}
		steps := []step{in.lease.step()}
		for shard, data := range rows {
			if len(data) > 0 || shard == 0 { // shard 0 counts the runs
				if data == nil {
					data = []byte{}
				}
				steps = append(steps, in.s.do("ledger_names.write", -1, int64(shard)<<shardBits|in.named, data))
			}
		}
		if err := in.s.submit(ctx, in.s.own(steps...)); err != nil {
			return fault.Wrap(err, "write names of records")
		}
		in.named++
	}
	return nil
}

// namesOf reads the names of a run.
func (s *Store) namesOf(ctx context.Context, run int64) (runRows, error) {
	var out runRows
	n, first := 0, run*runWidth
	err := s.query(ctx, "SELECT l.position, l.id, l.subject, l.grant_id, coalesce(g.prints, '') "+
		"FROM ledger l LEFT JOIN grants g ON g.id = l.grant_id "+
		"WHERE l.position >= $1 AND l.position < $2 ORDER BY l.position", []any{first, first + runWidth},
		func(rows foundRow) error {
			var position int64
			var names [3]string
			var prints string
			if err := rows.Scan(&position, &names[0], &names[1], &names[2], &prints); err != nil {
				return err //nolint:wrapcheck // query's
			}
			n++
			for _, name := range append(strings.Split(prints, " "), names[:]...) {
				if name == "" {
					continue
				}
				shard, mark := nameKey(name)
				out.add(shard, mark, position-first)
			}
			return nil
		})
	if err == nil && n != runWidth {
		err = fault.Internalf("the ledger has %d records from position %d on, not %d", n, first, runWidth)
	}
	return out, fault.Wrap(err, "read names of records")
}

// named gives the positions at which a name may stand among the runs, in their
// order, and the first position behind the runs.
func (s *Store) named(ctx context.Context, name string) (positions []int64, rest int64, err error) {
	runs, err := s.runs(ctx)
	if err != nil {
		return nil, 0, fault.Wrap(err, "read names of records")
	}
	shard, mark := nameKey(name)
	err = s.query(ctx, "SELECT id, data FROM ledger_names WHERE id >= $1 AND id < $2 ORDER BY id", []any{shard << shardBits, shard<<shardBits | runs},
		func(rows foundRow) error {
			var row int64
			var data sql.RawBytes
			if err := rows.Scan(&row, &data); err != nil {
				return err //nolint:wrapcheck // query's
			}
			first := (row - shard<<shardBits) * runWidth
			for ; len(data) >= entrySize; data = data[entrySize:] {
				if e := binary.BigEndian.Uint64(data); e>>16<<16 == mark {
					positions = append(positions, first+int64(e&0xffff))
				}
			}
			return nil
		})
	return slices.Compact(positions), runs * runWidth, fault.Wrap(err, "read names of records")
}

// grantsNamed gives the ids of grants in the records of a subject, in place or
// pending, in their order.
func (s *Store) grantsNamed(ctx context.Context, subject string) ([]string, error) {
	positions, rest, err := s.named(ctx, subject)
	if err != nil {
		return nil, err
	}
	var ids []string
	more := func(text string, args ...any) (err error) {
		ids, err = s.addTexts(ctx, ids, text, args)
		return err
	}
	for at := range slices.Chunk(positions, chunk) {
		w := where{}
		among(&w, "position", at)
		w.and("subject = ?", subject)
		clause := w.clause("position", 0)
		if err := more("SELECT grant_id FROM ledger "+clause, w.args...); err != nil {
			return nil, err
		}
	}
	// On SQLite what is pending stands behind the ledger's end. On PostgreSQL it
	// may have its place by now, so that it is looked for first.
	if err := more("SELECT grant_id FROM pending WHERE subject = $1", subject); err != nil {
		return nil, err
	}
	if err := more("SELECT grant_id FROM ledger WHERE position >= $1 AND subject = $2", rest, subject); err != nil {
		return nil, err
	}
	slices.Sort(ids)
	return slices.DeleteFunc(slices.Compact(ids), func(id string) bool { return id == "" }), nil
}

// grantsFingerprinted gives the ids of grants that may have one of the
// fingerprints, in their order: whoever reads them looks.
func (s *Store) grantsFingerprinted(ctx context.Context, fingerprints []string) ([]string, error) {
	var positions []int64
	rest := int64(math.MaxInt64)
	for _, fp := range fingerprints {
		at, behind, err := s.named(ctx, fp)
		if err != nil {
			return nil, err
		}
		positions, rest = append(positions, at...), min(rest, behind)
	}
	var ids []string
	more := func(text string, w where) (err error) {
		ids, err = s.addTexts(ctx, ids, text+strings.Join(w.parts, " AND "), w.args)
		return err
	}
	for at := range slices.Chunk(positions, chunk) {
		w := where{}
		among(&w, "position", at)
		if err := more("SELECT grant_id FROM ledger WHERE ", w); err != nil {
			return nil, err
		}
	}
	// Behind the runs each grant is looked at. What is pending first, as in
	// grantsNamed; the order of the join matters to SQLite.
	behind, pending := where{}, where{}
	behind.and("l.position >= ?", rest)
	for _, w := range []*where{&pending, &behind} {
		has := make([]string, len(fingerprints))
		for i, fp := range fingerprints {
			has[i] = "replace(g.prints, " + w.next(fp) + ", '') <> g.prints"
		}
		w.parts = append(w.parts, "("+strings.Join(has, " OR ")+")")
	}
	if err := more("SELECT g.id FROM pending l CROSS JOIN grants g WHERE g.id = l.grant_id AND ", pending); err != nil {
		return nil, err
	}
	if err := more("SELECT g.id FROM ledger l CROSS JOIN grants g WHERE g.id = l.grant_id AND ", behind); err != nil {
		return nil, err
	}
	slices.Sort(ids)
	return slices.DeleteFunc(slices.Compact(ids), func(id string) bool { return id == "" }), nil
}

// addTexts adds what a query of one text column finds.
func (s *Store) addTexts(ctx context.Context, list []string, text string, args []any) ([]string, error) {
	err := s.query(ctx, text, args, func(row foundRow) error {
		var found string
		err := row.Scan(&found)
		list = append(list, found)
		return err //nolint:wrapcheck // query's
	})
	return list, err
}

// chunk is how many rows one query names, so that few forms of it exist.
const chunk = 64

// among is the condition that a column is one of at most chunk values; too few are
// filled up with the last.
func among[T any](w *where, column string, values []T) {
	marks := make([]string, chunk)
	for i := range marks {
		marks[i] = w.next(values[min(i, len(values)-1)])
	}
	w.parts = append(w.parts, column+" IN ("+strings.Join(marks, ", ")+")")
}
