package storetest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/store"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// namesOfRuns finds records by what they name, in whole runs and behind them,
// and is held against a search of the whole ledger.
func namesOfRuns(t *testing.T, e Engine) {
	ctx, s := context.Background(), Open(t, e.Config(t))
	Running(t, s)
	const n = 2*4096 + 500
	issued(t, s, n)
	coveredTo(t, s, n)
	all := everything(t, s, n)

	bySubject, byGrant := map[string][]uint64{}, map[string][]uint64{}
	for _, r := range all {
		if r.Subject != "" {
			bySubject[r.Subject] = append(bySubject[r.Subject], r.at)
		}
		if r.Grant != "" {
			byGrant[r.Grant] = append(byGrant[r.Grant], r.at)
		}
	}
	for _, name := range []string{"SUBJECT0", "SUBJECT6", "NOBODY"} {
		found(t, s, audit.Filter{Subject: name}, bySubject[name])
		found(t, s, audit.Filter{Subject: name, Newest: true}, backwards(bySubject[name]))
		found(t, s, audit.Filter{Subject: name, Type: "grant.", From: 4000}, slices.DeleteFunc(slices.Clone(bySubject[name]),
			func(at uint64) bool { return at < 4000 || all[at].Type != "grant.issued" }))
		found(t, s, audit.Filter{Subject: name, Newest: true, From: 8192}, backwards(slices.DeleteFunc(slices.Clone(bySubject[name]),
			func(at uint64) bool { return at >= 8192 })))
	}
	for _, at := range []uint64{0, 4095, 4096, 8191, 8192, n - 1} {
		r := all[at]
		if got, err := s.RecordByID(ctx, r.ID); err != nil || got.Position != at {
			t.Errorf("record %d by its id: %d, %v", at, got.Position, err)
		}
		if r.Grant != "" {
			found(t, s, audit.Filter{Grant: r.Grant}, byGrant[r.Grant])
			if r.Subject != "" {
				found(t, s, audit.Filter{Grant: r.Grant, Subject: r.Subject}, []uint64{at})
			}
		}
	}
	if _, err := s.RecordByID(ctx, "01ARZ3NDEKTSV4RRFFQ69G5FAV"); !fault.Is(err, fault.NotFound) {
		t.Errorf("an id that no record has: %v", err)
	}
	grantsOf(t, s, "SUBJECT2", n)
	fingerprinted(t, s, all)
}

// fingerprinted finds the grants of fingerprints that many, one and no grants
// have, in runs and behind them.
func fingerprinted(t *testing.T, s *store.Store, all []placed) {
	t.Helper()
	var every []string
	for _, r := range all {
		if r.Type == "grant.issued" {
			every = append(every, r.Grant)
		}
	}
	slices.Sort(every)
	first, last := every[0], every[len(every)-1]
	for _, c := range []struct{ fingerprints, want []string }{
		{[]string{"nobody's"}, nil},
		{[]string{"of-" + first}, []string{first}},
		{[]string{"of-" + last, "nobody's"}, []string{last}},
		{[]string{"of-" + last, "of-" + first, "of-" + last}, []string{first, last}},
		{[]string{"of-", "everybody"}, nil},
		{[]string{"everybody's"}, every},
		{[]string{"of-" + first, "everybody's"}, every},
	} {
		list, err := s.GrantsByFingerprint(context.Background(), c.fingerprints)
		must(t, err)
		var got []string
		for _, g := range list {
			got = append(got, g.ID)
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("grants of %q: %.500s", c.fingerprints, d)
		}
	}
}

// unnamed offers what could not be found again: grants and fingerprints are found
// through the records that name them.
func unnamed(t *testing.T, e Engine) {
	ctx, s := context.Background(), Open(t, e.Config(t))
	g := Grant("SUBJECT")
	nameless, foreign := Issue(g), Issue(g)
	nameless.Record.Grant, foreign.Record.Subject = "", "ANOTHER"
	active := g
	active.Version++
	other := Record("grant.issued")
	other.Grant = Grant("SUBJECT").ID
	for _, c := range []struct {
		name string
		unit unit.Unit
	}{
		{"a grant that its record does not name", nameless},
		{"a grant whose record names another subject", foreign},
		{"a grant that becomes active under another's record", unit.Unit{Writes: []unit.Write{unit.Update(active)}, Record: other}},
	} {
		if err := s.Commit(ctx, c.unit); !fault.Is(err, fault.Internal) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	must(t, s.Commit(ctx, Issue(g)))
}

// issued commits n records: grants of ten subjects, records that name only a
// grant, and records that name nothing.
func issued(t *testing.T, s *store.Store, n int) {
	t.Helper()
	var tasks sync.WaitGroup
	for c := range 16 {
		tasks.Go(func() {
			last := ""
			for i := c; i < n; i += 16 {
				u := unit.Unit{Record: Record("test.filled")}
				switch i % 3 {
				case 0:
					g := Grant(fmt.Sprintf("SUBJECT%d", i%10))
					g.Fingerprints = []string{"of-" + g.ID, "everybody's"}
					u, last = Issue(g), g.ID
				case 1:
					u.Record.Grant = last
				}
				if err := s.Commit(context.Background(), u); err != nil {
					t.Errorf("commit %d: %v", i, err)
				}
			}
		})
	}
	tasks.Wait()
}

type placed struct {
	audit.Record
	at uint64
}

func everything(t *testing.T, s *store.Store, n uint64) []placed {
	t.Helper()
	var all []placed
	for uint64(len(all)) < n {
		list, err := s.Records(context.Background(), audit.Filter{From: uint64(len(all)), Limit: 1000})
		must(t, err)
		for _, e := range list {
			r, err := audit.ParseLeaf(e.Leaf)
			must(t, err)
			all = append(all, placed{r, e.Position})
		}
	}
	return all
}

func backwards(list []uint64) []uint64 {
	list = slices.Clone(list)
	slices.Reverse(list)
	return list
}

// found compares a search with what it must find, with and without a limit.
func found(t *testing.T, s *store.Store, f audit.Filter, want []uint64) {
	t.Helper()
	for _, f.Limit = range []int{0, 3, 70} {
		most := len(want)
		if f.Limit > 0 {
			most = min(most, f.Limit)
		}
		list, err := s.Records(context.Background(), f)
		must(t, err)
		got := make([]uint64, 0, len(list))
		for _, e := range list {
			got = append(got, e.Position)
		}
		if d := cmp.Diff(append([]uint64{}, want[:most]...), got); d != "" {
			t.Errorf("%+v: %.500s", f, d)
		}
	}
}

// grantsOf lists the grants of a subject page by page.
func grantsOf(t *testing.T, s *store.Store, subject string, n int) {
	t.Helper()
	want := 0
	for i := 0; i < n; i += 3 {
		if subject == fmt.Sprintf("SUBJECT%d", i%10) {
			want++
		}
	}
	f, got := grant.Filter{Subject: subject, Limit: 100}, 0
	for {
		page, err := s.Grants(context.Background(), f)
		must(t, err)
		if len(page) == 0 {
			break
		}
		for _, g := range page {
			if g.ID <= f.After || g.Subject != subject {
				t.Fatalf("grant %s of %s after %s", g.ID, g.Subject, f.After)
			}
			f.After = g.ID
			got++
		}
	}
	if got != want {
		t.Errorf("%d grants of %s, not %d", got, subject, want)
	}
}
