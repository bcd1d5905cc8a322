package store_test

import (
	"context"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sallyport-project/sallyport/internal/resource"
	"github.com/sallyport-project/sallyport/internal/store"
	"github.com/sallyport-project/sallyport/internal/store/storetest"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// TestIdentities_AreWhatTheDatabaseSays: whatever is written and read in whatever
// order, a row from memory is the row in the database.
func TestIdentities_AreWhatTheDatabaseSays(t *testing.T) {
	s := storetest.Open(t, store.Config{Dir: t.TempDir()})
	ctx := context.Background()
	at := time.UnixMicro(1_700_000_000_000_000).UTC()
	rapid.Check(t, func(rt *rapid.T) {
		run := rapid.StringMatching(`[a-z0-9]{12}`).Draw(rt, "run")
		rows := map[string]resource.Resource{}
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			id := run + "/a/" + rapid.SampledFrom([]string{"1", "2"}).Draw(rt, "id")
			row, there := rows[id]
			act := rapid.SampledFrom([]string{"write", "large", "delete", "read", "lost", "forget"}).Draw(rt, "act")
			next := resource.Resource{ID: id, Version: row.Version + 1, Sealed: []byte(act), Author: "me", Created: at, Changed: at}
			if act == "large" {
				next.Sealed = make([]byte, store.Heaviest+1)
			}
			var w []unit.Write
			switch {
			case act == "read":
			case act == "forget":
				w = []unit.Write{unit.Do("passports.delete", unit.AnyRows, "", "none", int64(1))}
			case act == "lost": // a unit that misses changes nothing
				next.Version += 7
				w = []unit.Write{unit.Update(next)}
			case act == "delete" && there:
				rows[id] = row.Delete("me", at)
				w = []unit.Write{unit.Update(rows[id])}
			case there:
				rows[id], w = next, []unit.Write{unit.Update(next)}
			default:
				rows[id], w = next, []unit.Write{unit.Insert(next)}
			}
			if err := s.Commit(ctx, unit.Unit{Writes: w, Record: storetest.Record("resource.stored")}); (err != nil) != (act == "lost") && len(w) > 0 {
				rt.Fatal(err)
			}
			for _, id := range []string{run + "/a/1", run + "/a/2"} {
				got, err := s.Resource(ctx, id)
				want, there := rows[id]
				if there = there && want.Deleted.IsZero(); there != (err == nil) || there && (got.Version != want.Version || string(got.Sealed) != string(want.Sealed)) {
					rt.Fatalf("%s after %s: got version %d of %d bytes, %v; want %t, version %d", id, act, got.Version, len(got.Sealed), err, there, want.Version)
				}
			}
		}
	})
}
