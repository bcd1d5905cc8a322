package unit

import "time"

// Outcome is the first answer to a call with an Idempotency-Key: one row of
// table outcomes, written in the same unit as the change, so that two calls with
// one key cannot both happen. The id stands for operation, caller and key.
type Outcome struct {
	ID      string
	Version int64  // always 1: an outcome never changes
	Sealed  []byte // request and answer under the envelope, since both may hold a secret
	Expires time.Time
}

// Table names the store's table.
func (Outcome) Table() string { return "outcomes" }

// Columns gives the row in the order of the table's columns.
func (o Outcome) Columns() []any {
	return []any{o.ID, o.Version, o.Sealed, Micros(o.Expires)}
}

// Scan fills the outcome from columns in the order of Columns.
func (o *Outcome) Scan(scan Scanner) error {
	var expires int64
	if err := scan(&o.ID, &o.Version, &o.Sealed, &expires); err != nil {
		return err
	}
	o.Expires = Moment(expires)
	return nil
}
