package audit

import (
	"bytes"
	"slices"

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
// stand in the order of the ledger, beginning with the first that one of keys
// signed. What states no rotation, or none that the present key of the ledger
// signed, changes nothing. The statements stand by
// themselves: that the leaves are in the ledger is for [Verify] to show.
func Follow(keys Keys, leaves [][]byte) Keys {
	var c chain
	for i, leaf := range leaves {
		c.add(uint64(i), leaf)
	}
	return c.build(keys, "", MaxSize)
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

// chain is the rotations of a ledger, in its order, that count by the rule of the
// server: each is signed by the key that was the ledger's, and leads to one that
// never was. A record says nothing about where to begin, as whoever can write to
// the database can add a rotation among keys of their own; so a key that the
// auditor trusts does.
type chain struct {
	told   []Rotation // every statement that its own old key signed
	begin  string     // the key before the first step that is followed; empty if unknown
	steps  []Rotation
	broken []Problem
}

// add takes the next record, or notes why it states no rotation.
func (c *chain) add(position uint64, leaf []byte) {
	r, ok, err := ReadRotation(leaf)
	r.Position = position
	if err != nil {
		c.refuse(r, fault.Public(err))
	} else if ok {
		c.told = append(c.told, r)
	}
}

func (c *chain) refuse(r Rotation, why string) {
	c.broken = append(c.broken, Problem{Kind: BadRotation, Position: &r.Position, Record: r.Record, Detail: "a rotation of the ledger's key does not count: " + why})
}

// build finds the steps once every record was added, and returns keys with those
// that they lead to.
//
// The first rotation by one of the keys is the first that is followed: nobody else
// can have made it. If there is none, the key that signed the head (its id) is the
// ledger's to the end. What led to the key at the beginning is found backwards,
// before the size until at which it was the ledger's for certain, and is not
// followed. Everything else is forged, replayed or out of order: it is refused,
// and has no part in what the ledger's key is.
func (c *chain) build(keys Keys, head string, until uint64) Keys {
	present, first := "", slices.IndexFunc(c.told, func(r Rotation) bool { return slices.Contains(keys.vkeys, r.Old) })
	if first >= 0 {
		present = c.told[first].Old
	} else {
		first = len(c.told)
		if i := slices.IndexFunc(keys.vkeys, func(k string) bool { return idOf(k) == head }); i >= 0 {
			present = keys.vkeys[i]
		}
	}
	c.begin = present
	counts, was := c.back(present, first, until)
	for i, r := range c.told {
		r.Followed = i >= first && r.Old == present && !was[r.New]
		switch {
		case r.Followed:
			present, was[r.New] = r.New, true
			if more, err := NewKeys(append(keys.Strings(), r.New)...); err == nil && !slices.Contains(keys.vkeys, r.New) {
				keys = more
			}
		case counts[i]:
		case i >= first && r.Old == present:
			c.refuse(r, "it goes back to a key that was replaced before")
			continue
		default:
			c.refuse(r, "it is signed by a key that was not the ledger's at this place")
			continue
		}
		c.steps = append(c.steps, r)
	}
	return keys
}

// back goes from a key to those before it. It returns which statements before the
// one at index end are these steps, and all the keys. A key becomes the ledger's
// once: the first statement that leads to it counts, and not one that tells it
// again, which everybody can add later.
func (c *chain) back(key string, end int, until uint64) (counts map[int]bool, was map[string]bool) {
	to := make(map[string]int)
	for i, r := range c.told[:end] {
		if _, ok := to[r.New]; !ok && r.Position < until {
			to[r.New] = i
		}
	}
	counts, was = make(map[int]bool), map[string]bool{key: true}
	for {
		i, ok := to[key]
		if !ok || i >= end || was[c.told[i].Old] {
			return counts, was
		}
		key, end = c.told[i].Old, i
		counts[i], was[key] = true, true
	}
}

// at is the id of the key that signs a checkpoint of a size, empty if it is
// unknown: the one that covers the record of a rotation is signed by the new key.
// Steps that are not followed have no part in it, as nothing vouches for them.
func (c *chain) at(size uint64) string {
	key := c.begin
	for _, s := range c.steps {
		if s.Followed && s.Position < size {
			key = s.New
		}
	}
	return idOf(key)
}
