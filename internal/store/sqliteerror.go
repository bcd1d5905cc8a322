package store

import (
	"errors"
	"syscall"

	sqlite3 "modernc.org/sqlite/lib"
)

// refusal is an error after which it is certain that nothing happened.
type refusal struct{ err error }

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

// unknown is an error after which nobody knows what is on the disk.
type unknown struct{ err error }

func (u *unknown) Error() string { return "outcome unknown: " + u.err.Error() }
func (u *unknown) Unwrap() error { return u.err }

// classOf says what an error of a statement means for its job.
type classOf int

const (
	other  classOf = iota
	taken          // a unique key exists
	full           // no space
	broken         // input or output failed, or the database is damaged
)

func class(err error) classOf {
	if errors.Is(err, syscall.ENOSPC) {
		return full
	}
	c := code(err)
	switch c & 0xff {
	case sqlite3.SQLITE_FULL:
		return full
	case sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN:
		return broken
	case sqlite3.SQLITE_CONSTRAINT:
		if c == sqlite3.SQLITE_CONSTRAINT_UNIQUE || c == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY || c == sqlite3.SQLITE_CONSTRAINT_ROWID {
			return taken
		}
	}
	return other
}

// fatal reports whether the store must not go on.
func fatal(err error) bool {
	if _, ok := errors.AsType[*unknown](err); ok {
		return true
	}
	return class(err) == broken
}
