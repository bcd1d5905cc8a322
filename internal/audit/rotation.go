package audit

import (
	"bytes"

	"golang.org/x/mod/sumdb/note"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// KeyRotated is the type of the record that says that a key was replaced; for
// the ledger's own key its target is [LedgerTarget].
const KeyRotated = "key.rotated"

// LedgerTarget is the target of records about the ledger's key.
const LedgerTarget = "ledger"

// rotationHeader is the first line of a rotation statement. It can be no
// origin, so that a statement is never a checkpoint, nor the other way round.
const rotationHeader = "sallyport-ledger-key-rotation-v1"

// Names of the facts in a record of type [KeyRotated] about the ledger.
const (
	factOld       = "old_key"
	factNew       = "new_key"
	factStatement = "statement"
)

// Rotate states, signed with this signer's key, that next is the ledger's key
// from now on. The result belongs into the Data of a record of type [KeyRotated]
// with target [LedgerTarget]. next is a verifier key of the same origin; any
// other is Invalid.
func (s *Signer) Rotate(next string) (map[string]string, error) {
	if err := checkNext(s.origin, next); err != nil {
		return nil, err
	}
	if next == s.vkey {
		return nil, fault.Invalidf("the new key is the present one")
	}
	signed, err := s.sign(rotationText(s.origin, next))
	if err != nil {
		return nil, err
	}
	return map[string]string{factOld: s.vkey, factNew: next, factStatement: signed}, nil
}

// Rotation is one replacement of the ledger's key, as a record of the ledger
// states it. The old key vouches for the new one; whether the old one was the
// ledger's key at that place is the affair of [Follow] and [Verify].
type Rotation struct {
	Position uint64 `json:"position"` // of the record
	Record   string `json:"record"`   // its id
	Old      string `json:"old_key"`  // verifier keys
	New      string `json:"new_key"`
	Followed bool   `json:"followed"` // the old key is one that the auditor trusts, by itself or by a rotation before
}

// OldID names the old key as checkpoints do.
func (r Rotation) OldID() string { return idOf(r.Old) }

// NewID names the new key as checkpoints do.
func (r Rotation) NewID() string { return idOf(r.New) }

// SignedBy reports whether the checkpoint's key has this verifier key.
func (c Checkpoint) SignedBy(vkey string) bool { return c.Key != "" && c.Key == idOf(vkey) }

func idOf(vkey string) string {
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return ""
	}
	return keyID(v.Name(), v.KeyHash())
}

// rotationMark is how the canonical form of such a record ends.
var rotationMark = []byte(`,"target":"` + LedgerTarget + `","type":"` + KeyRotated + `","v":1}`)

// IsRotation reports, at the cost of one comparison, whether a leaf may state a
// rotation of the ledger's key.
func IsRotation(leaf []byte) bool { return bytes.HasSuffix(leaf, rotationMark) }

// ReadRotation reads a leaf and checks the old key's signature over the
// statement in it; Position and Followed stay zero. It is false without an error
// for a record that states none: another type, or an attempt that was refused. A
// statement that is not well-formed is Invalid, one that the old key in the
// record did not sign is Denied.
func ReadRotation(leaf []byte) (Rotation, bool, error) {
	if !IsRotation(leaf) {
		return Rotation{}, false, nil
	}
	r, err := ParseLeaf(leaf)
	if err != nil || r.Outcome != Done {
		return Rotation{}, false, err
	}
	out := Rotation{Record: r.ID, Old: r.Data[factOld], New: r.Data[factNew]}
	v, err := note.NewVerifier(out.New)
	if err != nil {
		return out, false, fault.Invalidf("the record names no new key of the ledger").Because(err)
	}
	if err := checkNext(v.Name(), out.New); err != nil {
		return out, false, err
	}
	old, err := NewKeys(out.Old)
	if err != nil || out.Old == out.New || checkNext(v.Name(), out.Old) != nil {
		return out, false, fault.Invalidf("the record names no old key of the ledger").Because(err)
	}
	_, _, err = old.open(r.Data[factStatement], func(text string) (string, error) {
		if text != rotationText(v.Name(), out.New) {
			return "", fault.Invalidf("the statement of rotation speaks of another key")
		}
		return v.Name(), nil
	})
	return out, err == nil, err
}

// Follow extends keys by those that they vouch for, step by step, in leaves that
// stand in the order of the ledger. What states no rotation, or none that the
// present key of the ledger signed, changes nothing. The statements stand by
// themselves: that the leaves are in the ledger is for [Verify] to show.
func Follow(keys Keys, leaves [][]byte) Keys {
	var c chain
	for i, leaf := range leaves {
		c.add(uint64(i), leaf)
	}
	keys, _ = c.follow(keys)
	return keys
}

func rotationText(origin, next string) string {
	return rotationHeader + "\n" + origin + "\n" + next + "\n"
}

func checkNext(origin, next string) error {
	v, err := note.NewVerifier(next)
	if err != nil || v.Name() != origin || checkOrigin(origin) != nil {
		return fault.Invalidf("the new key is not a public key of this ledger")
	}
	return nil
}

// chain is the rotations of a ledger in its order: each signed by the key that
// was the ledger's, each to a key that never was.
type chain struct {
	steps  []Rotation
	broken []Problem
}

// add takes the next rotation, or notes why it is none. A forged one, one signed
// by a key that had retired, and one that is told again all stop here: each names
// an old key that is not the ledger's at its place, or a new one that was.
func (c *chain) add(position uint64, leaf []byte) {
	r, ok, err := ReadRotation(leaf)
	r.Position = position
	var why string
	switch {
	case err != nil:
		why = fault.Public(err)
	case !ok:
		return
	case len(c.steps) > 0 && c.steps[len(c.steps)-1].New != r.Old:
		why = "it is signed by a key that was not the ledger's at this place"
	case c.knows(r.New):
		why = "it goes back to a key that was replaced before"
	default:
		c.steps = append(c.steps, r)
		return
	}
	c.broken = append(c.broken, Problem{Kind: BadRotation, Position: &position, Record: r.Record, Detail: "a rotation of the ledger's key does not count: " + why})
}

func (c *chain) knows(vkey string) bool {
	for _, s := range c.steps {
		if s.Old == vkey || s.New == vkey {
			return true
		}
	}
	return false
}

// follow marks the steps that begin with a trusted key and trusts where they
// lead to.
func (c *chain) follow(keys Keys) (Keys, []Rotation) {
	trusted := map[string]bool{}
	for _, k := range keys.vkeys {
		trusted[k] = true
	}
	for i := range c.steps {
		s := &c.steps[i]
		if s.Followed = trusted[s.Old]; !s.Followed || trusted[s.New] {
			continue
		}
		trusted[s.New] = true
		if more, err := NewKeys(append(keys.Strings(), s.New)...); err == nil {
			keys = more
		}
	}
	return keys, c.steps
}

// at is the id of the key that signs a checkpoint of a size, empty if the ledger
// tells of no rotation at all: the one that covers the record of a rotation is
// signed by the new key.
func (c *chain) at(size uint64) string {
	if len(c.steps) == 0 {
		return ""
	}
	id := c.steps[0].OldID()
	for _, s := range c.steps {
		if s.Position < size {
			id = s.NewID()
		}
	}
	return id
}
