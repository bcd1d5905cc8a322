package store

import (
	"strings"
	"sync"

	"github.com/sallyport-project/sallyport/internal/subject"
)

// identities keeps the rows that authentication reads with every request, where
// one process alone writes the database (SQLite). An entry is always what the
// last answered commit has made of the row: a batch that changes it takes it out
// after the commit is durable and before anybody is answered, so whoever was
// told of a revocation never meets the old row. With PostgreSQL, where others
// write too, nothing is kept.
//
// The zero value keeps nothing.
type identities struct {
	mu    sync.Mutex
	rows  map[string]any // table/id -> row; nil: keep nothing
	epoch uint64         // grows with each batch that took something out
}

// mostIdentities bounds the memory to some tens of MiB.
const mostIdentities = 1 << 15

// cached are the tables whose rows are kept, and which column of a row they are
// found by.
var cached = map[string]int{"subjects": 0, "certificates": 0, "sessions": 0, "passports": 3}

// keepIdentities switches the memory on.
func (c *identities) keepIdentities() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rows = map[string]any{}
}

// recall gives a row, and the epoch that a row read now must be remembered with.
func recall[T any](c *identities, key string) (row T, found bool, epoch uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	row, found = c.rows[key].(T)
	return row, found, c.epoch
}

// recallCaller gives a session and its subject as of one moment: a batch takes
// out both in one step.
func (c *identities) recallCaller(session string) (subject.Session, subject.Subject, bool, uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	who, a := c.rows["sessions/"+session].(subject.Session)
	whose, b := c.rows["subjects/"+who.Subject].(subject.Subject)
	return who, whose, a && b, c.epoch
}

// remember keeps rows that were read from the database after recall gave the
// epoch, unless something was taken out since: they may be older than that.
func (c *identities) remember(epoch uint64, rows map[string]any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rows == nil || c.epoch != epoch {
		return
	}
	if len(c.rows) >= mostIdentities {
		clear(c.rows)
	}
	for key, row := range rows {
		c.rows[key] = row
	}
}

// forget takes out what a committed batch has changed.
func (c *identities) forget(batch []*job) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rows == nil {
		return
	}
	for _, j := range batch {
		for i := range j.steps {
			c.forgetStep(&j.steps[i])
		}
	}
}

func (c *identities) forgetStep(st *step) {
	if st.stmt.reads {
		return
	}
	table, verb, _ := strings.Cut(st.stmt.name, ".")
	column, ok := cached[table]
	if !ok || verb == "insert" { // nobody has read a row before it is there
		return
	}
	c.epoch++
	name, named := "", false
	if verb == "update" || verb == "delete" && column == 0 {
		name, named = st.args[column].(string)
	}
	if !named {
		clear(c.rows)
		return
	}
	delete(c.rows, table+"/"+name)
}
