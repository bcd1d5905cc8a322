package audit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
)

func clone(files fstest.MapFS) fstest.MapFS {
	c := make(fstest.MapFS)
	for name, f := range files {
		c[name] = &fstest.MapFile{Data: bytes.Clone(f.Data)}
	}
	return c
}

func TestVerify_PassesWhatExportWrote(t *testing.T) {
	for _, size := range []int{0, 1, 2, 255, 256, 257, 511, 512, 513, 1300} {
		l := newLedger(t, size)
		files := l.export(t)
		r := verify(t, files, l.checkpoint(t).Note)
		root := l.tree.Root()
		want := audit.Report{
			OK: true, Origin: origin, Size: uint64(size), Root: &root, Key: l.checkpoint(t).Key,
			OldSize: &r.Size, Records: uint64(size), Duration: r.Duration, Problems: []audit.Problem{},
		}
		if diff := cmp.Diff(want, r); diff != "" {
			t.Errorf("size %d: %s", size, diff)
		}
	}
}

// The example of c2sp.org/tlog-tiles: 70,000 leaves.
func TestVerify_PassesThreeLevels(t *testing.T) {
	if testing.Short() {
		t.Skip("needs 70,000 records")
	}
	l := newLedger(t, 70000)
	files := l.export(t)
	for _, name := range []string{"tile/0/272", "tile/0/273.p/112", "tile/1/000", "tile/1/001.p/17", "tile/2/000.p/1", "tile/entries/273.p/112"} {
		if files[name] == nil {
			t.Errorf("%s is missing", name)
		}
	}
	if len(files) != 1+2*274+2+1 {
		t.Errorf("%d files", len(files))
	}
	if r := verify(t, files, ""); !r.OK {
		t.Fatalf("%+v", r)
	}
	files["tile/1/000"].Data[77*32] ^= 1
	files["tile/entries/100"].Data[10] ^= 1
	r := verify(t, files, "")
	if len(r.Problems) != 2 || r.Problems[0].Tile != "tile/1/000" || *r.Problems[1].Position != 25600 {
		t.Fatalf("%+v", r.Problems)
	}
}

func TestVerify_NamesTheDamage(t *testing.T) {
	l := newLedger(t, 700) // bundles 0, 1 full, 2 with 188; level 1 with 2
	whole := l.export(t)
	kind := func(k audit.ProblemKind, tile string) string { return string(k) + " " + tile }
	tests := map[string]struct {
		spoil func(fstest.MapFS)
		want  []string // kind and path of all problems
		at    []uint64
	}{
		"byte of a record": {
			func(f fstest.MapFS) { f["tile/entries/001"].Data[2+50] ^= 1 },
			[]string{kind(audit.BadRecord, "tile/entries/001")},
			[]uint64{256},
		},
		"byte of a record in the last bundle": {
			func(f fstest.MapFS) { f["tile/entries/002.p/188"].Data[2+50] ^= 1 },
			[]string{kind(audit.BadRecord, "tile/entries/002.p/188")},
			[]uint64{512},
		},
		"byte of a full tile": {
			func(f fstest.MapFS) { f["tile/0/001"].Data[5*32] ^= 1 },
			[]string{kind(audit.BadTile, "tile/0/001")},
			[]uint64{256},
		},
		"byte of the last tile": {
			func(f fstest.MapFS) { f["tile/0/002.p/188"].Data[5*32] ^= 1 },
			[]string{kind(audit.BadTile, "tile/0/002.p/188")},
			[]uint64{512},
		},
		"byte of the upper tile": {
			func(f fstest.MapFS) { f["tile/1/000.p/2"].Data[33] ^= 1 },
			[]string{kind(audit.BadTile, "tile/1/000.p/2")},
			[]uint64{0},
		},
		"upper and last tile": {
			func(f fstest.MapFS) { f["tile/1/000.p/2"].Data[33] ^= 1; f["tile/0/002.p/188"].Data[5*32] ^= 1 },
			[]string{kind(audit.BadTile, "tile/1/000.p/2"), kind(audit.BadTile, "tile/0/002.p/188")},
			[]uint64{0, 512},
		},
		"record and its hash": {
			func(f fstest.MapFS) {
				f["tile/entries/000"].Data[2+50] ^= 1
				h := audit.HashLeaf(first(f["tile/entries/000"].Data))
				copy(f["tile/0/000"].Data, h[:])
			},
			[]string{kind(audit.BadTile, "tile/0/000"), kind(audit.NoRecord, "tile/entries/000")},
			[]uint64{0, 0},
		},
		"checkpoint gone": {
			func(f fstest.MapFS) { delete(f, "checkpoint") },
			[]string{kind(audit.NoCheckpoint, "checkpoint")},
			nil,
		},
		"byte of the checkpoint": {
			func(f fstest.MapFS) { f["checkpoint"].Data[30] ^= 1 },
			[]string{kind(audit.BadCheckpoint, "checkpoint")},
			nil,
		},
		"bundle gone": {
			func(f fstest.MapFS) { delete(f, "tile/entries/001") },
			[]string{kind(audit.Missing, "tile/entries/001")},
			[]uint64{256},
		},
		"tile gone": {
			func(f fstest.MapFS) { delete(f, "tile/0/000") },
			[]string{kind(audit.Missing, "tile/0/000")},
			[]uint64{0},
		},
		"upper tile gone": {
			func(f fstest.MapFS) { delete(f, "tile/1/000.p/2") },
			[]string{kind(audit.Missing, "tile/1/000.p/2")},
			[]uint64{0},
		},
		"tile gone and record altered": {
			func(f fstest.MapFS) { delete(f, "tile/0/001"); f["tile/entries/001"].Data[2+50] ^= 1 },
			[]string{kind(audit.Missing, "tile/0/001"), kind(audit.NoRecord, "tile/entries/001"), kind(audit.BadRecord, "tile/entries/001")},
			[]uint64{256, 256, 256},
		},
		"bundle cut": {
			func(f fstest.MapFS) { cut(f, "tile/entries/002.p/188", 1) },
			[]string{kind(audit.Truncated, "tile/entries/002.p/188")},
			[]uint64{699},
		},
		"tile cut": {
			func(f fstest.MapFS) { cut(f, "tile/0/001", 32) },
			[]string{kind(audit.Truncated, "tile/0/001")},
			[]uint64{256},
		},
		"tile grown": {
			func(f fstest.MapFS) {
				f["tile/0/002.p/188"].Data = append(f["tile/0/002.p/188"].Data, make([]byte, 32)...)
			},
			[]string{kind(audit.Malformed, "tile/0/002.p/188")},
			[]uint64{512},
		},
		"bytes behind a bundle": {
			func(f fstest.MapFS) { f["tile/entries/000"].Data = append(f["tile/entries/000"].Data, 0) },
			[]string{kind(audit.Extra, "tile/entries/000")},
			[]uint64{256},
		},
		"a bundle too many": {
			func(f fstest.MapFS) { f["tile/entries/003"] = f["tile/entries/001"] },
			[]string{kind(audit.Extra, "tile/entries/003")},
			nil,
		},
		"a partial tile too many": {
			func(f fstest.MapFS) { f["tile/0/000.p/3"] = f["tile/0/000"] },
			[]string{kind(audit.Extra, "tile/0/000.p/3")},
			nil,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			files := clone(whole)
			tt.spoil(files)
			r := verify(t, files, "")
			if r.OK {
				t.Error("passed")
			}
			var got []string
			var at []uint64
			for _, p := range r.Problems {
				got = append(got, kind(p.Kind, p.Tile))
				if p.Position != nil {
					at = append(at, *p.Position)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.at, at); diff != "" {
				t.Errorf("positions (-want +got):\n%s", diff)
			}
		})
	}
}

// first is the first leaf of a bundle.
func first(bundle []byte) []byte { return bundle[2 : 2+int(bundle[0])<<8+int(bundle[1])] }

func cut(f fstest.MapFS, name string, n int) { f[name].Data = f[name].Data[:len(f[name].Data)-n] }

func TestVerify_NamesTheAlteredRecord(t *testing.T) {
	l := newLedger(t, 300)
	files := l.export(t)
	data := files["tile/entries/000"].Data
	files["tile/entries/000"].Data = bytes.Replace(data, []byte("grant.issued"), []byte("grant.denied"), 1)
	rec, err := audit.ParseLeaf(l.leaves[0])
	if err != nil {
		t.Fatal(err)
	}
	r := verify(t, files, "")
	if len(r.Problems) != 1 || r.Problems[0].Record != rec.ID || *r.Problems[0].Position != 0 || r.Problems[0].Kind != audit.BadRecord {
		t.Fatalf("%+v, want record %s", r.Problems, rec.ID)
	}
}

func TestVerify_FindsRollbackAndForkOnlyWithAnOldCheckpoint(t *testing.T) {
	l := newLedger(t, 300)
	early, earlyFiles := l.checkpoint(t), l.export(t)
	l.grow(t, 300)
	late, lateFiles := l.checkpoint(t), l.export(t)
	other := newLedger(t, 10)
	r := sample(1)
	r.Target = "x"
	other.leaves = append(other.leaves, mustLeaf(t, r))
	if err := other.tree.Append([]audit.Hash{audit.HashLeaf(other.leaves[10])}); err != nil {
		t.Fatal(err)
	}
	other.put(other.tree.Changed())
	other.grow(t, 589)

	for name, tt := range map[string]struct {
		files fstest.MapFS
		old   string
		want  audit.ProblemKind
	}{
		"grown":           {lateFiles, early.Note, ""},
		"the same":        {lateFiles, late.Note, ""},
		"rolled back":     {earlyFiles, late.Note, audit.OldRollback},
		"unseen rollback": {earlyFiles, "", ""},
		"forked":          {other.export(t), early.Note, audit.OldFork},
		"forked at once":  {other.export(t), late.Note, audit.OldFork},
	} {
		r := verify(t, tt.files, tt.old)
		if tt.want == "" && !r.OK || tt.want != "" && (len(r.Problems) != 1 || r.Problems[0].Kind != tt.want) {
			t.Errorf("%s: %+v, want %q", name, r, tt.want)
		}
	}
	damaged := clone(lateFiles)
	delete(damaged, "tile/0/001")
	kinds := func(r audit.Report) (s string) {
		for _, p := range r.Problems {
			s += string(p.Kind) + " "
		}
		return s
	}
	if got := kinds(verify(t, damaged, early.Note)); !strings.Contains(got, "missing") || !strings.Contains(got, "old_unproven") {
		t.Errorf("damage: %s", got)
	}
}

func TestVerify_NeedsKeysOfTheAuditor(t *testing.T) {
	l := newLedger(t, 3)
	files := l.export(t)
	if _, err := audit.Verify(t.Context(), files, audit.VerifyOptions{}); !fault.Is(err, fault.Invalid) {
		t.Errorf("no keys: %v, want Invalid", err)
	}
	r, err := audit.Verify(t.Context(), files, audit.VerifyOptions{Keys: []string{newSigner(t, 2).VerifierKey()}})
	if err != nil || r.OK || r.Problems[0].Kind != audit.BadCheckpoint {
		t.Errorf("another key: %+v, %v", r, err)
	}
	_, err = audit.Verify(t.Context(), files, audit.VerifyOptions{Keys: []string{l.signer.VerifierKey()}, Old: "x"})
	if !fault.Is(err, fault.Invalid) {
		t.Errorf("malformed old checkpoint: %v, want Invalid", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := audit.Verify(ctx, files, audit.VerifyOptions{Keys: []string{l.signer.VerifierKey()}}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("cancelled: %v, want Unavailable", err)
	}
}

// Whatever single byte of whatever file is changed, cut or added, the export no
// longer passes.
func TestVerify_CatchesAnyDamage(t *testing.T) {
	l := newLedger(t, 600)
	whole := l.export(t)
	var names []string
	for name := range whole {
		names = append(names, name)
	}
	rapid.Check(t, func(t *rapid.T) {
		files := clone(whole)
		f := files[rapid.SampledFrom(names).Draw(t, "file")]
		i := rapid.IntRange(0, len(f.Data)-1).Draw(t, "byte")
		switch rapid.IntRange(0, 3).Draw(t, "damage") {
		case 0:
			f.Data[i] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		case 1:
			f.Data = f.Data[:i]
		case 2:
			f.Data = append(f.Data, 'x')
		case 3:
			f.Data = append(f.Data[:i], f.Data[i+1:]...)
		}
		r, err := audit.Verify(context.Background(), files, audit.VerifyOptions{Keys: []string{l.signer.VerifierKey()}, Workers: 1})
		if err != nil {
			t.Fatal(err)
		}
		if r.OK || len(r.Problems) == 0 {
			t.Fatalf("passed: %+v", r)
		}
	})
}

func TestReport_JSONIsAContract(t *testing.T) {
	l := newLedger(t, 3)
	files := l.export(t)
	files["tile/entries/000.p/3"].Data[20] ^= 1
	keys := []string{l.signer.VerifierKey()}
	tick := time.Unix(0, 0)
	now := func() time.Time { tick = tick.Add(time.Second); return tick }
	r, err := audit.Verify(t.Context(), files, audit.VerifyOptions{Keys: keys, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	rec, _ := audit.ParseLeaf(l.leaves[0])
	want := fmt.Sprintf(`{"ok":false,"origin":%q,"size":3,"root":%q,"key":%q,"records":3,"duration_ns":1000000000,"problems":[{"kind":"record_altered",`+
		`"position":0,"record":%q,"tile":"tile/entries/000.p/3","detail":"its hash differs from the one in its tile"}]}`,
		origin, l.tree.Root(), l.checkpoint(t).Key, rec.ID)
	if string(got) != want {
		t.Fatalf("got  %s\nwant %s", got, want)
	}
}

func TestExport_GoesOnAndGrows(t *testing.T) {
	dir := t.TempDir()
	l := newLedger(t, 300)
	export := func(src audit.Source) error {
		return audit.Export(t.Context(), dir, src, l.checkpoint(t), audit.ExportOptions{VerifierKey: l.signer.VerifierKey()})
	}
	if err := export(l); err != nil {
		t.Fatal(err)
	}
	// A damaged bundle is written again, an intact one is not read from the
	// source.
	damaged := filepath.Join(dir, "tile/entries/001.p/44")
	if err := os.WriteFile(damaged, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	counted := &counting{ledger: l}
	if err := export(counted); err != nil || counted.calls != 1 {
		t.Fatalf("%d calls, %v; want 1", counted.calls, err)
	}
	l.grow(t, 700)
	interrupted := &counting{ledger: l, failAt: 2}
	if err := export(interrupted); err == nil {
		t.Fatal("the source failed and the export did not")
	}
	if r := verify(t, os.DirFS(dir), ""); r.OK || r.Problems[0].Kind != audit.NoCheckpoint {
		t.Fatalf("an interrupted export passes for one: %+v", r)
	}
	if err := export(l); err != nil {
		t.Fatal(err)
	}
	if r := verify(t, os.DirFS(dir), ""); !r.OK || r.Size != 1000 {
		t.Fatalf("%+v", r)
	}
	files := load(t, dir)
	if diff := cmp.Diff(names(l.export(t)), names(files)); !strings.Contains(diff, "verifier-key") || strings.Count(diff, "\n+") != 1 {
		t.Fatalf("files differ by more than the key: %s", diff)
	}
	if !bytes.Contains(files["verifier-key"].Data, []byte(l.signer.VerifierKey())) {
		t.Fatalf("%s", files["verifier-key"].Data)
	}
	small := newLedger(t, 5)
	err := audit.Export(t.Context(), dir, small, small.checkpoint(t), audit.ExportOptions{})
	if !fault.Is(err, fault.Conflict) {
		t.Fatalf("an earlier checkpoint into a later export: %v, want Conflict", err)
	}
}

func names(files fstest.MapFS) map[string]bool {
	set := make(map[string]bool)
	for name := range files {
		set[name] = true
	}
	return set
}

type counting struct {
	*ledger
	calls, failAt int
}

func (c *counting) Leaves(ctx context.Context, from uint64, n int) ([][]byte, error) {
	if c.calls++; c.calls == c.failAt {
		return nil, fault.Unavailablef("the disk is gone")
	}
	return c.ledger.Leaves(ctx, from, n)
}

// A tiny export whose files are replaced by the fuzzer's bytes never passes
// with other bytes and never makes Verify panic.
func FuzzVerify(f *testing.F) {
	l := newLedger(f, 3)
	whole := l.export(f)
	f.Add(0, whole["checkpoint"].Data)
	f.Add(1, whole["tile/0/000.p/3"].Data)
	f.Add(2, whole["tile/entries/000.p/3"].Data)
	f.Add(2, []byte{0xff, 0xff})
	keys := []string{l.signer.VerifierKey()}
	f.Fuzz(func(t *testing.T, which int, data []byte) {
		name := []string{"checkpoint", "tile/0/000.p/3", "tile/entries/000.p/3"}[uint(which)%3]
		files := clone(whole)
		files[name] = &fstest.MapFile{Data: data}
		r, err := audit.Verify(context.Background(), files, audit.VerifyOptions{Keys: keys, Workers: 1})
		if err != nil {
			t.Fatal(err)
		}
		if name != "checkpoint" && r.OK != bytes.Equal(data, whole[name].Data) {
			t.Fatalf("%s: ok is %v", name, r.OK)
		}
		if name == "checkpoint" && r.OK && r.Size != 3 {
			t.Fatalf("passed: %+v", r)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	const size = 100_000
	l := newLedger(b, size)
	dir := b.TempDir()
	if err := audit.Export(b.Context(), dir, l, l.checkpoint(b), audit.ExportOptions{}); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(l.leaves[0]) * size))
	var before, after syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &before)
	b.ResetTimer()
	for b.Loop() {
		if r := verify(b, os.DirFS(dir), ""); !r.OK {
			b.Fatalf("%+v", r)
		}
	}
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &after)
	used := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
	b.ReportMetric(float64(used)/float64(b.N)/size, "cpu-ns/record")
	b.ReportMetric(float64(b.N)*size/b.Elapsed().Seconds(), "records/s")
	b.ReportMetric(float64(len(l.leaves[0])), "bytes/record")
}
