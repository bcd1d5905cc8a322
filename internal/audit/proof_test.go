package audit_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
)

func TestInclusionProof_OfAnyLeafInAnyTreeVerifies(t *testing.T) {
	all := leafHashes(0, 1600)
	var b audit.Builder
	if err := b.Append(all); err != nil {
		t.Fatal(err)
	}
	tiles := make(shelf)
	tiles.put(b.Changed())
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Uint64Range(1, 1600).Draw(t, "size")
		index := rapid.Uint64Range(0, size-1).Draw(t, "index")
		root, err := audit.RootAt(t.Context(), tiles, size)
		if err != nil {
			t.Fatal(err)
		}
		var fresh audit.Builder
		if err := fresh.Append(all[:size]); err != nil || fresh.Root() != root {
			t.Fatalf("RootAt(%d) is %v, want %v (%v)", size, root, fresh.Root(), err)
		}
		path, err := audit.InclusionProof(t.Context(), tiles, index, size)
		if err != nil {
			t.Fatal(err)
		}
		if err := audit.VerifyInclusion(all[index], index, size, path, root); err != nil {
			t.Fatal(err)
		}
		if len(path) > 0 {
			i := rapid.IntRange(0, len(path)-1).Draw(t, "hash")
			path[i][rapid.IntRange(0, 31).Draw(t, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
			if err := audit.VerifyInclusion(all[index], index, size, path, root); !fault.Is(err, fault.Invalid) {
				t.Fatalf("a flipped bit: %v, want Invalid", err)
			}
		}
		older := rapid.Uint64Range(0, size).Draw(t, "older")
		oldRoot, err := audit.RootAt(t.Context(), tiles, older)
		if err != nil {
			t.Fatal(err)
		}
		cons, err := audit.ConsistencyProof(t.Context(), tiles, older, size)
		if err != nil {
			t.Fatal(err)
		}
		if err := audit.VerifyConsistency(older, size, cons, oldRoot, root); err != nil {
			t.Fatal(err)
		}
		oldRoot[rapid.IntRange(0, 31).Draw(t, "root byte")] ^= 1
		if err := audit.VerifyConsistency(older, size, cons, oldRoot, root); !fault.Is(err, fault.Invalid) {
			t.Fatalf("another old root: %v, want Invalid", err)
		}
	})
}

func TestInclusionProof_RefusesWhatTheTreeHasNot(t *testing.T) {
	l := newLedger(t, 300)
	if _, err := audit.InclusionProof(t.Context(), l, 300, 300); !fault.Is(err, fault.Invalid) {
		t.Errorf("position beyond the end: %v, want Invalid", err)
	}
	if _, err := audit.InclusionProof(t.Context(), l, 0, 301); !fault.Is(err, fault.NotFound) {
		t.Errorf("size beyond the tiles: %v, want NotFound", err)
	}
	if _, err := audit.ConsistencyProof(t.Context(), l, 5, 4); !fault.Is(err, fault.Invalid) {
		t.Errorf("old larger than new: %v, want Invalid", err)
	}
	if _, err := audit.InclusionProof(t.Context(), l, 0, 1<<60); !fault.Is(err, fault.Invalid) {
		t.Errorf("absurd size: %v, want Invalid", err)
	}
}

func proofOf(tb testing.TB, l *ledger, index uint64) audit.Proof {
	tb.Helper()
	p, err := audit.Prove(tb.Context(), l, l.leaves[index], index, l.checkpoint(tb))
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

func TestProof_StandsAloneAndCatchesEveryFlippedBit(t *testing.T) {
	l := newLedger(t, 300)
	keys := newKeys(t, l.signer.VerifierKey())
	out, err := proofOf(t, l, 280).JSON()
	if err != nil {
		t.Fatal(err)
	}
	p, err := audit.ParseProof(out)
	if err != nil {
		t.Fatal(err)
	}
	r, c, err := audit.VerifyProof(p, keys)
	if err != nil || c.Size != 300 {
		t.Fatalf("%+v, %v", c, err)
	}
	if leaf := mustLeaf(t, r); !bytes.Equal(leaf, l.leaves[280]) {
		t.Fatalf("another record: %s", leaf)
	}
	for i := range out {
		for bit := range 8 {
			bad := bytes.Clone(out)
			bad[i] ^= 1 << bit
			p, err := audit.ParseProof(bad)
			if err != nil {
				continue
			}
			if _, _, err := audit.VerifyProof(p, keys); err == nil && !sameJSON(out, bad) {
				t.Fatalf("bit %d of byte %d (%q) is not covered", bit, i, out[max(0, i-20):i+1])
			}
		}
	}
}

// sameJSON reports whether a flip changed only white space between tokens.
func sameJSON(a, b []byte) bool {
	var x, y bytes.Buffer
	return json.Compact(&x, a) == nil && json.Compact(&y, b) == nil && bytes.Equal(x.Bytes(), y.Bytes())
}

func TestProve_HandsOutNothingFalse(t *testing.T) {
	l := newLedger(t, 300)
	if _, err := audit.Prove(t.Context(), l, l.leaves[4], 5, l.checkpoint(t)); !fault.Is(err, fault.Unavailable) {
		t.Fatalf("another leaf: %v, want Unavailable", err)
	}
}

func TestVerifyProof_RefusesAnotherKey(t *testing.T) {
	p := proofOf(t, newLedger(t, 3), 1)
	if _, _, err := audit.VerifyProof(p, newKeys(t, newSigner(t, 2).VerifierKey())); !fault.Is(err, fault.Denied) {
		t.Fatalf("%v, want Denied", err)
	}
}

func FuzzParseProof(f *testing.F) {
	l := newLedger(f, 5)
	keys := newKeys(f, l.signer.VerifierKey())
	out, err := proofOf(f, l, 3).JSON()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(out)
	f.Add([]byte(strings.Replace(string(out), `"index": 3`, `"index": 2`, 1)))
	f.Add([]byte(`{"v":1,"index":0,"leaf":"","hashes":null,"checkpoint":""}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		p, err := audit.ParseProof(in)
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatalf("%v is not Invalid", err)
			}
			return
		}
		_, _, err = audit.VerifyProof(p, keys)
		if err == nil && (p.Index != 3 || p.Leaf != string(l.leaves[3])) {
			t.Fatalf("proved what is not in the ledger: %+v", p)
		}
		if err != nil && !fault.Is(err, fault.Invalid) && !fault.Is(err, fault.Denied) {
			t.Fatalf("%v is neither Invalid nor Denied", err)
		}
	})
}
