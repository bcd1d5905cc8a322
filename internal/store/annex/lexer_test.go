package annex

import (
	"strings"
	"testing"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
)

// What PostgreSQL reads as a call or a name must be read as one here. Each of these
// once reached a function that is not for extensions.
func TestPostgres_HidesNothing(t *testing.T) {
	a, _ := postgres(t)
	ctx := t.Context()
	if err := migrate(ctx, a, "my-ext", tags()); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		"SELECT ARRAY[lo_create(0)]",
		"SELECT (ARRAY[1])[lo_create(0)]",
		"SELECT ARRAY[set_config('work_mem', '1GB', false)]",
		"SELECT ARRAY[(SELECT name FROM sallyport_migrations LIMIT 1)]",
		"SELECT 1 --\r, lo_create(0)",
		"SELECT 1 -- x\r\n--\r, lo_create(0)",
		"SELECT lo_create\v(0)",
		"UPDATE pg_settings SET setting = '1000000' WHERE name = 'work_mem'",
		`UPDATE pg_catalog."pg_settings" SET setting = 'off' WHERE name = 'standard_conforming_strings'`,
	} {
		if got, err := a.Query(ctx, "my-ext", plugin.Statement{SQL: text}, 1); !fault.Is(err, fault.Denied) {
			t.Errorf("%q: %v, %v", text, got.Rows, err)
		}
	}
	// With the setting changed, what follows would be a call and not a text.
	_, err := a.Exec(ctx, "my-ext", []plugin.Statement{
		{SQL: "UPDATE pg_settings SET setting = 'off' WHERE name = 'standard_conforming_strings'"},
		{SQL: `INSERT INTO extension_myext_tags (machine_id, label) SELECT '\'', lo_create(0)::text || ''`},
	})
	if !fault.Is(err, fault.Denied) {
		t.Errorf("settings: %v", err)
	}
	var objects int
	if err := a.eng.(*postgresEngine).admin.QueryRowContext(ctx, "SELECT count(*) FROM pg_largeobject_metadata").Scan(&objects); err != nil || objects != 0 {
		t.Errorf("%d large objects, %v", objects, err)
	}
	for _, text := range []string{"SELECT ARRAY['a', 'lo_create(0)']", "SELECT ('{1,2}'::int[])[1] -- done\r\n", "SELECT $1::text"} {
		s := plugin.Statement{SQL: text}
		if strings.Contains(text, "$1") {
			s.Arguments = []any{"x"}
		}
		if _, err := a.Query(ctx, "my-ext", s, 1); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// What PostgreSQL begins a statement with must be what is looked at, and there must
// be one. Each of these once ran what is for migrations, or for nobody.
func TestPostgres_HidesNoStatement(t *testing.T) {
	a, _ := postgres(t)
	ctx := t.Context()
	// A house whose server reads backslashes in texts, as some old ones are set up.
	admin := a.eng.(*postgresEngine).admin
	if _, err := admin.ExecContext(ctx, "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET standard_conforming_strings = off', current_database()); END $$"); err != nil {
		t.Fatal(err)
	}
	if err := migrate(ctx, a, "my-ext", tags()); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		"/* /*/ SELECT 1 */ */ DROP TABLE extension_myext_tags",
		"/* /*/ SELECT 1 */ */ CREATE TABLE extension_x (a TEXT)",
		"SELECT 1 AS a INTO extension_x",
		"WITH x AS (SELECT 1 AS a) SELECT * INTO TABLE extension_x FROM x",
		"SELECT 0xA$$ ' $$, lo_create(0) -- '",
		"INSERT INTO extension_myext_tags (machine_id, label) SELECT '\\'', lo_create(0)::text || ''",
	} {
		if _, err := a.Exec(ctx, "my-ext", []plugin.Statement{{SQL: text}}); !fault.Is(err, fault.Denied) && !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", text, err)
		}
	}
	trigger := "CREATE TRIGGER extension_t AFTER UPDATE ON extension_myext_tags FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger(); "
	for _, text := range []string{
		trigger + "CREATE FUNCTION extension_f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
		trigger + "CREATE TABLE extension_x (a TEXT); COMMIT; SELECT 1; END",
	} {
		if err := migrate(ctx, a, "my-ext", append(tags(), manifest.Migration{Name: "0002_x", Postgres: text})); !fault.Is(err, fault.Denied) {
			t.Errorf("migration %s: %v", text, err)
		}
	}
	if err := migrate(ctx, a, "my-ext", append(tags(), manifest.Migration{Name: "0002_x", Postgres: trigger + "DROP TRIGGER extension_t ON extension_myext_tags"})); err != nil {
		t.Errorf("a trigger: %v", err)
	}
	var there string
	if err := admin.QueryRowContext(ctx, `SELECT string_agg(relname, ' ') FROM pg_class WHERE relkind = 'r' AND relname LIKE 'extension\_%'`).Scan(&there); err != nil || there != "extension_myext_tags" {
		t.Errorf("tables %q, %v", there, err)
	}
	var objects int
	if err := admin.QueryRowContext(ctx, "SELECT count(*) FROM pg_largeobject_metadata").Scan(&objects); err != nil || objects != 0 {
		t.Errorf("%d large objects, %v", objects, err)
	}
	got, err := a.Exec(ctx, "my-ext", []plugin.Statement{{SQL: `INSERT INTO extension_myext_tags (machine_id, label) VALUES ('\', 'into')`}})
	if err != nil || got[0] != 1 {
		t.Errorf("a backslash: %v, %v", got, err)
	}
}

// SQLite takes a vertical tab for a space after another one: a trigger once ended
// there, and what followed committed the migration halfway.
func TestSQLite_HidesNoStatement(t *testing.T) {
	a := files(t)
	ctx := t.Context()
	text := "CREATE TRIGGER extension_t AFTER INSERT ON extension_myext_tags BEGIN SELECT 1; \vEND; COMMIT; CREATE TABLE extension_x (a TEXT); SELECT broken; END"
	if err := migrate(ctx, a, "my-ext", append(tags(), manifest.Migration{Name: "0002_x", SQLite: text})); !fault.Is(err, fault.Invalid) {
		t.Errorf("got %v", err)
	}
	got, err := a.Query(ctx, "my-ext", plugin.Statement{SQL: "SELECT name FROM sqlite_master WHERE type IN ('trigger', 'table')"}, 10)
	if err != nil || len(got.Rows) != 2 { // tags, and the list of migrations
		t.Errorf("%v, %v", got.Rows, err)
	}
}

// A statement is looked at in a time that grows with its length alone: this one
// took minutes once.
func TestScan_IsLinear(t *testing.T) {
	text := "SELECT " + strings.Repeat("u ", mostSQL/2-8)
	for _, d := range []dialect{ofSQLite, ofPostgres} {
		if err := d.plain(text); err != nil {
			t.Fatal(err)
		}
	}
}
