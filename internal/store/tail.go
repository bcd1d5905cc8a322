package store

import (
	"slices"
	"sync"

	"github.com/sallyport-project/sallyport/internal/audit"
)

// tail keeps the leaf hashes of the last committed records, so that the
// integrator of the process that wrote them need not read them back (SQLite). It
// is a copy of what the ledger holds: whoever finds nothing here reads there. So
// does whoever comes to a record that may replace the ledger's key, which has to
// be read as a whole.
type tail struct {
	mu     sync.Mutex
	first  int64 // position of the first hash
	hashes []audit.Hash
	turns  []int64 // positions of records that may replace the ledger's key, ascending
}

// mostTail bounds the memory to 2 MiB. More than that waits only when the
// integrator stands still.
const mostTail = 1 << 16

// add appends the hashes of a committed transaction, the first at a position.
func (t *tail) add(position int64, batch []*job) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.first+int64(len(t.hashes)) != position || len(t.hashes) >= mostTail {
		t.first, t.hashes, t.turns = position, t.hashes[:0], t.turns[:0]
	}
	for _, j := range batch {
		if j.record != nil {
			if j.record.turns {
				t.turns = append(t.turns, t.first+int64(len(t.hashes)))
			}
			t.hashes = append(t.hashes, j.record.hash)
		}
	}
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
