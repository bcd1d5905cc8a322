package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// syncer makes committed batches durable beside the writer, one at a time and
// in their order: while one is on its way to the disk, the next is executed in a
// transaction that stays open until then (docs/decisions/0010).
//
// A batch whose sync has not ended can be seen by readers, but by nobody
// outside: whoever is given something has a unit of its own behind it in the
// same log, which is not answered before both are durable; and the head of the
// ledger, which is published, moves in batches that are synced before they can
// be seen.
type syncer struct {
	e       *sqliteEngine
	log     *os.File // SQLite's write-ahead log; it stays the same file while the store is open
	data    *os.File // the database; closing it would end SQLite's locks on it, so it is closed last
	flights chan []*job
}

// openSyncer is called when the log exists. Its name in the directory is made
// durable once, as SQLite does with the first sync of its own.
func openSyncer(e *sqliteEngine, dir string) (*syncer, error) {
	y := &syncer{e: e, flights: make(chan []*job, 1)}
	var err error
	if y.log, err = os.OpenFile(e.wal, os.O_RDWR, 0); err != nil {
		return y, fmt.Errorf("open write-ahead log: %w", err)
	}
	if y.data, err = os.OpenFile(filepath.Join(dir, databaseFile), os.O_RDWR, 0); err != nil { //nolint:gosec // in the data directory
		return y, fmt.Errorf("open database: %w", err)
	}
	d, err := os.Open(dir) //nolint:gosec // the data directory
	if err != nil {
		return y, fmt.Errorf("sync data directory: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return y, fmt.Errorf("sync data directory: %w", err)
	}
	return y, nil
}

// take gets the jobs of a committed transaction. The one before must have
// landed; see queue.join.
func (y *syncer) take(batch []*job) {
	y.e.s.queue.fly(true)
	y.flights <- slices.Clone(batch) // the writer uses its slice again
}

// run syncs until the writer has ended. After a failure nobody knows what is on
// the disk, so that the store is barred before the next transaction can commit.
func (y *syncer) run() {
	s := y.e.s
	for batch := range y.flights {
		err := syncData(y.log)
		if err != nil {
			s.fail(&unknown{fmt.Errorf("sync write-ahead log: %w", err)})
			err = s.barred.Load()
		}
		s.queue.fly(false)
		answer(batch, err)
	}
}

func (y *syncer) close() error {
	var errs []error
	for _, f := range []*os.File{y.log, y.data} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}
