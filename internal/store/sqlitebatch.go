package store

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	sqlite3 "modernc.org/sqlite/lib"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// sqliteEngine writes through one connection. A batch first runs as one
// transaction without savepoints; if anything in it fails it is rolled back and
// its jobs run again, each in a savepoint (docs/decisions/0002). What callers
// have committed is synced beside the next batch; see [syncer].
type sqliteEngine struct {
	s       *Store
	reserve *reserve
	syncer  *syncer
	wal     string // path of the write-ahead log

	mu      sync.Mutex // held for each batch, and by a checkpoint that must be alone
	w       *connection
	bulk    *bulk
	batches atomic.Int64 // since the last checkpoint
	records [len(recordChunks)]string
	args    []any
	next    int64 // position of the next record
	start   int64 // what next was when the transaction began
	full    bool  // SQLite itself syncs with COMMIT
	careful int   // batches that still run with savepoints, because one failed lately
}

// carefulBatches is how long savepoints stay on after a batch that failed.
const carefulBatches = 16

func (e *sqliteEngine) open() error {
	w, err := connect(e.s.cfg.sqliteDSN(false, "journal_mode(WAL)", "cache_size(-16384)"))
	if err != nil {
		return e.s.explain(err)
	}
	e.w, e.records, e.bulk, e.full = w, recordTexts(), newBulk(), true
	n, err := w.numbers("SELECT coalesce(max(position), -1) + 1 FROM ledger")
	if err != nil || len(n) != 1 {
		return e.s.explain(fault.Wrap(err, "read end of ledger"))
	}
	e.next = n[0]
	e.s.identities.keepIdentities()
	return nil
}

func (e *sqliteEngine) close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.s.barred.Load() == nil && e.w != nil {
		_, _ = e.w.numbers("PRAGMA wal_checkpoint(TRUNCATE)") // only saves the next start some work
	}
	err := e.w.close()
	if e.syncer != nil {
		err = errors.Join(err, e.syncer.close())
	}
	return err
}

// finish implements engine.
func (e *sqliteEngine) finish() { close(e.syncer.flights) }

// commit implements engine.
func (e *sqliteEngine) commit(batch []*job) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	batch, err := e.execute(batch)
	if err != nil {
		e.s.fail(err)
		answer(batch, e.s.barred.Load())
	}
	return err
}

// execute runs a batch, and returns it with the jobs that have joined it. An
// error is fatal, and leaves jobs without an answer.
func (e *sqliteEngine) execute(batch []*job) ([]*job, error) {
	if batch = e.spare(batch); len(batch) == 0 {
		return nil, nil
	}
	if err := e.syncWithCommit(slices.ContainsFunc(batch, func(j *job) bool { return j.published })); err != nil {
		return batch, err
	}
	if e.careful == 0 && !e.s.cfg.Savepoints {
		var err error
		if batch, err = e.together(batch); err == nil || fatal(err) {
			return batch, err
		}
		e.careful = carefulBatches
	} else if e.careful > 0 {
		e.careful--
	}
	return batch, e.apart(batch)
}

// spare keeps the reserved space for what takes something away: while it is in
// use everything else is refused as if the disk were still full.
func (e *sqliteEngine) spare(batch []*job) []*job {
	if e.reserve.size <= 0 || !e.reserve.used.Load() {
		return batch
	}
	urgent := batch[:0:0]
	for _, j := range batch {
		if j.urgent {
			urgent = append(urgent, j)
		} else {
			j.answer(diskFull(nil)) // Refusing says it for as long as the reserve is in use
		}
	}
	return urgent
}

// diskFull is the answer of a full disk.
func diskFull(err error) error {
	return fault.Unavailablef("the server's disk is full: nothing can be recorded, so nothing can be given until somebody frees space").Because(err).After(10 * time.Second)
}

// syncWithCommit chooses who syncs: SQLite, before what it has committed can be
// seen, or the syncer.
func (e *sqliteEngine) syncWithCommit(full bool) error {
	if full == e.full || e.s.cfg.Unsafe != "" {
		return nil
	}
	mode := "NORMAL" // the log is synced before pages of it are copied, and by us
	if full {
		mode = "FULL"
	}
	if err := e.w.set("PRAGMA synchronous = " + mode); err != nil {
		return err
	}
	e.full = full
	return nil
}

// together runs all jobs in one transaction, and those that come while the last
// one is on its way to the disk.
func (e *sqliteEngine) together(batch []*job) (all []*job, err error) {
	if err := e.begin(); err != nil {
		return batch, err
	}
	e.bulk.reset()
	late := false
	for more := batch; ; {
		for _, j := range more {
			if err := e.steps(j, e.bulk); err != nil {
				return batch, e.rollback(err)
			}
		}
		if err := e.bulk.flush(e.w); err != nil {
			return batch, e.rollback(err)
		}
		if err := e.insertRecords(more); err != nil {
			return batch, e.rollback(err)
		}
		if e.full {
			break
		}
		room := e.s.cfg.Batch - len(batch)
		joined := e.s.queue.join(room)
		if len(joined) == 0 && !late && room > 0 {
			// One turn for all who can run: on a busy machine some of them are about
			// to commit, and a transaction for each would keep it busy.
			late = true
			runtime.Gosched()
			joined = e.s.queue.more(room)
		}
		if len(joined) == 0 {
			break
		}
		more = e.spare(joined)
		batch = append(batch, more...)
	}
	return batch, e.end(batch)
}

// begin opens a transaction and remembers where the ledger ended before it.
func (e *sqliteEngine) begin() error {
	if err := e.w.exec("BEGIN IMMEDIATE"); err != nil {
		return &refusal{err}
	}
	e.start = e.next
	return nil
}

// apart runs each job in a savepoint, so that one that fails fails alone.
func (e *sqliteEngine) apart(batch []*job) error {
	if err := e.begin(); err != nil {
		return e.refuse(batch, err)
	}
	good := batch[:0:0]
	for _, j := range batch {
		err := e.alone(j)
		switch {
		case err == nil:
			good = append(good, j)
		case fatal(err):
			return e.rollback(err)
		case !fault.Is(err, fault.Conflict) && class(err) == full:
			return e.refuse(batch, e.rollback(err)) // SQLite has rolled everything back
		default:
			j.answer(e.say(err))
		}
	}
	if err := e.end(good); err != nil {
		return e.refuse(good, err)
	}
	return nil
}

func (e *sqliteEngine) alone(j *job) error {
	if err := e.w.exec("SAVEPOINT job"); err != nil {
		return err
	}
	before := e.next
	err := e.steps(j, nil)
	if err == nil {
		err = e.insertRecords([]*job{j})
	}
	if err == nil {
		return e.w.exec("RELEASE job")
	}
	if fatal(err) || class(err) == full {
		return err
	}
	e.next = before
	if undo := e.w.exec("ROLLBACK TO job"); undo != nil {
		return fmt.Errorf("undo a unit: %w", undo)
	}
	if undo := e.w.exec("RELEASE job"); undo != nil {
		return fmt.Errorf("undo a unit: %w", undo)
	}
	return err
}

// steps runs the statements of a job; what b takes over runs later.
func (e *sqliteEngine) steps(j *job, b *bulk) error {
	for i := range j.steps {
		st := &j.steps[i]
		var n int64
		var err error
		if b != nil && b.step(st) {
			continue
		}
		if st.stmt.reads {
			n, err = e.w.find(st.stmt.sql, st.args)
		} else {
			n, err = e.w.run(st.stmt.sql, st.args)
		}
		switch {
		case err != nil && class(err) == taken:
			return st.miss().Because(err)
		case err != nil:
			return fmt.Errorf("run %s: %w", st.stmt.name, err)
		case st.rows >= 0 && n != st.rows:
			return st.miss()
		}
		if b != nil {
			b.held(st)
		}
	}
	return nil
}

// insertRecords puts the records of the jobs into the ledger, behind its end.
// The positions count when the transaction commits.
func (e *sqliteEngine) insertRecords(batch []*job) error {
	args, rows := e.args[:0], 0
	for _, j := range batch {
		if r := j.record; r != nil {
			args = append(args, e.next+int64(rows), r.id, r.subject, r.kind, r.grant, r.at, r.leaf)
			rows++
		}
	}
	e.args = args
	for k, n := range recordChunks {
		for rows >= n {
			if _, err := e.w.run(e.records[k], args[:7*n]); err != nil {
				return fmt.Errorf("insert records: %w", err)
			}
			args, rows = args[7*n:], rows-n
			e.next += int64(n)
		}
	}
	clear(e.args)
	return nil
}

// end commits, and answers the jobs when they are durable. Once COMMIT has been
// tried only a full disk leaves no doubt: the log is then shorter than the
// transaction.
func (e *sqliteEngine) end(batch []*job) error {
	e.s.queue.landed()
	if why := e.s.barred.Load(); why != nil { // the batch before was lost
		answer(batch, why)
		return e.rollback(nil)
	}
	e.s.identities.forget(batch)
	err := e.w.exec("COMMIT")
	e.s.identities.changed(batch, err == nil)
	switch {
	case err != nil && class(err) == full:
		return e.rollback(&refusal{err})
	case err != nil:
		return &unknown{err}
	}
	e.batches.Add(1)
	e.s.tail.add(e.start, batch)
	e.s.committed(batch)
	if e.full {
		answer(batch, nil)
	} else {
		e.syncer.take(batch)
	}
	return nil
}

// rollback undoes the transaction and hands the error on. If even that fails
// nobody knows what the connection holds.
func (e *sqliteEngine) rollback(err error) error {
	e.next = e.start
	undo := e.w.exec("ROLLBACK")
	if undo == nil || code(undo) == sqlite3.SQLITE_ERROR { // none is open: SQLite did it itself
		return err
	}
	return &unknown{fmt.Errorf("roll back after %w: %w", err, undo)}
}

// refuse answers jobs that met a full disk or a database that takes no
// transaction. Urgent ones are tried once more in the reserved space.
func (e *sqliteEngine) refuse(batch []*job, err error) error {
	if fatal(err) {
		return err
	}
	noRoom := class(err) == full
	if noRoom {
		e.s.refusals.met(fault.Unavailablef("the server's disk is full: nothing is given until somebody frees space; revocations, locks and leak reports are still recorded").Because(err), false)
	}
	var urgent []*job
	for _, j := range batch {
		if j.urgent && !j.answered {
			urgent = append(urgent, j)
			continue
		}
		j.answer(e.say(err))
	}
	if len(urgent) == 0 {
		return nil
	}
	if !noRoom || !e.reserve.open() {
		if noRoom {
			e.s.refusals.met(diskFull(err), true)
		}
		answer(urgent, e.say(err))
		return nil
	}
	return e.apart(urgent)
}

// say turns an error of one job into its answer.
func (e *sqliteEngine) say(err error) error {
	if fault.Is(err, fault.Conflict) {
		return err
	}
	if class(err) == full {
		return diskFull(err)
	}
	if _, ok := err.(*refusal); ok { //nolint:errorlint // never wrapped
		return fault.Unavailablef("the database takes no transaction now").Because(err).After(time.Second)
	}
	return fault.Internalf("a statement failed").Because(err)
}
