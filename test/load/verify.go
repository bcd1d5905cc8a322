package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/grant"
)

func verifyBudgets(options) []budget { return []budget{atLeast("requests_per_s", 600_000)} }

// exported is how many records the export has that is verified.
const exported = 500_000

// verify writes an export once and verifies it as an auditor does, offline and
// with the public key alone, again and again. The files are in the page cache:
// what is measured is the work, not the disk.
func verify(ctx context.Context, o options) (result, error) {
	dir := filepath.Join(o.dir, "export")
	key, err := export(ctx, dir)
	if err != nil {
		return result{}, err
	}
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // as `sallyport audit verify` does
	tree := os.DirFS(dir)
	var r result
	r.CPUOf = "this process"
	s, err := rounds(ctx, o, func() error {
		report, err := audit.Verify(ctx, tree, audit.VerifyOptions{Keys: []string{key}})
		if err != nil {
			return err //nolint:wrapcheck // printed
		}
		if !report.OK || report.Records != exported {
			return fmt.Errorf("the export does not verify: %d records, %v", report.Records, report.Problems)
		}
		return nil
	})
	if err != nil {
		return r, err
	}
	records := float64(len(s.times) * exported)
	r.take(s)
	r.Requests *= exported
	r.PerSecond, r.CPU = records/s.took.Seconds(), float64(s.cpu.Microseconds())/records
	r.figure("records", exported)
	short := o
	short.duration, short.warm = min(o.duration, 2*time.Second), 0
	least, err := rounds(ctx, short, func() error { return hashFiles(tree) })
	if err != nil {
		return r, err
	}
	r.against("read the same files and hash their bytes once, on all cores", float64(len(least.times)*exported)/least.took.Seconds())
	return r, nil
}

// rounds repeats something that uses all cores by itself. The sample's times
// are those of whole rounds.
func rounds(ctx context.Context, o options, do func() error) (sample, error) {
	for end := time.Now().Add(o.warm); time.Now().Before(end); {
		if err := errors.Join(do(), ctx.Err()); err != nil {
			return sample{}, err
		}
	}
	before, err := ownTime()
	if err != nil {
		return sample{}, err
	}
	s := sample{conns: 1, errors: counts{}}
	for begin := time.Now(); s.took < o.duration; s.took = time.Since(begin) {
		one := time.Now()
		if err := errors.Join(do(), ctx.Err()); err != nil {
			return sample{}, err
		}
		s.times = append(s.times, time.Since(one))
	}
	after, err := ownTime()
	s.cpu = after - before
	slices.Sort(s.times)
	return s, err
}

// hashFiles reads and hashes every file below the tree, one worker a core.
func hashFiles(tree fs.FS) error {
	var names []string
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("list export: %w", err)
	}
	workers := runtime.GOMAXPROCS(0)
	failed := make([]error, workers)
	var tasks sync.WaitGroup
	for w := range workers {
		tasks.Go(func() {
			for i := w; i < len(names) && failed[w] == nil; i += workers {
				data, err := fs.ReadFile(tree, names[i])
				_ = sha256.Sum256(data)
				failed[w] = err
			}
		})
	}
	tasks.Wait()
	return errors.Join(failed...)
}

// export writes the tree of a made-up ledger and gives its verifier key.
func export(ctx context.Context, dir string) (string, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", fmt.Errorf("make key: %w", err)
	}
	signer, err := audit.NewSigner("load.sallyport/ledger", private)
	if err != nil {
		return "", fmt.Errorf("make key: %w", err)
	}
	tiles, tree := shelf{}, &audit.Builder{}
	for from := 0; from < exported; from += audit.TileWidth {
		leaves, err := tiles.Leaves(ctx, uint64(from), min(audit.TileWidth, exported-from))
		if err != nil {
			return "", err
		}
		hashes := make([]audit.Hash, len(leaves))
		for i, leaf := range leaves {
			hashes[i] = audit.HashLeaf(leaf)
		}
		if err := tree.Append(hashes); err != nil {
			return "", fmt.Errorf("build tree: %w", err)
		}
		for _, t := range tree.Changed() {
			tiles[place{t.Level, t.Index}] = t.Data
		}
	}
	head, err := signer.Sign(tree.Size(), tree.Root())
	if err != nil {
		return "", fmt.Errorf("sign checkpoint: %w", err)
	}
	if err := audit.Export(ctx, dir, tiles, head, audit.ExportOptions{}); err != nil {
		return "", fmt.Errorf("write export: %w", err)
	}
	return signer.VerifierKey(), nil
}

// shelf is a ledger whose records can be made again at any time: it keeps the
// tiles alone.
type shelf map[place][]byte

type place struct {
	level int
	index uint64
}

var _ audit.Source = shelf(nil)

// Tile implements audit.Tiles.
func (s shelf) Tile(_ context.Context, level int, index uint64) ([]byte, error) {
	data, ok := s[place{level, index}]
	if !ok {
		return nil, fault.NotFoundf("there is no such tile")
	}
	return data, nil
}

// Leaves implements audit.Source.
func (shelf) Leaves(_ context.Context, from uint64, n int) ([][]byte, error) {
	list := make([][]byte, n)
	for i := range list {
		leaf, err := madeUp(from + uint64(i)).Leaf()
		if err != nil {
			return nil, fmt.Errorf("write record: %w", err)
		}
		list[i] = leaf
	}
	return list, nil
}

// madeUp is the record at a position, the same each time and as large as those
// of real releases.
func madeUp(position uint64) audit.Record {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).Add(time.Duration(position) * 37 * time.Microsecond) //nolint:gosec // small
	r := issued(grant.Grant{
		ID: made("01KD", position), Subject: made("01KA", position%97), Session: made("01KB", position%89), Kind: "ssh-user-cert",
		Policy: []string{"base@1", "deploy@1"}, IssuedAt: at,
	})
	r.ID = made("01KC", position)
	return r
}

// made is a text like an id.
func made(prefix string, n uint64) string {
	digits := strings.ToUpper(strconv.FormatUint(n, 32)) // digits up to V: all of them in the alphabet of ids, but for four
	for _, foreign := range []string{"I", "L", "O", "U"} {
		digits = strings.ReplaceAll(digits, foreign, "Z")
	}
	return prefix + strings.Repeat("0", 26-len(prefix)-len(digits)) + digits
}
