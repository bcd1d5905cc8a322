package audit

import (
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// KeyRotated is the type of the record that says that the ledger's key was
// replaced.
const KeyRotated = "key.rotated"

// rotationHeader is the first line of a rotation statement. It can be no
// origin, so that a statement is never a checkpoint, nor the other way round.
const rotationHeader = "sallyport-ledger-key-rotation-v1"

// Names of the facts in a record of type [KeyRotated].
const (
	factOld       = "old_key"
	factNew       = "new_key"
	factStatement = "statement"
)

// Rotate states, signed with this signer's key, that next is the ledger's key
// from now on. The result is the Data of a record of type [KeyRotated]. next is
// a verifier key of the same origin; any other is Invalid.
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

// CheckRotation checks the statement in a record of type [KeyRotated] and
// returns the keys with the new one added. A statement that none of the keys
// signed is Denied; a record without a well-formed one is Invalid.
//
// The statement stands by itself: it is believed because of the old key's
// signature, not because of its place in the ledger.
func CheckRotation(r Record, keys Keys) (Keys, error) {
	next := r.Data[factNew]
	v, err := note.NewVerifier(next)
	if r.Type != KeyRotated || r.Outcome != Done || err != nil {
		return Keys{}, fault.Invalidf("the record does not state a rotation of the ledger's key")
	}
	_, id, err := keys.open(r.Data[factStatement], func(text string) (string, error) {
		if text != rotationText(v.Name(), next) {
			return "", fault.Invalidf("the statement of rotation speaks of another key")
		}
		return v.Name(), nil
	})
	if err != nil {
		return Keys{}, err
	}
	if !strings.HasPrefix(r.Data[factOld], id+"+") {
		return Keys{}, fault.Invalidf("the statement of rotation is signed by another key than the record says")
	}
	if err := checkNext(v.Name(), next); err != nil {
		return Keys{}, err
	}
	return NewKeys(append(keys.Strings(), next)...)
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
