package audit

import (
	"context"
	"errors"
	"io/fs"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// VerifyOptions are what [Verify] needs beside the export.
type VerifyOptions struct {
	Keys     []string                 // verifier keys that the auditor trusts; never taken from the export
	Old      string                   // an older signed checkpoint: finds rollback and fork
	Workers  int                      // goroutines; by default one for each core
	Problems int                      // how many are listed; by default 100
	Progress func(done, total uint64) // records so far; from several goroutines, never two at once
	Now      func() time.Time         // by default time.Now; only for the duration
}

// Verify checks an export, offline, with public keys alone.
//
// It verifies the checkpoint, hashes every record against its tile, every tile
// against the one above it, and the last ones against the signed root; checks
// that every record is in the canonical form of this ledger; and reports what
// is missing or too much below tile/, where a partial tile of an earlier size
// counts as too much. Rollback and fork can only be found with an old
// checkpoint.
//
// Rotations of the key are followed: who trusts an old key trusts the one that
// it vouches for in a record of the ledger, and so on. Who has a later key alone
// verifies every record all the same, and the report tells the rotations whose
// old key was not given ([Rotation]), so that nothing shows that what came before
// was this ledger's.
//
// Whatever is wrong with the export is in the report, and then OK is false. An
// error means that there is no judgement: wrong options (Invalid; an old
// checkpoint that the keys did not sign is Denied) or a context that ended.
func Verify(ctx context.Context, export fs.FS, opt VerifyOptions) (Report, error) {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Workers <= 0 {
		opt.Workers = runtime.GOMAXPROCS(0)
	}
	if opt.Problems <= 0 {
		opt.Problems = 100
	}
	begun := opt.Now()
	keys, err := NewKeys(opt.Keys...)
	if err != nil {
		return Report{}, err
	}
	a := &auditor{fs: export, opt: opt, found: findings{max: opt.Problems}}
	trusted, err := a.trust(ctx, keys)
	if err != nil {
		return Report{}, err
	}
	var old *Checkpoint
	if opt.Old != "" {
		c, err := ParseCheckpoint(opt.Old, trusted)
		if err != nil {
			return Report{}, fault.Wrap(err, "read old checkpoint")
		}
		old = &c
	}
	var steps []Rotation
	if a.checkpoint(trusted) {
		if err := a.run(ctx, old); err != nil {
			return Report{}, err
		}
		steps = a.rotations(keys, old)
	}
	r := a.report(old, opt.Now().Sub(begun))
	r.Rotations = steps
	return r, nil
}

// auditor is one run of Verify.
type auditor struct {
	fs    fs.FS
	opt   VerifyOptions
	c     Checkpoint
	found findings

	bundles []bundleResult // by index; each is written by one worker
	next    atomic.Uint64
	records atomic.Uint64
	told    sync.Mutex
	done    uint64

	turning sync.Mutex
	turns   []leafAt // records that may state a rotation
}

func (a *auditor) report(old *Checkpoint, took time.Duration) Report {
	r := Report{Records: a.records.Load(), Duration: took, Problems: a.found.sorted(), Unreported: a.found.more}
	if a.c.Note != "" {
		r.Origin, r.Size, r.Root, r.Key = a.c.Origin, a.c.Size, &a.c.Root, a.c.Key
	}
	if old != nil {
		r.OldSize = &old.Size
	}
	r.OK = a.c.Note != "" && !a.found.any() && r.Records == a.c.Size
	return r
}

// checkpoint reads and verifies the head, without which nothing else means
// anything.
func (a *auditor) checkpoint(keys Keys) bool {
	text, problem := a.read(checkpointFile, maxNote, nil)
	if problem != nil {
		if problem.Kind == Missing {
			problem.Kind = NoCheckpoint
			problem.Detail = "the export has no checkpoint; it may not be complete"
		}
		a.found.add(*problem)
		return false
	}
	c, err := ParseCheckpoint(string(text), keys)
	if err != nil {
		a.found.add(Problem{Kind: BadCheckpoint, Tile: checkpointFile, Detail: fault.Public(err)})
		return false
	}
	a.c = c
	return true
}

func (a *auditor) run(ctx context.Context, old *Checkpoint) error {
	n := (a.c.Size + TileWidth - 1) / TileWidth
	if err := a.plausible(n); err != nil {
		return nil //nolint:nilerr // it is among the problems
	}
	a.bundles = make([]bundleResult, n)
	var workers sync.WaitGroup
	for range a.opt.Workers {
		workers.Go(func() { a.work(ctx) })
	}
	workers.Wait()
	if err := ctx.Err(); err != nil {
		return fault.Wrap(err, "verify records")
	}
	tree := a.readTree()
	tree.judge()
	if err := a.extras(ctx); err != nil {
		return err
	}
	if old != nil {
		a.compare(ctx, tree, *old)
	}
	return nil
}

// plausible refuses a size far beyond what is there before memory is set aside
// for it: the last bundle must exist. A signed checkpoint is no foreign input,
// but a checkpoint may have been put beside another export.
func (a *auditor) plausible(n uint64) error {
	if n <= 1<<16 {
		return nil
	}
	name := entriesPath(n-1, widthAt(a.c.Size, 0, n-1))
	_, err := fs.Stat(a.fs, name)
	if err != nil {
		a.found.add(Problem{Kind: Missing, Tile: name, Detail: "the last records under the checkpoint are missing; nothing else was checked"})
	}
	return err
}

// read reads a whole file of at most limit bytes into buf.
func (a *auditor) read(name string, limit int, buf []byte) ([]byte, *Problem) {
	f, err := a.fs.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &Problem{Kind: Missing, Tile: name, Detail: "the file is missing"}
	}
	if err != nil {
		return nil, &Problem{Kind: Unreadable, Tile: name, Detail: "the file cannot be opened"}
	}
	defer func() { _ = f.Close() }()
	data, err := readAll(f, limit, buf)
	if errors.Is(err, errTooLarge) {
		return nil, &Problem{Kind: Malformed, Tile: name, Detail: "the file is larger than it may be"}
	}
	if err != nil {
		return nil, &Problem{Kind: Unreadable, Tile: name, Detail: "the file cannot be read"}
	}
	return data, nil
}

// extras reports files below tile/ that the size does not call for.
func (a *auditor) extras(ctx context.Context) error {
	err := fs.WalkDir(a.fs, "tile", func(name string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				a.found.add(Problem{Kind: Unreadable, Tile: name, Detail: "the directory cannot be read"})
			}
			return nil
		}
		if !d.IsDir() && !expected(name, a.c.Size) {
			a.found.add(Problem{Kind: Extra, Tile: name, Detail: "no tree of this size has this file"})
		}
		return nil
	})
	return fault.Wrap(err, "look for extra files")
}

// compare holds the verified tree against an older checkpoint.
func (a *auditor) compare(ctx context.Context, tree Tiles, old Checkpoint) {
	position := old.Size
	switch {
	case old.Origin != a.c.Origin:
		a.found.add(Problem{Kind: OldFork, Detail: "the old checkpoint is of another ledger"})
		return
	case old.Size > a.c.Size:
		a.found.add(Problem{Kind: OldRollback, Position: &a.c.Size, Detail: "the old checkpoint has records from this position on that the export has not"})
		return
	}
	path, err := ConsistencyProof(ctx, tree, old.Size, a.c.Size)
	if err != nil {
		a.found.add(Problem{Kind: OldUnproven, Position: &position, Detail: "missing tiles keep the old checkpoint from being compared"})
		return
	}
	if VerifyConsistency(old.Size, a.c.Size, path, old.Root, a.c.Root) == nil {
		return
	}
	if a.found.any() {
		a.found.add(Problem{Kind: OldUnproven, Position: &position, Detail: "the damage keeps the old checkpoint from being compared"})
		return
	}
	a.found.add(Problem{Kind: OldFork, Position: &position, Detail: "the records before this position are not those of the old checkpoint"})
}

// recordID finds the id in a record that can no longer be parsed.
func recordID(leaf []byte) string {
	const mark, length = `"id":"`, 26
	s := string(leaf)
	i := strings.Index(s, mark)
	if i < 0 || len(s) < i+len(mark)+length {
		return ""
	}
	s = s[i+len(mark):][:length]
	for _, r := range s {
		if !(r >= '0' && r <= '9' || r >= 'A' && r <= 'Z') {
			return ""
		}
	}
	return s
}
