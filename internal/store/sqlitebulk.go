package store

import (
	"fmt"
	"regexp"
	"strings"
)

// bulk runs the steps of a whole batch with less work than one by one, when no
// job of the batch fails. It keeps what must be true: a step that misses makes
// the batch run again, each job in order and by itself (docs/decisions/0002).
//
//   - Inserts of one statement go in several rows at a time, behind all other
//     steps. A step that needs a row which the same batch inserts would miss, and
//     does not exist: nobody knows of a row before its unit is answered.
//   - A check that held is not made again until something is written to its table.
type bulk struct {
	texts   map[*statement]*bulkTexts
	pending []*statement // in the order of their first row
	rows    map[*statement][]any
	checked map[check]bool
}

// bulkTexts are the forms of an insert for recordChunks; width 0 means that the
// statement cannot take several rows.
type bulkTexts struct {
	width int
	sql   [len(recordChunks)]string
}

// check is a step that demands a row of a name and version.
type check struct {
	stmt    *statement
	name    string
	version int64
}

func checkOf(st *step) (c check, ok bool) {
	if !st.stmt.reads || st.rows != 1 || len(st.args) != 2 {
		return check{}, false
	}
	name, named := st.args[0].(string)
	version, versioned := st.args[1].(int64)
	return check{st.stmt, name, version}, named && versioned
}

func newBulk() *bulk {
	return &bulk{texts: map[*statement]*bulkTexts{}, rows: map[*statement][]any{}, checked: map[check]bool{}}
}

// plainInsert is an insert of one row of values and nothing else.
var plainInsert = regexp.MustCompile(`^INSERT INTO \w+ \([^()]*\) VALUES \([$?0-9, ]*\)$`)

func (b *bulk) forms(s *statement) *bulkTexts {
	if t := b.texts[s]; t != nil {
		return t
	}
	t := &bulkTexts{}
	if s.plain {
		t.width = strings.Count(s.sql[strings.Index(s.sql, " VALUES "):], ",") + 1
		// Who misses is rolled back with the whole batch, so that SQLite need not be
		// able to undo the one statement: OR FAIL spares it a journal of its own.
		head := "INSERT OR FAIL" + strings.TrimPrefix(s.sql[:strings.Index(s.sql, " VALUES ")], "INSERT")
		group := "(" + strings.TrimSuffix(strings.Repeat("?, ", t.width), ", ") + ")"
		for i, n := range recordChunks {
			t.sql[i] = head + " VALUES " + strings.TrimSuffix(strings.Repeat(group+", ", n), ", ")
		}
	}
	b.texts[s] = t
	return t
}

// reset forgets the last batch.
func (b *bulk) reset() {
	b.drop()
	clear(b.checked)
}

// drop forgets what was taken over.
func (b *bulk) drop() {
	for _, s := range b.pending {
		clear(b.rows[s])
		b.rows[s] = b.rows[s][:0]
	}
	b.pending = b.pending[:0]
}

// step takes a step over, if it can, so that it need not be run now.
func (b *bulk) step(st *step) bool {
	if st.stmt.reads {
		c, ok := checkOf(st)
		return ok && b.checked[c]
	}
	b.written(st.stmt)
	if t := b.forms(st.stmt); t.width == 0 || t.width != len(st.args) || st.rows > 1 {
		return false
	}
	if len(b.rows[st.stmt]) == 0 {
		b.pending = append(b.pending, st.stmt)
	}
	b.rows[st.stmt] = append(b.rows[st.stmt], st.args...)
	return true
}

// held remembers a check that was made.
func (b *bulk) held(st *step) {
	if c, ok := checkOf(st); ok {
		b.checked[c] = true
	}
}

// written forgets the checks of a table that is written to.
func (b *bulk) written(s *statement) {
	table, _, _ := strings.Cut(s.name, ".")
	for c := range b.checked {
		if strings.HasPrefix(c.stmt.name, table+".") {
			delete(b.checked, c)
		}
	}
}

// flush inserts what was taken over.
func (b *bulk) flush(w *connection) error {
	defer b.drop()
	for _, s := range b.pending {
		t, args := b.texts[s], b.rows[s]
		for k, n := range recordChunks {
			for len(args) >= n*t.width {
				got, err := w.run(t.sql[k], args[:n*t.width])
				if err != nil {
					return fmt.Errorf("run %s: %w", s.name, err)
				}
				if got != int64(n) {
					return fmt.Errorf("run %s: %d rows instead of %d", s.name, got, n)
				}
				args = args[n*t.width:]
			}
		}
	}
	return nil
}
