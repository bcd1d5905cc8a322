package storetest

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver by which tests go behind the store's back

	"github.com/sallyport-project/sallyport/internal/secret"
	"github.com/sallyport-project/sallyport/internal/store"
)

// Server is a PostgreSQL server on a private socket, for one test binary.
type Server struct {
	dir, bin string
	cred     *syscall.SysProcAttr
	mu       sync.Mutex
	count    int
}

// NewServer makes a cluster in a fresh directory and starts it: the durable
// defaults, no TCP. It returns nil, with the reason, when PostgreSQL is not
// installed.
func NewServer() (*Server, string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil || len(found) == 0 {
		return nil, "PostgreSQL is not installed (apt package postgresql)", nil //nolint:nilerr // the pattern is constant
	}
	slices.Sort(found)
	p := &Server{bin: found[len(found)-1]}
	if p.dir, err = os.MkdirTemp("", "sallyport-pg"); err != nil {
		return nil, "", err
	}
	if os.Getuid() == 0 { // the server refuses to run as root
		u, err := user.Lookup("postgres")
		if err != nil {
			return nil, "there is no user postgres to run the server as", os.RemoveAll(p.dir)
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		p.cred = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
		if err := os.Chown(p.dir, uid, gid); err != nil {
			return nil, "", err
		}
	}
	if err := p.run("initdb", "-D", p.data(), "-A", "trust", "-U", "postgres", "--no-locale", "-E", "UTF8"); err != nil {
		return nil, "", err
	}
	options := "-c listen_addresses='' -c unix_socket_directories=" + p.dir + " -c max_connections=200"
	if err := p.run("pg_ctl", "-D", p.data(), "-w", "-l", filepath.Join(p.dir, "log"), "-o", options, "start"); err != nil {
		return nil, "", err
	}
	return p, "", nil
}

func (p *Server) data() string { return filepath.Join(p.dir, "data") }

func (p *Server) run(name string, args ...string) error {
	cmd := exec.Command(filepath.Join(p.bin, name), args...) //nolint:noctx // initdb and pg_ctl end by themselves
	cmd.SysProcAttr, cmd.Dir = p.cred, p.dir
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out.String())
	}
	return nil
}

// Stop ends the server and removes its files.
func (p *Server) Stop() error {
	if p == nil {
		return nil
	}
	err := p.run("pg_ctl", "-D", p.data(), "-m", "immediate", "-w", "stop")
	if gone := os.RemoveAll(p.dir); err == nil {
		err = gone
	}
	return err
}

// DSN names a database on the server.
func (p *Server) DSN(database string) string {
	return "host=" + p.dir + " user=postgres dbname=" + database
}

// Exec runs SQL in a database of the server.
func (p *Server) Exec(ctx context.Context, database, text string, args ...any) error {
	db, err := sql.Open("pgx", p.DSN(database))
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	_, err = db.ExecContext(ctx, text, args...)
	return err
}

// Config makes a database of its own and is a store in it.
func (p *Server) Config(t testing.TB) store.Config {
	t.Helper()
	p.mu.Lock()
	p.count++
	name := "t" + strconv.Itoa(p.count)
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	must(t, p.Exec(ctx, "postgres", "CREATE DATABASE "+name))
	return store.Config{Driver: store.PostgreSQL, DSN: secret.FromString(p.DSN(name)), StateDir: t.TempDir()}
}

// Need skips the test loudly without a server, and fails it where nothing may
// be skipped.
func (p *Server) Need(t testing.TB, reason string) {
	t.Helper()
	if p != nil {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("PostgreSQL is needed here: %s", reason)
	}
	t.Skipf("skipped: needs PostgreSQL: %s", reason)
}

// Engine is the engine of the suite on this server.
func (p *Server) Engine() Engine {
	return Engine{
		Config: func(t *testing.T) store.Config { return p.Config(t) },
		DB:     func(t *testing.T, cfg store.Config) *sql.DB { return behind(t, "pgx", string(cfg.DSN.Reveal())) },
		Backup: func(t *testing.T, cfg store.Config) func(*testing.T) {
			t.Helper()
			_, name, _ := strings.Cut(string(cfg.DSN.Reveal()), "dbname=")
			ctx := context.Background()
			must(t, p.Exec(ctx, "postgres", "CREATE DATABASE "+name+"_backup TEMPLATE "+name))
			return func(t *testing.T) {
				t.Helper()
				must(t, p.Exec(ctx, "postgres", "DROP DATABASE "+name+" WITH (FORCE)"))
				must(t, p.Exec(ctx, "postgres", "ALTER DATABASE "+name+"_backup RENAME TO "+name))
			}
		},
	}
}

// Files is the engine of the suite on SQLite.
func Files() Engine {
	return Engine{
		Config: func(t *testing.T) store.Config { return store.Config{Dir: t.TempDir()} },
		DB: func(t *testing.T, cfg store.Config) *sql.DB {
			return behind(t, "sqlite", "file:"+filepath.Join(cfg.Dir, "sallyport.db")+"?_pragma=busy_timeout(5000)")
		},
		Backup: func(t *testing.T, cfg store.Config) func(*testing.T) {
			t.Helper()
			name := filepath.Join(cfg.Dir, "sallyport.db")
			data, err := os.ReadFile(name)
			must(t, err)
			return func(t *testing.T) {
				t.Helper()
				for _, rest := range []string{"-wal", "-shm"} {
					if err := os.Remove(name + rest); err != nil && !os.IsNotExist(err) {
						t.Fatal(err)
					}
				}
				must(t, os.WriteFile(name, data, 0o600))
			}
		},
	}
}

func behind(t *testing.T, driver, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	must(t, err)
	t.Cleanup(func() { _ = db.Close() })
	return db
}
