package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// dirLock holds the data directory for one process.
type dirLock struct{ f *os.File }

func lockDir(dir string) (*dirLock, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600) //nolint:gosec // in the data directory
	if err != nil {
		return nil, unwritable(dir, err)
	}
	if err := lockFile(f); err != nil {
		err = errors.Join(err, f.Close())
		if _, ok := errors.AsType[*fault.Error](err); ok {
			return nil, err
		}
		return nil, fault.Unavailablef("the data directory %s is in use by another process: stop it first, or use PostgreSQL for several", dir).Because(err)
	}
	return &dirLock{f}, nil
}

// release ends the lock with its descriptor.
func (l *dirLock) release() error { return l.f.Close() }

// reserve is a file of zeros that is given up when an urgent unit meets a full
// disk, so that what takes something away can still be recorded. It comes back
// when there is space again.
type reserve struct {
	dir  string
	size int64
	log  *slog.Logger
	used atomic.Bool
}

func (r *reserve) path() string { return filepath.Join(r.dir, "reserve") }

// fill makes the file. A disk without room for it is used up already: the store
// opens, for revocations alone perhaps, and says so.
func (r *reserve) fill() error {
	if r.size <= 0 {
		return nil
	}
	f, err := os.OpenFile(r.path(), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		if noSpace(err) {
			r.used.Store(true)
			return nil
		}
		return unwritable(r.dir, err)
	}
	err = errors.Join(allocate(f, r.size), f.Close())
	if noSpace(err) {
		if !r.used.Swap(true) {
			r.log.ErrorContext(context.Background(), "the disk has no room for the reserve for revocations: free space; twice the reserve must be free before anything is given",
				slog.Int64("free_bytes", 2*r.size), slog.String("dir", r.dir))
		}
		return fault.Wrap(os.Remove(r.path()), "give up reserve")
	}
	if err != nil {
		return unwritable(r.dir, err)
	}
	r.used.Store(false)
	return nil
}

// open gives the space up; false if there was none.
func (r *reserve) open() bool {
	if r.size <= 0 || !r.used.CompareAndSwap(false, true) {
		return false
	}
	err := os.Remove(r.path())
	if err != nil {
		r.log.ErrorContext(context.Background(), "the disk is full, and the reserve for revocations cannot be used", slog.Any("err", err))
		return false
	}
	r.log.ErrorContext(context.Background(), "the disk is full, the reserve for revocations is in use: free space; twice the reserve must be free before anything is given again",
		slog.Int64("free_bytes", 2*r.size), slog.String("dir", r.dir))
	return true
}

// refill brings the file back when twice its size is free.
func (r *reserve) refill() {
	if r.size <= 0 || !r.used.Load() {
		return
	}
	if free, err := freeSpace(r.dir); err != nil || free < 2*r.size {
		return
	}
	if err := r.fill(); err == nil && !r.used.Load() {
		r.log.InfoContext(context.Background(), "the disk has room again, the reserve for revocations is back")
	}
}

// Pace of checkpoints of the write-ahead log. While pages are copied syncs of the
// log take longer, so that it is done seldom (docs/decisions/0010).
const (
	checkpointPause = 250 * time.Millisecond
	checkpointIdle  = 20                                  // pauses after which it is done for fewer pages than walAnew
	walAnew         = 8 << 10                             // pages after which the log is copied and begins anew
	walLeft         = 256                                 // pages that may be left to copy while the writer waits
	walFrame        = 4<<10 + 24                          // bytes of a page in the log
	walFull         = int64(4 << 10 * walFrame)           // bytes that are made room for ahead
	walBusy         = int64((walAnew + 2<<10) * walFrame) // the same behind busyBatches
	writePiece      = 256 << 10                           // bytes of the database that are written at once
	busyBatches     = 100
	walHuge         = int64(256 << 20) // bytes above which the file is cut
)

// checkpoints copies the write-ahead log into the database beside the writer,
// until the context ends. Only to begin the log anew it holds the writer, when
// almost everything is copied. The file is kept then: writing over it costs the
// file system half of what growing it costs (docs/decisions/0002).
func (e *sqliteEngine) checkpoints(ctx context.Context) {
	c, err := e.s.cfg.checkpointer()
	if err != nil {
		e.s.fail(err)
		return
	}
	defer func() { _ = c.close() }()
	tick := time.NewTicker(checkpointPause)
	defer tick.Stop()
	for idle := 0; ; idle++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		e.reserve.refill()
		if err := e.widen(c); err != nil {
			e.s.fail(err)
			return
		}
		if e.batches.Load() == 0 || idle < checkpointIdle && !e.long(c) {
			continue
		}
		idle = 0
		e.batches.Store(0)
		if err := e.checkpoint(c); err != nil && fatal(err) {
			e.s.fail(err)
			return
		}
	}
}

// checkpointer is a connection that waits for nobody for long, since the writer
// waits for it. The driver would take one of two busy_timeouts in the name of the
// database, and not the last.
func (c Config) checkpointer() (*connection, error) {
	conn, err := connect(c.sqliteDSN(false))
	if err != nil {
		return nil, err
	}
	if err := conn.exec("PRAGMA busy_timeout = 20"); err != nil {
		return nil, errors.Join(err, conn.close())
	}
	return conn, nil
}

// long reports whether enough of the log is left to copy that it is worth while.
func (e *sqliteEngine) long(c *connection) bool {
	n, err := c.numbers("PRAGMA wal_checkpoint(NOOP)") // busy, pages in the log, pages copied
	return err != nil || len(n) < 3 || n[1]-n[2] >= walAnew
}

// widen gives the log the space that it will need before it begins anew, filled
// with zeros, once something was written: to sync bytes that stand where bytes
// stood before changes none of the file system's own records, and takes a third of
// the time (docs/decisions/0010). To SQLite what lies behind the last commit is
// nothing: it knows its frames by salt and checksum. Where there is no room to
// spare the log grows by itself. An error is final.
func (e *sqliteEngine) widen(c *connection) error {
	for {
		wider, err := e.widenBy(c, 1<<20)
		if err != nil || !wider {
			return err
		}
		if err := syncData(e.syncer.log); err != nil {
			return &unknown{fmt.Errorf("sync write-ahead log: %w", err)}
		}
	}
}

func (e *sqliteEngine) widenBy(c *connection, n int) (wider bool, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.narrow() {
		return false, nil
	}
	// SQLite's own lock keeps out whoever writes and is not ours: zeros must not
	// cover what it has just put behind the end.
	if err := c.exec("BEGIN IMMEDIATE"); err != nil { // the next turn tries again
		return false, nil
	}
	if fi, err := e.syncer.log.Stat(); err == nil {
		_, err = e.syncer.log.WriteAt(make([]byte, n), fi.Size())
		wider = err == nil
	}
	return wider, c.exec("ROLLBACK")
}

// narrow reports whether the log is to be widened, and may be.
func (e *sqliteEngine) narrow() bool {
	fi, err := e.syncer.log.Stat()
	batches, room := e.batches.Load(), walFull
	if batches > busyBatches {
		room = walBusy
	}
	if err != nil || batches == 0 || fi.Size() >= room || e.s.cfg.Unsafe != "" { // where nothing is to be synced
		return false
	}
	free, err := freeSpace(e.s.cfg.Dir)
	return err == nil && free >= 16*room
}

// writeOut has the disk take the database piece by piece, with as long a pause
// behind each as it took: between two a sync of the log has its turn, which would
// wait for all of them behind one sync of the database. It rests no longer than
// the time given, since the log grows meanwhile.
func (e *sqliteEngine) writeOut(rest time.Duration) error {
	fi, err := e.syncer.data.Stat()
	if err != nil || e.s.cfg.Unsafe != "" { // where nothing is to be synced
		return err //nolint:wrapcheck // the caller explains
	}
	piece := max(writePiece, fi.Size()>>14) // each is a call, whether there is anything to write or not
	for from := int64(0); from < fi.Size(); from += piece {
		began := time.Now()
		if err := writeOut(e.syncer.data, from, piece); err != nil {
			return err
		}
		if took := min(time.Since(began), rest); took > 100*time.Microsecond { // there was something to write
			time.Sleep(took)
			rest -= took
		}
	}
	return nil
}

// checkpoint copies, and begins the log anew when it is long.
func (e *sqliteEngine) checkpoint(c *connection) error {
	for range 8 {
		n, err := c.numbers("PRAGMA wal_checkpoint(PASSIVE)") // busy, pages in the log, pages copied
		if err != nil {
			return err
		}
		if len(n) < 3 || n[1] < walAnew {
			return nil
		}
		// Otherwise the last copy, for which the writer waits, would sync them all.
		if err := e.writeOut(checkpointPause / 2); err != nil {
			return &unknown{fmt.Errorf("write database: %w", err)}
		}
		if err := syncData(e.syncer.data); err != nil {
			return &unknown{fmt.Errorf("sync database: %w", err)}
		}
		if n[1]-n[2] < walLeft {
			break
		}
	}
	how := "RESTART"
	if fi, err := os.Stat(e.wal); err == nil && fi.Size() > walHuge {
		how = "TRUNCATE"
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	_, err := c.numbers("PRAGMA wal_checkpoint(" + how + ")") // busy only while somebody reads: the next turn tries again
	return err
}
