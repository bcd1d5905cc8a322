package plugin

import (
	"crypto/ed25519"
	"encoding/json"
	"sort"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// RowState is whether a stored decision of an operator still holds.
type RowState string

// The states of trust and plugin rows. Retired and Revoked are those of keys
// alone, Purging that of plugins.
const (
	Active  RowState = "active"
	Retired RowState = "retired" // replaced: signs nothing new, what is installed goes on
	Revoked RowState = "revoked" // believed to be in the wrong hands; for ever
	Removed RowState = "removed"
	// Purging is a plugin that was removed and whose data are being removed: nothing
	// of its name is installed until that is done.
	Purging RowState = "purging"
	// Unread is the state of a row that is damaged, of which the name alone is known.
	// It is never stored.
	Unread RowState = "damaged"
)

// Trust is all by which packages are judged. The zero value trusts nothing. It
// is a value: judging a package reads nothing else.
type Trust struct {
	Keys []Key // in whatever state
	// Thresholds are how many distinct keys must have signed, by publisher; one
	// where none is named.
	Thresholds map[string]int
	// Floors are the lowest versions that may run, by package.
	Floors map[string]string
	// Locked are the digests that may run, by package; nil allows all.
	Locked map[string]string
	// Addresses are the names below which the key broker calls plugins that others
	// run: no package that it would call has one of them.
	Addresses map[string]bool
	// Damaged are decisions that cannot be read.
	Damaged Damaged
	// Development accepts packages that a development key has signed.
	Development bool
	Now         func() time.Time // nil for the wall clock
}

// moment says what a package is judged for: a retired key vouches for what is
// installed already, and for nothing new.
type moment bool

const (
	forInstall moment = false
	forStart   moment = true
)

// vouched is a manifest with those who vouch for it.
type vouched struct {
	m    manifest.Manifest
	ids  []string // of the keys, sorted
	use  Use
	bare []bareProof // what remains to be checked over the executable's bytes
}

// verify checks an envelope against the manifest bytes beside it. Faults are
// Invalid for what is malformed and Denied, with a reason, for what is not
// trusted: [ReasonRevoked] and [ReasonStale] where a key would have counted once.
func (t Trust) verify(manifestBytes, envelopeBytes []byte, at moment) (vouched, error) {
	e, payload, err := parseEnvelope(envelopeBytes)
	if err != nil {
		return vouched{}, &reasoned{asFault(err), ReasonBadSignature}
	}
	if string(payload) != string(manifestBytes) {
		return vouched{}, refuse(ReasonBadSignature, "signature.dat signs another manifest than the one in the package")
	}
	m, err := ParseManifest(manifestBytes)
	if err != nil {
		return vouched{}, &reasoned{asFault(err), ReasonIncompatible}
	}
	v := vouched{m: m, use: uses[e.PayloadType]}
	if v.use == UseDevelopment && !t.Development {
		return vouched{}, refuse(ReasonBadSignature,
			"package %s is signed for development, which this server does not accept; sign it with a publisher's key, or set plugins.development", m.Name)
	}
	if err := t.Damaged.publisher(m.Publisher); err != nil && v.use != UseDevelopment {
		return vouched{}, err
	}
	by := map[standing][]string{}
	for state, keys := range t.candidates(m, v.use, at) {
		by[state] = e.vouching(payload, keys)
		sort.Strings(by[state])
	}
	v.ids = by[counts]
	need := max(t.Thresholds[m.Publisher], 1)
	if v.use == UseDevelopment {
		need = 1
	}
	if len(v.ids) < need {
		if id := t.Damaged.signer(e.signers()); id != "" {
			return vouched{}, refuse(ReasonDamaged, "package %s is signed by key %s, and what this server knows of that key is damaged; restore the database from a backup", m.Name, id)
		}
		return vouched{}, tooFew(m, need, by)
	}
	if v.use == UseAgentKMS {
		if m.Run != nil || len(m.Files) != 1 {
			return vouched{}, refuse(ReasonBadSignature, "AgentKMS's signature is over one executable, and package %s is more than that", m.Name)
		}
		v.bare = e.proofs(t.candidates(m, v.use, at)[counts])
	}
	return v, nil
}

// candidates are the keys that may vouch for a package, by how they stand, each
// once however often it is listed.
func (t Trust) candidates(m manifest.Manifest, use Use, at moment) map[standing]map[string]ed25519.PublicKey {
	now := t.now()
	out := map[standing]map[string]ed25519.PublicKey{counts: {}, revoked: {}, outOfTime: {}}
	for _, k := range t.Keys {
		if s := k.stands(now, at); s != ignored && k.covers(m.Publisher, m.Name, use) && len(k.Public) == ed25519.PublicKeySize {
			out[s][KeyID(k.Public)] = k.Public
		}
	}
	return out
}

// tooFew explains why a package is not trusted.
func tooFew(m manifest.Manifest, need int, by map[standing][]string) error {
	if ids := by[revoked]; len(ids) > 0 {
		return refuse(ReasonRevoked, "package %s is signed by key %s, which is revoked; get a package of publisher %s with another signature",
			m.Name, ids[0], m.Publisher)
	}
	if ids := by[outOfTime]; len(ids) > 0 {
		return refuse(ReasonStale, "package %s is signed by key %s, which is past its time or before it; get a newer package, or trust the key for longer",
			m.Name, ids[0])
	}
	return refuse(ReasonBadSignature,
		"package %s has %d of the %d signatures it needs by trusted keys of publisher %s; trust the publisher's key first, or refuse the package",
		m.Name, len(by[counts]), need, m.Publisher)
}

// admits judges what is signed rightly by what this server demands besides:
// [ReasonRollback] below the lowest version, [ReasonDamaged] if that is not known,
// [ReasonNotLocked] off the list, [ReasonConflict] under a name that is taken.
func (t Trust) admits(m manifest.Manifest, digest string) error {
	if m.Has(manifest.RoleKBS) && t.Addresses[m.Name] {
		return refuse(ReasonConflict, "this server's configuration has an address for the external plugin %s (kbs.external), and package %s would answer below the same name; "+
			"remove one of them", m.Name, m.Name)
	}
	if err := t.Damaged.floor(m.Name); err != nil {
		return err
	}
	if floor, ok := t.Floors[m.Name]; ok && Older(m.Version, floor) {
		return refuse(ReasonRollback, "package %s %s is older than %s, the lowest version of it that is secure; install a newer one", m.Name, m.Version, floor)
	}
	if t.Locked == nil {
		return nil
	}
	switch locked, ok := t.Locked[m.Name]; {
	case !ok:
		return refuse(ReasonNotLocked, "package %s is not in this server's lock file; add it there (sallyport plugin lock), or remove the plugin", m.Name)
	case locked != digest:
		return refuse(ReasonNotLocked, "package %s %s is another one than the lock file names (%s); change the lock file, or install what it names",
			m.Name, m.Version, locked)
	}
	return nil
}

func (t Trust) now() time.Time {
	if t.Now == nil {
		t.Now = time.Now
	}
	return t.Now()
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
