package annex

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// postgresEngine gives every extension a schema and a login role.
type postgresEngine struct {
	cfg   Config
	base  *pgx.ConnConfig
	admin *sql.DB // as the house itself
}

func newPostgres(cfg Config) (*postgresEngine, error) {
	base, err := pgx.ParseConfig(string(cfg.DSN.Reveal()))
	if err != nil {
		return nil, fault.Invalidf("the connection string of PostgreSQL cannot be read") // the cause would show it
	}
	base.RuntimeParams["application_name"] = "sallyport-extensions"
	admin := stdlib.OpenDB(*base)
	admin.SetMaxOpenConns(connections) // a lock that is waited for keeps one
	admin.SetConnMaxIdleTime(idleWithin)
	return &postgresEngine{cfg: cfg, base: base, admin: admin}, nil
}

// meanwhile are what PostgreSQL says when another server does the same at the same
// time: unique_violation, duplicate_object, duplicate_table, and internal_error for
// "tuple concurrently updated".
var meanwhile = []string{"23505", "42710", "42P07", "XX000"}

func (e *postgresEngine) dialect() dialect { return ofPostgres }

func (e *postgresEngine) close() error {
	return e.admin.Close() //nolint:wrapcheck // explained by the caller
}

// lockWithin bounds how long PostgreSQL leaves the lock of a plugin to a server that
// says nothing any more.
const lockWithin = time.Minute

// locked runs f in a transaction that has the lock of a plugin, with the number of
// times that it was purged. Replicas that make and purge the same wait for one
// another here.
func (e *postgresEngine) locked(ctx context.Context, plugin string, f func(tx *sql.Tx, purges int64) error) error {
	tx, err := e.admin.BeginTx(ctx, nil)
	if err != nil {
		return err //nolint:wrapcheck // explained by the caller
	}
	defer func() { _ = tx.Rollback() }()
	_, err = tx.ExecContext(ctx, fmt.Sprintf("SET LOCAL idle_in_transaction_session_timeout = %d", lockWithin.Milliseconds()))
	if err != nil {
		return err //nolint:wrapcheck // explained by the caller
	}
	var purges int64
	err = tx.QueryRowContext(ctx, "INSERT INTO annexes (name, purges) VALUES ($1, 0) ON CONFLICT (name) DO UPDATE SET name = excluded.name RETURNING purges",
		plugin).Scan(&purges)
	if err != nil {
		return err //nolint:wrapcheck // explained by the caller
	}
	if err := f(tx, purges); err != nil {
		return err
	}
	return tx.Commit() //nolint:wrapcheck // explained by the caller
}

// schemaName is that of an extension's schema and of its role. Roles are the
// server's, not the database's, so that it has both names in it; and after a purge
// it is another one.
func schemaName(database, plugin string, purges int64) string {
	sum := sha256.Sum256([]byte(database + "/" + plugin))
	short := strings.ReplaceAll(plugin, "-", "_")
	return "ext_" + short[:min(len(short), 32)] + "_" + hex.EncodeToString(sum[:4]) + "_" + strconv.FormatInt(purges, 10)
}

func (e *postgresEngine) make(ctx context.Context, plugin string, still func(context.Context) error) (string, error) {
	password, err := e.cfg.Password(plugin)
	if err != nil {
		return "", err
	}
	defer password.Wipe()
	verifier, err := scram(password.Reveal())
	if err != nil {
		return "", err
	}
	var schema, database string
	err = e.locked(ctx, plugin, func(tx *sql.Tx, purges int64) error {
		if err := still(ctx); err != nil {
			return err
		}
		if err := tx.QueryRowContext(ctx, "SELECT current_database()").Scan(&database); err != nil {
			return err //nolint:wrapcheck // explained by the caller
		}
		schema = schemaName(database, plugin, purges)
		return unprepared(prepare(ctx, tx, schema, verifier))
	})
	if err != nil {
		return "", err
	}
	// What PostgreSQL gives to everybody, where we may take it.
	_, _ = e.admin.ExecContext(ctx, "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
	_, _ = e.admin.ExecContext(ctx, "REVOKE TEMPORARY ON DATABASE "+quote(database)+" FROM PUBLIC")
	return schema, e.harmless(ctx, schema, database)
}

// prepare makes role and schema as they must be.
func prepare(ctx context.Context, tx *sql.Tx, schema, verifier string) error {
	var known bool
	err := tx.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = $1)", schema).Scan(&known)
	run := func(text string) {
		if err == nil {
			_, err = tx.ExecContext(ctx, text)
		}
	}
	if !known {
		run("CREATE ROLE " + quote(schema))
	}
	run(fmt.Sprintf("ALTER ROLE %s LOGIN NOINHERIT NOCREATEDB NOCREATEROLE CONNECTION LIMIT 32 PASSWORD '%s'", quote(schema), verifier))
	run("CREATE SCHEMA IF NOT EXISTS " + quote(schema))
	run("REVOKE ALL ON SCHEMA " + quote(schema) + " FROM PUBLIC")
	run("GRANT USAGE, CREATE ON SCHEMA " + quote(schema) + " TO " + quote(schema))
	return err
}

func (e *postgresEngine) connect(ctx context.Context, plugin, schema string) (*sql.DB, error) {
	password, err := e.cfg.Password(plugin)
	if err != nil {
		return nil, err
	}
	defer password.Wipe()
	cfg := e.base.Copy()
	cfg.User, cfg.Password = schema, string(password.Reveal())
	cfg.RuntimeParams["search_path"] = schema
	cfg.RuntimeParams["standard_conforming_strings"] = "on" // as statements are looked at, whatever the server's own setting is
	cfg.RuntimeParams["statement_timeout"] = strconv.FormatInt(migrateWithin.Milliseconds(), 10)
	cfg.DefaultQueryExecMode = pgx.QueryExecModeDescribeExec // upgrades change what a statement returns
	cfg.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		f := pgproto3.NewFrontend(r, w)
		f.SetMaxBodyLen(mostAnswer + 1<<20) // a row is in memory as a whole before it can be weighed
		return f
	}
	db := stdlib.OpenDB(*cfg)
	var is string
	if err := db.QueryRowContext(ctx, "SELECT session_user").Scan(&is); err != nil || is != schema {
		return nil, errors.Join(fault.Unavailablef("PostgreSQL does not let the role %s of plugin %s in: look at pg_hba.conf, and connect without a pooler", schema, plugin).Because(err), db.Close())
	}
	return db, nil
}

// harmless refuses a role that could do anything outside of its schema.
func (e *postgresEngine) harmless(ctx context.Context, role, database string) error {
	var why string
	err := e.admin.QueryRowContext(ctx, `SELECT CASE
		WHEN r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication OR r.rolbypassrls THEN 'has powers over the server'
		WHEN EXISTS (SELECT 1 FROM pg_auth_members m WHERE m.member = r.oid) THEN 'is a member of another role'
		WHEN has_schema_privilege(r.oid, 'public', 'CREATE') THEN 'may create in schema public; run: REVOKE CREATE ON SCHEMA public FROM PUBLIC'
		WHEN has_database_privilege(r.oid, $2, 'CREATE') THEN 'may create schemas'
		WHEN has_database_privilege(r.oid, $2, 'TEMPORARY') THEN 'may make temporary tables; as owner of the database run: REVOKE TEMPORARY ON DATABASE ... FROM PUBLIC'
		ELSE '' END FROM pg_roles r WHERE r.rolname = $1`, role, database).Scan(&why)
	if err != nil {
		return err //nolint:wrapcheck // explained by the caller
	}
	if why != "" {
		return fault.Deniedf("the role %s of an extension %s", role, why)
	}
	return nil
}

func unprepared(err error) error {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && e.Code == "42501" { // insufficient_privilege
		return fault.Unavailablef("the server's role in PostgreSQL cannot make roles and schemas for extensions: give it CREATEROLE, and CREATE on the database").Because(err)
	}
	return err
}

// scram is the verifier of a password (RFC 5803), so that the server's log never
// sees the password.
func scram(password []byte) (string, error) {
	const rounds = 4096
	salt := make([]byte, 16)
	_, _ = rand.Read(salt) // never fails (crypto/rand)
	salted, err := pbkdf2.Key(sha256.New, string(password), salt, rounds, sha256.Size)
	if err != nil {
		return "", fault.Wrap(err, "derive verifier")
	}
	mac := func(text string) []byte {
		h := hmac.New(sha256.New, salted)
		h.Write([]byte(text))
		return h.Sum(nil)
	}
	stored := sha256.Sum256(mac("Client Key"))
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", rounds, b64(salt), b64(stored[:]), b64(mac("Server Key"))), nil
}

func quote(name string) string { return pgx.Identifier{name}.Sanitize() }

func (e *postgresEngine) schema(ctx context.Context, _ string, db *sql.DB) (*sql.Conn, func(), error) {
	c, err := db.Conn(ctx)
	if err != nil {
		return nil, nil, err //nolint:wrapcheck // explained by the caller
	}
	return c, func() { _ = c.Close() }, nil
}

// lock takes a lock that no other extension can take: anybody could take an
// advisory one, and keep it.
func (e *postgresEngine) lock(ctx context.Context, tx *sql.Tx) error {
	if err := remembered(ctx, tx); err != nil {
		if p, ok := errors.AsType[*pgconn.PgError](err); ok && slices.Contains(meanwhile, p.Code) {
			return fault.Unavailablef("another server is making the same tables ready").Because(err)
		}
		return err
	}
	_, err := tx.ExecContext(ctx, "LOCK TABLE "+own+" IN EXCLUSIVE MODE")
	return err //nolint:wrapcheck // explained by the caller
}

func (e *postgresEngine) confine(*sql.Conn) error { return nil }

// clean forgets settings and locks of the session.
func (e *postgresEngine) clean(ctx context.Context, c *sql.Conn) error {
	_, err := c.ExecContext(ctx, "DISCARD ALL")
	return err //nolint:wrapcheck // never shown
}

// watch has nothing to do: the driver watches until all rows are read.
func (e *postgresEngine) watch(context.Context, *sql.Conn) (func(), error) { return func() {}, nil }

func (e *postgresEngine) foreign(ctx context.Context, tx *sql.Tx) (string, error) {
	var name string
	err := tx.QueryRowContext(ctx, `SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace
		AND relkind IN ('r', 'p', 'v', 'm', 'f') AND left(relname, 10) <> '`+manifest.TablePrefix+`' AND relname <> '`+own+`' LIMIT 1`).Scan(&name)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return name, err //nolint:wrapcheck // explained by the caller
}

// purge drops the schema as its owner, which drops what is in it, and the role.
func (e *postgresEngine) purge(ctx context.Context, plugin string, still func(context.Context) (bool, error)) error {
	return e.locked(ctx, plugin, func(tx *sql.Tx, purges int64) error {
		if yes, err := still(ctx); !yes || err != nil {
			return err
		}
		var database string
		if err := tx.QueryRowContext(ctx, "SELECT current_database()").Scan(&database); err != nil {
			return err //nolint:wrapcheck // explained by the caller
		}
		name := quote(schemaName(database, plugin, purges))
		for _, text := range []string{"DROP SCHEMA IF EXISTS " + name + " CASCADE", "DROP ROLE IF EXISTS " + name} {
			if _, err := tx.ExecContext(ctx, text); err != nil {
				return unprepared(err)
			}
		}
		_, err := tx.ExecContext(ctx, "UPDATE annexes SET purges = purges + 1 WHERE name = $1", plugin)
		return err //nolint:wrapcheck // explained by the caller
	})
}

func (e *postgresEngine) explain(err error) error {
	known, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		if _, large := errors.AsType[*pgproto3.ExceededMaxBodyLenErr](err); large {
			return fault.Exhaustedf("the answer is larger than %d bytes: ask for fewer rows", mostAnswer).Because(err)
		}
		if _, refused := errors.AsType[*pgconn.ConnectError](err); refused {
			return fault.Unavailablef("PostgreSQL cannot be reached").Because(err)
		}
		return fault.Invalidf("the statement failed").Because(err)
	}
	switch {
	case known.Code == "42501":
		return fault.Deniedf("the statement reaches for what is not the extension's own").Because(err)
	case known.Code == "57014":
		return fault.Unavailablef("the database did not answer in time").Because(err)
	case strings.HasPrefix(known.Code, "28"): // purged by another replica, or pg_hba.conf has changed
		return fault.Unavailablef("PostgreSQL does not let the role of the extension in any more").Because(err)
	case strings.HasPrefix(known.Code, "53"):
		return fault.Exhaustedf("the database has reached a limit").Because(err)
	case strings.HasPrefix(known.Code, "08") || strings.HasPrefix(known.Code, "57"):
		return fault.Unavailablef("PostgreSQL cannot be reached").Because(err)
	}
	return fault.Invalidf("the statement failed: %.300s", known.Message).Because(err)
}
