package storetest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/store"
	"github.com/sallyport-project/sallyport/internal/subject"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// Run is the whole suite.
func Run(t *testing.T, e Engine) {
	for _, c := range []struct {
		name string
		f    func(*testing.T, Engine)
	}{
		{"Rows/every kind comes back as it was stored", rows},
		{"Commit/a unit happens whole or not at all", atomicity},
		{"Commit/an older version is a conflict", compareAndSet},
		{"Commit/one that fails leaves the others of its batch", failingNeighbour},
		{"Commit/a caller who leaves takes nobody along", cancelledCaller},
		{"Commit/one key has one effect", idempotency},
		{"Commit/no grant after a revocation", revocationRace},
		{"Commit/ten revocations are one", tenRevocations},
		{"Commit/a changed generation refuses older decisions", generations},
		{"Commit/what the catalogue does not know is refused", unknownStatements},
		{"Commit/a full queue refuses and lets revocations pass", overload},
		{"Reopen/a second report meets the grant that a first one revoked", secondReport},
		{"Reads/filters and pages", filters},
		{"Reads/a deleted resource is not served and its versions go on", deletedResources},
		{"Reads/what has expired goes little by little", expiries},
		{"Reads/first answers expire in their order", expiringOutcomes},
		{"Reads/a result is found by what its token says", passportByToken},
		{"Reads/the grants of a revoked subject are found", recalls},
		{"Reads/a caller is read as of one moment", callers},
		{"MAC/a change in any column is noticed", everyColumn},
		{"Reads/plugins keep values apart", pluginValues},
		{"Ledger/positions are dense and follow commits", densePositions},
		{"Ledger/names are found in runs and behind them", namesOfRuns},
		{"Ledger/what no record names is refused", unnamed},
		{"Ledger/two integrators make one history", twoIntegrators},
		{"Ledger/an export verifies and a changed leaf is named", exports},
		{"Ledger/a changed record is not served", tamperedRecord},
		{"Ledger/a restored backup is refused until it is declared", restoredBackup},
		{"Ledger/the last checkpoint is kept outside though nothing follows", keptOutside},
		{"Ledger/a rotation decides who signs", rotations},
		{"Ledger/a rotation is signed by the new key alone", rotationByTheNewKey},
		{"Relay/at least once, in order, from where it was", relay},
		{"Relay/an observer hears of what was committed", observed},
		{"Relay/a slow subscriber holds up nobody", slowSubscriber},
		{"Relay/subscribers come and go", comingSubscribers},
		{"Clock/time that runs backwards stops issuing", clockRollback},
		{"Close/what was accepted is committed", closing},
	} {
		t.Run(c.name, func(t *testing.T) { c.f(t, e) })
	}
}

func atomicity(t *testing.T, e Engine) {
	ctx, s := context.Background(), Open(t, e.Config(t))
	sub := Subject("a")
	must(t, s.Commit(ctx, Birth(sub)))
	g := Grant(sub.ID)
	g.Fingerprints = []string{"fp"}
	u := Issue(g, unit.Check("subjects", sub.ID, 7))
	want(t, s.Commit(ctx, u), fault.Conflict)
	if _, err := s.Grant(ctx, g.ID); !fault.Is(err, fault.NotFound) {
		t.Errorf("the grant of a failed unit is there: %v", err)
	}
	if found, err := s.GrantsByFingerprint(ctx, []string{"fp"}); err != nil || len(found) > 0 {
		t.Errorf("the fingerprint of a failed unit is there: %v, %v", found, err)
	}
	if n, err := s.PendingCount(ctx); err != nil || n != 1 {
		t.Errorf("%d records are pending, want the subject's: %v", n, err)
	}
	want(t, s.Commit(ctx, Birth(sub)), fault.Conflict)
	if err := s.Commit(ctx, Issue(g)); err != nil {
		t.Errorf("the unit cannot be repeated without its broken part: %v", err)
	}
}

func compareAndSet(t *testing.T, e Engine) {
	ctx, s := context.Background(), Open(t, e.Config(t))
	sub := Subject("a")
	must(t, s.Commit(ctx, Birth(sub)))
	locked, err := sub.Step("locked", "test", time.Now())
	must(t, err)
	change := func(next subject.Subject) error {
		r := Record("subject.locked")
		r.Subject = next.ID
		w := unit.Update(next)
		w.Conflict = "somebody was faster"
		return s.Commit(ctx, unit.Unit{Writes: []unit.Write{w}, Record: r})
	}
	must(t, change(locked))
	err = change(locked)
	want(t, err, fault.Conflict)
	if got := fault.Public(err); got != "somebody was faster" {
		t.Errorf("public text %q is not the write's", got)
	}
	again := Subject("a")
	r := Record("subject.registered")
	want(t, s.Commit(ctx, unit.Unit{Writes: []unit.Write{unit.Insert(again)}, Record: r}), fault.Conflict) // the name is taken
	revoked, err := locked.Step("revoked", "test", time.Now())
	must(t, err)
	must(t, change(revoked))
	must(t, s.Commit(ctx, Birth(again))) // and free again
	must(t, s.Commit(ctx, unit.Unit{Writes: []unit.Write{unit.Delete("subjects", again.ID, 1)}, Record: Record("subject.removed")}))
	want(t, s.Commit(ctx, unit.Unit{Writes: []unit.Write{unit.Delete("subjects", again.ID, 1)}, Record: Record("subject.removed")}), fault.Conflict)
}

// failingNeighbour runs many units at once, of which every third must fail.
func failingNeighbour(t *testing.T, e Engine) {
	ctx, s := context.Background(), Open(t, e.Config(t))
	sub := Subject("a")
	must(t, s.Commit(ctx, Birth(sub)))
	const n = 300
	grants, errs := make([]grant.Grant, n), make([]error, n)
	var tasks sync.WaitGroup
	for i := range n {
		grants[i] = Grant(sub.ID)
		grants[i].Fingerprints = []string{grants[i].ID}
		tasks.Go(func() {
			version := int64(1)
			if i%3 == 0 {
				version = 99
			}
			errs[i] = s.Commit(ctx, Issue(grants[i], unit.Check("subjects", sub.ID, version)))
		})
	}
	tasks.Wait()
	for i := range n {
		_, err := s.Grant(ctx, grants[i].ID)
		switch {
		case i%3 == 0 && (!fault.Is(errs[i], fault.Conflict) || !fault.Is(err, fault.NotFound)):
			t.Fatalf("unit %d must fail: %v, grant: %v", i, errs[i], err)
		case i%3 != 0 && (errs[i] != nil || err != nil):
			t.Fatalf("unit %d must not fail: %v, grant: %v", i, errs[i], err)
		}
	}
	if got, err := s.PendingCount(ctx); err != nil || got != 1+n-n/3 {
		t.Errorf("%d records, want %d: %v", got, 1+n-n/3, err)
	}
}

// cancelledCaller gives up waiting in the middle of batches. Every unit that
// was acknowledged must be there, and every other whole or not at all.
func cancelledCaller(t *testing.T, e Engine) {
	s := Open(t, e.Config(t))
	sub := Subject("a")
	must(t, s.Commit(context.Background(), Birth(sub)))
	const n = 400
	grants, errs := make([]grant.Grant, n), make([]error, n)
	var tasks sync.WaitGroup
	for i := range n {
		grants[i] = Grant(sub.ID)
		grants[i].Fingerprints = []string{grants[i].ID}
		tasks.Go(func() {
			ctx := context.Background()
			if i%2 == 0 {
				short, cancel := context.WithTimeout(ctx, time.Duration(i%20)*50*time.Microsecond)
				defer cancel()
				ctx = short
			}
			errs[i] = s.Commit(ctx, Issue(grants[i]))
		})
	}
	tasks.Wait()
	Close(t, s)
	s2 := Open(t, s.Config())
	left := 0
	for i := range n {
		if errs[i] != nil {
			left++
			want(t, errs[i], fault.Unavailable)
			if !strings.Contains(fault.Public(errs[i]), "outcome is unknown") {
				t.Fatalf("who leaves is told %q", fault.Public(errs[i]))
			}
		}
		_, err := s2.Grant(context.Background(), grants[i].ID)
		found, ferr := s2.GrantsByFingerprint(context.Background(), []string{grants[i].ID})
		if ferr != nil || (err == nil) != (len(found) == 1) {
			t.Fatalf("unit %d is there by halves: grant %v, fingerprints %v", i, err, found)
		}
		if errs[i] == nil && err != nil {
			t.Fatalf("unit %d was acknowledged and is lost: %v", i, err)
		}
	}
	if left == 0 || left > n/2 {
		t.Errorf("%d callers left, the test wants some of %d", left, n/2)
	}
}

func idempotency(t *testing.T, e Engine) {
	ctx, s := context.Background(), Open(t, e.Config(t))
	sub := Subject("a")
	must(t, s.Commit(ctx, Birth(sub)))
	var done atomic.Int64
	var tasks sync.WaitGroup
	for range 100 {
		tasks.Go(func() {
			first := unit.Outcome{ID: "key", Version: 1, Sealed: []byte("x"), Expires: time.Now().Add(time.Hour)}
			switch err := s.Commit(ctx, Issue(Grant(sub.ID), unit.Insert(first))); {
			case err == nil:
				done.Add(1)
			case !fault.Is(err, fault.Conflict):
				t.Errorf("unexpected: %v", err)
			}
		})
	}
	tasks.Wait()
	list, err := s.Grants(ctx, grant.Filter{Subject: sub.ID})
	must(t, err)
	if done.Load() != 1 || len(list) != 1 {
		t.Errorf("%d calls succeeded and %d grants exist, want one", done.Load(), len(list))
	}
}

// revocationRace releases for a subject while it is revoked. What was granted
// must have been granted before: no record of a grant behind that of the
// revocation.
func revocationRace(t *testing.T, e Engine) {
	ctx, s := context.Background(), Open(t, e.Config(t))
	Running(t, s)
	for round := range 5 {
		sub := Subject(fmt.Sprintf("s%d", round))
		must(t, s.Commit(ctx, Birth(sub)))
		var tasks sync.WaitGroup
		var granted atomic.Int64
		for range 16 {
			tasks.Go(func() {
				for range 20 {
					err := s.Commit(ctx, Issue(Grant(sub.ID), unit.Check("subjects", sub.ID, 1)))
					if err == nil {
						granted.Add(1)
					} else if !fault.Is(err, fault.Conflict) {
						t.Errorf("unexpected: %v", err)
					}
				}
			})
		}
		for granted.Load() < 10 {
			time.Sleep(100 * time.Microsecond)
		}
		gone, err := sub.Step("revoked", "test", time.Now())
		must(t, err)
		r := Record("subject.revoked")
		r.Subject = sub.ID
		must(t, s.Commit(ctx, unit.Unit{Writes: []unit.Write{unit.Update(gone)}, Record: r, Urgent: true}))
		before, err := s.Grants(ctx, grant.Filter{Subject: sub.ID})
		must(t, err)
		tasks.Wait()
		after, err := s.Grants(ctx, grant.Filter{Subject: sub.ID})
		must(t, err)
		if len(after) != len(before) || int64(len(after)) != granted.Load() {
			t.Fatalf("%d grants when the revocation was durable, %d later, %d acknowledged", len(before), len(after), granted.Load())
		}
	}
}

func tenRevocations(t *testing.T, e Engine) {
	ctx, s := context.Background(), Open(t, e.Config(t))
	sub := Subject("a")
	must(t, s.Commit(ctx, Birth(sub)))
	g := Grant(sub.ID)
	must(t, s.Commit(ctx, Issue(g)))
	var done atomic.Int64
	var tasks sync.WaitGroup
	for range 10 {
		tasks.Go(func() {
			next, err := g.To(grant.Revoking, "leak", time.Now())
			if err != nil {
				t.Error(err)
				return
			}
			if err := s.Commit(ctx, revocation(next)); err == nil {
				done.Add(1)
			} else if !fault.Is(err, fault.Conflict) {
				t.Errorf("unexpected: %v", err)
			}
		})
	}
	tasks.Wait()
	if done.Load() != 1 {
		t.Errorf("%d revocations happened, want one", done.Load())
	}
}

func revocation(g grant.Grant) unit.Unit {
	r := Record("grant." + string(g.State))
	r.Subject, r.Grant = g.Subject, g.ID
	return unit.Unit{Writes: []unit.Write{unit.Update(g)}, Record: r, Urgent: true}
}

func generations(t *testing.T, e Engine) {
	ctx, s := context.Background(), Open(t, e.Config(t))
	for _, name := range []string{"policy", "trust", "plugins", "keys", "reference"} {
		if n, err := s.Generation(ctx, name); err != nil || n != 1 {
			t.Errorf("generation of %s is %d, %v", name, n, err)
		}
	}
	sub := Subject("a")
	must(t, s.Commit(ctx, Birth(sub)))
	check := func() unit.Write {
		return unit.Do("generations.check", 1, "the policies have changed", "policy", int64(1))
	}
	must(t, s.Commit(ctx, Issue(Grant(sub.ID), check())))
	bump := unit.Do("generations.bump", 1, "", "policy", int64(1))
	must(t, s.Commit(ctx, unit.Unit{Writes: []unit.Write{bump}, Record: Record("policy.set")}))
	want(t, s.Commit(ctx, Issue(Grant(sub.ID), check())), fault.Conflict)
	want(t, s.Commit(ctx, unit.Unit{Writes: []unit.Write{bump}, Record: Record("policy.set")}), fault.Conflict)
	if n, err := s.Generation(ctx, "policy"); err != nil || n != 2 {
		t.Errorf("generation is %d, %v", n, err)
	}
	_, err := s.Generation(ctx, "nothing")
	want(t, err, fault.NotFound)
}

func unknownStatements(t *testing.T, e Engine) {
	ctx, s := context.Background(), Open(t, e.Config(t))
	sub := Subject("a")
	for name, u := range map[string]unit.Unit{
		"no such statement":                     {Writes: []unit.Write{unit.Do("subjects.drop", 1, "")}, Record: Record("a.b")},
		"too few arguments":                     {Writes: []unit.Write{unit.Do("nonces.insert", 1, "", "x")}, Record: Record("a.b")},
		"a float":                               {Writes: []unit.Write{unit.Do("nonces.insert", 1, "", "x", 1.5)}, Record: Record("a.b")},
		"a number for a text":                   {Writes: []unit.Write{{Statement: "outcomes.insert", Args: []any{int64(1), int64(1), []byte{}, int64(1)}, Rows: 1}}, Record: Record("a.b")},
		"no record":                             {Writes: []unit.Write{unit.Insert(sub)}},
		"a record of no type":                   {Writes: []unit.Write{unit.Insert(sub)}, Record: audit.Record{Version: 1, ID: "x"}},
		"a grant that its record does not name": {Writes: []unit.Write{unit.Insert(Grant(sub.ID))}, Record: Record("grant.issued")},
	} {
		if err := s.Commit(ctx, u); !fault.Is(err, fault.Internal) {
			t.Errorf("%s: got %v, want Internal", name, err)
		}
	}
	zero := Subject("a")
	zero.Reason = "a\x00b"
	want(t, s.Commit(ctx, Birth(zero)), fault.Invalid)
	must(t, s.Commit(ctx, unit.Unit{Writes: []unit.Write{unit.Do("nonces.expire", unit.AnyRows, "", int64(1))}})) // decides nothing
	if n, err := s.PendingCount(ctx); err != nil || n != 0 {
		t.Errorf("%d records, %v", n, err)
	}
}

// overload fills a small queue. Somebody must be refused at once, nobody may
// be lost, and an urgent unit passes.
func overload(t *testing.T, e Engine) {
	cfg := e.Config(t)
	cfg.Queue, cfg.Batch = 4, 2
	ctx, s := context.Background(), Open(t, cfg)
	sub := Subject("a")
	must(t, s.Commit(ctx, Birth(sub)))
	var refused, done atomic.Int64
	var tasks sync.WaitGroup
	for range 64 {
		tasks.Go(func() {
			for range 20 {
				switch err := s.Commit(ctx, Issue(Grant(sub.ID))); {
				case err == nil:
					done.Add(1)
				case fault.Is(err, fault.Exhausted) && fault.RetryAfter(err) > 0:
					refused.Add(1)
				default:
					t.Errorf("unexpected: %v", err)
				}
			}
		})
	}
	locked, err := sub.Step("locked", "x", time.Now())
	must(t, err)
	r := Record("subject.locked")
	r.Subject = sub.ID
	must(t, s.Commit(ctx, unit.Unit{Writes: []unit.Write{unit.Update(locked)}, Record: r, Urgent: true}))
	tasks.Wait()
	if refused.Load() == 0 {
		t.Error("nobody was refused")
	}
	if n, err := s.PendingCount(ctx); err != nil || n != done.Load()+2 {
		t.Errorf("%d records for %d acknowledged units and two: %v", n, done.Load(), err)
	}
}

func secondReport(t *testing.T, e Engine) {
	ctx, cfg := context.Background(), e.Config(t)
	s := Open(t, cfg)
	sub := Subject("a")
	must(t, s.Commit(ctx, Birth(sub)))
	g := Grant(sub.ID)
	g.Fingerprints = []string{"leaked"}
	must(t, s.Commit(ctx, Issue(g)))
	first, err := s.GrantsByFingerprint(ctx, []string{"leaked", "other"})
	must(t, err)
	next, err := first[0].To(grant.Revoked, "leak", time.Now())
	must(t, err)
	must(t, s.Commit(ctx, revocation(next)))
	Close(t, s)

	s = Open(t, cfg)
	second, err := s.GrantsByFingerprint(ctx, []string{"leaked"})
	must(t, err)
	if len(second) != 1 || second[0].State != grant.Revoked || second[0].Version != 2 || second[0].Reason != "leak" {
		t.Fatalf("the second report meets %+v", second)
	}
	again := second[0]
	again.Version = 2 // as one that decided on the first report's reading
	want(t, s.Commit(ctx, revocation(again)), fault.Conflict)
	handles, err := s.RevokedHandles(ctx, g.Kind, time.Now())
	if err != nil || len(handles) != 1 || handles[0].Handle != g.Handle {
		t.Errorf("revoked handles: %+v, %v", handles, err)
	}
	if d := cmp.Diff(next.EndedAt.UTC().Truncate(time.Microsecond), second[0].EndedAt); d != "" {
		t.Error(d)
	}
}

func closing(t *testing.T, e Engine) {
	cfg := e.Config(t)
	s := Open(t, cfg)
	sub := Subject("a")
	must(t, s.Commit(context.Background(), Birth(sub)))
	var done atomic.Int64
	var tasks sync.WaitGroup
	for range 32 {
		tasks.Go(func() {
			for {
				err := s.Commit(context.Background(), Issue(Grant(sub.ID)))
				if err != nil {
					if !fault.Is(err, fault.Unavailable) {
						t.Errorf("unexpected: %v", err)
					}
					return
				}
				done.Add(1)
			}
		})
	}
	time.Sleep(20 * time.Millisecond)
	Close(t, s)
	tasks.Wait()
	s = Open(t, cfg)
	if n, err := s.PendingCount(context.Background()); err != nil || n != done.Load()+1 {
		t.Errorf("%d records for %d acknowledged units: %v", n, done.Load()+1, err)
	}
}

var _ store.MAC = MAC{}
