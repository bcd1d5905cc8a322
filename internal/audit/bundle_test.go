package audit

import (
	"bytes"
	"testing"

	"github.com/sallyport-project/sallyport/internal/fault"
)

func FuzzEntries(f *testing.F) {
	f.Add([]byte{0, 1, 'a', 0, 0}, 2)
	f.Add([]byte{0, 1, 'a', 0, 2, 'b'}, 2)
	f.Add([]byte{0x80, 0x01}, 1)
	f.Add([]byte{0}, 1)
	f.Fuzz(func(t *testing.T, in []byte, width int) {
		width = 1 + int(uint(width)%TileWidth)
		list, err := entries(in, width, nil)
		var again []byte
		for _, leaf := range list {
			var bad error
			if again, bad = appendEntry(again, leaf); bad != nil {
				t.Fatal(bad)
			}
		}
		if !bytes.HasPrefix(in, again) {
			t.Fatalf("%x gave %x", in, again)
		}
		if (err == nil) != (len(list) == width && len(again) == len(in)) {
			t.Fatalf("%d of %d entries, %d of %d bytes: %v", len(list), width, len(again), len(in), err)
		}
		if err != nil && !fault.Is(err, fault.Invalid) {
			t.Fatalf("%v is not Invalid", err)
		}
	})
}

func TestExpected_KnowsExactlyTheFilesOfASize(t *testing.T) {
	for _, size := range []uint64{0, 1, 255, 256, 257, 70000, 300_000} {
		for _, name := range []string{
			"tile/0/000", "tile/0/000.p/255", "tile/0/273.p/112", "tile/1/000", "tile/2/000.p/1",
			"tile/entries/x001/170", "tile/entries/x001/171.p/224", "tile/entries/1170", "tile/entries/x001/171.p/0", "tile/x/000", "tile/0", "tile/0/0", "tile/0/x000/000",
			"tile/0/000.p/000", "tile/00/000", "tile/-1/000", "tile/9/000", "tile/entries/273.p/112", "tile/entries/000.p/1/2", "other/0/000",
		} {
			want := false
			for level := range levels(size) {
				n := count(size, level)
				for index := range (n + TileWidth - 1) / TileWidth {
					w := widthAt(size, level, index)
					want = want || name == place{level, index, w}.path() || level == 0 && name == entriesPath(index, w)
				}
			}
			if got := expected(name, size); got != want {
				t.Errorf("size %d, %s: %v, want %v", size, name, got, want)
			}
		}
	}
}
