package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// Names of files in an export.
const (
	checkpointFile = "checkpoint"
	keyFile        = "verifier-key"
)

// Source is the stored ledger that an export copies.
type Source interface {
	Tiles
	// Leaves returns exactly n leaves from a position on, as they are stored.
	Leaves(ctx context.Context, from uint64, n int) ([][]byte, error)
}

// ExportOptions are optional parts of [Export]. The zero value is usable.
type ExportOptions struct {
	VerifierKey string                   // written beside the export for information; verification never reads it
	Progress    func(done, total uint64) // records so far; called from one goroutine
}

// Export writes the ledger as of a checkpoint into a directory, as tlog-tiles
// with entries. Any C2SP tool, and [Verify], can audit the result.
//
// It copies what is stored and judges nothing. Every file appears whole, under
// its name, by renaming; the checkpoint is the last, so that an interrupted
// export does not pass for one. Run again with the same or a later checkpoint it
// goes on, keeps the bundles whose records still match their tile, and removes
// partial tiles that have grown. A directory with a later checkpoint is a
// Conflict.
func Export(ctx context.Context, dir string, src Source, c Checkpoint, opt ExportOptions) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fault.Wrap(err, "make export directory")
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fault.Wrap(err, "open export directory")
	}
	defer func() { _ = root.Close() }()
	x := &exporter{root: root, src: src, c: c, opt: opt, made: make(map[string]bool)}
	if err := x.begin(); err != nil {
		return err
	}
	for level := range levels(c.Size) {
		if err := x.level(ctx, level); err != nil {
			return err
		}
	}
	return x.finish()
}

type exporter struct {
	root *os.Root
	src  Source
	c    Checkpoint
	opt  ExportOptions
	made map[string]bool // directories that exist
}

// begin takes away the checkpoint of an earlier export, which would not fit
// while files change.
func (x *exporter) begin() error {
	old, err := x.root.ReadFile(checkpointFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fault.Wrap(err, "read earlier checkpoint")
	}
	lines := strings.SplitN(string(old), "\n", 3)
	if len(lines) == 3 {
		if lines[0] != x.c.Origin {
			return fault.Conflictf("the directory holds the export of another ledger")
		}
		if size, err := strconv.ParseUint(lines[1], 10, 64); err == nil && size > x.c.Size {
			return fault.Conflictf("the directory holds an export of a later checkpoint")
		}
	}
	return fault.Wrap(x.root.Remove(checkpointFile), "remove earlier checkpoint")
}

func (x *exporter) level(ctx context.Context, level int) error {
	n := count(x.c.Size, level)
	for index := range (n + TileWidth - 1) / TileWidth {
		if err := ctx.Err(); err != nil {
			return fault.Wrap(err, "export tiles")
		}
		p := place{level, index, widthAt(x.c.Size, level, index)}
		data, err := x.src.Tile(ctx, level, index)
		if err != nil {
			return fault.Wrap(err, "read tile %s", p.path())
		}
		if err := checkTile(data, p.width); err != nil {
			return fault.Wrap(err, "read tile %s", p.path())
		}
		data = data[:p.width*HashSize]
		if old, err := x.root.ReadFile(p.path()); err != nil || !bytes.Equal(old, data) {
			if err := x.write(p.path(), data, false); err != nil {
				return err
			}
		}
		if level > 0 {
			continue
		}
		if err := x.bundle(ctx, index, p.width, data); err != nil {
			return err
		}
		if x.opt.Progress != nil {
			x.opt.Progress(index*TileWidth+uint64(p.width), x.c.Size) //nolint:gosec // at most 256
		}
	}
	return nil
}

func (x *exporter) bundle(ctx context.Context, index uint64, width int, tile []byte) error {
	name := entriesPath(index, width)
	if old, err := x.root.ReadFile(name); err == nil && matches(old, width, tile) {
		return nil
	}
	leaves, err := x.src.Leaves(ctx, index*TileWidth, width)
	if err != nil {
		return fault.Wrap(err, "read records from %d on", index*TileWidth)
	}
	if len(leaves) != width {
		return fault.Unavailablef("the ledger has %d records from position %d on, not the %d that its tree has", len(leaves), index*TileWidth, width)
	}
	var b []byte
	for _, leaf := range leaves {
		if b, err = appendEntry(b, leaf); err != nil {
			return err
		}
	}
	return x.write(name, b, false)
}

// matches reports whether a bundle has the records of its tile.
func matches(bundle []byte, width int, tile []byte) bool {
	list, err := entries(bundle, width, nil)
	if err != nil {
		return false
	}
	for i, leaf := range list {
		if h := HashLeaf(leaf); !bytes.Equal(h[:], tile[i*HashSize:(i+1)*HashSize]) {
			return false
		}
	}
	return true
}

func (x *exporter) finish() error {
	if err := x.sweep(); err != nil {
		return err
	}
	if x.opt.VerifierKey != "" {
		about, err := json.MarshalIndent(map[string]string{
			"origin": x.c.Origin, "key": x.opt.VerifierKey,
			"note": "For information only. Verification ignores this file: whoever could change the records could change it too. " +
				"Give the public key that you have from the operator of the ledger.",
		}, "", "  ")
		if err != nil {
			return fault.Wrap(err, "describe key")
		}
		if err := x.write(keyFile, append(about, '\n'), false); err != nil {
			return err
		}
	}
	return x.write(checkpointFile, []byte(x.c.Note), true)
}

// sweep removes tiles that do not belong to an export of this size: partial
// ones that have grown.
func (x *exporter) sweep() error {
	err := fs.WalkDir(x.root.FS(), "tile", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || expected(name, x.c.Size) || !strings.HasSuffix(path.Dir(name), ".p") {
			return err
		}
		return x.root.Remove(name)
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil // an empty ledger
	}
	return fault.Wrap(err, "remove grown tiles")
}

const tempFile = "writing.tmp"

func (x *exporter) write(name string, data []byte, sync bool) error {
	if dir := path.Dir(name); !x.made[dir] {
		if err := x.root.MkdirAll(dir, 0o750); err != nil {
			return fault.Wrap(err, "make directory %s", dir)
		}
		x.made[dir] = true
	}
	f, err := x.root.OpenFile(tempFile, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fault.Wrap(err, "write %s", name)
	}
	_, err = f.Write(data)
	if err == nil && sync {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fault.Wrap(err, "write %s", name)
	}
	return fault.Wrap(x.root.Rename(tempFile, name), "write %s", name)
}
