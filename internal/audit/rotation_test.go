package audit_test

import (
	"crypto/ed25519"
	"maps"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// rotation is a leaf that states a rotation, after a change of its facts.
func rotation(tb testing.TB, by, next *audit.Signer, change ...func(*audit.Record)) []byte {
	tb.Helper()
	data, err := by.Rotate(next.VerifierKey())
	if err != nil {
		tb.Fatal(err)
	}
	r := sample(1)
	r.Type, r.Target, r.Data, r.Outcome = audit.KeyRotated, audit.LedgerTarget, maps.Clone(data), audit.Done
	for _, f := range change {
		f(&r)
	}
	return mustLeaf(tb, r)
}

// turn records a rotation of the ledger's key and signs with the new one.
func (l *ledger) turn(tb testing.TB, next *audit.Signer) {
	tb.Helper()
	l.record(tb, rotation(tb, l.signer, next))
	l.signer = next
}

func with(key, value string) func(*audit.Record) {
	return func(r *audit.Record) { r.Data[key] = value }
}

func TestReadRotation_BelievesOnlyTheOldKey(t *testing.T) {
	first, second, third := newSigner(t, 1), newSigner(t, 2), newSigner(t, 3)
	r, ok, err := audit.ReadRotation(rotation(t, first, second))
	if !ok || err != nil || r.OldID() != first.ID() || r.NewID() != second.ID() {
		t.Fatalf("%+v %t %v", r, ok, err)
	}
	other, err := audit.NewSigner("other.example", ed25519.NewKeyFromSeed(make([]byte, 32)))
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*audit.Record){
		"another new key":         with("new_key", third.VerifierKey()),
		"another old key":         with("old_key", third.VerifierKey()),
		"an old key of elsewhere": with("old_key", other.VerifierKey()),
		"a new key of elsewhere":  with("new_key", other.VerifierKey()),
		"the same key twice":      with("new_key", first.VerifierKey()),
		"no statement":            func(r *audit.Record) { delete(r.Data, "statement") },
		"a checkpoint":            with("statement", newLedger(t, 1).checkpoint(t).Note),
		"no new key":              func(r *audit.Record) { delete(r.Data, "new_key") },
		"no old key":              func(r *audit.Record) { delete(r.Data, "old_key") },
	} {
		if _, ok, err := audit.ReadRotation(rotation(t, first, second, change)); ok || err == nil {
			t.Errorf("%s: believed", name)
		}
	}
	for name, change := range map[string]func(*audit.Record){
		"a refused one":          func(r *audit.Record) { r.Outcome = audit.Denied },
		"of another key":         func(r *audit.Record) { r.Target = "token" },
		"a record of other type": func(r *audit.Record) { r.Type = "key.retired" },
	} {
		if _, ok, err := audit.ReadRotation(rotation(t, first, second, change)); ok || err != nil {
			t.Errorf("%s counts as a rotation: %t %v", name, ok, err)
		}
	}
	if _, err := first.Rotate(other.VerifierKey()); !fault.Is(err, fault.Invalid) {
		t.Errorf("a key of another ledger: %v, want Invalid", err)
	}
	if _, err := first.Rotate(first.VerifierKey()); !fault.Is(err, fault.Invalid) {
		t.Errorf("the present key: %v, want Invalid", err)
	}
}

func TestVerify_FollowsRotations(t *testing.T) {
	first, second, third := newSigner(t, 1), newSigner(t, 2), newSigner(t, 3)
	l := newLedger(t, 300)
	before := l.checkpoint(t).Note
	l.turn(t, second)
	l.grow(t, 300)
	between := l.checkpoint(t).Note
	l.turn(t, third)
	l.grow(t, 10)
	files := l.export(t)
	for name, c := range map[string]struct {
		keys     []string
		old      string
		followed []bool
	}{
		"the first key leads to the last": {[]string{first.VerifierKey()}, "", []bool{true, true}},
		"also from an old checkpoint":     {[]string{first.VerifierKey()}, before, []bool{true, true}},
		"and from one in between":         {[]string{first.VerifierKey()}, between, []bool{true, true}},
		"the second does":                 {[]string{second.VerifierKey()}, between, []bool{false, true}},
		"the last alone suffices":         {[]string{third.VerifierKey()}, "", []bool{false, false}},
		"all of them":                     {[]string{third.VerifierKey(), first.VerifierKey(), second.VerifierKey()}, before, []bool{true, true}},
	} {
		r, err := audit.Verify(t.Context(), files, audit.VerifyOptions{Keys: c.keys, Old: c.old})
		if err != nil || !r.OK || r.Key != third.ID() || len(r.Rotations) != 2 {
			t.Errorf("%s: %v %+v", name, err, r)
			continue
		}
		for i, want := range c.followed {
			if r.Rotations[i].Followed != want {
				t.Errorf("%s: rotation %d is followed: %t", name, i, r.Rotations[i].Followed)
			}
		}
		if r.Rotations[0].Position != 300 || r.Rotations[1].Position != 601 {
			t.Errorf("%s: %+v", name, r.Rotations)
		}
	}
	// An old checkpoint of a key that nobody vouches for is not judged.
	_, err := audit.Verify(t.Context(), files, audit.VerifyOptions{Keys: []string{third.VerifierKey()}, Old: before})
	if !fault.Is(err, fault.Denied) {
		t.Errorf("an old checkpoint by an unknown key: %v", err)
	}
	stranger := newSigner(t, 9)
	r, err := audit.Verify(t.Context(), files, audit.VerifyOptions{Keys: []string{stranger.VerifierKey()}})
	if err != nil || r.OK || r.Problems[0].Kind != audit.BadCheckpoint {
		t.Errorf("a stranger's key: %v %+v", err, r)
	}
}

// TestVerify_RefusesFalseRotations is what somebody tries who has the database,
// or a key that has retired.
func TestVerify_RefusesFalseRotations(t *testing.T) {
	first, second, third, evil := newSigner(t, 1), newSigner(t, 2), newSigner(t, 3), newSigner(t, 66)
	for name, c := range map[string]struct {
		story func(*ledger)
		want  audit.ProblemKind
	}{
		"forged: the statement is of nobody": {func(l *ledger) {
			l.record(t, rotation(t, evil, second, with("old_key", first.VerifierKey())))
		}, audit.BadRotation},
		"forged, and the forger signs": {func(l *ledger) {
			l.record(t, rotation(t, evil, evil2(t), with("old_key", first.VerifierKey())))
			l.signer = evil2(t)
		}, audit.BadCheckpoint},
		"a rotation of a key that never was the ledger's": {func(l *ledger) {
			l.turn(t, second)
			l.record(t, rotation(t, evil, third))
		}, audit.BadRotation},
		"signed by a key that has retired": {func(l *ledger) {
			l.turn(t, second)
			l.grow(t, 3)
			l.record(t, rotation(t, first, evil))
		}, audit.BadRotation},
		"signed by a key that has retired, whose successor signs": {func(l *ledger) {
			l.turn(t, second)
			l.record(t, rotation(t, first, evil))
			l.signer = evil
		}, audit.BadCheckpoint},
		"a rotation told again": {func(l *ledger) {
			l.turn(t, second)
			l.turn(t, third)
			l.record(t, rotation(t, first, second))
		}, audit.BadRotation},
		"back to a key of before": {func(l *ledger) {
			l.turn(t, second)
			l.record(t, rotation(t, second, first))
		}, audit.BadRotation},
		"out of order": {func(l *ledger) {
			l.record(t, rotation(t, second, third))
			l.record(t, rotation(t, first, second))
			l.signer = third
		}, audit.BadCheckpoint},
		"a checkpoint by the key that was replaced": {func(l *ledger) {
			l.turn(t, second)
			l.signer = first
			l.grow(t, 5)
		}, audit.BadCheckpoint},
	} {
		l := newLedger(t, 20)
		c.story(l)
		r, err := audit.Verify(t.Context(), l.export(t), audit.VerifyOptions{Keys: []string{first.VerifierKey()}})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		found := false
		for _, p := range r.Problems {
			found = found || p.Kind == c.want
		}
		if r.OK || !found {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

func evil2(t *testing.T) *audit.Signer { return newSigner(t, 67) }

// TestVerify_OldCheckpointOfARetiredKey stands for a thief of an old key who
// signs a checkpoint of a size at which it was replaced already.
func TestVerify_OldCheckpointOfARetiredKey(t *testing.T) {
	first, second := newSigner(t, 1), newSigner(t, 2)
	l := newLedger(t, 20)
	l.turn(t, second)
	l.grow(t, 5)
	late, err := first.Sign(l.tree.Size(), l.tree.Root())
	if err != nil {
		t.Fatal(err)
	}
	r := verify(t, l.export(t), late.Note)
	if r.OK || r.Problems[0].Kind != audit.OldFork {
		t.Errorf("%+v", r)
	}
}

func TestFollow_StopsAtTheFirstFalseStep(t *testing.T) {
	first, second, third, evil := newSigner(t, 1), newSigner(t, 2), newSigner(t, 3), newSigner(t, 66)
	leaves := [][]byte{
		mustLeaf(t, sample(1)), rotation(t, first, second), rotation(t, first, evil), rotation(t, second, third), rotation(t, third, first),
	}
	got := strings.Join(audit.Follow(newKeys(t, first.VerifierKey()), leaves).Strings(), "\n")
	if got != first.VerifierKey()+"\n"+second.VerifierKey()+"\n"+third.VerifierKey() {
		t.Errorf("follows to %s", got)
	}
	if got := audit.Follow(newKeys(t, evil.VerifierKey()), leaves).Strings(); len(got) != 1 {
		t.Errorf("from a key that the ledger does not know: %v", got)
	}
}

// TestVerify_AnyHistoryOfRotations walks random histories: an auditor who has any
// key that ever was the ledger's verifies to the end, follows what came after it
// and nothing that came before.
func TestVerify_AnyHistoryOfRotations(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		l := newLedger(t, rapid.IntRange(0, 40).Draw(rt, "records"))
		signers := []*audit.Signer{l.signer}
		for range rapid.IntRange(0, 5).Draw(rt, "rotations") {
			next := newSigner(t, byte(len(signers)+1))
			l.turn(t, next)
			signers = append(signers, next)
			l.grow(t, rapid.IntRange(0, 260).Draw(rt, "more"))
		}
		has := rapid.IntRange(0, len(signers)-1).Draw(rt, "has")
		r, err := audit.Verify(t.Context(), l.export(t), audit.VerifyOptions{Keys: []string{signers[has].VerifierKey()}})
		if err != nil || !r.OK || len(r.Rotations) != len(signers)-1 {
			rt.Fatalf("%v %+v", err, r)
		}
		for i, s := range r.Rotations {
			if s.Followed != (i >= has) {
				rt.Fatalf("has key %d, rotation %d is followed: %t", has, i, s.Followed)
			}
		}
	})
}

func FuzzReadRotation(f *testing.F) {
	first, second := newSigner(f, 1), newSigner(f, 2)
	good := rotation(f, first, second)
	f.Add(good)
	f.Add(mustLeaf(f, sample(1)))
	f.Add(rotation(f, first, second, func(r *audit.Record) { r.Data["statement"] = "x" }))
	f.Fuzz(func(t *testing.T, leaf []byte) {
		r, ok, err := audit.ReadRotation(leaf)
		if ok && (err != nil || r.OldID() == "" || r.NewID() == "" || r.OldID() == r.NewID()) {
			t.Fatalf("%+v %v", r, err)
		}
	})
}
