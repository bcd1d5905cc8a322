package reference

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// Limits of reference values.
const (
	MaxName    = 256      // bytes of a name
	MaxValue   = 64 << 10 // bytes of a value's JSON
	MaxValues  = 256      // values that are set at once
	MaxMessage = 1 << 20  // bytes of a message
	depth      = 16
)

// Life is how long a value counts that does not say: as long as Trustee's.
const Life = 365 * 24 * time.Hour

// Value is one row of table reference_values: what an appraisal policy compares
// evidence with (query_reference_value). Its id is the name.
type Value struct {
	Name    string
	Version int64
	JSON    []byte // canonical; empty once removed
	Expires time.Time
	Source  string // how it came: set, record, message
	Author  string // subject id of who set it
	At      time.Time
	State   State
}

// Setting is a value that somebody sets.
type Setting struct {
	Name    string
	JSON    json.RawMessage
	Expires time.Time // zero: after Life
}

// Store is the row for a setting, in place of an older one; nil if there is none.
// A name or value that is not well-formed, or a time that is over, is Invalid.
func (s Setting) Store(old *Value, source, author string, now time.Time) (Value, error) {
	if !ValidName(s.Name) {
		return Value{}, fault.Invalidf("a reference value has a name of 1 to %d printable bytes without spaces", MaxName)
	}
	var whole any
	err := canon.Lenient(s.JSON, MaxValue, depth, &whole)
	var text []byte
	if err == nil {
		text, err = canon.Transform(s.JSON)
	}
	if err != nil {
		return Value{}, fault.Invalidf("the reference value %s is no JSON of at most %d bytes: %s", s.Name, MaxValue, fault.Public(err)).Because(err)
	}
	if s.Expires.IsZero() {
		s.Expires = now.Add(Life)
	}
	if !now.Before(s.Expires) || s.Expires.Year() > 9999 {
		return Value{}, fault.Invalidf("the reference value %s must expire later than now", s.Name)
	}
	v := Value{
		Name: s.Name, Version: 1, JSON: text, Expires: s.Expires.UTC().Truncate(time.Microsecond), Source: source, Author: author, At: now, State: Active,
	}
	if old != nil {
		v.Version = old.Version + 1
	}
	return v, nil
}

// ValidName reports whether a text can name a value: what names an endorsement
// cannot.
func ValidName(s string) bool {
	kind, _, _ := strings.Cut(s, "/")
	return line(s, MaxName) && !strings.ContainsRune(s, ' ') && !IsKind(kind)
}

// Good reports whether the value counts now.
func (v Value) Good(now time.Time) bool { return v.State == Active && now.Before(v.Expires) }

// Decoded is the value as policies see it.
func (v Value) Decoded() (any, error) {
	var out any
	if err := canon.Lenient(v.JSON, MaxValue, depth, &out); err != nil {
		return nil, fault.Internalf("the reference value %s cannot be read", v.Name).Because(err)
	}
	return out, nil
}

// SHA256 is the digest of the value's JSON in hex.
func (v Value) SHA256() string {
	sum := sha256.Sum256(v.JSON)
	return hex.EncodeToString(sum[:])
}

// Remove is the row in its next version, without the value. One that was removed
// already is NotFound.
func (v Value) Remove(author string, now time.Time) (Value, error) {
	if v.State != Active {
		return Value{}, NoValue(v.Name)
	}
	v.Version, v.JSON, v.State, v.Author, v.At = v.Version+1, nil, Removed, author, now
	return v, nil
}

// NoValue is the fault for a name that names none.
func NoValue(name string) error {
	return fault.NotFoundf("there is no reference value %s; see: sallyport reference list", clip(name))
}

// Table names the store's table.
func (Value) Table() string { return "reference_values" }

// Columns gives the row: id (name), version, value, expires (microseconds),
// source, author, at, state.
func (v Value) Columns() []any {
	return []any{v.Name, v.Version, string(v.JSON), unit.Micros(v.Expires), v.Source, v.Author, unit.Micros(v.At), string(v.State)}
}

// Scan fills the row from columns in the order of Columns.
func (v *Value) Scan(scan unit.Scanner) error {
	var text, state string
	var expires, at int64
	if err := scan(&v.Name, &v.Version, &text, &expires, &v.Source, &v.Author, &at, &state); err != nil {
		return err
	}
	if text != "" {
		v.JSON = []byte(text)
	}
	v.Expires, v.At, v.State = unit.Moment(expires), unit.Moment(at), State(state)
	return nil
}

// Message is how tools of Trustee register reference values (RVPS, version
// 0.1.0).
type Message struct {
	Version string `json:"version"`
	Type    string `json:"type"`
	Payload string `json:"payload"`
}

// ParseMessage reads a message of type sample, whose payload is a JSON object from
// names to values in base64, in the order of the names. It proves nothing about
// who made it: that the operator may set values is the caller's to check.
func ParseMessage(data []byte) ([]Setting, error) {
	var m Message
	if err := canon.Strict(data, MaxMessage, 8, &m); err != nil {
		return nil, fault.Invalidf("send an object with version, type and payload: %s", fault.Public(err)).Because(err)
	}
	if m.Version != "0.1.0" {
		return nil, fault.Invalidf("the message's version must be 0.1.0")
	}
	if m.Type != "sample" {
		return nil, fault.Invalidf("messages of type sample are read: its payload is a JSON object from names to values, in base64")
	}
	payload, err := base64.StdEncoding.Strict().DecodeString(m.Payload)
	if err != nil {
		return nil, fault.Invalidf("the payload must be standard base64")
	}
	return ParseValues(payload)
}

// ParseValues reads a JSON object from names to values, in the order of the
// names.
func ParseValues(data []byte) ([]Setting, error) {
	var values map[string]json.RawMessage
	if err := canon.Strict(data, MaxMessage, depth+1, &values); err != nil {
		return nil, fault.Invalidf("reference values are a JSON object from names to values: %s", fault.Public(err)).Because(err)
	}
	if len(values) == 0 || len(values) > MaxValues {
		return nil, fault.Invalidf("1 to %d reference values can be set at once, not %d", MaxValues, len(values))
	}
	out := make([]Setting, 0, len(values))
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if !ValidName(name) {
			return nil, fault.Invalidf("a reference value has a name of 1 to %d printable bytes without spaces", MaxName)
		}
		out = append(out, Setting{Name: name, JSON: values[name]})
	}
	return out, nil
}
