package plugin

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"path"
	"sort"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// RowState is whether a stored decision of an operator still holds.
type RowState string

// The states of trust and plugin rows.
const (
	Active  RowState = "active"
	Removed RowState = "removed"
)

// Key is one publisher key that an operator trusts: a row of table trust.
type Key struct {
	ID        string            `json:"key_id"` // see [KeyID]
	Version   int64             `json:"-"`
	Publisher string            `json:"publisher"`
	Public    ed25519.PublicKey `json:"public_key"`
	Names     []string          `json:"names"` // patterns of package names, as path.Match
	State     RowState          `json:"state"`
	At        time.Time         `json:"at"`
	Author    string            `json:"author"`
}

// NewKey makes the row for a newly trusted key. names are patterns of package
// names that the key may sign; none means every package of the publisher. A
// name, key or pattern that is not well-formed is Invalid.
func NewKey(pub ed25519.PublicKey, publisher string, names []string, author string, now time.Time) (Key, error) {
	if len(pub) != ed25519.PublicKeySize {
		return Key{}, fault.Invalidf("the public key must be an Ed25519 key of %d bytes", ed25519.PublicKeySize)
	}
	if !manifest.ValidName(publisher) {
		return Key{}, fault.Invalidf("the publisher must be lower-case letters, digits and inner hyphens, at most 64")
	}
	if len(names) == 0 {
		names = []string{"*"}
	}
	if len(names) > 64 {
		return Key{}, fault.Invalidf("at most 64 name patterns")
	}
	for _, n := range names {
		if _, err := path.Match(n, "x"); err != nil || n == "" || len(n) > 64 {
			return Key{}, fault.Invalidf("the name pattern %q is not well-formed; use for example aws-*", n)
		}
	}
	return Key{
		ID: KeyID(pub), Version: 1, Publisher: publisher, Public: pub,
		Names: append([]string(nil), names...), State: Active, At: now, Author: author,
	}, nil
}

// Remove is the row in its next version, no longer trusted. A key that was
// removed already is a Conflict.
func (k Key) Remove(author string, now time.Time) (Key, error) {
	if k.State != Active {
		return Key{}, fault.Conflictf("the key is not trusted any more")
	}
	k.Version, k.State, k.At, k.Author = k.Version+1, Removed, now, author
	return k, nil
}

// covers reports whether the key may sign packages of this publisher and name.
func (k Key) covers(publisher, name string) bool {
	if k.State != Active || k.Publisher != publisher {
		return false
	}
	for _, n := range k.Names {
		if ok, err := path.Match(n, name); err == nil && ok {
			return true
		}
	}
	return false
}

// Table names the store's table.
func (Key) Table() string { return "trust" }

// Columns gives the row: id, version, publisher, public_key (base64), names
// (JSON list), state, at (microseconds), author.
func (k Key) Columns() []any {
	return []any{
		k.ID, k.Version, k.Publisher, base64.StdEncoding.EncodeToString(k.Public),
		jsonList(k.Names), string(k.State), unit.Micros(k.At), k.Author,
	}
}

// Scan fills the key from columns in the order of [Key.Columns]. A row that
// contradicts itself is Internal.
func (k *Key) Scan(scan unit.Scanner) error {
	var public, names, state string
	var at int64
	if err := scan(&k.ID, &k.Version, &k.Publisher, &public, &names, &state, &at, &k.Author); err != nil {
		return err
	}
	pub, err := base64.StdEncoding.DecodeString(public)
	if err != nil || len(pub) != ed25519.PublicKeySize || KeyID(pub) != k.ID {
		return fault.Internalf("trust row %s has a broken key", k.ID)
	}
	k.Names = nil
	if err := json.Unmarshal([]byte(names), &k.Names); err != nil {
		return fault.Internalf("trust row %s has broken name patterns", k.ID).Because(err)
	}
	k.Public, k.State, k.At = pub, RowState(state), unit.Moment(at)
	return nil
}

// Trust is the set of keys by which packages are judged, and how many distinct
// ones must have signed. The zero value trusts nothing; a threshold below one
// counts as one. It is a value: judging a package reads nothing else.
type Trust struct {
	Keys      []Key
	Threshold int
}

// verify checks an envelope against the manifest bytes beside it and returns
// the manifest with the ids of the keys that signed. Faults are Invalid for what
// is malformed and Denied, with [ReasonBadSignature], for what is not trusted.
func (t Trust) verify(manifestBytes, envelopeBytes []byte) (manifest.Manifest, []string, error) {
	e, payload, err := parseEnvelope(envelopeBytes)
	if err != nil {
		return manifest.Manifest{}, nil, &reasoned{asFault(err), ReasonBadSignature}
	}
	if string(payload) != string(manifestBytes) {
		return manifest.Manifest{}, nil, refuse(ReasonBadSignature, "signature.dat signs another manifest than the one in the package")
	}
	m, err := ParseManifest(manifestBytes)
	if err != nil {
		return manifest.Manifest{}, nil, &reasoned{asFault(err), ReasonIncompatible}
	}
	keys := map[string]ed25519.PublicKey{}
	for _, k := range t.Keys {
		if k.covers(m.Publisher, m.Name) && len(k.Public) == ed25519.PublicKeySize {
			keys[KeyID(k.Public)] = k.Public
		}
	}
	ids := e.verified(payload, keys)
	sort.Strings(ids)
	if need := max(t.Threshold, 1); len(ids) < need {
		return manifest.Manifest{}, nil, refuse(ReasonBadSignature,
			"package %s has %d of the %d signatures it needs by trusted keys of publisher %s; trust the publisher's key first, or refuse the package",
			m.Name, len(ids), need, m.Publisher)
	}
	return m, ids, nil
}

// asFault gives the fault inside err, so that its kind and text are kept.
func asFault(err error) *fault.Error {
	return fault.New(fault.KindOf(err), "%s", fault.Public(err)).Because(err)
}

func jsonList(list []string) string {
	if list == nil {
		list = []string{}
	}
	b, err := json.Marshal(list)
	if err != nil {
		return "[]" // unreachable: strings always encode
	}
	return string(b)
}
