package store

import (
	"context"
	"errors"

	"github.com/sallyport-project/sallyport/internal/unit"
)

// Batch commits units as one batch, in this order, and gives the answer of each.
func (s *Store) Batch(units ...unit.Unit) ([]error, error) {
	batch := make([]*job, 0, len(units))
	for _, u := range units {
		j, err := s.prepare(u)
		if err != nil {
			return nil, err
		}
		batch = append(batch, j)
	}
	if err := s.engine.commit(batch); err != nil {
		return nil, err
	}
	answers := make([]error, 0, len(units))
	for _, j := range batch {
		answers = append(answers, <-j.done)
	}
	return answers, nil
}

// Careful says whether the next batches begin with savepoints (SQLite).
func (s *Store) Careful() bool { return s.engine.(*sqliteEngine).careful > 0 }

// Widen fills the write-ahead log up by one piece, if it is to be (SQLite).
func (s *Store) Widen() (bool, error) {
	c, err := s.cfg.checkpointer()
	if err != nil {
		return false, err
	}
	wider, err := s.engine.(*sqliteEngine).widenBy(c, 1<<20)
	return wider, errors.Join(err, c.close())
}

// WALFull is how long the write-ahead log is made.
const WALFull = walFull

// Heaviest is the largest value of a row that is kept in memory.
const Heaviest = heaviest

// RunWidth is how many records a run has.
const RunWidth = runWidth

// Run gives the names of a run as they are remembered, and as the ledger has
// them; false if they are not remembered.
func (s *Store) Run(ctx context.Context, run int64) (remembered, read [shards][]byte, ok bool, err error) {
	remembered, ok = s.tail.run(run)
	read, err = s.namesOf(ctx, run)
	return remembered, read, ok, err
}

// Lent judges the server's processes of two connections (PostgreSQL).
var Lent = lent
