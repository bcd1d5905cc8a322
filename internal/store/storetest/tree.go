package storetest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/store"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// fill commits n records without rows, from several callers.
func fill(t testing.TB, s *store.Store, n int) {
	t.Helper()
	var tasks sync.WaitGroup
	for c := range 8 {
		tasks.Go(func() {
			for i := c; i < n; i += 8 {
				r := Record("test.filled")
				r.Subject = fmt.Sprintf("SUBJECT%d", i%10)
				if err := s.Commit(context.Background(), unit.Unit{Record: r}); err != nil {
					t.Errorf("fill: %v", err)
				}
			}
		})
	}
	tasks.Wait()
}

// covered waits until the head has this size and nothing is pending.
func coveredTo(t testing.TB, s *store.Store, size uint64) audit.Checkpoint {
	t.Helper()
	var head audit.Checkpoint
	Eventually(t, fmt.Sprintf("the head has size %d", size), func() bool {
		var err error
		head, err = s.Head(context.Background())
		return err == nil && head.Size == size
	})
	return head
}

// verified exports the ledger and verifies it offline.
func verified(t testing.TB, s *store.Store, size uint64) {
	t.Helper()
	ctx := context.Background()
	head := coveredTo(t, s, size)
	dir := filepath.Join(t.TempDir(), "export")
	must(t, audit.Export(ctx, dir, s, head, audit.ExportOptions{}))
	if r := judged(t, dir); !r.OK || r.Records != size {
		t.Fatalf("the export does not verify: %+v", r)
	}
}

// judged verifies an export offline with the public key alone.
func judged(t testing.TB, dir string) audit.Report {
	t.Helper()
	_, keys := Signer(t)
	r, err := audit.Verify(context.Background(), os.DirFS(dir), audit.VerifyOptions{Keys: keys.Strings()})
	must(t, err)
	return r
}

func densePositions(t *testing.T, e Engine) {
	ctx, s := context.Background(), Open(t, e.Config(t))
	Running(t, s)
	const n = 3000 // several rounds, and more than one tile
	fill(t, s, n)
	verified(t, s, n)
	seen := map[string]bool{}
	for from := uint64(0); from < n; {
		list, err := s.Records(ctx, audit.Filter{From: from, Limit: 700})
		must(t, err)
		if len(list) == 0 {
			t.Fatalf("no record at %d", from)
		}
		for _, entry := range list {
			if entry.Position != from {
				t.Fatalf("position %d follows %d", entry.Position, from-1)
			}
			r, err := audit.ParseLeaf(entry.Leaf)
			must(t, err)
			if seen[r.ID] {
				t.Fatalf("record %s is there twice", r.ID)
			}
			seen[r.ID] = true
			from++
		}
	}
	if newest, err := s.Records(ctx, audit.Filter{Newest: true, Limit: 2}); err != nil || len(newest) != 2 || newest[0].Position != n-1 {
		t.Errorf("newest: %v, %v", newest, err)
	}
	some, err := s.Records(ctx, audit.Filter{Subject: "SUBJECT3", From: 100, Type: "test.", Limit: 50})
	if err != nil || len(some) != 50 {
		t.Fatalf("%d records of a subject, %v", len(some), err)
	}
	r, err := audit.ParseLeaf(some[0].Leaf)
	must(t, err)
	if got, err := s.RecordByID(ctx, r.ID); err != nil || got.Position != some[0].Position || r.Subject != "SUBJECT3" {
		t.Errorf("by id: %d, want %d: %v", got.Position, some[0].Position, err)
	}
	none, err := s.Records(ctx, audit.Filter{Type: "test.fil"})
	if err != nil || len(none) != 0 {
		t.Errorf("half a type finds %d records: %v", len(none), err)
	}
}

// twoIntegrators runs two on one database: two stores where the engine can,
// else twice in one.
func twoIntegrators(t *testing.T, e Engine) {
	cfg := e.Config(t)
	a := Open(t, cfg)
	b := a
	if cfg.Driver == store.PostgreSQL {
		cfg.StateDir = t.TempDir()
		b = Open(t, cfg)
	}
	stop := Running(t, a)
	Running(t, b)
	fill(t, a, 1000)
	fill(t, b, 1000)
	stop() // the other takes over
	fill(t, b, 1000)
	verified(t, b, 3000)
	if n, err := b.PendingCount(context.Background()); err != nil || n != 0 {
		t.Errorf("%d pending: %v", n, err)
	}
}

func exports(t *testing.T, e Engine) {
	cfg := e.Config(t)
	s := Open(t, cfg)
	stop := Running(t, s)
	fill(t, s, 600)
	head := coveredTo(t, s, 600)
	stop()
	verified(t, s, 600)
	ctx, db := context.Background(), e.DB(t, cfg)
	tamper(t, db, "UPDATE ledger SET leaf = replace(leaf, 'storetest', 'storetesT') WHERE position = 300")
	dir := filepath.Join(t.TempDir(), "leaf")
	must(t, audit.Export(ctx, dir, s, head, audit.ExportOptions{}))
	if r := judged(t, dir); r.OK || len(r.Problems) != 1 || r.Problems[0].Position == nil || *r.Problems[0].Position != 300 {
		t.Errorf("a changed leaf at 300 is answered with %+v", r)
	}
	tamper(t, db, "UPDATE ledger SET leaf = replace(leaf, 'storetesT', 'storetest') WHERE position = 300")
	var data []byte
	must(t, db.QueryRowContext(ctx, "SELECT data FROM tiles WHERE level = 0 AND idx = 1").Scan(&data))
	data[40] ^= 1
	tamper(t, db, "UPDATE tiles SET data = $1 WHERE level = 0 AND idx = 1", data)
	dir = filepath.Join(t.TempDir(), "tile")
	must(t, audit.Export(ctx, dir, s, head, audit.ExportOptions{}))
	if r := judged(t, dir); r.OK {
		t.Error("a changed tile verifies")
	}
}

func tamperedRecord(t *testing.T, e Engine) {
	cfg := e.Config(t)
	ctx, s := context.Background(), Open(t, cfg)
	stop := Running(t, s)
	fill(t, s, 300)
	coveredTo(t, s, 300)
	stop()
	tamper(t, e.DB(t, cfg), "UPDATE ledger SET leaf = replace(leaf, 'storetest', 'storetesT') WHERE position = 270")
	_, err := s.Records(ctx, audit.Filter{From: 260, Limit: 20})
	want(t, err, fault.Internal)
	if !strings.Contains(err.Error(), "270") {
		t.Errorf("the position is not named: %v", err)
	}
	if list, err := s.Records(ctx, audit.Filter{From: 100, Limit: 20}); err != nil || len(list) != 20 {
		t.Errorf("records elsewhere: %d, %v", len(list), err)
	}
}

// restoredBackup takes the database back behind what this node has seen.
func restoredBackup(t *testing.T, e Engine) {
	ctx, cfg := context.Background(), e.Config(t)
	s := Open(t, cfg)
	stop := Running(t, s)
	fill(t, s, 300)
	coveredTo(t, s, 300)
	stop()
	Close(t, s)
	restore := e.Backup(t, cfg)

	s = Open(t, cfg)
	stop = Running(t, s)
	fill(t, s, 200)
	coveredTo(t, s, 500)
	stop()
	Close(t, s)
	restore(t)

	s, err := store.Open(ctx, cfg)
	must(t, err)
	t.Cleanup(func() { Close(t, s) })
	s.UseMAC(MAC{})
	signer, keys := Signer(t)
	err = s.UseSigner(ctx, signer, keys)
	want(t, err, fault.Unavailable)
	if !strings.Contains(fault.Public(err), "declare the restore") {
		t.Errorf("the operator is not told what to do: %v", err)
	}
	want(t, s.Commit(ctx, unit.Unit{Record: Record("test.refused")}), fault.Unavailable)

	must(t, s.DeclareRestore(ctx, audit.System("operator"), "the disk broke"))
	want(t, s.DeclareRestore(ctx, audit.System("operator"), "again"), fault.Conflict)
	Running(t, s)
	fill(t, s, 10)
	verified(t, s, 311)
	list, err := s.Records(ctx, audit.Filter{Type: "ledger.restored"})
	must(t, err)
	if len(list) != 1 || !strings.Contains(string(list[0].Leaf), `"seen_size":"500"`) {
		t.Errorf("the declaration is not recorded: %v", list)
	}
	Close(t, s)
	Open(t, cfg) // and is accepted from now on
}

// keptOutside demands that the last checkpoint reaches its file though nothing
// follows it: a server may stand idle for hours before it is killed.
func keptOutside(t *testing.T, e Engine) {
	ctx, cfg := context.Background(), e.Config(t)
	s := Open(t, cfg)
	Running(t, s)
	var head audit.Checkpoint
	for size := uint64(1); size <= 2; size++ { // the second comes too soon after the first to be written at once
		must(t, s.Commit(ctx, unit.Unit{Record: Record("test.filled")}))
		head = coveredTo(t, s, size)
	}
	Eventually(t, "the last checkpoint is in its file", func() bool {
		note, err := os.ReadFile(filepath.Join(s.Config().StateDir, "last-checkpoint"))
		return err == nil && string(note) == head.Note
	})
}

func relay(t *testing.T, e Engine) {
	cfg := e.Config(t)
	var mu sync.Mutex
	var got []uint64
	broken := atomic.Bool{}
	broken.Store(true)
	run := func(n int, until uint64) {
		s := Open(t, cfg)
		stop := Running(t, s)
		s.Subscribe("test", func(_ context.Context, position uint64, r audit.Record) error {
			mu.Lock()
			defer mu.Unlock()
			if position == 120 && broken.Swap(false) {
				return fault.Unavailablef("once more, please")
			}
			got = append(got, position)
			return nil
		})
		ctx, cancel := context.WithCancel(context.Background())
		var tasks sync.WaitGroup
		tasks.Go(func() {
			if err := s.Relay(ctx); err != nil {
				t.Errorf("relay: %v", err)
			}
		})
		fill(t, s, n)
		Eventually(t, "the subscriber has all", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(got) > 0 && got[len(got)-1] == until-1
		})
		time.Sleep(50 * time.Millisecond) // the cursor follows
		cancel()
		tasks.Wait()
		stop()
		Close(t, s)
	}
	run(300, 300)
	run(200, 500)
	mu.Lock()
	defer mu.Unlock()
	next := uint64(0)
	for _, p := range got {
		if p > next {
			t.Fatalf("position %d came before %d", p, next)
		}
		if p == next {
			next++
		}
	}
	if next != 500 || len(got) > 500+relayRepeats {
		t.Errorf("%d positions in %d deliveries", next, len(got))
	}
}

// relayRepeats bounds what may come twice: one run of the relay.
const relayRepeats = 256

func slowSubscriber(t *testing.T, e Engine) {
	s := Open(t, e.Config(t))
	Running(t, s)
	release := make(chan struct{})
	s.Subscribe("slow", func(ctx context.Context, _ uint64, _ audit.Record) error {
		select {
		case <-release:
		case <-ctx.Done():
		}
		return ctx.Err()
	})
	var fast atomic.Int64
	s.Subscribe("fast", func(context.Context, uint64, audit.Record) error { fast.Add(1); return nil })
	ctx, cancel := context.WithCancel(context.Background())
	var tasks sync.WaitGroup
	tasks.Go(func() { _ = s.Relay(ctx) })
	start := time.Now()
	fill(t, s, 500)
	Eventually(t, "the fast subscriber has all", func() bool { return fast.Load() >= 500 })
	if took := time.Since(start); took > 9*time.Second {
		t.Errorf("commits and the fast subscriber took %v beside a slow one", took)
	}
	close(release)
	cancel()
	tasks.Wait()
}

func clockRollback(t *testing.T, e Engine) {
	cfg := e.Config(t)
	var offset atomic.Int64
	cfg.Now = func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
	ctx := context.Background()
	s := Open(t, cfg)
	fill(t, s, 3)
	must(t, s.CheckClock(ctx))
	offset.Store(int64(-time.Minute))
	must(t, s.CheckClock(ctx))
	offset.Store(int64(-3 * time.Minute))
	err := s.CheckClock(ctx)
	want(t, err, fault.Unavailable)
	if !strings.Contains(fault.Public(err), "CLOCK_ROLLBACK") {
		t.Errorf("public text is %q", fault.Public(err))
	}
	Close(t, s)
	s = Open(t, cfg) // it is remembered
	want(t, s.CheckClock(ctx), fault.Unavailable)
	fill(t, s, 3) // what takes away may still be recorded, and lowers nothing
	want(t, s.CheckClock(ctx), fault.Unavailable)
	offset.Store(0)
	must(t, s.CheckClock(ctx))
	acceptedClock(t, s, &offset)
	s = Open(t, s.Config())
	must(t, s.CheckClock(ctx)) // that it was accepted is remembered
	offset.Store(int64(-time.Hour - 3*time.Minute))
	want(t, s.CheckClock(ctx), fault.Unavailable) // and the guard is as it was
}

// acceptedClock has an operator accept a clock that stands an hour behind. It
// closes the store.
func acceptedClock(t *testing.T, s *store.Store, offset *atomic.Int64) {
	t.Helper()
	ctx := context.Background()
	seen, _ := s.LatestTime()
	want(t, s.AcceptClock(ctx, audit.System("test"), seen, "nothing to accept"), fault.Conflict)
	offset.Store(int64(-time.Hour))
	want(t, s.CheckClock(ctx), fault.Unavailable)
	before, err := s.PendingCount(ctx)
	must(t, err)
	want(t, s.AcceptClock(ctx, audit.System("test"), seen.Add(-time.Second), "another time was shown"), fault.Conflict)
	want(t, s.CheckClock(ctx), fault.Unavailable)
	must(t, s.AcceptClock(ctx, audit.System("test"), seen, "it is right"))
	must(t, s.CheckClock(ctx))
	after, err := s.PendingCount(ctx)
	must(t, err)
	if after != before+1 {
		t.Errorf("%d records of accepting the clock", after-before)
	}
	Close(t, s)
}
