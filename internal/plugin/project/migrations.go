package project

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// migrationsFolder has the SQL of an extension's tables: NNNN_name.sql for both
// engines, or NNNN_name.sqlite.sql and NNNN_name.postgres.sql.
const migrationsFolder = "migrations"

// Migrations takes the files of the folder migrations into the manifest, which
// carries their text, so that it is signed and the host needs no file of the
// package for it. A manifest that has migrations already, or no extension, stays
// as it is. Faults are Invalid.
func Migrations(dir string, m *manifest.Manifest) error {
	if m.Extension == nil || len(m.Extension.Migrations) > 0 {
		return nil
	}
	files, err := filepath.Glob(filepath.Join(dir, migrationsFolder, "*.sql"))
	if err != nil {
		return fault.Wrap(err, "look for migrations")
	}
	slices.Sort(files)
	e := *m.Extension // the caller's stays as it is
	for _, file := range files {
		text, err := readFile(file, manifest.MaxBytes)
		if err != nil {
			return err
		}
		name, engine, _ := strings.Cut(strings.TrimSuffix(filepath.Base(file), ".sql"), ".")
		if n := len(e.Migrations); n == 0 || e.Migrations[n-1].Name != name {
			e.Migrations = append(e.Migrations, manifest.Migration{Name: name})
		}
		at := &e.Migrations[len(e.Migrations)-1]
		switch engine {
		case "":
			at.SQL = string(text)
		case "sqlite":
			at.SQLite = string(text)
		case "postgres":
			at.Postgres = string(text)
		default:
			return fault.Invalidf("%s: the name of a migration ends in .sql, .sqlite.sql or .postgres.sql", filepath.Base(file))
		}
	}
	m.Extension = &e
	return nil
}
