// Package unit describes a unit of work: what one verb changes, as data.
//
// A unit is not a closure. It carries the rows to write, each with what must be
// true of the row before, and the one record that goes into the ledger with
// them. The store runs many units in one transaction and repeats them singly
// when one fails, which it can only do because nothing in a unit depends on the
// caller's context or on reading in between (docs/decisions).
//
// Preconditions are compare-and-set on (id, version). A miss is a fault of kind
// Conflict, and nothing of the unit happened; the verb reads again and decides
// again.
package unit

import "github.com/sallyport-project/sallyport/internal/audit"

// Unit is committed as a whole or not at all. Execution never sees the
// context of the caller.
type Unit struct {
	Writes []Write
	Record audit.Record
	// Urgent units take something away (a revocation, a lock): they are served
	// from reserved space when the disk is full.
	Urgent bool
}

// Write is one statement of the store's catalogue.
type Write struct {
	Statement string // name in the catalogue, for example "grants.insert"
	Args      []any  // string, int64, []byte or nil, in the catalogue's order
	Rows      int64  // how many rows it must touch; AnyRows for no condition
	Conflict  string // public text of the Conflict fault when Rows is missed or a key exists
}

// AnyRows is the value of Write.Rows that accepts every count.
const AnyRows int64 = -1

// Row is a domain value that is stored as one row of one table.
//
// Columns are in the order of the table's columns; the first is the id, the
// second the version. Version starts at 1 and grows by one with each change.
type Row interface {
	Table() string
	Columns() []any
}

// Insert adds a row. An existing id, or another unique column that is taken, is
// a Conflict.
func Insert(r Row) Write {
	return Write{Statement: r.Table() + ".insert", Args: r.Columns(), Rows: 1, Conflict: "this exists already"}
}

// Update replaces a row whose stored version is one less than the row's.
func Update(r Row) Write {
	return Write{Statement: r.Table() + ".update", Args: r.Columns(), Rows: 1, Conflict: "this was changed by someone else, read it again"}
}

// Check demands that a row still has this version when the unit commits, and
// that nobody changes it until then.
func Check(table, id string, version int64) Write {
	return Write{
		Statement: table + ".check", Args: []any{id, version}, Rows: 1,
		Conflict: "this was changed by someone else, read it again",
	}
}

// Delete removes a row that has exactly this version.
func Delete(table, id string, version int64) Write {
	return Write{
		Statement: table + ".delete", Args: []any{id, version}, Rows: 1,
		Conflict: "this was changed by someone else, read it again",
	}
}

// Do names any other statement of the catalogue.
func Do(statement string, rows int64, conflict string, args ...any) Write {
	return Write{Statement: statement, Args: args, Rows: rows, Conflict: conflict}
}
