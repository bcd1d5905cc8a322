package plugin

import (
	"crypto/ed25519"
	"encoding/json"
	"path"
	"slices"
	"sort"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// Rotation is a publisher's statement which keys are its own from now on, made
// and signed offline, in a DSSE envelope. It holds the whole set, like the root
// of TUF, so that a server that missed one can go on from the next, as long as
// enough keys that it knows have signed that one.
type Rotation struct {
	Schema    string `json:"schema"`
	Publisher string `json:"publisher"`
	// Serial grows with each statement; an older one than was applied is refused.
	Serial int64 `json:"serial"`
	// Threshold is how many keys must sign packages from now on; zero leaves it.
	// A statement never lowers what the operator demands.
	Threshold int           `json:"threshold,omitempty"`
	Keys      []RotationKey `json:"keys"`
	// Revoked are ids of keys that are believed to be in the wrong hands. Known
	// keys that are in neither list are retired.
	Revoked []string `json:"revoked,omitempty"`
}

// RotationKey is one key of a rotation. What limits it counts for a new key; the
// terms of a known one are the operator's.
type RotationKey struct {
	Public    []byte     `json:"public_key"` // the raw 32 bytes, base64
	Names     []string   `json:"names,omitempty"`
	NotBefore *time.Time `json:"not_before,omitempty"`
	Expires   *time.Time `json:"expires,omitempty"`
}

// RotationSchema names the format of a rotation, RotationType its DSSE payload.
const (
	RotationSchema = "sallyport.rotation/v1"
	RotationType   = "application/vnd.sallyport.publisher.rotation.v1+json"

	maxRotation     = 64 << 10
	maxRotationKeys = maxSignatures
	rotationName    = "the rotation"
)

// NewRotation writes an unsigned rotation file. One that is not well-formed is
// Invalid.
func NewRotation(r Rotation) ([]byte, error) {
	r.Schema = RotationSchema
	if err := r.validate(); err != nil {
		return nil, err
	}
	payload, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return nil, fault.Internalf("encode rotation").Because(err)
	}
	return sealEnvelope(RotationType, append(payload, '\n')).bytes()
}

// SignRotation adds a signature to a rotation file.
func SignRotation(file []byte, key ed25519.PrivateKey) ([]byte, error) {
	e, _, _, err := parseRotation(file)
	if err != nil {
		return nil, err
	}
	if e, err = e.sign(key); err != nil {
		return nil, err
	}
	return e.bytes()
}

// ReadRotation reads a rotation file strictly, with the ids of those who say
// that they have signed. Nothing is verified.
func ReadRotation(file []byte) (Rotation, []string, error) {
	e, _, r, err := parseRotation(file)
	return r, e.signers(), err
}

func parseRotation(file []byte) (envelope, []byte, Rotation, error) {
	e, payload, err := openEnvelope(file, rotationName)
	if err != nil {
		return envelope{}, nil, Rotation{}, err
	}
	if e.PayloadType != RotationType {
		return envelope{}, nil, Rotation{}, fault.Invalidf("the file is no rotation of a publisher's keys; make one with: sallyport plugin trust statement")
	}
	var r Rotation
	if err := canon.Strict(payload, maxRotation, 4, &r); err != nil {
		return envelope{}, nil, Rotation{}, fault.Wrap(err, "read rotation")
	}
	return e, payload, r, r.validate()
}

func (r Rotation) validate() error {
	switch {
	case r.Schema != RotationSchema:
		return fault.Invalidf("the schema of a rotation must be %q", RotationSchema)
	case !manifest.ValidName(r.Publisher):
		return fault.Invalidf("the publisher must be lower-case letters, digits and inner hyphens, at most 64")
	case r.Serial < 1 || r.Serial > 1<<53:
		return fault.Invalidf("the serial of a rotation is a number from 1 on, one more each time")
	case len(r.Keys) == 0 || len(r.Keys) > maxRotationKeys || len(r.Revoked) > 256:
		return fault.Invalidf("a rotation names 1 to %d keys, and at most 256 revoked ones", maxRotationKeys)
	case r.Threshold < 0 || r.Threshold > len(r.Keys):
		return fault.Invalidf("the threshold of a rotation cannot be more than the keys that it names")
	}
	seen := map[string]bool{}
	for _, k := range r.Keys {
		if _, err := NewKey(k.Public, r.Publisher, k.Names, "", time.Time{}); err != nil {
			return err
		}
		if id := KeyID(k.Public); seen[id] {
			return fault.Invalidf("the rotation names key %s twice", id)
		}
		seen[KeyID(k.Public)] = true
	}
	for _, id := range r.Revoked {
		if _, ok := hexDigest(digestPrefix + id); !ok || seen[id] {
			return fault.Invalidf("revoked keys are named once by their id, 64 lower-case hex digits, and not among the keys")
		}
		seen[id] = true
	}
	return nil
}

// Rotated is what a rotation changes.
type Rotated struct {
	Publisher Publisher
	Added     []Key // new rows
	Ended     []Key // next versions of rows, retired or revoked
	Signers   []string
}

// Rotate judges a rotation file by the publisher's present keys and says what it
// changes. keys are those of all publishers, in whatever state.
//
// It counts if as many active keys of the publisher as its threshold demands
// have signed it, none of them past its time, and every new key too, which shows
// that it belongs to who names it. Otherwise it is Denied with a reason. An
// older statement than the last one is Denied with [ReasonRollback], the last one
// itself a Conflict. It adds keys that were never known, retires or revokes
// active ones, may raise the threshold, and does nothing else: what an operator
// has removed stays so. What it takes from a key, enough of its signers must have.
func (p Publisher) Rotate(file []byte, keys []Key, author string, now time.Time) (Rotated, error) {
	e, payload, r, err := parseRotation(file)
	if err != nil {
		return Rotated{}, err
	}
	switch {
	case r.Publisher != p.Name:
		return Rotated{}, fault.Invalidf("the rotation is of publisher %s", r.Publisher)
	case r.Serial == p.Serial:
		return Rotated{}, fault.Conflictf("rotation %d of publisher %s was applied already", r.Serial, p.Name)
	case r.Serial < p.Serial:
		return Rotated{}, refuse(ReasonRollback, "the rotation is number %d of publisher %s, and number %d was applied already", r.Serial, p.Name, p.Serial)
	}
	signers, err := p.rotators(e, payload, keys, now)
	if err != nil {
		return Rotated{}, err
	}
	out := Rotated{Signers: signers}
	if out.Added, err = p.introduced(e, payload, r, keys, signers, author, now); err != nil {
		return Rotated{}, err
	}
	if out.Ended, err = p.ended(r, keys, author, now); err != nil {
		return Rotated{}, err
	}
	if err := p.mayTake(r, keys, signers, out.Ended); err != nil {
		return Rotated{}, err
	}
	left := len(p.active(keys)) + len(out.Added) - endedActive(p.active(keys), out.Ended)
	p.Threshold = max(p.Threshold, r.Threshold)
	if left < p.Threshold {
		return Rotated{}, fault.Conflictf("the rotation leaves publisher %s with %d keys, and %d must sign", p.Name, left, p.Threshold)
	}
	p.Version, p.Serial, p.At, p.Author = p.Version+1, r.Serial, now, author
	out.Publisher = p
	return out, nil
}

// rotators are the present keys that have signed, at least the threshold.
func (p Publisher) rotators(e envelope, payload []byte, keys []Key, now time.Time) ([]string, error) {
	by := map[standing]map[string]ed25519.PublicKey{counts: {}, revoked: {}, outOfTime: {}}
	for _, k := range keys {
		if s := k.stands(now, forInstall); s != ignored && k.Publisher == p.Name && k.Use == UsePackage {
			by[s][KeyID(k.Public)] = k.Public
		}
	}
	signers := e.verified(payload, by[counts])
	if len(signers) >= p.Threshold {
		sort.Strings(signers)
		return signers, nil
	}
	reason := ReasonBadSignature
	switch {
	case len(e.verified(payload, by[revoked])) > 0:
		reason = ReasonRevoked
	case len(e.verified(payload, by[outOfTime])) > 0:
		reason = ReasonStale
	}
	return nil, refuse(reason, "the rotation has %d of the %d signatures that it needs by present keys of publisher %s; "+
		"an operator can trust the new key instead, if it is known to be genuine", len(signers), p.Threshold, p.Name)
}

// introduced are the rows of the keys that were never known. A new key may sign
// what enough of those who introduce it may sign themselves, and for as long as
// these may: where the operator has set a day on which to be asked again, a
// statement does not take it away.
func (p Publisher) introduced(e envelope, payload []byte, r Rotation, keys []Key, signers []string, author string, now time.Time) ([]Key, error) {
	owner := map[string]string{} // publisher by key
	var may [][]string           // what each signer may sign
	var ends []time.Time         // and until when
	for _, k := range keys {
		owner[k.ID] = k.Publisher
		if slices.Contains(signers, k.ID) {
			may, ends = append(may, k.Names), append(ends, k.Expires)
		}
	}
	last := lasting(ends, p.Threshold)
	var out []Key
	for _, k := range r.Keys {
		id := KeyID(k.Public)
		switch owner[id] {
		case "":
		case p.Name:
			continue
		default:
			return nil, fault.Conflictf("the rotation names key %s, which is known as another publisher's", id)
		}
		names, err := inherited(k.Names, may, p.Threshold)
		if err != nil {
			return nil, err
		}
		if len(e.verified(payload, map[string]ed25519.PublicKey{id: k.Public})) == 0 {
			return nil, refuse(ReasonBadSignature, "the new key %s has not signed the rotation itself; its holder must, which proves that it is theirs", id)
		}
		row, err := NewKey(k.Public, p.Name, names, author, now)
		if err != nil {
			return nil, err
		}
		if row, err = row.Limited(UsePackage, whole(k.NotBefore), sooner(whole(k.Expires), last)); err != nil {
			return nil, err
		}
		out = append(out, row)
	}
	return out, nil
}

// lasting is until when as many signers as the threshold count; zero is for ever.
func lasting(ends []time.Time, threshold int) time.Time {
	slices.SortFunc(ends, func(a, b time.Time) int {
		switch {
		case a.Equal(b):
			return 0
		case sooner(a, b).Equal(b):
			return -1
		}
		return 1
	})
	return ends[threshold-1]
}

// sooner is the earlier end of two; zero is none.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// inherited are the name patterns of a new key: those that it asks for, or all
// that it may have. It may have what as many signers as the threshold hold.
func inherited(asked []string, may [][]string, threshold int) ([]string, error) {
	held := func(name string) bool { return heldBy(may, name) >= threshold }
	for _, n := range asked {
		if !held(n) {
			return nil, fault.Deniedf("the rotation lets a new key sign %q, which too few of those who signed it may sign themselves", clip(n, 64))
		}
	}
	if len(asked) > 0 {
		return asked, nil
	}
	var out []string
	for _, names := range may {
		for _, n := range names {
			if held(n) {
				out = append(out, n)
			}
		}
	}
	if slices.Sort(out); len(out) == 0 {
		return nil, fault.Deniedf("the rotation introduces a key, and there are no packages that enough of those who signed it may sign")
	}
	return slices.Compact(out), nil
}

// heldBy counts those who may sign what a pattern names.
func heldBy(may [][]string, pattern string) int {
	n := 0
	for _, names := range may {
		if slices.ContainsFunc(names, func(may string) bool {
			matches, err := path.Match(may, pattern)
			return may == pattern || may == "*" || manifest.ValidName(pattern) && err == nil && matches
		}) {
			n++
		}
	}
	return n
}

// mayTake refuses a rotation that takes more than its signers have. A key is
// ended by as many signers as the threshold who may sign all that it may, or by
// all of those if they are fewer: one that the operator has limited to some names,
// or a thief of it, cannot end the keys of the others. A higher threshold takes
// from every key.
func (p Publisher) mayTake(r Rotation, keys []Key, signers []string, ended []Key) error {
	var may, all [][]string
	taken := slices.Clone(ended)
	for _, k := range p.active(keys) {
		all = append(all, k.Names)
		if slices.Contains(signers, k.ID) {
			may = append(may, k.Names)
		}
		if r.Threshold > p.Threshold {
			taken = append(taken, k)
		}
	}
	for _, k := range taken {
		for _, n := range k.Names {
			if need := min(p.Threshold, max(heldBy(all, n), 1)); heldBy(may, n) < need {
				return refuse(ReasonBadSignature, "the rotation takes from key %s, which may sign %q, and fewer than %d of those who signed it may sign that; "+
					"let keys sign it that may, or end the key yourself (sallyport plugin trust revoke)", k.ID, clip(n, 64), need)
			}
		}
	}
	return nil
}

// ended are the next versions of the keys that the rotation takes back.
func (p Publisher) ended(r Rotation, keys []Key, author string, now time.Time) ([]Key, error) {
	stays := map[string]bool{}
	for _, k := range r.Keys {
		stays[KeyID(k.Public)] = true
	}
	var out []Key
	for _, k := range keys {
		if k.Publisher != p.Name || k.Use != UsePackage {
			continue
		}
		var err error
		switch stolen := slices.Contains(r.Revoked, k.ID); {
		case stolen && k.State != Revoked:
			k, err = k.Revoke("revoked by its publisher", author, now)
		case !stolen && k.State == Active && !stays[k.ID]:
			k, err = k.Retire(author, now)
		default:
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, k)
	}
	return out, nil
}

func endedActive(active map[string]Key, ended []Key) int {
	n := 0
	for _, k := range ended {
		if _, ok := active[k.ID]; ok {
			n++
		}
	}
	return n
}

// whole is a time that may be absent, to the second.
func whole(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Second)
}
