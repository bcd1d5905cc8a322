package store

import (
	"context"
	"strconv"
	"time"

	"github.com/sallyport-project/sallyport/internal/unit"
)

// statementText is a statement that is written by hand.
type statementText struct {
	name     string
	args     int
	sql      string
	postgres string // where PostgreSQL needs another text
	reads    bool   // a SELECT whose rows are counted (and locked on PostgreSQL)
	quiet    bool   // may run without a record
}

// written are the statements that no table generates. None of them changes a
// row that carries a MAC.
var written = []statementText{
	{name: "nonces.insert", args: 2, quiet: true, sql: "INSERT INTO nonces (id, expires) VALUES ($1, $2)"},
	expiry("nonces"), expiry("outcomes"), expiry("sessions"), expiry("passports"), expiry("invitations"), expiry("upload_tokens"), expiry("deliveries"),

	{
		name: "resource_versions.erase", args: 2,
		sql:      "UPDATE resource_versions SET sealed = x'' WHERE id >= $1 AND id <= $2 AND length(sealed) > 0",
		postgres: "UPDATE resource_versions SET sealed = '' WHERE id >= $1 AND id <= $2 AND length(sealed) > 0",
	},

	// A plugin's values have ids between its name with an @ and its name with the
	// byte after an @.
	{name: "plugin_values.purge", args: 2, sql: "DELETE FROM plugin_values WHERE id >= $1 AND id < $2"},

	{name: "generations.check", args: 2, reads: true, sql: "SELECT 1 FROM generations WHERE name = $1 AND version = $2"},
	{name: "generations.bump", args: 2, sql: "UPDATE generations SET version = version + 1 WHERE name = $1 AND version = $2"},
	{name: "generations.next", args: 1, sql: "UPDATE generations SET version = version + 1 WHERE name = $1"},

	{name: "clock.raise", args: 1, quiet: true, sql: "UPDATE clock SET highest = $1 WHERE name = 'clock' AND highest < $1"},

	{name: "clock.lower", args: 2, sql: "UPDATE clock SET highest = $1 WHERE name = 'clock' AND highest = $2 AND highest > $1"},

	{
		name: "leases.seed", args: 1, quiet: true,
		sql: "INSERT INTO leases (name, holder, epoch, counter) VALUES ($1, '', 0, 0) ON CONFLICT (name) DO NOTHING",
	},
	{
		name: "leases.take", args: 4, quiet: true,
		sql: "UPDATE leases SET holder = $2, epoch = epoch + 1, counter = 0 WHERE name = $1 AND epoch = $3 AND counter = $4",
	},
	{
		name: "leases.renew", args: 3, quiet: true,
		sql: "UPDATE leases SET counter = counter + 1 WHERE name = $1 AND holder = $2 AND epoch = $3",
	},
	{
		name: "leases.release", args: 3, quiet: true,
		sql: "UPDATE leases SET holder = '', counter = counter + 1 WHERE name = $1 AND holder = $2 AND epoch = $3",
	},
	{
		name: "leases.check", args: 3, quiet: true, reads: true,
		sql: "SELECT 1 FROM leases WHERE name = $1 AND holder = $2 AND epoch = $3",
	},
	{
		name: "cursors.move", args: 2, quiet: true,
		sql: "INSERT INTO cursors (name, position) VALUES ($1, $2) " +
			"ON CONFLICT (name) DO UPDATE SET position = excluded.position WHERE cursors.position < excluded.position",
	},

	{
		name: "cursors.start", args: 2,
		sql: "INSERT INTO cursors (name, position) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING",
	},
	{name: "cursors.end", args: 1, sql: "DELETE FROM cursors WHERE name = $1"},

	// Only PostgreSQL has table pending: several writers have no common order,
	// so that records get their places later. The arguments are arrays.
	{
		name: "pending.insert", args: 6, quiet: true,
		sql: "INSERT INTO " + pendingInto + " " +
			"SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[])",
	},
	{
		name: "pending.move", args: 2, quiet: true,
		sql: "INSERT INTO ledger (position, id, subject, type, grant_id, at, leaf) " +
			"SELECT $1::bigint + x.n - 1, p.id, p.subject, p.type, p.grant_id, p.at, p.leaf " +
			"FROM unnest($2::text[]) WITH ORDINALITY AS x (id, n) JOIN pending p ON p.id = x.id",
	},
	{name: "pending.delete", args: 1, quiet: true, sql: "DELETE FROM pending WHERE id = ANY($1::text[])"},
	{
		name: "ledger_names.write", args: 2, quiet: true,
		sql: "INSERT INTO ledger_names (id, data) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING",
	},
	{
		name: "tiles.write", args: 3, quiet: true,
		sql: "INSERT INTO tiles (level, idx, data) VALUES ($1, $2, $3) " +
			"ON CONFLICT (level, idx) DO UPDATE SET data = excluded.data",
	},
	{
		name: "heads.move", args: 6, quiet: true,
		sql: "UPDATE heads SET size = $3, epoch = epoch, root = $4, note = $5, changed = $6 " +
			"WHERE name = 'ledger' AND size = $1 AND epoch = $2",
	},
	{
		name: "heads.restore", args: 2,
		sql: "UPDATE heads SET epoch = epoch + 1 WHERE name = 'ledger' AND size = $1 AND epoch = $2",
	},
}

// pendingInto are the columns of a record without a position.
const pendingInto = "pending (id, subject, type, grant_id, at, leaf)"

// Rows of these tables are removed when they have expired, atOnce at most by one
// statement: whoever wants to write waits for it.
const atOnce = 200

// expired is what of a table has expired at $1. Outcomes have no index by time on
// SQLite, since every page counts that a credential touches: they lie in the order
// in which they came, and none lives much longer than another, so that those
// which have expired are found among the oldest.
func expired(table string, postgres bool) string {
	switch {
	case table == "deliveries":
		return "FROM deliveries WHERE due = 0 AND done > 0 AND done <= $1"
	case table == "outcomes" && !postgres:
		return "FROM (SELECT id, expires FROM outcomes ORDER BY rowid LIMIT " + strconv.Itoa(2*atOnce) + ") AS oldest WHERE expires <= $1"
	}
	return "FROM " + table + " WHERE expires <= $1"
}

func expiry(table string) statementText {
	text := func(postgres bool) string {
		return "DELETE FROM " + table + " WHERE id IN (SELECT id " + expired(table, postgres) + " LIMIT " + strconv.Itoa(atOnce) + ")"
	}
	return statementText{name: table + ".expire", args: 1, quiet: true, sql: text(false), postgres: text(true)}
}

// Expired reports whether any of these tables holds rows that have expired until
// the time given for it.
func (s *Store) Expired(ctx context.Context, until map[string]time.Time) (bool, error) {
	for table, at := range until {
		n, err := s.number(ctx, "row", "SELECT count(*) FROM (SELECT 1 "+expired(table, s.postgres)+" LIMIT 1) AS one", unit.Micros(at))
		if err != nil || n > 0 {
			return n > 0, err
		}
	}
	return false, nil
}
