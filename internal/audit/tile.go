package audit

import (
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// TileWidth is the number of hashes in a full tile.
const TileWidth = 256

// MaxSize is the largest tree: what JSON readers of any language still hold
// exactly.
const MaxSize = 1<<53 - 1

// Tile is a run of consecutive hashes of one level of the tree
// (c2sp.org/tlog-tiles). Level 0 has leaf hashes; a hash of level n+1 is the
// root of a full tile of level n. A tile with fewer than [TileWidth] hashes is
// partial, is the last of its level, and is a prefix of what it will become.
type Tile struct {
	Level int
	Index uint64
	Data  []byte // width times HashSize bytes
}

// Width is the number of hashes, 1 to [TileWidth].
func (t Tile) Width() int { return len(t.Data) / HashSize }

// Path is the tile's path in an export.
func (t Tile) Path() string { return tilePath(strconv.Itoa(t.Level), t.Index, t.Width()) }

// entriesPath is the path of an entry bundle.
func entriesPath(index uint64, width int) string { return tilePath("entries", index, width) }

func tilePath(level string, index uint64, width int) string {
	n := fmt.Sprintf("%03d", index%1000)
	for index >= 1000 {
		index /= 1000
		n = fmt.Sprintf("x%03d/%s", index%1000, n)
	}
	if width < TileWidth {
		n += ".p/" + strconv.Itoa(width)
	}
	return "tile/" + level + "/" + n
}

// place names a tile of a tree of a given size.
type place struct {
	level int
	index uint64
	width int
}

func (p place) path() string { return tilePath(strconv.Itoa(p.level), p.index, p.width) }

// levels is the number of tile levels of a tree.
func levels(size uint64) int { return (bits.Len64(size) + 7) / 8 }

// count is the number of hashes that a level has.
func count(size uint64, level int) uint64 { return size >> (8 * level) }

// widthAt is the width of a tile in a tree of that size, 0 if it has none.
func widthAt(size uint64, level int, index uint64) int {
	n := count(size, level)
	if index > n/TileWidth {
		return 0
	}
	return int(min(n-index*TileWidth, TileWidth))
}

// partials are the partial tiles of a tree, lowest level first: what must be
// known to extend it.
func partials(size uint64) []place {
	var list []place
	for level := range levels(size) {
		n := count(size, level)
		if w := int(n % TileWidth); w > 0 {
			list = append(list, place{level, n / TileWidth, w})
		}
	}
	return list
}

// tileRoot is the root over 2^k hashes that stand one after the other.
func tileRoot(data []byte) Hash {
	var work [TileWidth * HashSize / 2]byte
	if len(data) == HashSize {
		return Hash(data)
	}
	n := len(data) / HashSize / 2
	from := data
	for ; n >= 1; n /= 2 {
		for i := range n {
			h := hashNode(from[2*i*HashSize:][:HashSize], from[(2*i+1)*HashSize:][:HashSize])
			copy(work[i*HashSize:], h[:])
		}
		from = work[:]
	}
	return Hash(work[:HashSize])
}

// borderRoot is the root of a tree whose partial tiles are given, lowest level
// first. Empty levels may be left out.
func borderRoot(tiles [][]byte) Hash {
	var root Hash
	have := false
	for _, data := range tiles {
		for w := len(data) / HashSize; w > 0; {
			k := w & -w // the last perfect subtree
			h := tileRoot(data[(w-k)*HashSize : w*HashSize])
			if have {
				h = hashNode(h[:], root[:])
			}
			root, have = h, true
			w -= k
		}
	}
	if !have {
		return EmptyRoot()
	}
	return root
}

// checkTile refuses a tile that cannot be one.
func checkTile(data []byte, width int) error {
	if len(data)%HashSize != 0 || len(data) > TileWidth*HashSize || len(data) < width*HashSize {
		return fault.NotFoundf("a tile of the ledger is shorter than its tree needs")
	}
	return nil
}

// expected reports whether a path is one of a tile or entry bundle of a tree of
// that size. It reads the index and lets the path be made again.
func expected(name string, size uint64) bool {
	parts := strings.Split(name, "/")
	if len(parts) < 3 || parts[0] != "tile" {
		return false
	}
	level := 0
	if parts[1] != "entries" {
		n, err := strconv.ParseUint(parts[1], 10, 3)
		if err != nil || strconv.FormatUint(n, 10) != parts[1] {
			return false
		}
		level = int(n)
	}
	numbers := parts[2:]
	if last := len(numbers) - 2; last >= 0 && strings.HasSuffix(numbers[last], ".p") {
		numbers = append(slices.Clone(numbers[:last]), strings.TrimSuffix(numbers[last], ".p"))
	}
	var index uint64
	for _, part := range numbers {
		n, err := strconv.ParseUint(strings.TrimPrefix(part, "x"), 10, 16)
		if err != nil || index > MaxSize/1000 {
			return false
		}
		index = index*1000 + n
	}
	width := widthAt(size, level, index)
	return width > 0 && tilePath(parts[1], index, width) == name
}
