package audit_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/merkle/testonly"
	"pgregory.net/rapid"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
)

func leafHashes(from, n int) []audit.Hash {
	list := make([]audit.Hash, n)
	for i := range list {
		list[i] = audit.HashLeaf(binary.BigEndian.AppendUint64(nil, uint64(from+i)))
	}
	return list
}

func TestBuilder_GivesTheRootsOfRFC6962(t *testing.T) {
	var b audit.Builder
	for size, want := range testonly.RootHashes() {
		if got := b.Root(); !bytes.Equal(got[:], want) {
			t.Errorf("size %d: root %x, want %x", size, got, want)
		}
		if size < 8 {
			if err := b.Append([]audit.Hash{audit.HashLeaf(testonly.LeafInputs()[size])}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestHashLeaf_EqualsTheLibrary(t *testing.T) {
	for _, n := range []int{0, 1, 400, 1022, 1023, 1024, 1025, 40000} {
		leaf := bytes.Repeat([]byte("x"), n)
		if got := audit.HashLeaf(leaf); !bytes.Equal(got[:], rfc6962.DefaultHasher.HashLeaf(leaf)) {
			t.Errorf("%d bytes: wrong hash", n)
		}
	}
}

// Whatever the batches are, and however often the builder is restored from the
// stored tiles, tiles and root are those of one pass, and the root is the
// library's.
func TestBuilder_RestoredAnywhereBuildsTheSameTree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		total := rapid.OneOf(rapid.IntRange(0, 1500), rapid.SampledFrom([]int{255, 256, 257, 511, 512})).Draw(t, "total")
		all := leafHashes(0, total)
		var once audit.Builder
		if err := once.Append(all); err != nil {
			t.Fatal(err)
		}
		want := make(shelf)
		want.put(once.Changed())

		got := make(shelf)
		b := new(audit.Builder)
		for done := 0; done < total; {
			n := min(total-done, rapid.IntRange(1, 700).Draw(t, "batch"))
			if err := b.Append(all[done : done+n]); err != nil {
				t.Fatal(err)
			}
			done += n
			got.put(b.Changed())
			if rapid.Bool().Draw(t, "restart") {
				needed := audit.Needed(b.Size())
				for i := range needed {
					needed[i].Data = got[key{needed[i].Level, needed[i].Index}]
				}
				var err error
				if b, err = audit.Restore(b.Size(), b.Root(), needed); err != nil {
					t.Fatal(err)
				}
			}
		}
		if b.Root() != once.Root() || b.Size() != uint64(total) {
			t.Fatalf("root %v of %d, want %v of %d", b.Root(), b.Size(), once.Root(), total)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
		tree := testonly.New(rfc6962.DefaultHasher)
		for i := range total {
			tree.AppendData(binary.BigEndian.AppendUint64(nil, uint64(i)))
		}
		if root := b.Root(); !bytes.Equal(root[:], tree.Hash()) {
			t.Fatalf("root %x, the library's is %x", root, tree.Hash())
		}
	})
}

// The third level of tiles begins at 65,536 leaves.
func TestBuilder_CrossesIntoTheThirdLevel(t *testing.T) {
	all := leafHashes(0, 65600)
	tree := testonly.New(rfc6962.DefaultHasher)
	for i := range all {
		tree.Append(all[i][:])
	}
	b := new(audit.Builder)
	tiles := make(shelf)
	for done := 0; done < len(all); {
		n := min(len(all)-done, 16383)
		if done > 65000 {
			n = 1
		}
		if err := b.Append(all[done : done+n]); err != nil {
			t.Fatal(err)
		}
		tiles.put(b.Changed())
		done += n
		if root := b.Root(); !bytes.Equal(root[:], tree.HashAt(uint64(done))) {
			t.Fatalf("size %d: root %x, the library's is %x", done, root, tree.HashAt(uint64(done)))
		}
		needed := audit.Needed(b.Size())
		for i := range needed {
			needed[i].Data = tiles[key{needed[i].Level, needed[i].Index}]
		}
		var err error
		if b, err = audit.Restore(b.Size(), b.Root(), needed); err != nil {
			t.Fatal(err)
		}
	}
	if len(tiles) != 257+1+1 || len(tiles[key{2, 0}]) != 32 {
		t.Fatalf("%d tiles", len(tiles))
	}
}

func TestRestore_RefusesADamagedTree(t *testing.T) {
	var b audit.Builder
	if err := b.Append(leafHashes(0, 700)); err != nil {
		t.Fatal(err)
	}
	tiles := make(shelf)
	tiles.put(b.Changed())
	needed := func() []audit.Tile {
		list := audit.Needed(700)
		for i := range list {
			list[i].Data = bytes.Clone(tiles[key{list[i].Level, list[i].Index}])
		}
		return list
	}
	if _, err := audit.Restore(700, b.Root(), needed()); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func([]audit.Tile) []audit.Tile{
		"flipped bit":   func(l []audit.Tile) []audit.Tile { l[0].Data[5] ^= 1; return l },
		"in the upper":  func(l []audit.Tile) []audit.Tile { l[1].Data[5] ^= 1; return l },
		"short":         func(l []audit.Tile) []audit.Tile { l[0].Data = l[0].Data[32:]; return l },
		"ragged":        func(l []audit.Tile) []audit.Tile { l[0].Data = l[0].Data[1:]; return l },
		"missing":       func(l []audit.Tile) []audit.Tile { return l[1:] },
		"another index": func(l []audit.Tile) []audit.Tile { l[0].Index++; return l },
	} {
		if _, err := audit.Restore(700, b.Root(), spoil(needed())); !fault.Is(err, fault.Unavailable) {
			t.Errorf("%s: %v, want Unavailable", name, err)
		}
	}
}

func TestTile_PathIsThatOfTlogTiles(t *testing.T) {
	for want, tile := range map[string]audit.Tile{
		"tile/0/000":               {Data: make([]byte, 8192)},
		"tile/0/x001/x234/067":     {Index: 1234067, Data: make([]byte, 8192)},
		"tile/1/273.p/112":         {Level: 1, Index: 273, Data: make([]byte, 112*32)},
		"tile/2/x001/000.p/1":      {Level: 2, Index: 1000, Data: make([]byte, 32)},
		"tile/0/x010/x000/999.p/9": {Index: 10000999, Data: make([]byte, 9*32)},
	} {
		if got := tile.Path(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func BenchmarkBuilder_Append(b *testing.B) {
	batch := leafHashes(0, 4096)
	var tree audit.Builder
	for b.Loop() {
		if err := tree.Append(batch); err != nil {
			b.Fatal(err)
		}
		tree.Changed()
	}
	b.ReportMetric(float64(b.N)*4096/b.Elapsed().Seconds(), "leaves/s")
}
