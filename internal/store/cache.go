package store

import (
	"strconv"
	"strings"
	"sync"

	"github.com/sallyport-project/sallyport/internal/resource"
	"github.com/sallyport-project/sallyport/internal/subject"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// identities keeps the rows that are read with every request, where one process
// alone writes the database (SQLite): those by which callers are recognised, and
// small resources. A batch that changes rows takes them out before it can be seen,
// and puts them back as they are when it is committed; nothing else is remembered
// until it is there or has failed: nobody ever meets an old row beside a new one,
// and whoever was told of a revocation never meets the old row. With PostgreSQL,
// where others write too, nothing is kept.
//
// The zero value keeps nothing.
type identities struct {
	mu     sync.Mutex
	keeps  bool
	young  map[string]kept // what was met since old was put aside
	old    map[string]kept
	weight int    // of young, in bytes
	epoch  uint64 // grows with each batch that changes what may be kept
	busy   bool   // such a batch commits at this moment
}

// kept is a row in memory.
type kept struct {
	row    any
	weight int
}

// Bounds of the memory: of the young rows, after which they are the old ones, and
// of a single row.
const (
	mostYoung  = 8 << 20
	heaviest   = 16 << 10
	baseWeight = 512 // of a row beside its largest value
)

// keepable is what is known of a table whose rows are kept.
type keepable struct {
	columns []int // by which its rows are found; none of them ever changes
	weigh   func(row any) int
	read    func(unit.Scanner) (any, error)
}

// cached are the tables whose rows are kept.
var cached = map[string]keepable{
	"subjects":     {[]int{0}, weightless, readInto[subject.Subject]},
	"certificates": {[]int{0}, weightless, readInto[subject.Certificate]},
	"sessions":     {[]int{0}, weightless, readInto[subject.Session]},
	"passports":    {[]int{0, 3}, func(row any) int { return len(row.(subject.Passport).Token) }, readInto[subject.Passport]}, //nolint:forcetypeassert // the table's
	"resources":    {[]int{0}, func(row any) int { return len(row.(resource.Resource).Sealed) }, readInto[resource.Resource]}, //nolint:forcetypeassert // the table's
}

func weightless(any) int { return 0 }

func readInto[T any, P rowOf[T]](scan unit.Scanner) (any, error) {
	var v T
	err := P(&v).Scan(scan)
	return v, err
}

// nameIn is the name of a row in memory, by one of its columns.
func nameIn(table string, column int, value string) string {
	return table + strconv.Itoa(column) + value
}

// keepIdentities switches the memory on.
func (c *identities) keepIdentities() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keeps, c.young = true, map[string]kept{}
}

// recall gives a row, and the epoch that a row read now must be remembered with.
func recall[T any](c *identities, table string, column int, value string) (row T, found bool, epoch uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	row, found = c.get(nameIn(table, column, value)).(T)
	return row, found, c.epoch
}

// recallPair gives a row and its subject as of one moment: a batch takes out both
// in one step.
func recallPair[T any](c *identities, table, id string, of func(T) string) (T, subject.Subject, bool, uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	row, a := c.get(nameIn(table, 0, id)).(T)
	whose, b := c.get(nameIn("subjects", 0, of(row))).(subject.Subject)
	return row, whose, a && b, c.epoch
}

// get finds a row; an old one is young again.
func (c *identities) get(name string) any {
	if k, ok := c.young[name]; ok {
		return k.row
	}
	k, ok := c.old[name]
	if !ok {
		return nil
	}
	delete(c.old, name)
	c.put(name, k)
	return k.row
}

func (c *identities) put(name string, k kept) {
	if was, ok := c.young[name]; ok {
		c.weight -= was.weight
	}
	if c.weight+k.weight > mostYoung {
		c.young, c.old, c.weight = map[string]kept{}, c.young, 0
	}
	delete(c.old, name)
	c.young[name] = k
	c.weight += k.weight
}

func (c *identities) drop(name string) {
	c.weight -= c.young[name].weight
	delete(c.young, name)
	delete(c.old, name)
}

// remember keeps a row under one of its columns that was read from the database
// after recall gave the epoch, unless something was taken out since: it may be
// older than that.
func (c *identities) remember(epoch uint64, table string, column int, value string, row any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.keeps || c.busy || c.epoch != epoch {
		return
	}
	if w := cached[table].weigh(row); w <= heaviest {
		c.put(nameIn(table, column, value), kept{row, baseWeight + w})
	}
}

// forget takes out what a batch is about to change, and keeps everybody from
// remembering anything until [identities.changed].
func (c *identities) forget(batch []*job) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.keeps {
		return
	}
	for _, j := range batch {
		for i := range j.steps {
			c.forgetStep(&j.steps[i])
		}
	}
}

func (c *identities) forgetStep(st *step) {
	if st.alters() {
		c.busy = true
		c.epoch++
		c.dropStep(st)
	}
}

// alters reports whether a step may change rows that are kept. An insert does not:
// nobody has read a row before it is there. What has expired is refused by whoever
// looks at it, whether the row is still there or not.
func (s *step) alters() bool {
	table, verb, _ := strings.Cut(s.stmt.name, ".")
	_, ok := cached[table]
	return ok && !s.stmt.reads && verb != "insert" && verb != "expire"
}

// dropStep takes out the rows that a step may change.
func (c *identities) dropStep(st *step) {
	table, verb, _ := strings.Cut(st.stmt.name, ".")
	columns := cached[table].columns
	if verb != "update" && (verb != "delete" || len(columns) > 1) { // who knows which
		clear(c.young)
		clear(c.old)
		c.weight = 0
		return
	}
	for _, column := range columns {
		value, _ := st.args[column].(string)
		c.drop(nameIn(table, column, value))
	}
}

// changed says that the batch is committed, or is not: what was read while nobody
// knew may be either. What is committed is remembered as it is now.
func (c *identities) changed(batch []*job, committed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.busy {
		c.busy = false
		c.epoch++
	}
	if !committed || !c.keeps {
		return
	}
	for _, j := range batch {
		for i := range j.steps {
			switch st := &j.steps[i]; {
			case st.kept.row != nil:
				for _, column := range cached[st.stmt.table.name].columns {
					value, _ := st.args[column].(string)
					c.put(nameIn(st.stmt.table.name, column, value), st.kept)
				}
			case st.alters():
				c.dropStep(st) // what an earlier step of the batch has written
			}
		}
	}
}

// keep gives the row that a step writes, as it would be read: nothing for a row
// that is not kept, or too large.
func (s *Store) keep(st *step) kept {
	if s.catalogue.postgres || st.stmt.table == nil || st.rows != 1 {
		return kept{}
	}
	k, ok := cached[st.stmt.table.name]
	if _, verb, _ := strings.Cut(st.stmt.name, "."); !ok || verb != "insert" && verb != "update" {
		return kept{}
	}
	row, err := k.read((&raw{values: st.args[:len(st.stmt.table.columns)]}).scan)
	if err != nil {
		return kept{} // it is not kept, and whoever reads it finds out why
	}
	w := k.weigh(row)
	if w > heaviest {
		return kept{}
	}
	return kept{row, baseWeight + w}
}
