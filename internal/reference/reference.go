// Package reference is what evidence is judged by, as it is stored: endorsements,
// which are what the maker of a device says about it, and reference values, which
// are what the operator expects of it (RFC 9334, 8.3 and 8.4).
//
// Both are public and carry no secret; each row has a MAC, says who brought it
// from where, and until when it counts. Nothing is believed because it is stored:
// a verifier checks the signature and the dates of an endorsement at each use,
// and a value that has expired is none.
package reference

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// State says whether a row counts. One that was removed keeps its version, from
// which the next one goes on.
type State string

// The states.
const (
	Active  State = "active"
	Removed State = "removed"
)

// Limits of an import.
const (
	MaxFile  = 2 << 20 // bytes of a file
	MaxFiles = 64      // files at once
	MaxFound = 128     // endorsements in them
)

// File is material as somebody brings it.
type File struct {
	Name string // where it comes from, for people: the name of a file, a URL
	Data []byte
}

// Check refuses files that are too large or have names that cannot be shown.
func (f File) Check() error {
	if !line(f.Name, 256) {
		return fault.Invalidf("a file's name has 1 to 256 bytes of printable text")
	}
	if len(f.Data) == 0 || len(f.Data) > MaxFile {
		return fault.Invalidf("%s has no bytes, or more than %d", f.Name, MaxFile)
	}
	return nil
}

// Found is an endorsement in a file.
type Found struct {
	File string
	evidence.Endorsement
}

// Endorsement is one row of table endorsements. Its id is kind/key.
type Endorsement struct {
	evidence.Endorsement
	Version int64
	Source  string // where it comes from: the name of a file, a URL
	Author  string // subject id of who brought it; empty for the server itself
	At      time.Time
	State   State
}

// ID is the endorsement's name: snp-vcek/Genoa/..., or the kind alone where there
// is only one of it.
func (e Endorsement) ID() string { return EndorsementID(e.Kind, e.Key) }

// EndorsementID is the name of an endorsement.
func EndorsementID(kind, key string) string { return strings.TrimSuffix(kind+"/"+key, "/") }

// kinds are what endorsements are of. No value has a name that begins so.
var kinds = []string{"snp-vcek", "snp-crl", "tdx-tcb-info", "tdx-qe-identity", "tdx-tcb-signer", "tdx-pck-ca", "tdx-crl", "tpm-ek-ca", "tpm-crl"}

// IsKind reports whether a text names a kind of endorsements.
func IsKind(s string) bool { return slices.Contains(kinds, s) }

// SHA256 is the digest of the bytes in hex.
func (e Endorsement) SHA256() string {
	sum := sha256.Sum256(e.Data)
	return hex.EncodeToString(sum[:])
}

// Store is the row for what was found, in place of an older one; nil if there is
// none. The same bytes again are no change, and false. Bytes that are older than
// those stored are a Conflict: who brings an old revocation list back must remove
// the newer one first, which is recorded.
func (f Found) Store(old *Endorsement, author string, now time.Time) (Endorsement, bool, error) {
	next := Endorsement{Endorsement: f.Endorsement, Version: 1, Source: f.File, Author: author, At: now, State: Active}
	if old == nil {
		return next, true, nil
	}
	next.Version = old.Version + 1
	switch {
	case old.State != Active:
	case string(old.Data) == string(f.Data):
		return *old, false, nil
	case f.NotBefore.Before(old.NotBefore):
		return next, false, fault.Conflictf("%s: %s of %s is stored already, and this is of %s; remove the newer one first if you mean it",
			f.File, old.ID(), old.NotBefore.UTC().Format(time.RFC3339), f.NotBefore.UTC().Format(time.RFC3339))
	}
	return next, true, nil
}

// Remove is the row in its next version, without its bytes. One that was removed
// already is NotFound.
func (e Endorsement) Remove(author string, now time.Time) (Endorsement, error) {
	if e.State != Active {
		return Endorsement{}, NoEndorsement(e.ID())
	}
	e.Version, e.Data, e.State, e.Author, e.At = e.Version+1, nil, Removed, author, now
	return e, nil
}

// NoEndorsement is the fault for a name that names none.
func NoEndorsement(id string) error {
	return fault.NotFoundf("there is no endorsement %s; see: sallyport reference list", clip(id))
}

// Table names the store's table.
func (Endorsement) Table() string { return "endorsements" }

// Columns gives the row: id, version, kind, about, data, issued, expires
// (microseconds), source, author, at, state.
func (e Endorsement) Columns() []any {
	return []any{
		e.ID(), e.Version, e.Kind, e.Key, e.Data, unit.Micros(e.NotBefore), unit.Micros(e.NotAfter), e.Source, e.Author, unit.Micros(e.At), string(e.State),
	}
}

// Scan fills the row from columns in the order of Columns.
func (e *Endorsement) Scan(scan unit.Scanner) error {
	var id, state string
	var issued, expires, at int64
	if err := scan(&id, &e.Version, &e.Kind, &e.Key, &e.Data, &issued, &expires, &e.Source, &e.Author, &at, &state); err != nil {
		return err
	}
	if id != e.ID() {
		return fault.Internalf("endorsement %.128q has a broken name", id)
	}
	e.NotBefore, e.NotAfter, e.At, e.State = unit.Moment(issued), unit.Moment(expires), unit.Moment(at), State(state)
	return nil
}

// Shelf puts the endorsements that count together for the verifiers.
func Shelf(rows []Endorsement) evidence.Shelf {
	shelf := evidence.Shelf{}
	for _, r := range rows {
		if r.State == Active {
			shelf.Put(r.Endorsement)
		}
	}
	return shelf
}

// Soon is how long before its end an endorsement is warned of.
const Soon = 7 * 24 * time.Hour

// Warnings names the endorsements and values whose time is over or ends soon.
func Warnings(rows []Endorsement, values []Value, now time.Time) []string {
	var out []string
	warn := func(what string, end time.Time) {
		switch {
		case end.IsZero() || now.Add(Soon).Before(end):
		case now.After(end):
			out = append(out, what+" has expired on "+end.UTC().Format(time.RFC3339))
		default:
			out = append(out, what+" expires on "+end.UTC().Format(time.RFC3339))
		}
	}
	for _, r := range rows {
		if r.State == Active {
			warn("endorsement "+r.ID(), r.NotAfter)
		}
	}
	for _, v := range values {
		if v.State == Active {
			warn("reference value "+v.Name, v.Expires)
		}
	}
	return out
}

// line reports whether a text is one printable line of at most so many bytes.
func line(s string, most int) bool {
	return s != "" && len(s) <= most && utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

func clip(s string) string {
	if len(s) > 128 {
		s = s[:128] + "..."
	}
	return strings.ToValidUTF8(s, "?")
}
