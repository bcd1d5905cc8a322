package audit_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/mod/sumdb/note"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
)

func TestCheckpoint_IsASignedNoteThatOthersVerify(t *testing.T) {
	l := newLedger(t, 3)
	c := l.checkpoint(t)
	v, err := note.NewVerifier(l.signer.VerifierKey())
	if err != nil {
		t.Fatal(err)
	}
	n, err := note.Open([]byte(c.Note), note.VerifierList(v))
	if err != nil {
		t.Fatal(err)
	}
	if want := origin + "\n3\n" + l.tree.Root().String() + "\n"; n.Text != want {
		t.Fatalf("text %q, want %q", n.Text, want)
	}
	got, err := audit.ParseCheckpoint(c.Note, newKeys(t, newSigner(t, 2).VerifierKey(), l.signer.VerifierKey()))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(c, got); diff != "" {
		t.Fatal(diff)
	}
}

// The example of c2sp.org/tlog-checkpoint has the public form but no public
// key; it must be read up to the signature.
func TestParseCheckpoint_DeniesAnUnknownSigner(t *testing.T) {
	const example = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n" +
		"— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
	if _, err := audit.ParseCheckpoint(example, newKeys(t, newSigner(t, 1).VerifierKey())); !fault.Is(err, fault.Denied) {
		t.Fatalf("%v, want Denied", err)
	}
	if _, err := audit.ParseCheckpoint(example, audit.Keys{}); !fault.Is(err, fault.Denied) {
		t.Fatalf("no keys: %v, want Denied", err)
	}
}

func TestParseCheckpoint_CatchesEveryFlippedBit(t *testing.T) {
	l := newLedger(t, 3)
	c := l.checkpoint(t)
	keys := newKeys(t, l.signer.VerifierKey())
	for i := range len(c.Note) {
		for bit := range 8 {
			bad := []byte(c.Note)
			bad[i] ^= 1 << bit
			if _, err := audit.ParseCheckpoint(string(bad), keys); err == nil {
				t.Fatalf("bit %d of byte %d (%q)", bit, i, c.Note[i])
			}
		}
	}
}

// resign signs any text with the key of signer 1.
func resign(t *testing.T, text string) string {
	t.Helper()
	// The key is the algorithm's byte 1 and 32 bytes of 1.
	s, err := note.NewSigner(fmt.Sprintf("PRIVATE+KEY+%s+%08x+AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB", origin, keyHash(t)))
	if err != nil {
		t.Fatal(err)
	}
	out, err := note.Sign(&note.Note{Text: text}, s)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func keyHash(t *testing.T) uint32 {
	t.Helper()
	v, err := note.NewVerifier(newSigner(t, 1).VerifierKey())
	if err != nil {
		t.Fatal(err)
	}
	return v.KeyHash()
}

func TestParseCheckpoint_RefusesOtherFormsEvenIfSigned(t *testing.T) {
	root, keys := audit.EmptyRoot().String(), newKeys(t, newSigner(t, 1).VerifierKey())
	if _, err := audit.ParseCheckpoint(resign(t, origin+"\n0\n"+root+"\n"), keys); err != nil {
		t.Fatalf("the right form: %v", err)
	}
	for name, tt := range map[string]struct {
		text string
		kind fault.Kind
	}{
		"leading zero":       {origin + "\n03\n" + root + "\n", fault.Invalid},
		"negative":           {origin + "\n-3\n" + root + "\n", fault.Invalid},
		"too large":          {origin + "\n9007199254740992\n" + root + "\n", fault.Invalid},
		"short root":         {origin + "\n3\nAAAA\n", fault.Invalid},
		"free bits in root":  {origin + "\n3\n" + root[:42] + "V=\n", fault.Invalid},
		"extension line":     {origin + "\n3\n" + root + "\nextension\n", fault.Invalid},
		"missing line":       {origin + "\n3\n", fault.Invalid},
		"empty, wrong root":  {origin + "\n0\n" + strings.Repeat("A", 43) + "=\n", fault.Invalid},
		"another's name":     {"other.example\n3\n" + root + "\n", fault.Denied},
		"rotation statement": {"sallyport-ledger-key-rotation-v1\n3\n" + root + "\n", fault.Invalid},
		"larger than a note": {origin + "\n3\n" + root + "\n" + strings.Repeat("x", 20000) + "\n", fault.Invalid},
	} {
		if c, err := audit.ParseCheckpoint(resign(t, tt.text), keys); !fault.Is(err, tt.kind) {
			t.Errorf("%s: %+v, %v; want %v", name, c, err, tt.kind)
		}
	}
}

func TestSigner_NeverPrintsItsKey(t *testing.T) {
	s := newSigner(t, 1)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		if got := fmt.Sprintf(verb, s); got != s.VerifierKey() {
			t.Errorf("%s: %s", verb, got)
		}
	}
	for _, bad := range []string{"", "a b", "a+b", "a\nb", "sallyport-ledger-key-rotation-v1", strings.Repeat("x", 300)} {
		if _, err := audit.NewSigner(bad, ed25519.NewKeyFromSeed(make([]byte, 32))); !fault.Is(err, fault.Invalid) {
			t.Errorf("origin %q: %v, want Invalid", bad, err)
		}
	}
	if _, err := audit.NewSigner(origin, nil); !fault.Is(err, fault.Invalid) {
		t.Errorf("no key: %v, want Invalid", err)
	}
}

func TestConsistent_NamesTheBreach(t *testing.T) {
	l := newLedger(t, 300)
	kept := l.checkpoint(t)
	l.grow(t, 400)
	current := l.checkpoint(t)
	if err := audit.Consistent(t.Context(), l, kept, current); err != nil {
		t.Fatal(err)
	}
	empty, err := l.signer.Sign(0, audit.EmptyRoot())
	if err != nil {
		t.Fatal(err)
	}
	if err := audit.Consistent(t.Context(), l, empty, current); err != nil {
		t.Fatalf("from the empty ledger: %v", err)
	}
	if err := audit.Consistent(t.Context(), l, current, current); err != nil {
		t.Fatalf("with itself: %v", err)
	}

	other := newLedger(t, 299) // another history from record 299 on
	other.leaves = append(other.leaves, nil)
	r := sample(5)
	r.Target = "something else"
	if err := other.tree.Append([]audit.Hash{audit.HashLeaf(mustLeaf(t, r))}); err != nil {
		t.Fatal(err)
	}
	other.put(other.tree.Changed())
	other.grow(t, 400)

	// A forger keeps the old tile on disk for the old root and hashes another
	// one into the tree.
	forged := &ledger{shelf: make(shelf), signer: l.signer}
	for k, v := range other.shelf {
		forged.shelf[k] = v
	}
	forged.shelf[key{0, 1}] = l.shelf[key{0, 1}]

	cut := &ledger{shelf: make(shelf)}
	for k, v := range l.shelf {
		cut.shelf[k] = v
	}
	cut.shelf[key{0, 2}] = cut.shelf[key{0, 2}][:32]

	foreign, err := audit.NewSigner("other.example", ed25519.NewKeyFromSeed(make([]byte, 32)))
	if err != nil {
		t.Fatal(err)
	}
	abroad, err := foreign.Sign(current.Size, current.Root)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		tiles         audit.Tiles
		kept, current audit.Checkpoint
		want          audit.Breach
	}{
		"a restored backup":      {l, current, kept, audit.Rollback},
		"another history":        {other, kept, other.checkpoint(t), audit.Fork},
		"another, same size":     {other, current, other.checkpoint(t), audit.Fork},
		"old tile kept for show": {forged, kept, other.checkpoint(t), audit.Fork},
		"tiles of another":       {other, kept, current, audit.Fork},
		"tiles cut":              {cut, kept, current, audit.Truncation},
		"no tiles":               {make(shelf), kept, current, audit.Truncation},
		"another ledger":         {l, kept, abroad, audit.Foreign},
	} {
		err := audit.Consistent(t.Context(), tt.tiles, tt.kept, tt.current)
		breach, ok := errors.AsType[*audit.Inconsistent](err)
		if !ok || breach.Breach != tt.want || !fault.Is(err, fault.Unavailable) {
			t.Errorf("%s: %v, want %s", name, err, tt.want)
		}
	}
}

// broken fails for a reason that says nothing about the ledger.
type broken struct{}

func (broken) Tile(context.Context, int, uint64) ([]byte, error) {
	return nil, fault.Unavailablef("the database is away")
}

func TestConsistent_CriesNoBreachWhenTilesCannotBeRead(t *testing.T) {
	c := newLedger(t, 3).checkpoint(t)
	err := audit.Consistent(t.Context(), broken{}, c, c)
	if _, breach := errors.AsType[*audit.Inconsistent](err); breach || !fault.Is(err, fault.Unavailable) {
		t.Fatalf("%v, want Unavailable and no breach", err)
	}
}

func FuzzParseCheckpoint(f *testing.F) {
	l := newLedger(f, 3)
	c := l.checkpoint(f)
	keys := newKeys(f, l.signer.VerifierKey())
	f.Add(c.Note)
	f.Add(c.Note + "— other.example AAAAAAAA\n")
	f.Add(origin + "\n3\n")
	f.Fuzz(func(t *testing.T, in string) {
		got, err := audit.ParseCheckpoint(in, keys)
		if err == nil && (got.Size != c.Size || got.Root != c.Root || got.Origin != c.Origin) {
			t.Fatalf("accepted a checkpoint that was never signed: %+v", got)
		}
		if err != nil && !fault.Is(err, fault.Invalid) && !fault.Is(err, fault.Denied) {
			t.Fatalf("%v is neither Invalid nor Denied", err)
		}
	})
}
