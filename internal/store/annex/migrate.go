package annex

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"log/slog"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// migrateWithin is for one step.
const migrateWithin = time.Minute

// Migrate implements [plugin.Database]. A schema that is ahead of the list, because
// a later version ran here before, is accepted: what both know must be the same.
func (a *Annexes) Migrate(ctx context.Context, m manifest.Manifest) error {
	if m.Extension == nil || len(m.Extension.Migrations) == 0 {
		return nil
	}
	name := m.Name
	end, err := a.turn(ctx, name)
	if err != nil {
		return err
	}
	defer end()
	db, err := a.made(ctx, m)
	if err != nil {
		return err
	}
	c, free, err := a.eng.schema(ctx, name, db)
	if err != nil {
		return a.failed(err)
	}
	defer free()
	for _, step := range m.Extension.Migrations {
		if err := a.step(ctx, name, c, step); err != nil {
			return fault.Wrap(err, "migrate %s, step %s", name, step.Name)
		}
	}
	return nil
}

// step applies one migration, unless it was.
func (a *Annexes) step(ctx context.Context, name string, c *sql.Conn, step manifest.Migration) error {
	text := step.Text(string(a.eng.dialect()))
	sum := sha256.Sum256([]byte(text))
	digest := hex.EncodeToString(sum[:])
	statements, err := a.eng.dialect().split(text)
	if err != nil {
		return said(step.Name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, migrateWithin)
	defer cancel()
	tx, err := c.BeginTx(ctx, nil)
	if err != nil {
		return a.failed(err)
	}
	defer func() { _ = tx.Rollback() }()
	if err := a.eng.lock(ctx, tx); err != nil {
		return a.failed(err)
	}
	done, err := a.applied(ctx, tx, step.Name, digest)
	if err != nil || done {
		return err
	}
	for _, s := range statements {
		if _, err := tx.ExecContext(ctx, s); err != nil {
			return said(step.Name, a.failed(err))
		}
	}
	foreign, err := a.eng.foreign(ctx, tx)
	if err != nil {
		return a.failed(err)
	}
	if foreign != "" {
		return fault.Deniedf("migration %s makes %.80q: tables and views of extensions begin with %s", step.Name, foreign, manifest.TablePrefix)
	}
	if _, err := tx.ExecContext(ctx, "INSERT INTO "+own+" (name, digest, applied) VALUES ($1, $2, $3)", step.Name, digest, time.Now().UnixMicro()); err != nil {
		return a.failed(err)
	}
	if err := tx.Commit(); err != nil {
		return a.failed(err)
	}
	a.cfg.Log.InfoContext(ctx, "migration applied", slog.String("plugin", name), slog.String("step", step.Name))
	return nil
}

// applied reports whether a step was applied before; in another form is Conflict.
func (a *Annexes) applied(ctx context.Context, tx *sql.Tx, step, digest string) (bool, error) {
	if err := remembered(ctx, tx); err != nil {
		return false, a.failed(err)
	}
	var before string
	err := tx.QueryRowContext(ctx, "SELECT digest FROM "+own+" WHERE name = $1", step).Scan(&before)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return false, a.ordered(ctx, tx, step)
	case err != nil:
		return false, a.failed(err)
	case before != digest:
		return false, fault.Conflictf("migration %s was applied here with another text; a migration never changes: add a new one", step)
	}
	return true, nil
}

// remembered makes the table of applied migrations.
func remembered(ctx context.Context, tx *sql.Tx) error {
	_, err := tx.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS "+own+" (name TEXT NOT NULL PRIMARY KEY, digest TEXT NOT NULL, applied BIGINT NOT NULL)")
	return err //nolint:wrapcheck // explained by the caller
}

// ordered refuses a step that should have come before one that was applied.
func (a *Annexes) ordered(ctx context.Context, tx *sql.Tx, step string) error {
	var later string
	err := tx.QueryRowContext(ctx, "SELECT name FROM "+own+" WHERE name > $1 ORDER BY name LIMIT 1", step).Scan(&later)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil
	case err != nil:
		return a.failed(err)
	}
	return fault.Conflictf("migration %s comes before %s, which was applied here already; give it a higher number", step, later)
}

// said names the step in a fault of its SQL.
func said(step string, err error) error {
	switch {
	case fault.Is(err, fault.Invalid):
		return fault.Invalidf("migration %s: %s", step, fault.Public(err)).Because(err)
	case fault.Is(err, fault.Denied):
		return fault.Deniedf("migration %s: %s", step, fault.Public(err)).Because(err)
	}
	return err
}
