package store_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/store"
	"github.com/sallyport-project/sallyport/internal/store/storetest"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// TestSQLite_RemembersTheNamesOfARun as the ledger has them: of grants with
// fingerprints, of grants that end, and of records that name nothing. What a
// process has not written it does not claim to remember.
func TestSQLite_RemembersTheNamesOfARun(t *testing.T) {
	ctx, cfg := context.Background(), store.Config{Dir: t.TempDir()}
	s := storetest.Open(t, cfg)
	commit := func(u unit.Unit) {
		if err := s.Commit(ctx, u); err != nil {
			t.Error(err)
		}
	}
	var tasks sync.WaitGroup
	const callers = 64
	for range callers {
		tasks.Go(func() {
			for i := range store.RunWidth / callers * 3 / 4 {
				g := storetest.Grant("SUBJECT")
				for k := range i % 3 {
					g.Fingerprints = append(g.Fingerprints, fmt.Sprintf("%d-%s", k, g.ID))
				}
				if i%3 == 0 {
					commit(unit.Unit{Record: storetest.Record("test.filled")})
				}
				commit(storetest.Issue(g))
				if i%2 == 0 {
					next, err := g.To(grant.Revoked, "leak", time.Now())
					if err != nil {
						t.Error(err)
					}
					u := unit.Unit{Writes: []unit.Write{unit.Update(next)}, Record: storetest.Record("grant.revoked")}
					u.Record.Grant = g.ID
					commit(u)
				}
			}
		})
	}
	tasks.Wait()
	remembered, read, ok, err := s.Run(ctx, 0)
	if err != nil || !ok {
		t.Fatalf("the run is not remembered (%v): %v", ok, err)
	}
	for shard := range read {
		if d := cmp.Diff(entries(read[shard]), entries(remembered[shard])); d != "" {
			t.Fatalf("shard %d: %s", shard, d)
		}
	}
	if _, _, again, _ := s.Run(ctx, 0); again {
		t.Error("a run is remembered after it was asked for")
	}
	storetest.Close(t, s)
	s = storetest.Open(t, cfg)
	commit(unit.Unit{Record: storetest.Record("test.filled")})
	if _, _, ok, err := s.Run(ctx, 0); ok || err != nil {
		t.Errorf("another process remembers what it has not written: %v", err)
	}
}

// entries are the entries of a shard, sorted.
func entries(data []byte) []string {
	var list []string
	for e := range slices.Chunk(data, 8) {
		list = append(list, fmt.Sprintf("%x", e))
	}
	slices.Sort(list)
	return list
}
