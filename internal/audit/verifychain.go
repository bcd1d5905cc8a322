package audit

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"slices"

	"golang.org/x/mod/sumdb/note"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// leafAt is a record that may state a rotation, in its place.
type leafAt struct {
	position uint64
	leaf     []byte
}

// trust says which keys the auditor believes: those that were given and, if the
// newest or the old checkpoint is signed by none of them, those that they lead to
// by the rotations in the export. Each step carries the signature of the key
// before it, so it makes no difference that nothing of the export is verified
// yet.
func (a *auditor) trust(ctx context.Context, keys Keys) (Keys, error) {
	text, problem := a.read(checkpointFile, maxNote, nil)
	if problem != nil || signedBy(string(text), keys) && (a.opt.Old == "" || signedBy(a.opt.Old, keys)) {
		return keys, nil
	}
	var c chain
	for _, l := range a.scan(ctx) {
		c.add(l.position, l.leaf)
	}
	return c.build(keys, "", MaxSize), fault.Wrap(ctx.Err(), "look for rotations")
}

func signedBy(signed string, keys Keys) bool {
	_, err := ParseCheckpoint(signed, keys)
	return err == nil
}

// scan reads the records that may state a rotation out of the bundles that are
// there, as far as the unverified checkpoint says.
func (a *auditor) scan(ctx context.Context) []leafAt {
	text, problem := a.read(checkpointFile, maxNote, nil)
	if problem != nil {
		return nil
	}
	var c Checkpoint
	_, err := note.Open(text, note.VerifierList())
	if unverified, ok := errors.AsType[*note.UnverifiedNoteError](err); !ok || c.read(unverified.Note.Text) != nil {
		return nil
	}
	var found []leafAt
	var file []byte
	var list [][]byte
	for index := uint64(0); index*TileWidth < c.Size && ctx.Err() == nil; index++ {
		width := widthAt(c.Size, 0, index)
		if file, problem = a.read(entriesPath(index, width), maxBundle, file); problem != nil {
			if _, err := fs.Stat(a.fs, entriesPath(index, width)); err != nil {
				break // what is missing is reported later
			}
			continue
		}
		list, _ = entries(file, width, list[:0])
		for i, leaf := range list {
			if IsRotation(leaf) {
				found = append(found, leafAt{index*TileWidth + uint64(i), bytes.Clone(leaf)})
			}
		}
	}
	return found
}

// rotations judges the chain of keys once every record was read, and that each
// checkpoint is signed by the key that was the ledger's at its size: a key that
// has retired signs nothing any more.
func (a *auditor) rotations(keys Keys, old *Checkpoint) []Rotation {
	slices.SortFunc(a.turns, func(x, y leafAt) int {
		if x.position < y.position {
			return -1
		}
		return 1
	})
	var c chain
	for _, l := range a.turns {
		c.add(l.position, l.leaf)
	}
	until := a.c.Size
	if old != nil {
		until = min(until, old.Size) // who signed it was the ledger's key by then
	}
	c.build(keys, a.c.Key, until)
	for _, p := range c.broken {
		a.found.add(p)
	}
	if want := c.at(a.c.Size); want != "" && a.c.Key != want {
		a.found.add(Problem{Kind: BadCheckpoint, Tile: checkpointFile, Detail: "it is signed by a key that was replaced: the ledger's key at this size is " + want})
	}
	if old == nil || old.Size > a.c.Size {
		return c.steps
	}
	if want := c.at(old.Size); want != "" && old.Key != want {
		a.found.add(Problem{Kind: OldFork, Detail: "the old checkpoint is signed by a key that was not the ledger's at its size: that is " + want})
	}
	return c.steps
}
