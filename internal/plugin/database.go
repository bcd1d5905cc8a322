package plugin

import (
	"context"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
)

// Database keeps the databases of extensions, each apart from ours and from one
// another. Every call is safe for concurrent use. What is wrong with the plugin's
// SQL is Invalid, with the engine's words; SQL that reaches for more than the
// plugin's own is Denied; a limit is Exhausted.
type Database interface {
	// Migrate brings a plugin's schema up to date: what was applied before must be
	// unchanged (Conflict), what is missing is applied, each step whole or not at
	// all. A plugin that is not installed any more is Unavailable.
	Migrate(ctx context.Context, m manifest.Manifest) error
	// Query runs one statement that reads, and returns at most so many rows.
	Query(ctx context.Context, plugin string, s Statement, most int) (Rows, error)
	// Exec runs statements in one transaction, all of them or none, and returns how
	// many rows each has changed.
	Exec(ctx context.Context, plugin string, statements []Statement) ([]int64, error)
	// Purge removes everything that a plugin has, unless still says that it is not to
	// be purged any more: it is asked when nobody can make or purge the same.
	Purge(ctx context.Context, plugin string, still func(context.Context) (bool, error)) error
}

// Statement is one SQL statement with its arguments, $1 and so on: nil, int64,
// float64, string or []byte.
type Statement struct {
	SQL       string
	Arguments []any
}

// Rows is the answer of a query. Values are nil, int64, float64, string or []byte.
type Rows struct {
	Columns []string
	Rows    [][]any
	More    bool // there are more rows than were asked for
}
