package audit

import (
	"slices"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// Builder extends the tree. It holds the partial tiles only, so that its memory
// does not grow with the tree. The zero value is an empty tree. Not safe for
// concurrent use.
//
// An integrator restores it from the committed head, appends leaf hashes in the
// order of positions, and writes [Builder.Changed], size and root in one
// transaction. After an error of that transaction the builder must be thrown
// away.
type Builder struct {
	size  uint64
	edge  [][]byte // by level: the partial tile, perhaps empty
	full  []Tile   // completed since the last Changed
	fresh int      // lowest levels touched since the last Changed
}

// Needed names the tiles, without their data, that [Restore] needs for a tree
// of that size: its partial tiles.
func Needed(size uint64) []Tile {
	var list []Tile
	for _, p := range partials(size) {
		list = append(list, Tile{Level: p.level, Index: p.index})
	}
	return list
}

// Restore makes the builder of a tree of that size and root from the tiles that
// [Needed] names, in any order. Tiles that are missing, have another width, or
// do not hash to the root are a fault of kind Unavailable: nothing may be
// appended to a damaged tree.
func Restore(size uint64, root Hash, tiles []Tile) (*Builder, error) {
	if size > MaxSize {
		return nil, fault.Invalidf("the ledger is too large")
	}
	b := &Builder{size: size, edge: make([][]byte, levels(size))}
	for _, p := range partials(size) {
		i := slices.IndexFunc(tiles, func(t Tile) bool { return t.Level == p.level && t.Index == p.index })
		if i < 0 || len(tiles[i].Data) != p.width*HashSize {
			return nil, fault.Unavailablef("the ledger's tile %s is missing or has the wrong length", p.path())
		}
		b.edge[p.level] = slices.Clone(tiles[i].Data)
	}
	if b.Root() != root {
		return nil, fault.Unavailablef("the ledger's last tiles do not belong to its root of size %d", size)
	}
	return b, nil
}

// Size is the number of leaves.
func (b *Builder) Size() uint64 { return b.size }

// Root is the root over all leaves.
func (b *Builder) Root() Hash { return borderRoot(b.edge) }

// Append adds leaf hashes, the first at position [Builder.Size].
func (b *Builder) Append(leaves []Hash) error {
	if uint64(len(leaves)) > MaxSize-b.size {
		return fault.Exhaustedf("the ledger is full")
	}
	for i := range leaves {
		b.push(0, leaves[i][:])
	}
	b.size += uint64(len(leaves))
	return nil
}

func (b *Builder) push(level int, hash []byte) {
	if level == len(b.edge) {
		b.edge = append(b.edge, nil)
	}
	b.fresh = max(b.fresh, level+1)
	if cap(b.edge[level]) == 0 {
		b.edge[level] = make([]byte, 0, TileWidth*HashSize)
	}
	data := append(b.edge[level], hash...)
	b.edge[level] = data
	if len(data) < TileWidth*HashSize {
		return
	}
	b.edge[level] = nil
	b.full = append(b.full, Tile{Level: level, Index: b.base(level), Data: data})
	root := tileRoot(data)
	b.push(level+1, root[:])
}

// base is the index of the tile that is being filled at a level, which is the
// number of hashes on the level above.
func (b *Builder) base(level int) uint64 {
	var n uint64
	for l := len(b.edge) - 1; l > level; l-- {
		n = n*TileWidth + uint64(len(b.edge[l])/HashSize)
	}
	return n
}

// Changed returns, with copies of their data, the tiles that changed since the
// last call: each completed one, and of those still partial the touched ones.
// Written over what is stored for the same level and index they bring the
// stored tiles to this size.
func (b *Builder) Changed() []Tile {
	list := b.full
	b.full = nil
	for level := range b.fresh {
		if data := b.edge[level]; len(data) > 0 {
			list = append(list, Tile{Level: level, Index: b.base(level), Data: slices.Clone(data)})
		}
	}
	b.fresh = 0
	return list
}
