package store_test

import (
	"context"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/store"
	"github.com/sallyport-project/sallyport/internal/store/storetest"
	"github.com/sallyport-project/sallyport/internal/subject"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// TestSQLite_OneBatch gives the engine batches whose units depend on each other.
// Whether rows are inserted together and checks are made once or not, each unit
// gets the answer that it gets when they run one after the other.
func TestSQLite_OneBatch(t *testing.T) {
	for _, mode := range []struct {
		name       string
		savepoints bool
	}{{"together", false}, {"apart", true}} {
		t.Run(mode.name, func(t *testing.T) { oneBatch(t, mode.savepoints) })
	}
}

func oneBatch(t *testing.T, savepoints bool) {
	revoke := func(t *testing.T, sub subject.Subject) unit.Unit {
		t.Helper()
		gone, err := sub.Step("revoked", "test", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		r := storetest.Record("subject.revoked")
		r.Subject = sub.ID
		return unit.Unit{Writes: []unit.Write{unit.Update(gone)}, Record: r}
	}
	issue := func(sub subject.Subject, g grant.Grant) unit.Unit {
		return storetest.Issue(g, unit.Check("subjects", sub.ID, 1))
	}
	absent := func(sub subject.Subject) unit.Unit {
		return unit.Unit{
			Writes: []unit.Write{unit.Do("subjects.check", 0, "it is there", sub.ID, int64(1))},
			Record: storetest.Record("test.absent"),
		}
	}
	policy := func(statement string) unit.Unit {
		return unit.Unit{Writes: []unit.Write{unit.Do(statement, 1, "", "policy", int64(1))}, Record: storetest.Record("policy.read")}
	}
	for _, test := range []struct {
		name  string
		units func(t *testing.T, sub subject.Subject, g [3]grant.Grant) []unit.Unit
		fail  []bool
		again bool // expected to run in savepoints
	}{
		{"nothing fails", func(_ *testing.T, sub subject.Subject, g [3]grant.Grant) []unit.Unit {
			return []unit.Unit{issue(sub, g[0]), issue(sub, g[1]), issue(sub, g[2])}
		}, []bool{false, false, false}, false},
		{"revoked between two grants", func(t *testing.T, sub subject.Subject, g [3]grant.Grant) []unit.Unit {
			return []unit.Unit{issue(sub, g[0]), issue(sub, g[1]), revoke(t, sub), issue(sub, g[2])}
		}, []bool{false, false, false, true}, true},
		{"the same row twice", func(_ *testing.T, sub subject.Subject, g [3]grant.Grant) []unit.Unit {
			return []unit.Unit{issue(sub, g[0]), issue(sub, g[0]), issue(sub, g[1])}
		}, []bool{false, true, false}, true},
		{"a row that the batch inserts", func(t *testing.T, sub subject.Subject, g [3]grant.Grant) []unit.Unit {
			next, err := g[0].To(grant.Revoking, "leak", time.Now())
			if err != nil {
				t.Fatal(err)
			}
			r := storetest.Record("grant.revoking")
			r.Subject, r.Grant = g[0].Subject, g[0].ID
			return []unit.Unit{issue(sub, g[0]), {Writes: []unit.Write{unit.Update(next)}, Record: r}, issue(sub, g[1])}
		}, []bool{false, false, false}, true},
		{"there and not there", func(_ *testing.T, sub subject.Subject, g [3]grant.Grant) []unit.Unit {
			return []unit.Unit{issue(sub, g[0]), absent(sub), issue(sub, g[1])}
		}, []bool{false, true, false}, true},
		{"a generation moves", func(_ *testing.T, sub subject.Subject, g [3]grant.Grant) []unit.Unit {
			return []unit.Unit{
				policy("generations.check"), policy("generations.check"), issue(sub, g[0]),
				policy("generations.bump"), policy("generations.check"), issue(sub, g[1]),
			}
		}, []bool{false, false, false, false, true, false}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx, s := context.Background(), storetest.Open(t, store.Config{Dir: t.TempDir(), Savepoints: savepoints})
			sub := storetest.Subject("a")
			if err := s.Commit(ctx, storetest.Birth(sub)); err != nil {
				t.Fatal(err)
			}
			g := [3]grant.Grant{storetest.Grant(sub.ID), storetest.Grant(sub.ID), storetest.Grant(sub.ID)}
			for i := range g {
				g[i].Fingerprints = []string{"fp-" + g[i].ID}
			}
			units := test.units(t, sub, g)
			answers, err := s.Batch(units...)
			if err != nil {
				t.Fatal(err)
			}
			good := int64(1) // the subject's record
			for i, err := range answers {
				if failed := fault.Is(err, fault.Conflict); failed != test.fail[i] || !failed && err != nil {
					t.Errorf("unit %d: %v", i, err)
				}
				if err == nil {
					good++
				}
				if id := units[i].Record.Grant; id != "" && !test.fail[i] {
					if found, err := s.GrantsByFingerprint(ctx, []string{"fp-" + id}); err != nil || len(found) != 1 {
						t.Errorf("unit %d: its fingerprint finds %d grants, %v", i, len(found), err)
					}
				}
			}
			if n, err := s.PendingCount(ctx); err != nil || n != good {
				t.Errorf("%d records, want %d: %v", n, good, err)
			}
			if !savepoints && s.Careful() != test.again {
				t.Errorf("ran in savepoints: %v", s.Careful())
			}
		})
	}
}
