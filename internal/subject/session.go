package subject

import (
	"time"

	"github.com/sallyport-project/sallyport/internal/unit"
)

// Certificate is a client certificate of a subject, one that was issued here or
// one of another authority that was shown here: one row of table certificates.
// The id is its fingerprint, the SHA-256 of the DER in lower-case hex, since
// serials of several authorities may be the same.
//
// One that was revoked before anybody had shown it has neither subject, serial
// nor end.
type Certificate struct {
	ID       string
	Version  int64
	Subject  string
	Serial   string // lower-case hex
	Issuer   string // who issued it, for people; empty for our own authority
	NotAfter time.Time
	Revoked  time.Time // zero while good
	Reason   string
}

// Revoke returns the certificate as revoked, one version later.
func (c Certificate) Revoke(reason string, now time.Time) Certificate {
	c.Version++
	c.Revoked, c.Reason = now, reason
	return c
}

// Good reports whether the certificate counts at time t.
func (c Certificate) Good(t time.Time) bool { return c.Revoked.IsZero() && t.Before(c.NotAfter) }

// Table names the store's table.
func (Certificate) Table() string { return "certificates" }

// Columns gives the row in the order of the table's columns.
func (c Certificate) Columns() []any {
	return []any{c.ID, c.Version, c.Subject, c.Serial, c.Issuer, unit.Micros(c.NotAfter), unit.Micros(c.Revoked), c.Reason}
}

// Scan fills the certificate from columns in the order of Columns.
func (c *Certificate) Scan(scan unit.Scanner) error {
	var notAfter, revoked int64
	if err := scan(&c.ID, &c.Version, &c.Subject, &c.Serial, &c.Issuer, &notAfter, &revoked, &c.Reason); err != nil {
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
	Parent  string // id of the session it was delegated from, empty for a first-hand one
	// Certificate is the fingerprint of the certificate that the session is bound
	// to; of a delegated one, that its parent is bound to. It ends with it.
	Certificate string
	Expires     time.Time // when the token ends by itself
	Revoked     time.Time // zero while good
	Reason      string
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
	return []any{s.ID, s.Version, s.Subject, s.Parent, s.Certificate, unit.Micros(s.Expires), unit.Micros(s.Revoked), s.Reason}
}

// Scan fills the session from columns in the order of Columns.
func (s *Session) Scan(scan unit.Scanner) error {
	var expires, revoked int64
	if err := scan(&s.ID, &s.Version, &s.Subject, &s.Parent, &s.Certificate, &expires, &revoked, &s.Reason); err != nil {
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
