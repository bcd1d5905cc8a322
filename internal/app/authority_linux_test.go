package app

import (
	"crypto/sha256"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/keys"
)

// TestAuthority_ForgetsVerdictsOnTheirWay: what the old keys say after a change
// is not remembered.
func TestAuthority_ForgetsVerdictsOnTheirWay(t *testing.T) {
	a := standing(t)
	before := a.keys()
	made, facts, err := turn(t, a, keys.Token)
	if err != nil {
		t.Fatal(err)
	}
	rotated(t, a, keys.Token, made, facts)
	verdict := recognised{until: time.Now().Add(recogniseAgain)}
	a.authority.remember([sha256.Size]byte{1}, before, verdict)
	a.authority.remember([sha256.Size]byte{2}, a.keys(), verdict)
	if _, late := a.authority.known[[sha256.Size]byte{1}]; late || len(a.authority.known) != 1 {
		t.Errorf("remembered are %d verdicts, the late one: %t", len(a.authority.known), late)
	}
}
