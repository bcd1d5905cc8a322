package audit

import (
	"bytes"
	"context"
	"errors"
	"io"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// bundleResult is what is left of a bundle and its level 0 tile once they were
// checked: enough to judge them when the levels above are known.
type bundleResult struct {
	haveEntries, haveTile bool     // read, and of the right shape
	fromEntries, fromTile Hash     // roots, only of full tiles
	tile                  []byte   // only of a partial tile
	leaves                []byte   // hashes of the records, only of a partial tile
	altered               []record // records whose hash differs from the tile
}

// record names a record in a problem.
type record struct {
	position uint64
	id       string
}

// work checks bundles until none is left.
func (a *auditor) work(ctx context.Context) {
	w := worker{auditor: a}
	for ctx.Err() == nil {
		i := a.next.Add(1) - 1
		if i >= uint64(len(a.bundles)) {
			return
		}
		w.bundle(i, &a.bundles[i])
	}
}

// worker keeps the buffers of one goroutine.
type worker struct {
	*auditor
	file, tile []byte
	leaves     [][]byte
	hashes     []byte
}

func (w *worker) bundle(index uint64, res *bundleResult) {
	width := widthAt(w.c.Size, 0, index)
	tile := w.readTile(place{0, index, width}, w.tile)
	if tile != nil {
		w.tile = tile
		res.haveTile = true
	}
	name := entriesPath(index, width)
	file, problem := w.read(name, maxBundle, w.file)
	if problem != nil {
		first := index * TileWidth
		problem.Position = &first
		w.found.add(*problem)
	} else {
		w.file = file
		w.check(index, width, name, tile, res)
	}
	if tile == nil {
		return
	}
	if width < TileWidth {
		res.tile = bytes.Clone(tile)
		return
	}
	res.fromTile = tileRoot(tile)
	if res.haveEntries && len(res.altered) == 0 {
		res.fromEntries = res.fromTile
	}
}

// check hashes the records of the bundle in w.file.
func (w *worker) check(index uint64, width int, name string, tile []byte, res *bundleResult) {
	list, err := entries(w.file, width, w.leaves[:0])
	w.leaves = list
	w.hashes = w.hashes[:0]
	text, end := string(w.file), 0 // one copy for all records
	for i, leaf := range list {
		end += 2 + len(leaf)
		position := index*TileWidth + uint64(i)
		h := HashLeaf(leaf)
		w.hashes = append(w.hashes, h[:]...)
		if tile != nil && !bytes.Equal(h[:], tile[i*HashSize:(i+1)*HashSize]) {
			res.altered = append(res.altered, record{position, recordID(leaf)})
			continue // what is wrong with it as a record says nothing more
		}
		if IsRotation(leaf) {
			w.turn(position, leaf)
		}
		if _, bad := parse(text[end-len(leaf):end], false); bad != nil {
			w.found.add(Problem{Kind: NoRecord, Position: &position, Record: recordID(leaf), Tile: name, Detail: fault.Public(bad)})
		}
	}
	w.count(uint64(len(list)))
	if err != nil {
		position := index*TileWidth + uint64(len(list))
		kind := Truncated
		if len(list) == width {
			kind = Extra
		}
		w.found.add(Problem{Kind: kind, Position: &position, Tile: name, Detail: fault.Public(err)})
		return
	}
	res.haveEntries = true
	if width < TileWidth {
		res.leaves = bytes.Clone(w.hashes)
	} else if tile == nil || len(res.altered) > 0 { // else it is the tile's
		res.fromEntries = tileRoot(w.hashes)
	}
}

// turn keeps a record that may state a rotation until all were read.
func (a *auditor) turn(position uint64, leaf []byte) {
	a.turning.Lock()
	defer a.turning.Unlock()
	a.turns = append(a.turns, leafAt{position, bytes.Clone(leaf)})
}

func (a *auditor) count(n uint64) {
	a.records.Add(n)
	if a.opt.Progress == nil {
		return
	}
	a.told.Lock()
	defer a.told.Unlock()
	a.done += n
	a.opt.Progress(a.done, a.c.Size)
}

// readTile reads a tile of exactly its width, or reports why there is none.
func (a *auditor) readTile(p place, buf []byte) []byte {
	data, problem := a.read(p.path(), TileWidth*HashSize, buf)
	switch {
	case problem != nil:
	case len(data) < p.width*HashSize:
		problem = &Problem{Kind: Truncated, Tile: p.path(), Detail: "the tile ends early"}
	case len(data) > p.width*HashSize:
		problem = &Problem{Kind: Malformed, Tile: p.path(), Detail: "the tile is longer than its width"}
	default:
		return data
	}
	first := p.index * TileWidth << (8 * p.level)
	problem.Position = &first
	a.found.add(*problem)
	return nil
}

var errTooLarge = errors.New("file too large")

// readAll reads to the end, into buf as far as it reaches.
func readAll(r io.Reader, limit int, buf []byte) ([]byte, error) {
	buf = buf[:0]
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if len(buf) > limit {
			return nil, errTooLarge
		}
		if errors.Is(err, io.EOF) {
			return buf, nil
		}
		if err != nil {
			return nil, err
		}
	}
}
