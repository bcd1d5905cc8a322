package annex

import (
	"strings"
	"testing"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
)

// What PostgreSQL reads as a call or a name must be read as one here. Each of these
// once reached a function that is not for extensions.
func TestPostgres_HidesNothing(t *testing.T) {
	a, _ := postgres(t)
	ctx := t.Context()
	if err := a.Migrate(ctx, "my-ext", tags()); err != nil {
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
