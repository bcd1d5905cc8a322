package store

import (
	"strings"
	"sync"

	"github.com/sallyport-project/sallyport/internal/subject"
)

// identities keeps the rows that authentication reads with every request, where
// one process alone writes the database (SQLite). A batch that changes rows takes
// them out before it can be seen, and nothing is remembered until it is there or
// has failed: nobody ever meets an old row beside a new one, and whoever was
// told of a revocation never meets the old row. With PostgreSQL, where others
// write too, nothing is kept.
//
// The zero value keeps nothing.
type identities struct {
	mu    sync.Mutex
	rows  map[string]any // table/name -> row; nil: keep nothing
	epoch uint64         // grows with each batch that changes what may be kept
	busy  bool           // such a batch commits at this moment
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
	if c.rows == nil || c.busy || c.epoch != epoch {
		return
	}
	if len(c.rows) >= mostIdentities {
		clear(c.rows)
	}
	for key, row := range rows {
		c.rows[key] = row
	}
}

// forget takes out what a batch is about to change, and keeps everybody from
// remembering anything until [identities.changed].
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

// changed says that the batch is committed, or is not: what was read while
// nobody knew may be either.
func (c *identities) changed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.busy {
		c.busy = false
		c.epoch++
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
	c.busy = true
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
