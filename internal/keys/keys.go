// Package keys is about the keys of the house and what stays secret at rest:
// rows of table keys, the envelope that seals values, the MAC over rows, the
// fingerprints of credentials, and rings of signing keys.
//
// One key wraps all others: the key encryption key, which lives outside of the
// data directory behind the [KEK] port (keys/file, later PKCS#11 and cloud
// services). It wraps the root and the row-MAC key; the root seals everything
// else through a key of its own for each value ([Vault.Seal]). The package
// keeps no rows itself: it returns rows for the caller's unit of work.
//
// What is not here: certificates (keys/ca, keys/sshca) and tokens.
package keys

import (
	"slices"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/id"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// Purpose says what a key is for. A key serves one purpose only.
type Purpose string

// The purposes. Root and RowMAC are wrapped by the KEK itself, all others are
// sealed under the root.
const (
	Root           Purpose = "root"
	RowMAC         Purpose = "row-mac"
	Pepper         Purpose = "pepper"
	Token          Purpose = "token"
	EAR            Purpose = "ear"
	Cookie         Purpose = "cookie"
	Context        Purpose = "context"
	Ledger         Purpose = "ledger"
	CARoot         Purpose = "ca-root"
	CAIntermediate Purpose = "ca-intermediate"
	SSHCA          Purpose = "ssh-ca"
)

// Purposes are all of them.
func Purposes() []Purpose {
	return []Purpose{Root, RowMAC, Pepper, Token, EAR, Cookie, Context, Ledger, CARoot, CAIntermediate, SSHCA}
}

// Valid reports whether p is one of the purposes.
func (p Purpose) Valid() bool { return slices.Contains(Purposes(), p) }

// byKEK reports whether the KEK wraps keys of this purpose directly. The row-MAC
// key is among them because it guards the rows that the root is read from.
func (p Purpose) byKEK() bool { return p == Root || p == RowMAC }

// Wrapped reports whether the key encryption key wraps the key itself: what a
// change of that key has to wrap anew. A retired key has nothing to wrap.
func (k Key) Wrapped() bool { return k.Purpose.byKEK() && k.State != Retired }

// Algorithm says what the private bytes of a key are.
type Algorithm string

// The algorithms. Asymmetric keys are kept as PKCS #8, symmetric ones as they
// are.
const (
	Ed25519   Algorithm = "ed25519"
	ECDSAP256 Algorithm = "ecdsa-p256"
	Random256 Algorithm = "random-256"
)

// State says what a key may be used for.
type State string

// The states: an active key signs and verifies, a retiring one verifies until
// its NotAfter, a retired one does nothing any more.
const (
	Active   State = "active"
	Retiring State = "retiring"
	Retired  State = "retired"
)

// Key is one row of table keys.
type Key struct {
	ID        string
	Version   int64
	Purpose   Purpose
	Algorithm Algorithm
	State     State
	Public    string    // PEM, authorized_keys line or verifier key; empty for symmetric keys
	Sealed    []byte    // the private bytes, bound to id and version
	Created   time.Time // microseconds
	SignsFrom time.Time // until then the key before it signs, so that every replica knows this one first; zero: at once
	NotAfter  time.Time // zero for no end
}

// Usable reports whether the key may verify, or open, at time t.
func (k Key) Usable(t time.Time) bool {
	return (k.State == Active || k.State == Retiring) && (k.NotAfter.IsZero() || t.Before(k.NotAfter))
}

// Begun reports whether the time has come from which the key signs.
func (k Key) Begun(t time.Time) bool { return !t.Before(k.SignsFrom) }

// Validate refuses a row that cannot be a key of ours. The fault is Internal:
// nobody but us writes keys.
func (k Key) Validate() error {
	switch {
	case !id.Valid(k.ID):
		return fault.Internalf("a key has the malformed id %.40q", k.ID)
	case k.Version < 1:
		return fault.Internalf("key %s has version %d", k.ID, k.Version)
	case !k.Purpose.Valid():
		return fault.Internalf("key %s has the unknown purpose %.40q: it was written by another release", k.ID, string(k.Purpose))
	case k.Algorithm != Ed25519 && k.Algorithm != ECDSAP256 && k.Algorithm != Random256:
		return fault.Internalf("key %s has the unknown algorithm %.40q: it was written by another release", k.ID, string(k.Algorithm))
	case k.State != Active && k.State != Retiring && k.State != Retired:
		return fault.Internalf("key %s has the unknown state %.40q", k.ID, string(k.State))
	case len(k.Sealed) == 0 && k.State != Retired:
		return fault.Internalf("key %s has lost its sealed bytes", k.ID)
	}
	return nil
}

// Table names the store's table.
func (Key) Table() string { return "keys" }

// Columns gives the row in the order of the table's columns.
func (k Key) Columns() []any {
	return []any{
		k.ID, k.Version, string(k.Purpose), string(k.Algorithm), string(k.State), k.Public, k.Sealed,
		unit.Micros(k.Created), unit.Micros(k.SignsFrom), unit.Micros(k.NotAfter),
	}
}

// Scan fills the key from columns in the order of [Key.Columns].
func (k *Key) Scan(scan unit.Scanner) error {
	var purpose, algorithm, state string
	var created, from, notAfter int64
	err := scan(&k.ID, &k.Version, &purpose, &algorithm, &state, &k.Public, &k.Sealed, &created, &from, &notAfter)
	if err != nil {
		return err
	}
	k.Purpose, k.Algorithm, k.State = Purpose(purpose), Algorithm(algorithm), State(state)
	k.Created, k.SignsFrom, k.NotAfter = unit.Moment(created), unit.Moment(from), unit.Moment(notAfter)
	return nil
}
