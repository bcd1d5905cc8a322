package store

import (
	"context"
	"database/sql"
	"embed"
	"io/fs"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/sallyport-project/sallyport/internal/fault"
)

//go:embed migrations
var migrations embed.FS

// migrateUp applies what is missing of the schema. Migrations only add: code
// runs before and after each. On PostgreSQL one replica at a time does it.
func migrateUp(ctx context.Context, db *sql.DB, postgres bool) error {
	folder, dialect := "migrations/sqlite", goose.DialectSQLite3
	var opts []goose.ProviderOption
	if postgres {
		folder, dialect = "migrations/postgres", goose.DialectPostgres
		locker, err := lock.NewPostgresSessionLocker()
		if err != nil {
			return fault.Wrap(err, "make migration lock")
		}
		opts = append(opts, goose.WithSessionLocker(locker))
	}
	files, err := fs.Sub(migrations, folder)
	if err != nil {
		return fault.Wrap(err, "read migrations")
	}
	p, err := goose.NewProvider(dialect, db, files, opts...)
	if err != nil {
		return fault.Wrap(err, "read migrations")
	}
	if _, err := p.Up(ctx); err != nil {
		return fault.Wrap(err, "migrate schema")
	}
	return nil
}
