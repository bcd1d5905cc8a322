// Package store keeps the rows of the house, on SQLite for one node or on
// PostgreSQL for several, under one SQL text.
//
// It takes units of work as data (internal/unit) and commits many of them in
// one transaction, each whole or not at all (docs/decisions/0002). A unit's
// record commits with it, without a place in the tree; a leased integrator
// gives records their positions (docs/decisions/0003), and a relay hands them
// on in that order. Rows that decide what somebody may do carry a MAC that is
// checked with every read.
//
// The store makes no decisions and knows no verb. It fails closed: a row that
// does not match its MAC is not served, and after a failed commit nothing is
// until the process starts again.
package store

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/id"
	"github.com/sallyport-project/sallyport/internal/secret"
)

// The engines.
const (
	SQLite     = "sqlite"
	PostgreSQL = "postgres"
)

// Config says where the data are. The zero value of every member but Driver
// and Dir (or DSN and StateDir) is usable.
type Config struct {
	Driver   string       // SQLite (default) or PostgreSQL
	Dir      string       // data directory; SQLite only
	DSN      secret.Bytes // connection string; PostgreSQL only
	StateDir string       // where the last checkpoint is kept outside the database; Dir if empty

	Readers int              // read connections, 4 if zero
	Writers int              // writing connections, PostgreSQL only, 2 if zero, at most 4
	Batch   int              // most units in one transaction, 256 if zero
	Queue   int              // most units that wait, 4096 if zero
	Reserve int64            // bytes kept for urgent units, 16 MiB if zero, none if negative; SQLite only
	Logger  *slog.Logger     // discards if nil
	Now     func() time.Time // time.Now if nil

	// Savepoints makes every unit run in a savepoint of its own from the
	// start; for measuring only.
	Savepoints bool
	// Unsafe is the value of SQLite's synchronous setting in tests that prove
	// that lost durability is noticed; empty for FULL.
	Unsafe string
}

// MAC guards rows; keys.MAC implements it. Both calls are safe for concurrent
// use.
type MAC interface {
	Sum(table string, columns []any) []byte
	Check(table string, columns []any, mac []byte) error
}

// Store is an open store. All methods are safe for concurrent use.
type Store struct {
	cfg      Config
	log      *slog.Logger
	now      func() time.Time
	node     string // names this process in leases
	postgres bool

	catalogue *catalogue
	readers   *sqliteReaders // of SQLite
	reader    *sql.DB        // of PostgreSQL
	readings  sync.Map       // of PostgreSQL: SQL text -> *sql.Stmt
	engine    engine
	queue     *queue
	lock      *dirLock
	reserve   *reserve

	mac        atomic.Pointer[MAC]
	broken     atomic.Int64 // rows that did not match their MAC
	damageMu   sync.Mutex
	damage     map[string]bool // table/id of those that were reported
	ledger     atomic.Pointer[ledgerKeys]
	barred     atomic.Pointer[fault.Error] // why nothing may be committed
	identities identities
	note       *noteFile
	grown      *bell // rings when the head moved
	arrived    *bell // rings when a record was committed

	tail     tail
	waiting  atomic.Int64          // records committed here since the integrator last looked
	behind   atomic.Pointer[error] // what the integrator met last
	refusals refusals
	clock    clock
	subs     subscribers
	// observer hears of each record that is committed here.
	observer atomic.Pointer[func(audit.Record)]

	failOnce sync.Once
	failed   chan error
	ending   context.CancelFunc
	tasks    sync.WaitGroup
	closed   atomic.Bool
}

// ledgerKeys are what checkpoints are signed and verified with.
type ledgerKeys struct {
	signers []*audit.Signer // the oldest first
	keys    audit.Keys
}

// signer finds the one whose checkpoints name the key.
func (l *ledgerKeys) signer(key string) *audit.Signer {
	for _, s := range l.signers {
		if s.ID() == key {
			return s
		}
	}
	return nil
}

// engine runs batches of jobs against one database.
type engine interface {
	// commit executes the jobs and answers each of them, later perhaps. An error
	// is fatal for the store.
	commit(batch []*job) error
	// finish is called when no batch comes any more.
	finish()
	close() error
}

func (c Config) withDefaults() (Config, error) {
	if c.Driver == "" {
		c.Driver = SQLite
	}
	switch {
	case c.Driver != SQLite && c.Driver != PostgreSQL:
		return c, fault.Invalidf("the storage driver is %q: use %s or %s", c.Driver, SQLite, PostgreSQL)
	case c.Driver == SQLite && c.Dir == "":
		return c, fault.Invalidf("the data directory is not set")
	case c.Driver == PostgreSQL && c.DSN.Len() == 0:
		return c, fault.Invalidf("the connection string of PostgreSQL is not set")
	}
	if c.StateDir == "" {
		c.StateDir = c.Dir
	}
	if c.StateDir == "" {
		return c, fault.Invalidf("the state directory is not set: the last checkpoint must be kept outside of PostgreSQL")
	}
	c.Readers = orDefault(c.Readers, 4)
	c.Writers = min(orDefault(c.Writers, 2), 4)
	c.Batch = orDefault(c.Batch, 256)
	c.Queue = orDefault(c.Queue, 4096)
	if c.Reserve == 0 {
		c.Reserve = 16 << 20
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c, nil
}

func orDefault(n, d int) int {
	if n <= 0 {
		return d
	}
	return n
}

// Open opens or creates the store and brings its schema up to date. A data
// directory that another process uses, storage that cannot be written and a
// database that does not promise durability are Unavailable, with what to do.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Store{
		cfg: cfg, log: cfg.Logger, now: cfg.Now, node: id.New(), postgres: cfg.Driver == PostgreSQL,
		damage: map[string]bool{}, grown: newBell(), arrived: newBell(), failed: make(chan error, 1),
	}
	s.catalogue = newCatalogue(s.postgres)
	s.subs.changed = newBell()
	s.queue = newQueue(cfg.Queue)
	s.note = &noteFile{dir: cfg.StateDir}
	if s.postgres {
		err = s.openPostgres(ctx)
	} else {
		err = s.openSQLite(ctx)
	}
	if err == nil {
		err = s.start(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, s.release())
	}
	return s, nil
}

// start reads what the store keeps in memory and begins to write.
func (s *Store) start(ctx context.Context) error {
	if err := s.clock.load(ctx, s); err != nil {
		return err
	}
	run, cancel := context.WithCancel(context.Background())
	s.ending = cancel
	writers := 1
	if s.postgres {
		writers = s.cfg.Writers
	}
	for range writers {
		s.tasks.Go(s.write)
	}
	if c, ok := s.engine.(*sqliteEngine); ok {
		s.tasks.Go(c.syncer.run)
		s.tasks.Go(func() { c.checkpoints(run) })
	}
	return nil
}

// Close waits until what was accepted is committed, or the context ends, and
// closes the store. What comes later is Unavailable.
func (s *Store) Close(ctx context.Context) error {
	if !s.closed.CompareAndSwap(false, true) {
		return nil
	}
	s.queue.close()
	if s.ending != nil {
		s.ending()
	}
	done := make(chan struct{})
	go func() { s.tasks.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
		return fault.Unavailablef("the store is still writing").Because(ctx.Err())
	}
	return s.release()
}

// release gives back what Open took.
func (s *Store) release() error {
	var errs []error
	if s.readers != nil {
		errs = append(errs, s.readers.close())
	}
	if s.reader != nil {
		errs = append(errs, s.reader.Close())
	}
	if s.engine != nil {
		errs = append(errs, s.engine.close())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.release())
	}
	return fault.Wrap(errors.Join(errs...), "close store")
}

// UseMAC hands over the key for rows. Before it only [Store.Keys] and reads of
// tables without a MAC are possible, and nothing can be written to the others.
func (s *Store) UseMAC(m MAC) { s.mac.Store(&m) }

// Failed fires once when the store can no longer promise anything: the process
// must exit and start again.
func (s *Store) Failed() <-chan error { return s.failed }

// fail bars the store for good.
func (s *Store) fail(err error) {
	s.barred.Store(fault.Unavailablef("the store failed while writing, the outcome is unknown; it must be started again").Because(err))
	s.failOnce.Do(func() {
		s.log.LogAttrs(context.Background(), slog.LevelError, "the store failed and must be started again", slog.Any("err", err))
		s.failed <- err
	})
}

// Broken counts the rows that were not served because of their MAC, each once.
func (s *Store) Broken() int64 { return s.broken.Load() }

// bell wakes everybody who waits.
type bell struct {
	mu sync.Mutex
	ch chan struct{}
}

func newBell() *bell { return &bell{ch: make(chan struct{})} }

func (b *bell) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ch
}

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.ch)
	b.ch = make(chan struct{})
}

// Config is what the store was opened with, defaults filled in.
func (s *Store) Config() Config { return s.cfg }
