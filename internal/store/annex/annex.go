// Package annex keeps the databases of extensions: beside ours, never in it.
//
// On SQLite each extension has a file of its own, opened with limits: an
// authoriser denies every statement that reaches beyond its tables, ATTACH has a
// limit of zero, PRAGMA, VACUUM and the loading of code are denied, and the file
// has a largest size. On PostgreSQL each has a schema and a login role of its own,
// which has rights nowhere else.
//
// A database is made and purged by one at a time: within this process by a turn,
// among replicas by a lock on the plugin's row of table annexes. Whoever has it
// looks first whether the plugin is still installed, or still being purged. On
// PostgreSQL a name never comes again after a purge, so that a connection from
// before reaches nothing that was made after. SQLite has one process, and the turn
// is all.
//
// Migrations are run here, not by the extension. Each is one transaction with the
// row that remembers its digest, so that it is applied whole or not at all, once,
// and never in another form.
package annex

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/secret"
	"github.com/sallyport-project/sallyport/internal/store"
)

// Config says where the databases are. The zero values of MaxBytes and Log are
// usable.
type Config struct {
	Driver string // store.SQLite or store.PostgreSQL
	Dir    string // folder of the files; SQLite only
	DSN    secret.Bytes
	// Password gives the password of an extension's login role: the same on every
	// replica. PostgreSQL only.
	Password func(plugin string) (secret.Bytes, error)
	// Installed refuses a plugin that is not installed now, or of another publisher.
	Installed func(ctx context.Context, plugin, publisher string) error
	MaxBytes  int64        // of one file; 256 MiB if zero; SQLite only
	Log       *slog.Logger // discards if nil
}

// The limits of one call.
const (
	within       = 5 * time.Second
	openWithin   = 15 * time.Second
	idleWithin   = 5 * time.Minute // then a connection is closed
	mostRows     = 10_000
	mostAnswer   = 3 << 20 // bytes of one answer
	mostSQL      = 1 << 20
	mostArgument = 1 << 20
	mostPerExec  = 256
	connections  = 4 // of one extension, on this node
)

// Annexes are the databases. Safe for concurrent use.
type Annexes struct {
	cfg Config
	eng engine

	mu     sync.Mutex
	open   map[string]opened
	turns  map[string]chan struct{} // of who makes or purges, by plugin
	closed bool
}

// opened is a database that was made, and is connected to.
type opened struct {
	*sql.DB
	at string // the schema, or the file
}

var _ plugin.Database = (*Annexes)(nil)

// engine is what differs between SQLite and PostgreSQL.
type engine interface {
	// dialect is also the key of the texts of migrations.
	dialect() dialect
	// make prepares the database of a plugin, unless still refuses, and says where.
	make(ctx context.Context, plugin string, still func(context.Context) error) (at string, err error)
	// connect opens what was made.
	connect(ctx context.Context, plugin, at string) (*sql.DB, error)
	// schema lends a connection on which the schema may be changed.
	schema(ctx context.Context, plugin string, db *sql.DB) (*sql.Conn, func(), error)
	// lock keeps other nodes from migrating the same database until tx ends.
	lock(ctx context.Context, tx *sql.Tx) error
	// confine prepares a connection for statements of the extension.
	confine(c *sql.Conn) error
	// clean takes from a connection what its last statement may have left there.
	clean(ctx context.Context, c *sql.Conn) error
	// watch breaks off what a connection does when ctx ends, until the function that
	// it returns was called.
	watch(ctx context.Context, c *sql.Conn) (func(), error)
	// foreign names a table or view that has a name that it must not have.
	foreign(ctx context.Context, tx *sql.Tx) (string, error)
	// purge drops what is there, unless still says no.
	purge(ctx context.Context, plugin string, still func(context.Context) (bool, error)) error
	explain(err error) error
	close() error
}

// New makes the set of databases and opens none: each is opened by its migrations.
func New(cfg Config) (*Annexes, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.MaxBytes <= 0 {
		cfg.MaxBytes = 256 << 20
	}
	a := &Annexes{cfg: cfg, open: map[string]opened{}, turns: map[string]chan struct{}{}}
	switch cfg.Driver {
	case store.PostgreSQL:
		e, err := newPostgres(cfg)
		if err != nil {
			return nil, err
		}
		a.eng = e
	default:
		a.eng = newSQLite(cfg)
	}
	return a, nil
}

// Close closes all databases. What comes later is Unavailable.
func (a *Annexes) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var errs []error
	for _, db := range a.open {
		errs = append(errs, db.Close())
	}
	a.open, a.closed = nil, true
	errs = append(errs, a.eng.close())
	return fault.Wrap(errors.Join(errs...), "close databases of extensions")
}

// turn waits until nobody else makes or purges the database of a plugin, and gives
// the function that ends the turn.
func (a *Annexes) turn(ctx context.Context, name string) (func(), error) {
	if !manifest.ValidName(name) {
		return nil, fault.Internalf("the database of a plugin without a name was asked for")
	}
	a.mu.Lock()
	turn := a.turns[name]
	if turn == nil {
		turn = make(chan struct{}, 1)
		a.turns[name] = turn
	}
	a.mu.Unlock()
	select {
	case turn <- struct{}{}:
		return func() { <-turn }, nil
	case <-ctx.Done():
		return nil, fault.Unavailablef("the tables of plugin %s are being made or purged", name).Because(ctx.Err())
	}
}

// database is that of a plugin. Only migrations open it: who was installed before a
// purge never comes to what was made after.
func (a *Annexes) database(name string) (*sql.DB, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return nil, fault.Unavailablef("the databases of extensions are closed")
	}
	if db := a.open[name]; db.DB != nil {
		return db.DB, nil
	}
	return nil, fault.Invalidf("plugin %s has no tables: it has no migrations, or they were purged", name)
}

// made is the database of a plugin whose turn it is, made and opened if need be.
func (a *Annexes) made(ctx context.Context, m manifest.Manifest) (*sql.DB, error) {
	ctx, cancel := context.WithTimeout(ctx, openWithin)
	defer cancel()
	at, err := a.eng.make(ctx, m.Name, func(ctx context.Context) error { return a.cfg.Installed(ctx, m.Name, m.Publisher) })
	if err != nil {
		return nil, a.failed(err)
	}
	a.mu.Lock()
	before := a.open[m.Name]
	a.mu.Unlock()
	if before.DB != nil && before.at == at {
		return before.DB, nil
	}
	if err := a.forget(m.Name); err != nil { // purged by another replica
		return nil, err
	}
	db, err := a.eng.connect(ctx, m.Name, at)
	if err != nil {
		return nil, a.failed(err)
	}
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	db.SetConnMaxIdleTime(idleWithin)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return nil, errors.Join(fault.Unavailablef("the databases of extensions are closed"), db.Close())
	}
	a.open[m.Name] = opened{db, at}
	return db, nil
}

// forget closes the database of a plugin whose turn it is.
func (a *Annexes) forget(name string) error {
	a.mu.Lock()
	db := a.open[name]
	delete(a.open, name)
	a.mu.Unlock()
	if db.DB == nil {
		return nil
	}
	return fault.Wrap(db.Close(), "close database of %s", name)
}

// Purge implements [plugin.Database]. What is not there is purged.
func (a *Annexes) Purge(ctx context.Context, name string, still func(context.Context) (bool, error)) error {
	end, err := a.turn(ctx, name)
	if err != nil {
		return err
	}
	defer end()
	return a.failed(a.eng.purge(ctx, name, func(ctx context.Context) (bool, error) {
		if yes, err := still(ctx); !yes || err != nil {
			return false, err
		}
		return true, a.forget(name)
	}))
}

// conn lends a connection that is confined to the extension's own data, and the
// function that gives it back.
func (a *Annexes) conn(ctx context.Context, name string) (*sql.Conn, func(), error) {
	db, err := a.database(name)
	if err != nil {
		return nil, nil, err
	}
	c, err := db.Conn(ctx)
	if err != nil {
		return nil, nil, a.failed(err)
	}
	if err := a.eng.confine(c); err != nil {
		_ = c.Close()
		return nil, nil, a.failed(err)
	}
	return c, func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), within)
		defer cancel()
		if a.eng.clean(ctx, c) != nil { // then nobody gets it again
			_ = c.Raw(func(any) error { return driver.ErrBadConn })
		}
		_ = c.Close()
	}, nil
}

// failed turns what an engine says into a fault.
func (a *Annexes) failed(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return fault.Unavailablef("the database did not answer in time").Because(err)
	}
	return a.eng.explain(err)
}

// folder makes the folder of SQLite's files.
func folder(dir string) error {
	if err := os.MkdirAll(filepath.Clean(dir), 0o700); err != nil {
		return fault.Unavailablef("the folder %s cannot be made", dir).Because(err)
	}
	return nil
}
