package store

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// openPostgres connects, checks that the server keeps what it acknowledges, and
// brings the schema up to date.
func (s *Store) openPostgres(ctx context.Context) error {
	cfg, err := pgx.ParseConfig(string(s.cfg.DSN.Reveal()))
	if err != nil {
		return fault.Invalidf("the connection string of PostgreSQL cannot be read") // the cause would show it
	}
	cfg.DefaultQueryExecMode = pgx.QueryExecModeCacheStatement
	cfg.RuntimeParams["application_name"] = "sallyport"
	s.reader = stdlib.OpenDB(*cfg)
	s.reader.SetMaxOpenConns(s.cfg.Readers)
	s.reader.SetMaxIdleConns(s.cfg.Readers)
	if err := s.reader.PingContext(ctx); err != nil {
		return fault.Unavailablef("PostgreSQL cannot be reached").Because(err)
	}
	e := &postgresEngine{s: s, cfg: cfg}
	w, err := e.connect(ctx)
	if err != nil {
		return fault.Unavailablef("PostgreSQL cannot be reached").Because(err)
	}
	e.idle = append(e.idle, w)
	s.engine = e
	if err := lasting(ctx, s.reader, w); err != nil {
		return err
	}
	if err := durable(ctx, s.reader); err != nil {
		return err
	}
	return migrateUp(ctx, s.reader, true)
}

// lasting refuses a pooler that lends a server's connection for one transaction: the
// next one has other prepared statements, and a lock of the session belongs to
// somebody else. Then two connections have the same process of the server, or one
// has several.
func lasting(ctx context.Context, reader *sql.DB, writer *pgx.Conn) error {
	c, err := reader.Conn(ctx)
	if err != nil {
		return fault.Unavailablef("PostgreSQL cannot be reached").Because(err)
	}
	defer func() { _ = c.Close() }()
	const ask = "SELECT pg_backend_pid()"
	var seen [3][2]int
	for n := range seen {
		err := c.QueryRowContext(ctx, ask, pgx.QueryExecModeSimpleProtocol).Scan(&seen[n][0])
		if err == nil {
			err = writer.QueryRow(ctx, ask, pgx.QueryExecModeSimpleProtocol).Scan(&seen[n][1])
		}
		if err != nil {
			return fault.Unavailablef("PostgreSQL cannot be reached").Because(err)
		}
	}
	if lent(seen[:]) {
		return fault.Unavailablef("PostgreSQL is behind a pooler that lends connections for one transaction; " +
			"connect to PostgreSQL itself, or set the pooler to pool_mode = session")
	}
	return nil
}

// lent judges the processes that two open connections had, in turns.
func lent(seen [][2]int) bool {
	for _, s := range seen {
		if s != seen[0] || s[0] == s[1] {
			return true
		}
	}
	return false
}

// durable refuses a server that acknowledges before it has written.
func durable(ctx context.Context, db *sql.DB) error {
	for _, want := range []struct{ name, good, also string }{
		{"synchronous_commit", "on", "remote_apply"}, {"fsync", "on", "on"}, {"full_page_writes", "on", "on"},
	} {
		var is string
		if err := db.QueryRowContext(ctx, "SELECT current_setting($1)", want.name).Scan(&is); err != nil {
			return fault.Unavailablef("the settings of PostgreSQL cannot be read").Because(err)
		}
		if is != want.good && is != want.also {
			return fault.Unavailablef("PostgreSQL has %s = %s: it could lose what was acknowledged; set it to %s", want.name, is, want.good)
		}
	}
	return nil
}

// postgresEngine writes through pipelined batches, one connection per writer.
type postgresEngine struct {
	s   *Store
	cfg *pgx.ConnConfig

	mu   sync.Mutex
	idle []*pgx.Conn
}

func (e *postgresEngine) connect(ctx context.Context) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return pgx.ConnectConfig(ctx, e.cfg.Copy()) //nolint:wrapcheck // classified by the caller
}

func (e *postgresEngine) borrow() (*pgx.Conn, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if n := len(e.idle); n > 0 {
		c := e.idle[n-1]
		e.idle = e.idle[:n-1]
		return c, nil
	}
	return e.connect(context.Background())
}

func (e *postgresEngine) giveBack(c *pgx.Conn) {
	if c.IsClosed() {
		return
	}
	if c.PgConn().TxStatus() != 'I' { // never reuse a connection inside a transaction
		_ = c.Close(context.Background())
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.idle = append(e.idle, c)
}

func (e *postgresEngine) finish() {}

func (e *postgresEngine) close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	var errs []error
	for _, c := range e.idle {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		errs = append(errs, c.Close(ctx))
		cancel()
	}
	e.idle = nil
	return errors.Join(errs...)
}

// commit implements engine. A lost connection is not fatal: before COMMIT was
// sent nothing has happened, and after it those who wait get outcome unknown;
// the next batch connects again. An error that the server answers to COMMIT is
// fatal.
func (e *postgresEngine) commit(batch []*job) error {
	c, err := e.borrow()
	if err != nil {
		answer(batch, fault.Unavailablef("PostgreSQL cannot be reached").Because(err).After(time.Second))
		pause(context.Background(), 100*time.Millisecond)
		return nil
	}
	defer e.giveBack(c)
	if !e.s.cfg.Savepoints {
		err := e.together(c, batch)
		if err == nil {
			return nil
		}
		if lost := e.lost(c, batch, err); lost {
			return nil
		}
		if _, ok := errors.AsType[*unknown](err); ok {
			return err
		}
	}
	err = e.apart(c, batch)
	if err != nil && e.lost(c, batch, err) {
		return nil
	}
	return err
}

// lost answers a batch whose connection broke.
func (e *postgresEngine) lost(c *pgx.Conn, batch []*job, err error) bool {
	if !c.IsClosed() {
		return false
	}
	if _, ok := errors.AsType[*unknown](err); ok {
		answer(batch, fault.Unavailablef("the connection broke while committing, the outcome is unknown").Because(err))
	} else {
		answer(batch, fault.Unavailablef("the connection to PostgreSQL broke, nothing was done").Because(err).After(time.Second))
	}
	return true
}

// sqlState is the error code of the server, empty for another error.
func sqlState(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	return ""
}

// Codes of the server that say something about one unit or about the moment.
const (
	stateUnique        = "23505"
	stateDeadlock      = "40P01"
	stateSerialization = "40001"
	stateDiskFull      = "53100"
	stateReadOnly      = "25006"
)
