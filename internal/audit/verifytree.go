package audit

import (
	"bytes"
	"context"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// tree is the tree of an export above level 0, and how its tiles are judged.
//
// The signed root vouches for the partial tiles, each tile for the full ones
// below it. Where a stored tile does not fit what vouches for it, but what the
// level below computes to does, the tile alone is damaged and the records are
// still proven; so that the report blames the right file.
type tree struct {
	a      *auditor
	stored []levelHashes // by level; level 0 stays empty, it is too large to keep
}

// levelHashes are the hashes of one level in a row.
type levelHashes struct {
	data []byte
	have []bool // by tile: it was there; if not, its hashes are zero
}

func (l levelHashes) tile(index uint64) []byte {
	from := index * TileWidth * HashSize
	return l.data[from:min(from+TileWidth*HashSize, uint64(len(l.data)))]
}

func (a *auditor) readTree() *tree {
	t := &tree{a, make([]levelHashes, levels(a.c.Size))}
	for level := 1; level < len(t.stored); level++ {
		n := count(a.c.Size, level)
		l := levelHashes{data: make([]byte, 0, n*HashSize)}
		for index := range (n + TileWidth - 1) / TileWidth {
			p := place{level, index, widthAt(a.c.Size, level, index)}
			data := a.readTile(p, nil)
			l.have = append(l.have, data != nil)
			if data == nil {
				data = make([]byte, p.width*HashSize)
			}
			l.data = append(l.data, data...)
		}
		t.stored[level] = l
	}
	return t
}

// Tile makes the stored tree a [Tiles].
func (t *tree) Tile(_ context.Context, level int, index uint64) ([]byte, error) {
	width := widthAt(t.a.c.Size, level, index)
	if width == 0 || level > 0 && !t.stored[level].have[index] {
		return nil, fault.NotFoundf("the export does not have this tile")
	}
	if level > 0 {
		return t.stored[level].tile(index), nil
	}
	data, problem := t.a.read(place{level, index, width}.path(), TileWidth*HashSize, nil)
	if problem != nil {
		return nil, fault.NotFoundf("the export does not have this tile")
	}
	return data, nil
}

// computed is what a tile of a level above 0 should hold as far as the level
// below tells; nil if it does not tell. Where records and tile of level 0
// differ, the one that the stored hash agrees with is taken.
func (t *tree) computed(level int, index uint64) []byte {
	stored := t.stored[level].tile(index)
	out := make([]byte, 0, len(stored))
	for i := range len(stored) / HashSize {
		child := index*TileWidth + uint64(i)
		var h Hash
		if level > 1 {
			if !t.stored[level-1].have[child] {
				return nil
			}
			h = tileRoot(t.stored[level-1].tile(child))
		} else {
			b := &t.a.bundles[child]
			switch {
			case b.haveTile && bytes.Equal(b.fromTile[:], stored[i*HashSize:(i+1)*HashSize]):
				h = b.fromTile
			case b.haveEntries:
				h = b.fromEntries
			case b.haveTile:
				h = b.fromTile
			default:
				return nil
			}
		}
		out = append(out, h[:]...)
	}
	return out
}

// judge compares everything and adds what it finds.
func (t *tree) judge() {
	if len(t.stored) == 0 {
		return // an empty ledger, whose root was checked with its note
	}
	border := t.border()
	var above []byte // vouched hashes of the level above
	for level := len(t.stored) - 1; level >= 1; level-- {
		above = t.judgeLevel(level, above, border[level])
	}
	for i := range t.a.bundles {
		t.judgeBundle(uint64(i), above, border[0])
	}
}

// border finds the partial tile of each level that the signed root vouches for,
// among those stored and those computed from below. If none fit, it reports the
// root and returns the stored ones.
func (t *tree) border() [][]byte {
	size := t.a.c.Size
	stored, computed := make([][]byte, len(t.stored)), make([][]byte, len(t.stored))
	var open []int // levels with a choice
	for _, p := range partials(size) {
		if p.level == 0 {
			b := &t.a.bundles[p.index]
			stored[0], computed[0] = b.tile, b.leaves
		} else {
			if t.stored[p.level].have[p.index] {
				stored[p.level] = t.stored[p.level].tile(p.index)
			}
			computed[p.level] = t.computed(p.level, p.index)
		}
		if !bytes.Equal(stored[p.level], computed[p.level]) {
			open = append(open, p.level)
		}
	}
	for choice := range 1 << len(open) { // at most 7 levels
		try := append([][]byte(nil), stored...)
		for i, level := range open {
			if choice>>i&1 == 1 {
				try[level] = computed[level]
			}
		}
		if complete(try, size) && borderRoot(try) == t.a.c.Root {
			t.blame(stored, try, "it differs from what the signed root and the tiles below say")
			return try
		}
	}
	t.a.found.add(Problem{Kind: BadRoot, Tile: checkpointFile, Detail: "the tiles do not hash to the root that was signed"})
	t.blame(stored, computed, "it differs from the tiles or records below; which of them was signed cannot be told")
	return stored
}

func complete(border [][]byte, size uint64) bool {
	for _, p := range partials(size) {
		if len(border[p.level]) != p.width*HashSize {
			return false
		}
	}
	return true
}

// blame reports the stored partial tiles that are not as they should be.
func (t *tree) blame(stored, should [][]byte, detail string) {
	for _, p := range partials(t.a.c.Size) {
		if s := stored[p.level]; s != nil && should[p.level] != nil && !bytes.Equal(s, should[p.level]) {
			t.a.found.add(badTile(p, detail))
		}
	}
}

func badTile(p place, detail string) Problem {
	first := p.index * TileWidth << (8 * p.level)
	return Problem{Kind: BadTile, Position: &first, Tile: p.path(), Detail: detail}
}

// judgeLevel checks the full tiles of a level against the vouched hashes above
// and returns the vouched hashes of this level.
func (t *tree) judgeLevel(level int, above, partial []byte) []byte {
	l := t.stored[level]
	good := make([]byte, 0, len(l.data))
	for i := range l.have {
		index := uint64(i)
		p := place{level, index, widthAt(t.a.c.Size, level, index)}
		if p.width < TileWidth {
			if len(partial) != p.width*HashSize { // missing, and nothing in its place
				partial = make([]byte, p.width*HashSize)
			}
			good = append(good, partial...)
			continue
		}
		data := l.tile(index)
		want := Hash(above[i*HashSize:][:HashSize])
		if !l.have[i] || tileRoot(data) != want {
			below := t.computed(level, index)
			detail := "it does not hash to the tile above"
			if below != nil && tileRoot(below) == want {
				data, detail = below, "it does not hash to the tile above, but the tiles below do"
			}
			if l.have[i] {
				t.a.found.add(badTile(p, detail))
			}
		}
		good = append(good, data...)
	}
	return good
}

// judgeBundle checks a level 0 tile and blames either it or the records that
// differ from it.
func (t *tree) judgeBundle(index uint64, above, partial []byte) {
	b := &t.a.bundles[index]
	p := place{0, index, widthAt(t.a.c.Size, 0, index)}
	var tileFits, entriesFit bool
	if p.width < TileWidth { // border has reported a tile that does not fit
		tileFits = b.haveTile && bytes.Equal(b.tile, partial)
		entriesFit = b.haveEntries && bytes.Equal(b.leaves, partial)
	} else {
		want := Hash(above[index*HashSize:][:HashSize])
		tileFits = b.haveTile && b.fromTile == want
		entriesFit = b.haveEntries && b.fromEntries == want
		if b.haveTile && !tileFits {
			detail := "it does not hash to the tile above"
			if entriesFit {
				detail += ", but the records do"
			}
			t.a.found.add(badTile(p, detail))
		}
	}
	if entriesFit {
		return // the records are proven, whatever the tile says
	}
	name := entriesPath(index, p.width)
	detail := "its hash differs from the one in its tile"
	if !tileFits {
		detail += ", and the tile does not fit the tree either"
	}
	for _, r := range b.altered {
		t.a.found.add(Problem{Kind: BadRecord, Position: &r.position, Record: r.id, Tile: name, Detail: detail})
	}
	if b.haveEntries && !b.haveTile {
		first := index * TileWidth
		t.a.found.add(Problem{Kind: BadRecord, Position: &first, Tile: name, Detail: "one or more records of this bundle are altered; its tile is missing, so that they cannot be named"})
	}
}
