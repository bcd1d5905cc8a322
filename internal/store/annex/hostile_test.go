package annex

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
)

// A statement whose second row never comes ends with the call, too.
func TestSQLite_EndsBetweenRows(t *testing.T) {
	a := files(t)
	if err := migrate(t.Context(), a, "my-ext", tags()); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), within/50)
	defer cancel()
	s := plugin.Statement{SQL: "SELECT 1 UNION ALL SELECT max(a) FROM (WITH RECURSIVE n(a) AS (SELECT 1 UNION ALL SELECT a + 1 FROM n) SELECT a FROM n)"}
	ended := make(chan error, 1)
	go func() {
		_, err := a.Query(short, "my-ext", s, 10)
		ended <- err
	}()
	select {
	case err := <-ended:
		if !fault.Is(err, fault.Unavailable) {
			t.Errorf("got %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the query does not end")
	}
}

// A row is in memory before it can be weighed.
func TestAnnexes_MakeNoGiantRows(t *testing.T) {
	each(t, func(t *testing.T, a *Annexes) {
		if err := migrate(t.Context(), a, "my-ext", tags()); err != nil {
			t.Fatal(err)
		}
		wide := "SELECT replace(hex(zeroblob(900000)), '0', 'a')" + strings.Repeat(", replace(hex(zeroblob(900000)), '0', 'a')", 1500)
		refused := func(err error) bool {
			return fault.Is(err, fault.Invalid) && strings.Contains(err.Error(), "too many columns")
		}
		if _, ok := a.eng.(*postgresEngine); ok {
			wide = "SELECT repeat('a', 10000000)"
			refused = func(err error) bool {
				_, ok := errors.AsType[*pgproto3.ExceededMaxBodyLenErr](err)
				return ok && fault.Is(err, fault.Exhausted)
			}
		}
		if _, err := a.Query(t.Context(), "my-ext", plugin.Statement{SQL: wide}, 1); !refused(err) {
			t.Fatalf("got %v", err)
		}
		if _, err := a.Query(t.Context(), "my-ext", plugin.Statement{SQL: "SELECT 1"}, 1); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}

// The table of locks is shared by all who use the server, ourselves included, and
// what an extension locks must not keep others from starting.
func TestPostgres_KeepsNoLocks(t *testing.T) {
	a, _ := postgres(t)
	ctx := t.Context()
	if err := migrate(ctx, a, "my-ext", tags()); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		"SELECT pg_advisory_lock(1)", "SELECT pg_catalog.pg_advisory_lock /* */ (1)", `SELECT "pg_try_advisory_lock"(1)`,
		"SELECT pg_advisory_lock(a) FROM generate_series(1, 1000000) a", "SELECT query_to_xml('SELECT pg_advisory_lock(1)', true, true, '')",
		"SELECT ts_stat('SELECT pg_advisory_lock(1)')", "SELECT set_config('statement_timeout', '0', false)", "SELECT lo_create(0)",
	} {
		if _, err := a.Query(ctx, "my-ext", plugin.Statement{SQL: text}, 1); !fault.Is(err, fault.Denied) {
			t.Errorf("%s: %v", text, err)
		}
		if _, err := a.Exec(ctx, "my-ext", []plugin.Statement{{SQL: text}}); !fault.Is(err, fault.Denied) {
			t.Errorf("exec %s: %v", text, err)
		}
	}
	if _, err := a.Query(ctx, "my-ext", plugin.Statement{SQL: "SELECT 'pg_advisory_lock('"}, 1); err != nil {
		t.Errorf("a value: %v", err)
	}
	// What a session keeps all the same ends with the call.
	c, free, err := a.conn(ctx, "my-ext")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.ExecContext(ctx, "SELECT pg_advisory_lock(7), set_config('search_path', 'public', false)"); err != nil {
		t.Fatal(err)
	}
	free()
	var locks int
	if err := a.eng.(*postgresEngine).admin.QueryRowContext(ctx, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").Scan(&locks); err != nil || locks != 0 {
		t.Errorf("%d locks, %v", locks, err)
	}
	got, err := a.Query(ctx, "my-ext", plugin.Statement{SQL: "SELECT current_schema() <> 'public'"}, 1)
	if err != nil || got.Rows[0][0] != int64(1) {
		t.Errorf("the schema: %v, %v", got.Rows, err)
	}
}

// Servers that start at the same time make the same role, schema and tables ready.
func TestPostgres_ManyServersAtOnce(t *testing.T) {
	first, dsn := postgres(t)
	all := []*Annexes{first}
	for range 3 {
		all = append(all, made(t, Config{Driver: first.cfg.Driver, DSN: dsn, Password: first.cfg.Password}))
	}
	var wg sync.WaitGroup
	for _, a := range all {
		wg.Go(func() {
			err := migrate(t.Context(), a, "my-ext", tags())
			for n := 0; n < 5 && fault.Is(err, fault.Unavailable); n++ { // as the host does
				err = migrate(t.Context(), a, "my-ext", tags())
			}
			if err != nil {
				t.Errorf("got %v: %v", err, errors.Unwrap(err))
			}
		})
	}
	wg.Wait()
}
