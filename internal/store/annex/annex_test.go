package annex

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/secret"
	"github.com/sallyport-project/sallyport/internal/store"
	"github.com/sallyport-project/sallyport/internal/store/storetest"
)

// started is the server of all tests, begun by the first that needs it: a fuzzer's
// worker needs none, and would leave it its pipes.
var started = sync.OnceValues(func() (*storetest.Server, error) {
	server, _, err := storetest.NewServer()
	begun = server
	return server, err
})

var begun *storetest.Server

func TestMain(m *testing.M) {
	code := m.Run()
	if begun != nil {
		_ = begun.Stop()
	}
	os.Exit(code)
}

// tags is the schema of the guide.
func tags() []manifest.Migration {
	return []manifest.Migration{{
		Name:     "0001_tags",
		SQLite:   "CREATE TABLE extension_myext_tags (tag_id INTEGER PRIMARY KEY, machine_id TEXT NOT NULL, label TEXT NOT NULL);\nCREATE INDEX extension_myext_tags_machine ON extension_myext_tags (machine_id);",
		Postgres: "CREATE TABLE extension_myext_tags (tag_id BIGSERIAL PRIMARY KEY, machine_id TEXT NOT NULL, label TEXT NOT NULL);\nCREATE INDEX extension_myext_tags_machine ON extension_myext_tags (machine_id);",
	}}
}

// each runs a test on both engines.
func each(t *testing.T, f func(t *testing.T, a *Annexes)) {
	t.Run("sqlite", func(t *testing.T) { f(t, files(t)) })
	t.Run("postgres", func(t *testing.T) { a, _ := postgres(t); f(t, a) })
}

// migrate brings the tables of a plugin up to date.
func migrate(ctx context.Context, a *Annexes, name string, steps []manifest.Migration) error {
	return a.Migrate(ctx, manifestOf(name, steps))
}

func manifestOf(name string, steps []manifest.Migration) manifest.Manifest {
	return manifest.Manifest{Name: name, Publisher: "acme", Extension: &manifest.Extension{Migrations: steps}}
}

func always(context.Context) (bool, error) { return true, nil }

func made(t *testing.T, cfg Config) *Annexes {
	t.Helper()
	if cfg.Installed == nil {
		cfg.Installed = func(context.Context, string, string) error { return nil }
	}
	a, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	return a
}

func files(t *testing.T) *Annexes {
	return made(t, Config{Driver: store.SQLite, Dir: filepath.Join(t.TempDir(), "extensions"), MaxBytes: 1 << 20})
}

// postgres is a set of databases on a server, and the connection of the house.
func postgres(t *testing.T) (*Annexes, secret.Bytes) {
	t.Helper()
	server, err := started()
	if err != nil {
		t.Fatal(err)
	}
	if server == nil {
		t.Skip("PostgreSQL is not installed (apt package postgresql)")
	}
	dsn := server.Config(t).DSN
	a := replica(t, dsn, nil)
	// The table of the store, without opening one.
	schema, err := os.ReadFile("../migrations/postgres/00001_house.sql")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(schema), "CREATE TABLE annexes")
	text, _, _ = strings.Cut(text, ";")
	if _, err := a.eng.(*postgresEngine).admin.ExecContext(t.Context(), "CREATE TABLE annexes"+text); err != nil {
		t.Fatal(err)
	}
	return a, dsn
}

// replica is one more server on a database.
func replica(t *testing.T, dsn secret.Bytes, installed func(context.Context, string, string) error) *Annexes {
	t.Helper()
	password := func(string) (secret.Bytes, error) { return secret.FromString("hunter2"), nil }
	return made(t, Config{Driver: store.PostgreSQL, DSN: dsn, Password: password, Installed: installed})
}

func TestAnnexes_KeepRows(t *testing.T) {
	each(t, func(t *testing.T, a *Annexes) {
		ctx := t.Context()
		if err := migrate(ctx, a, "my-ext", tags()); err != nil {
			t.Fatal(err)
		}
		n, err := a.Exec(ctx, "my-ext", []plugin.Statement{
			{SQL: "INSERT INTO extension_myext_tags (tag_id, machine_id, label) VALUES ($1, $2, $3)", Arguments: []any{int64(1), "m1", "blue"}},
			{SQL: "INSERT INTO extension_myext_tags (tag_id, machine_id, label) VALUES ($1, $2, $3), ($4, $2, $5)", Arguments: []any{int64(2), "m1", "red", int64(3), "grün; -- '"}},
		})
		if diff := cmp.Diff([]int64{1, 2}, n); err != nil || diff != "" {
			t.Fatal(err, diff)
		}
		got, err := a.Query(ctx, "my-ext", plugin.Statement{SQL: "SELECT tag_id, label FROM extension_myext_tags WHERE machine_id = $1 ORDER BY tag_id;", Arguments: []any{"m1"}}, 2)
		want := plugin.Rows{Columns: []string{"tag_id", "label"}, Rows: [][]any{{int64(1), "blue"}, {int64(2), "red"}}, More: true}
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Fatal(err, diff)
		}
		// All or nothing.
		_, err = a.Exec(ctx, "my-ext", []plugin.Statement{{SQL: "DELETE FROM extension_myext_tags"}, {SQL: "INSERT INTO extension_myext_none (a) VALUES (1)"}})
		if !fault.Is(err, fault.Invalid) {
			t.Errorf("a table that is not there: %v", err)
		}
		if got, err = a.Query(ctx, "my-ext", plugin.Statement{SQL: "SELECT count(*) FROM extension_myext_tags"}, 0); err != nil || got.Rows[0][0] != int64(3) {
			t.Errorf("half a transaction was kept: %v, %v", got.Rows, err)
		}
	})
}

func TestAnnexes_MigrateOnce(t *testing.T) {
	each(t, func(t *testing.T, a *Annexes) {
		ctx := t.Context()
		steps := tags()
		for range 2 {
			if err := migrate(ctx, a, "my-ext", steps); err != nil {
				t.Fatal(err)
			}
		}
		more := append(steps, manifest.Migration{Name: "0003_who", SQL: "ALTER TABLE extension_myext_tags ADD COLUMN author TEXT NOT NULL DEFAULT ''"})
		if err := migrate(ctx, a, "my-ext", more); err != nil {
			t.Fatal(err)
		}
		if err := migrate(ctx, a, "my-ext", steps); err != nil {
			t.Errorf("an older version on a newer schema: %v", err)
		}
		changed := tags()
		changed[0].SQLite, changed[0].Postgres = changed[0].SQLite+" ", changed[0].Postgres+" "
		if err := migrate(ctx, a, "my-ext", changed); !fault.Is(err, fault.Conflict) {
			t.Errorf("a migration that has changed: %v", err)
		}
		late := append(steps, manifest.Migration{Name: "0002_late", SQL: "CREATE TABLE extension_late (a TEXT)"})
		if err := migrate(ctx, a, "my-ext", late); !fault.Is(err, fault.Conflict) {
			t.Errorf("a migration in between: %v", err)
		}
	})
}

// A migration that fails half way leaves nothing, and the next try finds a clean
// schema.
func TestAnnexes_MigrationFailsWhole(t *testing.T) {
	each(t, func(t *testing.T, a *Annexes) {
		ctx := t.Context()
		broken := manifest.Migration{Name: "0002_broken", SQL: "CREATE TABLE extension_a (id TEXT); INSERT INTO extension_a (id) VALUES ('x'); CREATE TABLE extension_a (id TEXT);"}
		if err := migrate(ctx, a, "my-ext", append(tags(), broken)); !fault.Is(err, fault.Invalid) || !strings.Contains(fault.Public(err), "0002_broken") {
			t.Fatalf("a broken migration: %v", err)
		}
		if _, err := a.Query(ctx, "my-ext", plugin.Statement{SQL: "SELECT * FROM extension_a"}, 1); !fault.Is(err, fault.Invalid) {
			t.Errorf("half a migration was kept: %v", err)
		}
		mended := manifest.Migration{Name: "0002_broken", SQL: "CREATE TABLE extension_a (id TEXT)"}
		if err := migrate(ctx, a, "my-ext", append(tags(), mended)); err != nil {
			t.Errorf("the mended one: %v", err)
		}
	})
}

func TestAnnexes_Purge(t *testing.T) {
	each(t, func(t *testing.T, a *Annexes) {
		ctx := t.Context()
		if err := migrate(ctx, a, "my-ext", tags()); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := a.Purge(ctx, "my-ext", always); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := a.Query(ctx, "my-ext", plugin.Statement{SQL: "SELECT * FROM extension_myext_tags"}, 1); !fault.Is(err, fault.Invalid) {
			t.Errorf("the tables are still there: %v", err)
		}
		if err := migrate(ctx, a, "my-ext", tags()); err != nil {
			t.Errorf("installed again: %v", err)
		}
	})
}

// What the engines must not do for an extension, whatever it asks.
func TestAnnexes_RefuseEscapes(t *testing.T) {
	each(t, func(t *testing.T, a *Annexes) {
		ctx := t.Context()
		for _, name := range []string{"my-ext", "victim"} {
			if err := migrate(ctx, a, name, tags()); err != nil {
				t.Fatal(err)
			}
		}
		for _, text := range []string{
			"ATTACH 'sallyport.db' AS house", "VACUUM INTO '/tmp/x'", "PRAGMA writable_schema = 1", "PRAGMA temp_store_directory = '/'",
			"SELECT load_extension('/tmp/x.so')", "SELECT * FROM pragma_database_list", "BEGIN", "COMMIT", "SAVEPOINT a",
			"CREATE TABLE extension_x (a TEXT)", "DROP TABLE extension_myext_tags", "CREATE TEMP TABLE extension_t (a TEXT)",
			"DELETE FROM sallyport_migrations", "UPDATE \"sallyport_migrations\" SET digest = ''", "SELECT * FROM [sallyport_migrations]",
			"UPDATE sqlite_master SET sql = ''", "INSERT INTO sqlite_sequence VALUES ('a', 1)", "SELECT 1; SELECT 2", "SELECT 1; ATTACH 'x' AS y", "",
			"-- only a comment", "SELECT 'a", "COPY extension_myext_tags TO PROGRAM 'id'", "SET ROLE postgres", "RESET ROLE", "DO $$ BEGIN END $$",
			"EXPLAIN SELECT 1", "SELECT E'a\\''; ATTACH 'x' AS y --'", "SELECT \x00", "/* a /* b */ */ SELECT 1", "GRANT ALL ON SCHEMA public TO PUBLIC",
			"SELECT readfile('/etc/passwd')", "SELECT pg_read_file('/etc/passwd')", "SELECT lo_import('/etc/passwd')", "SELECT pg_ls_dir('/')",
			"LOCK TABLE extension_myext_tags", "LISTEN x", "CALL x()", "EXECUTE x",
		} {
			s := []plugin.Statement{{SQL: text}}
			if _, err := a.Exec(ctx, "my-ext", s); !fault.Is(err, fault.Denied) && !fault.Is(err, fault.Invalid) {
				t.Errorf("exec %q: %v", text, err)
			}
			if got, err := a.Query(ctx, "my-ext", s[0], 1); !fault.Is(err, fault.Denied) && !fault.Is(err, fault.Invalid) {
				t.Errorf("query %q: %v, %v", text, got.Rows, err)
			}
		}
		for _, text := range []string{
			"CREATE TABLE tags (a TEXT)", "CREATE TABLE sallyport_x (a TEXT)", "CREATE TABLE extension_x (a TEXT); ALTER TABLE extension_x RENAME TO house",
			"CREATE VIEW v AS SELECT 1 AS a", "CREATE VIRTUAL TABLE extension_v USING fts5(a)", "CREATE TEMP TABLE extension_t (a TEXT)",
			"ATTACH 'x' AS y", "PRAGMA journal_mode = OFF", "DROP TABLE sallyport_migrations", "DELETE FROM sallyport_migrations WHERE 1 = 1",
			"UPDATE sqlite_master SET sql = '' WHERE 1 = 1", "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "CREATE EXTENSION dblink",
			"CREATE SCHEMA extension_s", "CREATE TABLE public.extension_x (a TEXT)", "CREATE ROLE r", "ALTER ROLE postgres SUPERUSER", "VACUUM", "SELECT 1",
			"COMMIT; CREATE TABLE tags (a TEXT)", "DELETE FROM \ufeffsallyport_migrations", "INSERT INTO extension_myext_tags VALUES (1, :a('), '', ''); COMMIT; SELECT (')", "CREATE TABLE extension_x (a TEXT); COMMIT",
		} {
			err := migrate(ctx, a, "my-ext", append(tags(), manifest.Migration{Name: "0009_x", SQL: text}))
			if !fault.Is(err, fault.Denied) && !fault.Is(err, fault.Invalid) {
				t.Errorf("migration %q: %v", text, err)
			}
		}
	})
}

func TestSQLite_Limits(t *testing.T) {
	a := files(t)
	ctx := t.Context()
	if err := migrate(ctx, a, "my-ext", tags()); err != nil {
		t.Fatal(err)
	}
	fill := plugin.Statement{SQL: "INSERT INTO extension_myext_tags (machine_id, label) VALUES ('m', $1)", Arguments: []any{strings.Repeat("x", 100_000)}}
	var err error
	for range 20 {
		if _, err = a.Exec(ctx, "my-ext", []plugin.Statement{fill}); err != nil {
			break
		}
	}
	if !fault.Is(err, fault.Exhausted) {
		t.Errorf("a database that grows: %v", err)
	}
	if _, err := a.Query(ctx, "my-ext", plugin.Statement{SQL: "SELECT zeroblob(1000000000)"}, 1); err == nil {
		t.Error("a value of a gigabyte is made")
	}
	short, cancel := context.WithTimeout(ctx, within/50)
	defer cancel()
	endless := plugin.Statement{SQL: "WITH RECURSIVE n(a) AS (SELECT 1 UNION ALL SELECT a + 1 FROM n) SELECT max(a) FROM n"}
	if _, err := a.Query(short, "my-ext", endless, 1); !fault.Is(err, fault.Unavailable) {
		t.Errorf("a query without an end: %v", err)
	}
	// The file is where nobody else's is, and private.
	info, err := os.Stat(filepath.Join(a.cfg.Dir, "my-ext.db"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", info, err)
	}
	if err := migrate(ctx, a, "../house", tags()); err == nil {
		t.Error("a name that is a path is opened")
	}
}

// The role of an extension reaches nothing of the house or of another extension,
// also by SQL that no check of ours has seen.
func TestPostgres_RoleHasNothingElse(t *testing.T) {
	a, _ := postgres(t)
	ctx := t.Context()
	if _, err := a.eng.(*postgresEngine).admin.ExecContext(ctx, "CREATE TABLE public.keys (id TEXT); INSERT INTO public.keys VALUES ('secret')"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"my-ext", "victim"} {
		if err := migrate(ctx, a, name, tags()); err != nil {
			t.Fatal(err)
		}
	}
	db, err := a.database("my-ext")
	if err != nil {
		t.Fatal(err)
	}
	other := a.open["victim"].at
	for _, text := range []string{
		"SELECT * FROM public.keys", "SELECT * FROM " + other + ".extension_myext_tags", "SET ROLE postgres", "SET SESSION AUTHORIZATION postgres",
		"COPY public.keys TO STDOUT", "COPY (SELECT 1) TO PROGRAM 'id'", "COPY (SELECT 1) TO '/tmp/x'", "CREATE TABLE public.x (a TEXT)", "CREATE SCHEMA x",
		"CREATE TEMP TABLE x (a TEXT)", "CREATE EXTENSION dblink", "CREATE ROLE x", "ALTER ROLE postgres PASSWORD 'x'", "SELECT pg_read_file('/etc/passwd')",
		"SELECT * FROM pg_authid", "ALTER SYSTEM SET log_statement = 'all'", "CREATE LANGUAGE c", "SET ROLE " + other,
		"CREATE TABLE " + other + ".extension_x (a TEXT)", "SELECT lo_import('/etc/passwd')", "SELECT pg_reload_conf()", "DROP SCHEMA " + other + " CASCADE",
		"SELECT set_config('role', 'postgres', false)", "SELECT set_config('session_authorization', 'postgres', false)",
	} {
		if _, err := db.ExecContext(ctx, text); err == nil {
			t.Errorf("%s is done", text)
		}
	}
}

func TestSplit_Statements(t *testing.T) {
	for text, want := range map[string][]string{
		"CREATE TABLE extension_a (x TEXT DEFAULT ';');;\n -- done\nDROP TABLE extension_a": {"CREATE TABLE extension_a (x TEXT DEFAULT ';')", "-- done\nDROP TABLE extension_a"},
		"CREATE TRIGGER t AFTER INSERT ON extension_a BEGIN SELECT CASE WHEN 1 THEN 2 END; DELETE FROM extension_a; END; DROP TABLE extension_b": {
			"CREATE TRIGGER t AFTER INSERT ON extension_a BEGIN SELECT CASE WHEN 1 THEN 2 END; DELETE FROM extension_a; END", "DROP TABLE extension_b",
		},
	} {
		got, err := ofSQLite.split(text)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%v\n%s", err, diff)
		}
	}
}

// FuzzScan shows that every byte belongs to one token, so that what the check
// reads is what the engine is given.
func FuzzScan(f *testing.F) {
	for _, s := range []string{"SELECT 1", "INSERT INTO \"a\"\"b\" VALUES ('x''y', [c], `d`) -- e\n; /* f */", "CREATE TRIGGER t BEGIN END;", "select $1::text", "x'00'"} {
		f.Add(s)
	}
	f.Add("select array[f('a', \"b\")] --\r, c\v(:d(')")
	f.Add("/* /*/ select 1 */ */ drop table t into 0xA$$")
	f.Fuzz(func(t *testing.T, s string) {
		for _, d := range []dialect{ofSQLite, ofPostgres} {
			tokens, at, err := d.scan(s)
			if err != nil {
				continue
			}
			before := 0
			for n := range tokens {
				if at[n] <= before || at[n] > len(s) {
					t.Fatalf("token %d ends at %d, after %d", n, at[n], before)
				}
				before = at[n]
			}
			if d.plain(s) == nil && strings.Contains(strings.ToLower(s), "attach") && len(tokens) == 1 {
				t.Fatal("a word passes as a statement")
			}
			_, _ = d.split(s)
		}
	})
}
