package store

import (
	"slices"
	"strings"
	"sync"

	"github.com/sallyport-project/sallyport/internal/audit"
)

// tail keeps the leaf hashes and names of the last committed records, so that the
// integrator of the process that wrote them need not read them back (SQLite). It
// is a copy of what the ledger holds: whoever finds nothing here reads there. So
// does whoever comes to a record that may replace the ledger's key, which has to
// be read as a whole.
type tail struct {
	mu     sync.Mutex
	first  int64 // position of the first hash
	hashes []audit.Hash
	turns  []int64 // positions of records that may replace the ledger's key, ascending

	namedFrom, namedTo int64 // the records whose names are here
	names              []placedName
}

// mostTail bounds the memory to 2 MiB for hashes, and to 6 MiB for names. More
// than that waits only when the integrator stands still.
const (
	mostTail  = 1 << 16
	mostNames = 1 << 18
)

// nameMark stands for a name in the rows of runs.
type nameMark struct {
	shard int64
	mark  uint64
}

type placedName struct {
	nameMark
	position int64
}

// namesIn are the names that the records of a run get from this one: its own, and
// the fingerprints of the grant that it writes.
func namesIn(j *job) []nameMark {
	const idColumn, printsColumn = 0, 8
	texts := append(make([]string, 0, 5), j.record.id, j.record.subject, j.record.grant)
	for i := range j.steps {
		st := &j.steps[i]
		if name := st.stmt.name; (name == "grants.insert" || name == "grants.update") && st.args[idColumn] == any(j.record.grant) {
			prints, _ := st.args[printsColumn].(string)
			texts = append(texts, strings.Split(prints, " ")...)
		}
	}
	marks := make([]nameMark, 0, len(texts))
	for _, text := range texts {
		if text != "" {
			shard, mark := nameKey(text)
			marks = append(marks, nameMark{shard, mark})
		}
	}
	return marks
}

// add appends the hashes and names of a committed transaction, whose first record
// has a position.
func (t *tail) add(position int64, batch []*job) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.first+int64(len(t.hashes)) != position || len(t.hashes) >= mostTail {
		t.first, t.hashes, t.turns = position, t.hashes[:0], t.turns[:0]
	}
	if t.namedTo != position || len(t.names) >= mostNames {
		t.namedFrom, t.namedTo, t.names = position, position, t.names[:0]
	}
	for _, j := range batch {
		if j.record == nil {
			continue
		}
		if j.record.turns {
			t.turns = append(t.turns, t.first+int64(len(t.hashes)))
		}
		t.hashes = append(t.hashes, j.record.hash)
		for _, n := range j.record.names {
			t.names = append(t.names, placedName{n, t.namedTo})
		}
		t.namedTo++
	}
}

// run gives the names of a whole run, and forgets them and all before; false if
// some of its records are not here.
func (t *tail) run(n int64) (rows runRows, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	first, end := n*runWidth, (n+1)*runWidth
	if t.namedFrom > first || t.namedTo < end {
		return rows, false
	}
	upTo := 0
	for ; upTo < len(t.names) && t.names[upTo].position < end; upTo++ {
		if name := t.names[upTo]; name.position >= first {
			rows.add(name.shard, name.mark, name.position-first)
		}
	}
	t.names = slices.Delete(t.names, 0, upTo)
	t.namedFrom = end
	return rows, true
}

// from returns up to n hashes from a position on, as far as the next record that
// may replace the ledger's key; none if it is not here.
func (t *tail) from(position int64, n int) []audit.Hash {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := position - t.first
	if at < 0 || at >= int64(len(t.hashes)) {
		return nil
	}
	end := min(at+int64(n), int64(len(t.hashes)))
	if next, _ := slices.BinarySearch(t.turns, position); next < len(t.turns) {
		end = min(end, t.turns[next]-t.first)
	}
	return slices.Clone(t.hashes[at:end])
}

// drop forgets what stands before a position.
func (t *tail) drop(position int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := min(max(position-t.first, 0), int64(len(t.hashes)))
	t.hashes = slices.Delete(t.hashes, 0, int(at))
	t.first += at
	for len(t.turns) > 0 && t.turns[0] < t.first {
		t.turns = t.turns[1:]
	}
}
