package store

import (
	"context"
	"database/sql"
	"errors"
	"net/url"
	"os"
	"path/filepath"

	sqlite "modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// databaseFile is the name of the database in the data directory.
const databaseFile = "sallyport.db"

// sqliteDSN opens the database with the settings that every connection has.
// ATTACH, double-quoted strings and writes to the schema by SQL tricks are off.
func (c Config) sqliteDSN(readOnly bool, extra ...string) string {
	synchronous := "FULL"
	if c.Unsafe != "" {
		synchronous = c.Unsafe
	}
	pragmas := append([]string{
		"busy_timeout(5000)", "synchronous(" + synchronous + ")", "wal_autocheckpoint(0)",
		"foreign_keys(1)", "trusted_schema(0)", "cell_size_check(1)",
	}, extra...)
	if readOnly {
		pragmas = append(pragmas, "query_only(1)", "cache_size(-2048)")
	}
	q := url.Values{"_txlock": {"immediate"}, "_dqs": {"0"}}
	for _, p := range pragmas {
		q.Add("_pragma", p)
	}
	u := url.URL{Scheme: "file", Path: filepath.Join(c.Dir, databaseFile), RawQuery: q.Encode()}
	return u.String()
}

// openSQLite takes the data directory for this process alone and opens the
// database in it.
func (s *Store) openSQLite(ctx context.Context) error {
	dir, err := filepath.Abs(s.cfg.Dir)
	if err != nil {
		return fault.Wrap(err, "find data directory")
	}
	s.cfg.Dir = dir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return unwritable(dir, err)
	}
	if s.lock, err = lockDir(dir); err != nil {
		return err
	}
	s.reserve = &reserve{dir: dir, size: s.cfg.Reserve, log: s.log}
	if err := s.reserve.fill(); err != nil {
		return err
	}
	// SQLite gives its log and index the mode of the database.
	f, err := os.OpenFile(filepath.Join(dir, databaseFile), os.O_CREATE|os.O_RDWR, 0o600) //nolint:gosec // in the state directory
	if err != nil {
		return unwritable(dir, err)
	}
	if err := f.Close(); err != nil {
		return unwritable(dir, err)
	}
	if err := s.migrateSQLite(ctx); err != nil {
		return err
	}
	e := &sqliteEngine{s: s, reserve: s.reserve, wal: filepath.Join(dir, databaseFile+"-wal")}
	if err := e.open(); err != nil {
		return err
	}
	s.engine = e
	if s.readers, err = openReaders(s.cfg.sqliteDSN(true), s.cfg.Readers); err != nil {
		return s.explain(fault.Wrap(err, "open read connections"))
	}
	// Nobody else has the directory, so that no lease of an earlier process counts.
	if err := e.w.exec("UPDATE leases SET holder = ''"); err != nil {
		return s.explain(fault.Wrap(err, "clear leases"))
	}
	if e.syncer, err = openSyncer(e, dir); err != nil {
		return s.explain(err)
	}
	return nil
}

// migrateSQLite brings the schema up to date over a connection of its own.
func (s *Store) migrateSQLite(ctx context.Context) error {
	db, err := sql.Open("sqlite", s.cfg.sqliteDSN(false, "journal_mode(WAL)"))
	if err != nil {
		return fault.Wrap(err, "open database")
	}
	db.SetMaxOpenConns(1)
	err = migrateUp(ctx, db, false)
	if err == nil {
		err = s.sound(ctx, db)
	}
	if err != nil {
		err = s.explain(err)
	}
	return errors.Join(err, fault.Wrap(db.Close(), "close database"))
}

// sound refuses a database whose settings do not promise what Commit promises.
func (s *Store) sound(ctx context.Context, db *sql.DB) error {
	var mode string
	if err := db.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&mode); err != nil {
		return fault.Wrap(err, "read journal mode")
	}
	if mode != "wal" {
		return fault.Unavailablef("the file system of %s does not carry a write-ahead log (journal mode %s): use a local one", s.cfg.Dir, mode)
	}
	return nil
}

// explain adds what to do to an error of opening.
func (s *Store) explain(err error) error {
	switch code(err) & 0xff {
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM:
		return unwritable(s.cfg.Dir, err)
	case sqlite3.SQLITE_FULL:
		return fault.Unavailablef("the disk of %s is full: make room and start again", s.cfg.Dir).Because(err)
	case sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT:
		return fault.Unavailablef("the database in %s is damaged: restore a backup", s.cfg.Dir).Because(err)
	}
	return err
}

func unwritable(dir string, err error) error {
	return fault.Unavailablef("the data directory %s cannot be written: nothing can be recorded, so nothing can be served", dir).Because(err)
}

// code is SQLite's extended result code, 0 for another error.
func code(err error) int {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return e.Code()
	}
	return 0
}
