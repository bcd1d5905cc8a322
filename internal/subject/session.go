package subject

import (
	"time"

	"github.com/sallyport-project/sallyport/internal/unit"
)

// Certificate is a client certificate that was issued to a subject: one row of
// table certificates. The id is the serial in lower-case hex.
type Certificate struct {
	ID          string
	Version     int64
	Subject     string
	Fingerprint string // SHA-256 of the DER, lower-case hex
	NotAfter    time.Time
	Revoked     time.Time // zero while good
	Reason      string
}

// Good reports whether the certificate counts at time t.
func (c Certificate) Good(t time.Time) bool { return c.Revoked.IsZero() && t.Before(c.NotAfter) }

// Table names the store's table.
func (Certificate) Table() string { return "certificates" }

// Columns gives the row in the order of the table's columns.
func (c Certificate) Columns() []any {
	return []any{c.ID, c.Version, c.Subject, c.Fingerprint, unit.Micros(c.NotAfter), unit.Micros(c.Revoked), c.Reason}
}

// Scan fills the certificate from columns in the order of Columns.
func (c *Certificate) Scan(scan unit.Scanner) error {
	var notAfter, revoked int64
	if err := scan(&c.ID, &c.Version, &c.Subject, &c.Fingerprint, &notAfter, &revoked, &c.Reason); err != nil {
		return err
	}
	c.NotAfter, c.Revoked = unit.Moment(notAfter), unit.Moment(revoked)
	return nil
}

// Session is a token that was minted for a subject: one row of table sessions.
// The id is the token's jti. The token itself is never stored; what it says of
// scopes stands in it under our signature.
type Session struct {
	ID      string
	Version int64
	Subject string
	Parent  string    // id of the session it was delegated from, empty for a first-hand one
	Expires time.Time // when the token ends by itself
	Revoked time.Time // zero while good
	Reason  string
}

// Good reports whether the session counts at time t, its parent aside.
func (s Session) Good(t time.Time) bool { return s.Revoked.IsZero() && t.Before(s.Expires) }

// End returns the session as revoked, one version later.
func (s Session) End(reason string, now time.Time) Session {
	s.Version++
	s.Revoked, s.Reason = now, reason
	return s
}

// Table names the store's table.
func (Session) Table() string { return "sessions" }

// Columns gives the row in the order of the table's columns.
func (s Session) Columns() []any {
	return []any{s.ID, s.Version, s.Subject, s.Parent, unit.Micros(s.Expires), unit.Micros(s.Revoked), s.Reason}
}

// Scan fills the session from columns in the order of Columns.
func (s *Session) Scan(scan unit.Scanner) error {
	var expires, revoked int64
	if err := scan(&s.ID, &s.Version, &s.Subject, &s.Parent, &expires, &revoked, &s.Reason); err != nil {
		return err
	}
	s.Expires, s.Revoked = unit.Moment(expires), unit.Moment(revoked)
	return nil
}

// Invitation is a join token as the store knows it: one row of table
// invitations. The id is the SHA-256 of the one-time secret in lower-case hex:
// the secret itself is not stored, and is used up by compare-and-set.
type Invitation struct {
	ID      string
	Version int64
	Kind    Kind
	Role    string
	Team    string
	Name    string // the name that the newcomer gets, empty for its own choice
	Author  string // subject id of who invited
	Expires time.Time
	Used    time.Time // zero while open
	By      string    // subject id of who came
}

// Table names the store's table.
func (Invitation) Table() string { return "invitations" }

// Columns gives the row in the order of the table's columns.
func (i Invitation) Columns() []any {
	return []any{
		i.ID, i.Version, string(i.Kind), i.Role, i.Team, i.Name, i.Author,
		unit.Micros(i.Expires), unit.Micros(i.Used), i.By,
	}
}

// Scan fills the invitation from columns in the order of Columns.
func (i *Invitation) Scan(scan unit.Scanner) error {
	var kind string
	var expires, used int64
	err := scan(&i.ID, &i.Version, &kind, &i.Role, &i.Team, &i.Name, &i.Author, &expires, &used, &i.By)
	if err != nil {
		return err
	}
	i.Kind = Kind(kind)
	i.Expires, i.Used = unit.Moment(expires), unit.Moment(used)
	return nil
}
