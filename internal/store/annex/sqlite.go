package annex

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"

	sqlite "modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
)

const pageSize = 4096

// sqliteEngine gives every extension a file.
type sqliteEngine struct {
	cfg Config
}

func newSQLite(cfg Config) *sqliteEngine { return &sqliteEngine{cfg: cfg} }

func (e *sqliteEngine) dialect() dialect { return ofSQLite }

func (e *sqliteEngine) close() error { return nil }

func (e *sqliteEngine) file(plugin string) string { return filepath.Join(e.cfg.Dir, plugin+".db") }

func (e *sqliteEngine) make(ctx context.Context, plugin string, still func(context.Context) error) (string, error) {
	if err := still(ctx); err != nil {
		return "", err
	}
	if err := folder(e.cfg.Dir); err != nil {
		return "", err
	}
	// SQLite gives its log and index the mode of the database.
	f, err := os.OpenFile(e.file(plugin), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", fault.Unavailablef("the database of plugin %s cannot be opened", plugin).Because(err)
	}
	return f.Name(), fault.Wrap(f.Close(), "close database of %s", plugin)
}

func (e *sqliteEngine) connect(ctx context.Context, plugin, _ string) (*sql.DB, error) {
	db := e.dial(plugin, rows)
	if err := db.PingContext(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// schema is a connection of its own: what it may do is decided when it is opened.
func (e *sqliteEngine) schema(ctx context.Context, plugin string, _ *sql.DB) (*sql.Conn, func(), error) {
	db := e.dial(plugin, tables)
	c, err := db.Conn(ctx)
	if err == nil {
		err = e.confine(c)
	}
	if err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	return c, func() { _, _ = c.Close(), db.Close() }, nil
}

// lock has nothing to do: a transaction that begins has the file for itself.
func (e *sqliteEngine) lock(context.Context, *sql.Tx) error { return nil }

func (e *sqliteEngine) purge(ctx context.Context, plugin string, still func(context.Context) (bool, error)) error {
	if yes, err := still(ctx); !yes || err != nil {
		return err
	}
	var errs []error
	for _, end := range []string{"", "-wal", "-shm", "-journal"} {
		if err := os.Remove(e.file(plugin) + end); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return fault.Wrap(errors.Join(errs...), "remove database of %s", plugin)
}

// authoriser judges what a statement would do while SQLite compiles it.
type authoriser = sqlite.AuthorizerFn

// connector opens connections under an authoriser.
type connector struct {
	driver *sqlite.Driver
	dsn    string
}

// Connect implements driver.Connector.
func (c connector) Connect(context.Context) (driver.Conn, error) {
	return c.driver.Open(c.dsn) //nolint:wrapcheck // explained by the caller
}

// Driver implements driver.Connector.
func (c connector) Driver() driver.Driver { return c.driver }

func (e *sqliteEngine) dial(plugin string, judge authoriser) *sql.DB {
	d := &sqlite.Driver{}
	d.RegisterConnectionHook(func(c sqlite.ExecQuerierContext, _ string) error {
		r, ok := c.(sqlite.AuthorizerRegisterer)
		if !ok {
			return fault.Internalf("the driver of SQLite has no authoriser")
		}
		return r.RegisterAuthorizer(judge)
	})
	q := url.Values{"_txlock": {"immediate"}, "_dqs": {"0"}, "_defensive": {"1"}}
	for _, p := range []string{
		"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)", "trusted_schema(0)", "cell_size_check(1)", "cache_size(-2048)",
		"max_page_count(" + strconv.FormatInt(e.cfg.MaxBytes/pageSize, 10) + ")",
	} {
		q.Add("_pragma", p)
	}
	u := url.URL{Scheme: "file", Path: e.file(plugin), RawQuery: q.Encode()}
	return sql.OpenDB(connector{d, u.String()})
}

// limits of a connection. A row of an answer is in memory as a whole, twice, before
// it can be weighed, and so are the constants of a statement: each may be as long as
// a text may be.
var limits = []struct{ id, value int }{
	{sqlite3.SQLITE_LIMIT_ATTACHED, 0},
	{sqlite3.SQLITE_LIMIT_LENGTH, 2 << 20},
	{sqlite3.SQLITE_LIMIT_COLUMN, 100},
	{sqlite3.SQLITE_LIMIT_VDBE_OP, 4000},
	{sqlite3.SQLITE_LIMIT_SQL_LENGTH, mostSQL},
	{sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH, 16},
	{sqlite3.SQLITE_LIMIT_COMPOUND_SELECT, 100},
}

func (e *sqliteEngine) confine(c *sql.Conn) error {
	for _, l := range limits {
		if _, err := sqlite.Limit(c, l.id, l.value); err != nil {
			return fault.Wrap(err, "limit connection")
		}
	}
	return nil
}

// clean has nothing to do: no statement leaves anything behind.
func (e *sqliteEngine) clean(context.Context, *sql.Conn) error { return nil }

// watch does what the driver does only until a statement's first row: a later one
// may never come, and its search would take a processor for as long as we live. The
// driver exports no way to interrupt then, and keeps the one progress handler for
// itself, so its handle is taken from where it lies: a driver that has it elsewhere
// fails every query here, and the tests.
func (e *sqliteEngine) watch(ctx context.Context, c *sql.Conn) (func(), error) {
	var handle uintptr
	err := c.Raw(func(d any) error {
		v := reflect.Indirect(reflect.ValueOf(d))
		if v.Kind() != reflect.Struct || v.FieldByName("db").Kind() != reflect.Uintptr {
			return fault.Internalf("the driver of SQLite does not give its handle")
		}
		handle = uintptr(v.FieldByName("db").Uint())
		return nil
	})
	if err != nil {
		return nil, err //nolint:wrapcheck // explained by the caller
	}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		sqlite3.Xsqlite3_interrupt(nil, handle) // one store, which any thread may do; it uses no TLS
	})
	return func() {
		if !stop() {
			<-ended // the handle is good until here
		}
	}, nil
}

// rows is what an extension may do: read and change rows of its tables.
func rows(action sqlite.AuthorizerActionCode, arg1, arg2, database, _ string) sqlite.AuthorizerReturnCode {
	switch action {
	case sqlite.AuthSelect, sqlite.AuthRecursive, sqlite.AuthTransaction: // its own words for transactions were refused before
		return sqlite.AuthorizerOK
	case sqlite.AuthFunction:
		return function(arg2)
	case sqlite.AuthRead:
		if database == "temp" || strings.HasPrefix(strings.ToLower(arg1), "pragma_") || strings.EqualFold(arg1, own) {
			return sqlite.AuthorizerDeny
		}
		return sqlite.AuthorizerOK
	case sqlite.AuthInsert, sqlite.AuthUpdate, sqlite.AuthDelete:
		if database == "main" && ours(arg1) {
			return sqlite.AuthorizerOK
		}
	}
	return sqlite.AuthorizerDeny
}

// tables is what a migration may do, and the host around it.
func tables(action sqlite.AuthorizerActionCode, arg1, arg2, database, inner string) sqlite.AuthorizerReturnCode {
	if database == "temp" {
		return sqlite.AuthorizerDeny
	}
	switch action {
	case sqlite.AuthRead:
		return sqlite.AuthorizerOK
	case sqlite.AuthInsert, sqlite.AuthUpdate, sqlite.AuthDelete:
		// SQLite itself keeps these; a statement that names them is refused by it.
		if ours(arg1) || arg1 == "sqlite_master" || arg1 == "sqlite_sequence" || arg1 == own {
			return sqlite.AuthorizerOK
		}
		return sqlite.AuthorizerDeny
	case sqlite.AuthCreateTable, sqlite.AuthDropTable, sqlite.AuthCreateView, sqlite.AuthDropView:
		if ours(arg1) || action == sqlite.AuthCreateTable && arg1 == own {
			return sqlite.AuthorizerOK
		}
		return sqlite.AuthorizerDeny
	case sqlite.AuthCreateIndex, sqlite.AuthDropIndex, sqlite.AuthCreateTrigger, sqlite.AuthDropTrigger, sqlite.AuthAlterTable:
		if ours(arg2) || arg2 == own && action == sqlite.AuthCreateIndex {
			return sqlite.AuthorizerOK
		}
		return sqlite.AuthorizerDeny
	case sqlite.AuthReindex:
		return sqlite.AuthorizerOK
	}
	return rows(action, arg1, arg2, database, inner)
}

func ours(table string) bool { return strings.HasPrefix(strings.ToLower(table), manifest.TablePrefix) }

// function denies those that reach out of the database.
func function(name string) sqlite.AuthorizerReturnCode {
	switch strings.ToLower(name) {
	case "load_extension", "fts3_tokenizer", "readfile", "writefile", "edit", "sqlite_dbpage", "zipfile":
		return sqlite.AuthorizerDeny
	}
	return sqlite.AuthorizerOK
}

func (e *sqliteEngine) foreign(ctx context.Context, tx *sql.Tx) (string, error) {
	var name string
	err := tx.QueryRowContext(ctx, `SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\_%' ESCAPE '\'
		AND lower(substr(name, 1, 10)) <> 'extension_' AND name <> '`+own+`' LIMIT 1`).Scan(&name)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return name, err //nolint:wrapcheck // explained by the caller
}

func (e *sqliteEngine) explain(err error) error {
	known, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return fault.Invalidf("the statement failed").Because(err)
	}
	switch known.Code() & 0xff {
	case sqlite3.SQLITE_AUTH:
		return fault.Deniedf("the statement reaches for what is not the extension's own: tables that begin with %s", manifest.TablePrefix).Because(err)
	case sqlite3.SQLITE_FULL:
		return fault.Exhaustedf("the database of the extension has reached its largest size, or the disk is full").Because(err)
	case sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return fault.Unavailablef("the database did not answer in time").Because(err)
	case sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_READONLY:
		return fault.Unavailablef("the database of the extension cannot be used").Because(err)
	}
	return fault.Invalidf("the statement failed: %.300s", known.Error()).Because(err)
}
