package subject

import (
	"time"

	"github.com/sallyport-project/sallyport/internal/unit"
)

// Passport is the attestation result that a workload earned: one row of table
// passports. The id is that of the handshake, so that its cookie finds it
// on every replica; the digest finds it by its token.
type Passport struct {
	ID      string
	Version int64
	Subject string
	Digest  string // SHA-256 of the token's text, lower-case hex
	Token   string // good only with the workload's key: what is released is sealed to it
	Expires time.Time
	Revoked time.Time // zero while good
	Reason  string
}

// Good reports whether the passport counts at time t.
func (p Passport) Good(t time.Time) bool { return p.Revoked.IsZero() && t.Before(p.Expires) }

// Table names the store's table.
func (Passport) Table() string { return "passports" }

// Columns gives the row in the order of the table's columns.
func (p Passport) Columns() []any {
	return []any{p.ID, p.Version, p.Subject, p.Digest, p.Token, unit.Micros(p.Expires), unit.Micros(p.Revoked), p.Reason}
}

// Scan fills the passport from columns in the order of Columns.
func (p *Passport) Scan(scan unit.Scanner) error {
	var expires, revoked int64
	if err := scan(&p.ID, &p.Version, &p.Subject, &p.Digest, &p.Token, &expires, &revoked, &p.Reason); err != nil {
		return err
	}
	p.Expires, p.Revoked = unit.Moment(expires), unit.Moment(revoked)
	return nil
}
