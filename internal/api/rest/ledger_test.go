package rest

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/id"
)

// ledger is a small ledger in memory.
type ledger struct {
	tiles  map[[2]uint64][]byte
	leaves [][]byte
	head   audit.Checkpoint
	keys   audit.Keys
}

func newLedger(t testing.TB, records int) *ledger {
	t.Helper()
	l := &ledger{tiles: map[[2]uint64][]byte{}}
	signer, err := audit.NewSigner("test.example/ledger", ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	var hashes []audit.Hash
	for range records {
		leaf, err := audit.Record{Version: 1, ID: id.New(), Type: "grant.issued", At: time.Now().UTC(), Outcome: audit.Done, Actor: audit.System("test")}.Leaf()
		if err != nil {
			t.Fatal(err)
		}
		l.leaves = append(l.leaves, leaf)
		hashes = append(hashes, audit.HashLeaf(leaf))
	}
	var tree audit.Builder
	if err := tree.Append(hashes); err != nil {
		t.Fatal(err)
	}
	for _, tile := range tree.Changed() {
		l.tiles[[2]uint64{uint64(tile.Level), tile.Index}] = tile.Data
	}
	if l.head, err = signer.Sign(tree.Size(), tree.Root()); err != nil {
		t.Fatal(err)
	}
	if l.keys, err = audit.NewKeys(signer.VerifierKey()); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *ledger) Tile(_ context.Context, level int, index uint64) ([]byte, error) {
	if data, ok := l.tiles[[2]uint64{uint64(level), index}]; ok {
		return data, nil
	}
	return nil, fault.NotFoundf("there is no such tile")
}

func (l *ledger) Leaves(_ context.Context, from uint64, n int) ([][]byte, error) {
	if from+uint64(n) > uint64(len(l.leaves)) {
		return nil, fault.NotFoundf("there are no such records")
	}
	return l.leaves[from : from+uint64(n)], nil
}

func (l *ledger) Head(context.Context) (audit.Checkpoint, error) { return l.head, nil }

func (l *ledger) Records(_ context.Context, f audit.Filter) ([]audit.Entry, error) {
	var out []audit.Entry
	n := uint64(len(l.leaves))
	if f.Newest {
		if f.From > 0 {
			n = f.From
		}
		for i := n; i > 0 && len(out) < f.Limit; i-- {
			out = append(out, audit.Entry{Position: i - 1, Leaf: l.leaves[i-1]})
		}
		return out, nil
	}
	for i := f.From; i < n && len(out) < f.Limit; i++ {
		out = append(out, audit.Entry{Position: i, Leaf: l.leaves[i]})
	}
	return out, nil
}

func (l *ledger) RecordByID(_ context.Context, id string) (audit.Entry, error) {
	for i, leaf := range l.leaves {
		if bytes.Contains(leaf, []byte(id)) {
			return audit.Entry{Position: uint64(i), Leaf: leaf}, nil
		}
	}
	return audit.Entry{}, fault.NotFoundf("there is no such record")
}
