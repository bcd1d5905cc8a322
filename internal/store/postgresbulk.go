package store

import (
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
	bulks  []*pgBulk // in the order of their first row
	byStmt map[*statement]*pgBulk
}

// pgBulk are the rows of one insert, by column.
type pgBulk struct {
	first   *step // for what a miss says
	rows    int64
	columns []any // *[]string, *[]int64 or *[][]byte
	sql     string
}

func newPgPlan(batch []*job) *pgPlan {
	p := &pgPlan{checks: map[check]bool{}, byStmt: map[*statement]*pgBulk{}}
	for _, j := range batch {
		for i := range j.steps {
			p.add(&j.steps[i])
		}
	}
	return p
}

func (p *pgPlan) add(st *step) {
	if c, ok := checkOf(st); ok {
		if p.checks[c] {
			return
		}
		p.checks[c] = true
	} else if st.rows <= 1 && st.stmt.plain {
		p.bulk(st)
		return
	} else {
		clear(p.checks) // what follows may depend on what this one writes
	}
	p.steps = append(p.steps, st)
}

func (p *pgPlan) bulk(st *step) {
	b := p.byStmt[st.stmt]
	if b == nil {
		b = newPgBulk(st)
		p.byStmt[st.stmt] = b
		p.bulks = append(p.bulks, b)
	}
	b.rows++
	for i, a := range st.args {
		switch c := b.columns[i].(type) {
		case *[]string:
			v, _ := a.(string) // seal and plain have checked the types
			*c = append(*c, v)
		case *[]int64:
			v, _ := a.(int64)
			*c = append(*c, v)
		case *[][]byte:
			v, _ := a.([]byte)
			*c = append(*c, v)
		}
	}
}

func newPgBulk(st *step) *pgBulk {
	b := &pgBulk{first: st}
	types := make([]string, len(st.args))
	for i, a := range st.args {
		var column any
		var name string
		switch a.(type) {
		case int64:
			column, name = &[]int64{}, "bigint"
		case []byte:
			column, name = &[][]byte{}, "bytea"
		default:
			column, name = &[]string{}, "text"
		}
		b.columns = append(b.columns, column)
		types[i] = fmt.Sprintf("$%d::%s[]", i+1, name)
	}
	head, _, _ := strings.Cut(st.stmt.sql, " VALUES ")
	b.sql = head + " SELECT * FROM unnest(" + strings.Join(types, ", ") + ")"
	return b
}

func (p *pgPlan) queue(b *pgx.Batch) {
	for _, st := range p.steps {
		b.Queue(st.stmt.sql, st.args...)
	}
	for _, k := range p.bulks {
		b.Queue(k.sql, k.columns...)
	}
}

// check reads the answers in the order of queue.
func (p *pgPlan) check(r pgx.BatchResults) error {
	for _, st := range p.steps {
		if err := checkStep(r, st, st.rows); err != nil {
			return err
		}
	}
	for _, k := range p.bulks {
		if err := checkStep(r, k.first, k.rows); err != nil {
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
