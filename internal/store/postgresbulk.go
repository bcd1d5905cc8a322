package store

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// pgPlan is what a batch sends when it runs as one transaction: as on SQLite the
// rows of one statement go in together, behind all other steps, and a check that
// is asked for several times is made once. A step that misses makes the batch run
// again, each job in order and by itself.
type pgPlan struct {
	steps  []*step // sent one by one
	checks map[check]bool
	tables []*pgRows // in the order of their first row; records last
	byStmt map[*statement]*pgRows
}

// pgRows are the rows for one table, as COPY takes them in its binary format.
type pgRows struct {
	into string // the table and its columns
	rows int64
	data []byte
}

// rowGuess is about how many bytes a grant or a record takes.
const rowGuess = 1 << 10

func newPgPlan(batch []*job) *pgPlan {
	p := &pgPlan{checks: map[check]bool{}, byStmt: map[*statement]*pgRows{}}
	records := newPgRows(pendingInto, len(batch))
	for _, j := range batch {
		for i := range j.steps {
			p.add(&j.steps[i], len(batch))
		}
		if r := j.record; r != nil {
			records.add(r.id, r.subject, r.kind, r.grant, r.at, r.leaf)
		}
	}
	if records.rows > 0 {
		p.tables = append(p.tables, records)
	}
	return p
}

func (p *pgPlan) add(st *step, jobs int) {
	if c, ok := checkOf(st); ok {
		if p.checks[c] {
			return
		}
		p.checks[c] = true
	} else if st.rows <= 1 && st.stmt.plain {
		t := p.byStmt[st.stmt]
		if t == nil {
			head, _, _ := strings.Cut(st.stmt.sql, " VALUES ")
			t = newPgRows(strings.TrimPrefix(head, "INSERT INTO "), jobs)
			p.byStmt[st.stmt] = t
			p.tables = append(p.tables, t)
		}
		t.add(st.args...)
		return
	} else {
		clear(p.checks) // what follows may depend on what this one writes
	}
	p.steps = append(p.steps, st)
}

// newPgRows begins with the signature, no flags and no extension.
func newPgRows(into string, rows int) *pgRows {
	const head = "PGCOPY\n\xff\r\n\x00" + "\x00\x00\x00\x00" + "\x00\x00\x00\x00"
	return &pgRows{into: into, data: append(make([]byte, 0, rows*rowGuess), head...)}
}

// add appends one row: the number of columns, and each with its length ahead. seal
// and plain have checked the types.
func (t *pgRows) add(columns ...any) {
	t.rows++
	b := binary.BigEndian.AppendUint16(t.data, uint16(len(columns))) //nolint:gosec // a table has few
	for _, column := range columns {
		switch v := column.(type) {
		case string:
			b = append(binary.BigEndian.AppendUint32(b, uint32(len(v))), v...) //nolint:gosec // no value is that long
		case []byte:
			b = append(binary.BigEndian.AppendUint32(b, uint32(len(v))), v...) //nolint:gosec // no value is that long
		case int64:
			b = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(b, 8), uint64(v)) //nolint:gosec // two's complement
		}
	}
	t.data = b
}

// end is the data with its trailer.
func (t *pgRows) end() []byte { return append(t.data, 0xff, 0xff) }

func (p *pgPlan) queue(b *pgx.Batch) {
	for _, st := range p.steps {
		b.Queue(st.stmt.sql, st.args...)
	}
}

// check reads the answers in the order of queue.
func (p *pgPlan) check(r pgx.BatchResults) error {
	for _, st := range p.steps {
		if err := checkStep(r, st, st.rows); err != nil {
			return err
		}
	}
	return nil
}

// checkStep reads the answer to one statement.
func checkStep(r pgx.BatchResults, st *step, rows int64) error {
	tag, err := r.Exec()
	switch {
	case sqlState(err) == stateUnique:
		return st.miss().Because(err)
	case err != nil:
		return fmt.Errorf("run %s: %w", st.stmt.name, err)
	case rows >= 0 && tag.RowsAffected() != rows:
		return st.miss()
	}
	return nil
}
