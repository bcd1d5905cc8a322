package audit_test

import (
	"fmt"
	"io/fs"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// story is a ledger with honest rotations among which somebody who can write to
// the database has put others: the server signs on as if they were not there.
type story struct {
	*ledger
	signers []*audit.Signer // the honest ones, in their order
	good    []uint64        // positions of honest rotations
	bad     []uint64        // of planted ones
}

func newStory(tb testing.TB, records int) *story {
	l := newLedger(tb, records)
	return &story{ledger: l, signers: []*audit.Signer{l.signer}}
}

func (s *story) honest(tb testing.TB) {
	s.good = append(s.good, s.tree.Size())
	next := newSigner(tb, byte(len(s.signers)+1))
	s.turn(tb, next)
	s.signers = append(s.signers, next)
}

func (s *story) plant(tb testing.TB, leaf []byte) {
	s.bad = append(s.bad, s.tree.Size())
	s.record(tb, leaf)
}

// wrong verifies with the honest key has and an old checkpoint, and says in what
// the report is not that only what was planted does not count.
func (s *story) wrong(tb testing.TB, files fs.FS, has int, old string) error {
	r, err := audit.Verify(tb.Context(), files, audit.VerifyOptions{Keys: []string{s.signers[has].VerifierKey()}, Old: old})
	if err != nil {
		return fmt.Errorf("key %d: %w", has, err)
	}
	var told, refused []uint64
	for i, step := range r.Rotations {
		told = append(told, step.Position)
		if step.Followed != (i >= has) {
			return fmt.Errorf("key %d: rotation %d is followed: %t", has, i, step.Followed)
		}
	}
	for _, p := range r.Problems {
		if p.Kind != audit.BadRotation {
			return fmt.Errorf("key %d: %+v", has, p)
		}
		refused = append(refused, *p.Position)
	}
	if r.OK != (len(s.bad) == 0) || r.Key != s.signer.ID() || !slices.Equal(told, s.good) || !slices.Equal(refused, s.bad) {
		return fmt.Errorf("key %d: told %v, want %v; refused %v, want %v; %+v", has, told, s.good, refused, s.bad, r)
	}
	return nil
}

// TestVerify_PlantedFirstRotation: a rotation among foreign keys, before there was
// any other, is found, and takes no auditor's key away from them.
func TestVerify_PlantedFirstRotation(t *testing.T) {
	for honest := range 3 {
		s := newStory(t, 20)
		before := s.checkpoint(t).Note
		s.plant(t, rotation(t, newSigner(t, 66), evil2(t)))
		s.grow(t, 5)
		after := s.checkpoint(t).Note
		for range honest {
			s.honest(t)
			s.grow(t, 3)
		}
		files := s.export(t)
		for has := range s.signers {
			if err := s.wrong(t, files, has, ""); err != nil {
				t.Errorf("%d honest rotations: %v", honest, err)
			}
		}
		for _, old := range []string{before, after} {
			if err := s.wrong(t, files, 0, old); err != nil {
				t.Errorf("%d honest rotations, from an old checkpoint: %v", honest, err)
			}
		}
		if err := s.wrong(t, files, honest, s.checkpoint(t).Note); err != nil {
			t.Errorf("%d honest rotations, from the newest checkpoint: %v", honest, err)
		}
	}
}

// TestVerify_PlantedRotationsAnywhere plants what can be made without the key of
// the ledger, at any place: an auditor with any key still sees what is honest.
func TestVerify_PlantedRotationsAnywhere(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := newStory(t, rapid.IntRange(0, 10).Draw(rt, "records"))
		foreign := func(name string) *audit.Signer { return newSigner(t, byte(rapid.IntRange(60, 63).Draw(rt, name))) }
		var olds []string // newest checkpoint of each honest key
		for range rapid.IntRange(0, 12).Draw(rt, "events") {
			switch rapid.SampledFrom([]string{"honest", "foreign", "to an honest key", "told again", "retired"}).Draw(rt, "event") {
			case "honest":
				olds = append(olds, s.checkpoint(t).Note)
				s.honest(t)
			case "foreign":
				if by, next := foreign("by"), foreign("next"); by.ID() != next.ID() {
					s.plant(t, rotation(t, by, next))
				}
			case "to an honest key": // the first is below: nobody knows what was before it
				if n := len(s.signers); n > 1 {
					s.plant(t, rotation(t, foreign("by"), s.signers[rapid.IntRange(1, n-1).Draw(rt, "to")]))
				}
			case "told again":
				if n := len(s.good); n > 0 {
					s.plant(t, s.leaves[s.good[rapid.IntRange(0, n-1).Draw(rt, "which")]])
				}
			case "retired":
				if n := len(s.signers); n > 1 {
					s.plant(t, rotation(t, s.signers[rapid.IntRange(0, n-2).Draw(rt, "by")], foreign("next")))
				}
			}
		}
		olds = append(olds, s.checkpoint(t).Note)
		has := rapid.IntRange(0, len(s.signers)-1).Draw(rt, "has")
		files := s.export(t)
		for _, old := range append(olds[has:], "") {
			if err := s.wrong(t, files, has, old); err != nil {
				rt.Fatal(err)
			}
		}
		keys := audit.Follow(newKeys(t, s.signers[has].VerifierKey()), s.leaves).Strings()
		var want []string
		for _, k := range s.signers[has:] {
			want = append(want, k.VerifierKey())
		}
		if !slices.Equal(keys, want) {
			rt.Fatalf("key %d leads to %v, want %v", has, keys, want)
		}
	})
}

// TestVerify_PlantedPredecessor: that a foreign key vouches for the first one makes
// it a rotation that was not checked, unless an old checkpoint shows that the key
// was the ledger's before.
func TestVerify_PlantedPredecessor(t *testing.T) {
	s := newStory(t, 20)
	before := s.checkpoint(t).Note
	s.record(t, rotation(t, newSigner(t, 66), s.signer))
	s.turn(t, newSigner(t, 2))
	r := verify(t, s.export(t), "")
	if !r.OK || len(r.Rotations) != 2 || r.Rotations[0].Followed || !r.Rotations[1].Followed {
		t.Errorf("without a checkpoint: %+v", r)
	}
	r = verify(t, s.export(t), before)
	if r.OK || len(r.Problems) != 1 || r.Problems[0].Kind != audit.BadRotation || *r.Problems[0].Position != 20 || len(r.Rotations) != 1 {
		t.Errorf("with one of before: %+v", r)
	}
}

// TestVerify_BackwardsFromALaterKey: what came before the only key that an auditor
// has must be a history as well, in order and without return.
func TestVerify_BackwardsFromALaterKey(t *testing.T) {
	a, b, last := newSigner(t, 66), newSigner(t, 67), newSigner(t, 3)
	for name, c := range map[string]struct {
		leaves    [][]byte
		good, bad []uint64
	}{
		"in order":     {[][]byte{rotation(t, a, b), rotation(t, b, last)}, []uint64{20, 21}, nil},
		"out of order": {[][]byte{rotation(t, b, last), rotation(t, a, b)}, []uint64{20}, []uint64{21}},
		"with return":  {[][]byte{rotation(t, a, b), rotation(t, b, a), rotation(t, a, last)}, []uint64{21, 22}, []uint64{20}},
	} {
		s := newStory(t, 20)
		for _, leaf := range c.leaves {
			s.record(t, leaf)
		}
		s.good, s.bad, s.signer = c.good, c.bad, last
		s.signers = []*audit.Signer{nil, nil, last} // nothing before it is followed
		if err := s.wrong(t, s.export(t), 2, ""); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestFollow_IgnoresPlantedRotations is the rule of [audit.Verify] for who has the
// records alone: an export from a server, a store that reads its keys.
func TestFollow_IgnoresPlantedRotations(t *testing.T) {
	first, second, third, evil := newSigner(t, 1), newSigner(t, 2), newSigner(t, 3), newSigner(t, 66)
	leaves := [][]byte{
		rotation(t, evil, evil2(t)), rotation(t, first, second), rotation(t, evil2(t), third),
		rotation(t, evil, second), rotation(t, second, third),
	}
	honest := []string{first.VerifierKey(), second.VerifierKey(), third.VerifierKey()}
	for i := range honest {
		keys := audit.Follow(newKeys(t, honest[i]), leaves)
		if !slices.Equal(keys.Strings(), honest[i:]) {
			t.Errorf("key %d leads to %v", i, keys.Strings())
		}
	}
	c, err := evil2(t).Sign(0, audit.EmptyRoot())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := audit.ParseCheckpoint(c.Note, audit.Follow(newKeys(t, honest...), leaves)); !fault.Is(err, fault.Denied) {
		t.Errorf("a checkpoint by a planted key: %v", err)
	}
}
