package audit_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"io/fs"
	"os"
	"testing"
	"testing/fstest"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
)

type key struct {
	level int
	index uint64
}

// shelf keeps tiles as a store does: the newest form of each.
type shelf map[key][]byte

func (s shelf) put(tiles []audit.Tile) {
	for _, t := range tiles {
		s[key{t.Level, t.Index}] = t.Data
	}
}

func (s shelf) Tile(_ context.Context, level int, index uint64) ([]byte, error) {
	if data, ok := s[key{level, index}]; ok {
		return data, nil
	}
	return nil, fault.NotFoundf("no such tile")
}

const origin = "sallyport.example/ledger"

// newSigner makes a signer whose key is derived from a number.
func newSigner(tb testing.TB, n byte) *audit.Signer {
	tb.Helper()
	s, err := audit.NewSigner(origin, ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize)))
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func newKeys(tb testing.TB, vkeys ...string) audit.Keys {
	tb.Helper()
	k, err := audit.NewKeys(vkeys...)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

// ledger is a small ledger in memory: all that a store gives to this package.
type ledger struct {
	shelf
	tree   audit.Builder
	leaves [][]byte
	signer *audit.Signer
}

func newLedger(tb testing.TB, records int) *ledger {
	tb.Helper()
	l := &ledger{shelf: make(shelf), signer: newSigner(tb, 1)}
	l.grow(tb, records)
	return l
}

func (l *ledger) grow(tb testing.TB, records int) {
	tb.Helper()
	for range records {
		l.leaves = append(l.leaves, mustLeaf(tb, sample(len(l.leaves))))
	}
	l.add(tb, l.leaves[len(l.leaves)-records:])
}

// record appends one leaf.
func (l *ledger) record(tb testing.TB, leaf []byte) {
	tb.Helper()
	l.leaves = append(l.leaves, leaf)
	l.add(tb, [][]byte{leaf})
}

func (l *ledger) add(tb testing.TB, leaves [][]byte) {
	tb.Helper()
	var list []audit.Hash
	for _, leaf := range leaves {
		list = append(list, audit.HashLeaf(leaf))
	}
	if err := l.tree.Append(list); err != nil {
		tb.Fatal(err)
	}
	l.put(l.tree.Changed())
}

func (l *ledger) checkpoint(tb testing.TB) audit.Checkpoint {
	tb.Helper()
	c, err := l.signer.Sign(l.tree.Size(), l.tree.Root())
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func (l *ledger) Leaves(_ context.Context, from uint64, n int) ([][]byte, error) {
	if from+uint64(n) > uint64(len(l.leaves)) {
		return nil, fault.NotFoundf("no such records")
	}
	return l.leaves[from : from+uint64(n)], nil
}

// export writes the ledger to disk and reads it back into memory, where a test
// can damage it.
func (l *ledger) export(tb testing.TB) fstest.MapFS {
	tb.Helper()
	dir := tb.TempDir()
	if err := audit.Export(tb.Context(), dir, l, l.checkpoint(tb), audit.ExportOptions{}); err != nil {
		tb.Fatal(err)
	}
	return load(tb, dir)
}

func load(tb testing.TB, dir string) fstest.MapFS {
	tb.Helper()
	files := make(fstest.MapFS)
	root := os.DirFS(dir)
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(root, name)
		files[name] = &fstest.MapFile{Data: data}
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	return files
}

func verify(tb testing.TB, files fs.FS, old string) audit.Report {
	tb.Helper()
	r, err := audit.Verify(tb.Context(), files, audit.VerifyOptions{Keys: []string{newSigner(tb, 1).VerifierKey()}, Old: old})
	if err != nil {
		tb.Fatal(err)
	}
	return r
}
