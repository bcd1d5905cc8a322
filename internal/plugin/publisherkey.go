package plugin

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// Use says what a key's signatures are over. A key has one use: its signature
// for another counts nowhere.
type Use string

// The uses of keys.
const (
	UsePackage     Use = "package"     // manifests of packages, and rotations
	UseAgentKMS    Use = "agentkms"    // bare executables, as AgentKMS signs them
	UseDevelopment Use = "development" // packages of a developer, where the server allows them
)

// uses are the payload types of signature.dat.
var uses = map[string]Use{
	manifest.PayloadType:            UsePackage,
	manifest.PayloadTypeAgentKMS:    UseAgentKMS,
	manifest.PayloadTypeDevelopment: UseDevelopment,
}

// Key is one key of a publisher that an operator trusts, or did: a row of table
// trust.
type Key struct {
	ID        string            `json:"key_id"` // see [KeyID]
	Version   int64             `json:"-"`
	Publisher string            `json:"publisher"`
	Use       Use               `json:"use"`
	Public    ed25519.PublicKey `json:"public_key"`
	Names     []string          `json:"names"` // patterns of package names, as path.Match
	NotBefore time.Time         `json:"not_before"`
	Expires   time.Time         `json:"expires"` // zero: never
	State     RowState          `json:"state"`
	Reason    string            `json:"reason,omitempty"` // why it was revoked
	At        time.Time         `json:"at"`
	Author    string            `json:"author"`
}

const (
	maxPatterns  = 64
	maxWhy       = 512
	longestTrust = 20 * 366 * 24 * time.Hour // beyond it a date is more likely a slip
)

// NewKey makes the row for a newly trusted key of packages, without a limit in
// time. names are patterns of package names that the key may sign; none means
// every package of the publisher. A name, key or pattern that is not well-formed
// is Invalid.
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
	if err := validPatterns(names); err != nil {
		return Key{}, err
	}
	return Key{
		ID: KeyID(pub), Version: 1, Publisher: publisher, Use: UsePackage, Public: pub,
		Names: append([]string(nil), names...), State: Active, At: now, Author: author,
	}, nil
}

// validPatterns refuses patterns of package names that are not well-formed.
func validPatterns(names []string) error {
	if len(names) > maxPatterns {
		return fault.Invalidf("at most %d name patterns", maxPatterns)
	}
	for _, n := range names {
		if _, err := path.Match(n, "x"); err != nil || n == "" || len(n) > 64 || strings.ContainsAny(n, " \t\r\n") {
			return fault.Invalidf("the name pattern %q is not well-formed; use for example aws-*", clip(n, 64))
		}
	}
	return nil
}

// Limited is the key with a use and a time: it counts from notBefore until just
// before expires, where a zero time is no limit. What cannot be is Invalid. The
// signature of a bare executable binds no name, so a key for those must have the
// names themselves and no patterns.
func (k Key) Limited(use Use, notBefore, expires time.Time) (Key, error) {
	switch use {
	case UsePackage, UseDevelopment:
	case UseAgentKMS:
		for _, n := range k.Names {
			if !manifest.ValidName(n) {
				return Key{}, fault.Invalidf("a key for AgentKMS's signatures needs the names of the plugins that it may sign, without patterns: %q is none", n)
			}
		}
	default:
		return Key{}, fault.Invalidf("a key is used for package, agentkms or development")
	}
	switch {
	case !expires.IsZero() && !expires.After(k.At):
		return Key{}, fault.Invalidf("the key would be expired already")
	case !expires.IsZero() && !expires.After(notBefore):
		return Key{}, fault.Invalidf("the key would expire before it counts")
	case expires.After(k.At.Add(longestTrust)) || notBefore.After(k.At.Add(longestTrust)):
		return Key{}, fault.Invalidf("the key's time is more than twenty years away")
	}
	k.Use, k.NotBefore, k.Expires = use, notBefore, expires
	return k, nil
}

// Remove is the row in its next version, no longer trusted. A key that is not
// trusted is a Conflict.
func (k Key) Remove(author string, now time.Time) (Key, error) {
	return k.to(Removed, "", author, now)
}

// Retire is the row in its next version: what the key signed and is installed
// goes on, and it signs nothing new. A key that is not active is a Conflict.
func (k Key) Retire(author string, now time.Time) (Key, error) {
	if k.State != Active {
		return Key{}, fault.Conflictf("the key is %s already", k.State)
	}
	return k.to(Retired, "", author, now)
}

// Revoke is the row in its next version, for ever: nothing that the key signed
// runs by its signature. The reason has at most 512 bytes. A key that was revoked
// is a Conflict.
func (k Key) Revoke(reason, author string, now time.Time) (Key, error) {
	if len(reason) > maxWhy {
		return Key{}, fault.Invalidf("a reason has at most %d bytes", maxWhy)
	}
	if k.State == Revoked {
		return Key{}, fault.Conflictf("the key is revoked already")
	}
	k.State = Active // also one that was removed can turn out to be stolen
	return k.to(Revoked, reason, author, now)
}

// Again is the row in its next version with the terms of fresh, a row of the
// same key: for one that is trusted on other terms, was retired, or was removed.
// A revoked key, one of another publisher or use, and unchanged terms are a
// Conflict.
func (k Key) Again(fresh Key) (Key, error) {
	switch {
	case k.State == Revoked:
		return Key{}, fault.Conflictf("the key was revoked and is never trusted again; ask the publisher for another one")
	case k.State != Removed && (k.Publisher != fresh.Publisher || k.Use != fresh.Use):
		return Key{}, fault.Conflictf("this key is trusted already, for publisher %s and use %s", k.Publisher, k.Use)
	case k.State == Active && slices.Equal(k.Names, fresh.Names) && k.NotBefore.Equal(fresh.NotBefore) && k.Expires.Equal(fresh.Expires):
		return Key{}, fault.Conflictf("this key is trusted already, for publisher %s", k.Publisher)
	}
	fresh.Version = k.Version + 1
	return fresh, nil
}

func (k Key) to(next RowState, reason, author string, now time.Time) (Key, error) {
	if k.State != Active && k.State != Retired {
		return Key{}, fault.Conflictf("the key is not trusted any more")
	}
	k.Version, k.State, k.Reason, k.At, k.Author = k.Version+1, next, reason, now, author
	return k, nil
}

// standing is what a signature of a key is worth.
type standing int

const (
	ignored standing = iota
	counts
	revoked
	outOfTime
)

func (k Key) stands(now time.Time, at moment) standing {
	switch {
	case k.State == Revoked:
		return revoked
	case k.State != Active && (k.State != Retired || at != forStart):
		return ignored
	case now.Before(k.NotBefore) || !k.Expires.IsZero() && !now.Before(k.Expires):
		return outOfTime
	}
	return counts
}

// covers reports whether the key may sign packages of this publisher and name.
// A development key stands for no publisher.
func (k Key) covers(publisher, name string, use Use) bool {
	if k.Use != use || k.Publisher != publisher && use != UseDevelopment {
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

// Columns gives the row: id, version, publisher, purpose (its use), public_key
// (base64), names (JSON list), not_before, expires, state, reason, at
// (microseconds), author.
func (k Key) Columns() []any {
	return []any{
		k.ID, k.Version, k.Publisher, string(k.Use), base64.StdEncoding.EncodeToString(k.Public), jsonList(k.Names),
		unit.Micros(k.NotBefore), unit.Micros(k.Expires), string(k.State), k.Reason, unit.Micros(k.At), k.Author,
	}
}

// Scan fills the key from columns in the order of [Key.Columns]. A row that
// contradicts itself is Internal.
func (k *Key) Scan(scan unit.Scanner) error {
	var use, public, names, state string
	var notBefore, expires, at int64
	if err := scan(&k.ID, &k.Version, &k.Publisher, &use, &public, &names, &notBefore, &expires, &state, &k.Reason, &at, &k.Author); err != nil {
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
	k.Use, k.Public, k.State = Use(use), pub, RowState(state)
	k.NotBefore, k.Expires, k.At = unit.Moment(notBefore), unit.Moment(expires), unit.Moment(at)
	return nil
}
