// Package sqlite gives the tests of an extension a database of its own, in a file
// that goes with the test.
package sqlite

import (
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"testing"

	_ "modernc.org/sqlite" // the driver
)

// Open makes a database and runs the migrations of a folder on it, in the order of
// their names: NAME.sql and NAME.sqlite.sql, as a host with SQLite does. It fails the
// test where that fails.
func Open(t testing.TB, migrations string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(t.TempDir(), "extension.db"))
	if err != nil {
		t.Fatalf("open database: %v", err)
	}
	db.SetMaxOpenConns(1) // one writer, as at a host
	t.Cleanup(func() { _ = db.Close() })
	files, err := os.ReadDir(migrations) // sorted
	if err != nil {
		t.Fatalf("read migrations: %v", err)
	}
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".sql") || strings.HasSuffix(f.Name(), ".postgres.sql") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(migrations, f.Name())) //nolint:gosec // the author names the folder
		if err == nil {
			_, err = db.ExecContext(t.Context(), string(text))
		}
		if err != nil {
			t.Fatalf("migration %s: %v", f.Name(), err)
		}
	}
	return db
}
