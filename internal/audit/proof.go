package audit

import (
	"context"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/proof"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// Tiles reads the stored tree. Tile returns the full tile, or the current
// partial one, of a level and index; one that does not exist is a fault of kind
// NotFound. Callers do not change what is returned.
type Tiles interface {
	Tile(ctx context.Context, level int, index uint64) ([]byte, error)
}

// nodes reads nodes of the tree and keeps the tiles it has seen.
type nodes struct {
	tiles Tiles
	seen  map[compact.NodeID][]byte // by tile level and index
}

func newNodes(tiles Tiles) *nodes {
	return &nodes{tiles, make(map[compact.NodeID][]byte)}
}

// hash is the root of a perfect subtree.
func (n *nodes) hash(ctx context.Context, node compact.NodeID) (Hash, error) {
	height := node.Level % 8 // within the tile
	first := node.Index << height
	at := compact.NodeID{Level: node.Level / 8, Index: first / TileWidth}
	data, ok := n.seen[at]
	if !ok {
		var err error
		if data, err = n.tiles.Tile(ctx, int(at.Level), at.Index); err != nil {
			return Hash{}, fault.Wrap(err, "read tile %d of level %d", at.Index, at.Level)
		}
		n.seen[at] = data
	}
	from := int(first % TileWidth)
	to := from + 1<<height
	if err := checkTile(data, to); err != nil {
		return Hash{}, err
	}
	return tileRoot(data[from*HashSize : to*HashSize]), nil
}

func (n *nodes) all(ctx context.Context, ids []compact.NodeID) ([][]byte, error) {
	list := make([][]byte, 0, len(ids))
	for _, id := range ids {
		h, err := n.hash(ctx, id)
		if err != nil {
			return nil, err
		}
		list = append(list, h[:])
	}
	return list, nil
}

func (n *nodes) prove(ctx context.Context, p proof.Nodes) ([]Hash, error) {
	raw, err := n.all(ctx, p.IDs)
	if err != nil {
		return nil, err
	}
	if raw, err = p.Rehash(raw, hashes{}.HashChildren); err != nil {
		return nil, fault.Wrap(err, "complete proof")
	}
	list := make([]Hash, len(raw))
	for i := range raw {
		list[i] = Hash(raw[i])
	}
	return list, nil
}

// InclusionProof proves that the leaf at a position, counted from 0, stands in
// the tree of that size (RFC 6962 section 2.1.1). A position outside the tree is
// Invalid; a tile that the tree needs and that is missing or short is NotFound.
func InclusionProof(ctx context.Context, tiles Tiles, index, size uint64) ([]Hash, error) {
	p, err := proof.Inclusion(index, size)
	if err != nil || size > MaxSize {
		return nil, fault.Invalidf("the position is not below the size of the ledger")
	}
	return newNodes(tiles).prove(ctx, p)
}

// ConsistencyProof proves that the tree of newSize begins with the tree of
// oldSize (RFC 6962 section 2.1.2). Faults are those of [InclusionProof].
func ConsistencyProof(ctx context.Context, tiles Tiles, oldSize, newSize uint64) ([]Hash, error) {
	p, err := proof.Consistency(oldSize, newSize)
	if err != nil || newSize > MaxSize {
		return nil, fault.Invalidf("the older size is larger than the newer one")
	}
	return newNodes(tiles).prove(ctx, p)
}

// RootAt is the root of the tree that the first size leaves make.
func RootAt(ctx context.Context, tiles Tiles, size uint64) (Hash, error) {
	if size == 0 {
		return EmptyRoot(), nil
	}
	if size > MaxSize {
		return Hash{}, fault.Invalidf("the size is too large")
	}
	list, err := newNodes(tiles).all(ctx, compact.RangeNodes(0, size, nil))
	if err != nil {
		return Hash{}, err
	}
	root := Hash(list[len(list)-1])
	for i := len(list) - 2; i >= 0; i-- {
		root = hashNode(list[i], root[:])
	}
	return root, nil
}

// VerifyInclusion checks an inclusion proof; Invalid if it does not hold.
func VerifyInclusion(leaf Hash, index, size uint64, path []Hash, root Hash) error {
	if err := proof.VerifyInclusion(hashes{}, index, size, leaf[:], raw(path), root[:]); err != nil {
		return fault.Invalidf("the inclusion proof does not hold").Because(err)
	}
	return nil
}

// VerifyConsistency checks a consistency proof; Invalid if it does not hold.
func VerifyConsistency(oldSize, newSize uint64, path []Hash, oldRoot, newRoot Hash) error {
	if oldSize == 0 && oldRoot != EmptyRoot() {
		return fault.Invalidf("the root of the empty ledger is wrong")
	}
	if err := proof.VerifyConsistency(hashes{}, oldSize, newSize, raw(path), oldRoot[:], newRoot[:]); err != nil {
		return fault.Invalidf("the consistency proof does not hold").Because(err)
	}
	return nil
}

func raw(path []Hash) [][]byte {
	list := make([][]byte, len(path))
	for i := range path {
		list[i] = path[i][:]
	}
	return list
}
