package store_test

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/store"
	"github.com/sallyport-project/sallyport/internal/store/storetest"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// refusing commits until a store of PostgreSQL refuses, which it says of giving and
// of taking away alike; undoes what it met, and commits again.
func refusing(t *testing.T, s *store.Store, why string, undo func()) {
	t.Helper()
	ctx := context.Background()
	commit := func() error {
		r := storetest.Record("test.noted")
		filler := make([]byte, 16<<10) // that PostgreSQL cannot compress
		_, _ = rand.Read(filler)
		r.Data = map[string]string{"filler": base64.StdEncoding.EncodeToString(filler)}
		return s.Commit(ctx, unit.Unit{Record: r})
	}
	var err error
	met := func() bool {
		err = commit()
		return err != nil && strings.Contains(fault.Public(err), why)
	}
	for n := 0; n < 5000 && !met(); n++ { // a connection that is lost before is another refusal
		if err != nil && !fault.Is(err, fault.Unavailable) {
			t.Fatal(err)
		}
	}
	everything, said := s.Refusing()
	if !fault.Is(err, fault.Unavailable) || !everything || !strings.Contains(fault.Public(said), why) {
		t.Fatalf("refused with %v, and says %v, %v", err, everything, said)
	}
	undo()
	storetest.Eventually(t, "it takes everything again", func() bool {
		err := commit()
		_, said := s.Refusing()
		return err == nil && said == nil
	})
}

// TestPostgreSQL_SaysThatItIsReadOnly is what a server meets whose database has
// become a standby.
func TestPostgreSQL_SaysThatItIsReadOnly(t *testing.T) {
	ctx, e := context.Background(), postgres(t).Engine()
	cfg := e.Config(t)
	s, db := storetest.Open(t, cfg), e.DB(t, cfg)
	var name string
	noError(t, db.QueryRowContext(ctx, "SELECT current_database()").Scan(&name))
	readOnly := func(mode string) {
		t.Helper()
		noError(t, postgres(t).Exec(ctx, "postgres", "ALTER DATABASE "+name+" SET default_transaction_read_only = "+mode))
		noError(t, postgres(t).Exec(ctx, "postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'sallyport' AND datname = $1", name))
	}
	readOnly("on")
	refusing(t, s, "PostgreSQL is read-only", func() { readOnly("off") })
}

// TestPostgreSQL_SaysThatItsDiskIsFull has the tables on a small disk.
func TestPostgreSQL_SaysThatItsDiskIsFull(t *testing.T) {
	ctx, p := context.Background(), postgres(t)
	dir := mount(t, "24m")
	if os.Getuid() == 0 { // the server runs as another user
		u, err := user.Lookup("postgres")
		noError(t, err)
		uid, err := strconv.Atoi(u.Uid)
		noError(t, err)
		noError(t, os.Chown(dir, uid, -1))
		noError(t, os.Chmod(filepath.Dir(dir), 0o711)) // for the other user, who looks for the folder below
	}
	cfg := p.Config(t)
	_, name, _ := strings.Cut(string(cfg.DSN.Reveal()), "dbname=")
	exec := func(text string) { t.Helper(); noError(t, p.Exec(ctx, "postgres", text)) }
	exec("CREATE TABLESPACE small LOCATION '" + dir + "'")
	t.Cleanup(func() {
		exec("DROP DATABASE " + name + " WITH (FORCE)")
		exec("DROP TABLESPACE small")
	})
	exec("ALTER DATABASE " + name + " SET TABLESPACE small")
	s := storetest.Open(t, cfg)
	refusing(t, s, "the disk of PostgreSQL is full", func() {
		noError(t, unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, "size=96m"))
	})
}
