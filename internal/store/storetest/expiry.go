package storetest

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/store"
	"github.com/sallyport-project/sallyport/internal/subject"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// expiries: what has expired goes, in as many steps as it takes, and nothing else.
func expiries(t *testing.T, e Engine) {
	s, ctx := Open(t, e.Config(t)), context.Background()
	const n = 450
	insert := func(from, to int) (writes []unit.Write) {
		for i := from; i < to; i++ {
			writes = append(writes, unit.Do("nonces.insert", 1, "taken", strconv.Itoa(i), int64(i)))
		}
		return writes
	}
	must(t, s.Commit(ctx, unit.Unit{Writes: insert(0, n)}))
	left := func(at int64) bool {
		t.Helper()
		more, err := s.Expired(ctx, map[string]time.Time{"nonces": time.UnixMicro(at), "passports": time.Now(), "deliveries": time.Now()})
		must(t, err)
		return more
	}
	steps := 0
	for ; left(n - 2); steps++ {
		must(t, s.Commit(ctx, unit.Unit{Writes: []unit.Write{unit.Do("nonces.expire", unit.AnyRows, "", int64(n-2))}}))
	}
	if steps < 2 || steps > n {
		t.Errorf("%d rows went in %d steps", n-1, steps)
	}
	want(t, s.Commit(ctx, unit.Unit{Writes: insert(n-1, n)}), fault.Conflict) // it has not expired
	must(t, s.Commit(ctx, unit.Unit{Writes: insert(0, n-1)}))
}

// expiringOutcomes: first answers go when they have expired, in as many steps as
// it takes, also those that came before some which live longer.
func expiringOutcomes(t *testing.T, e Engine) {
	s, ctx := Open(t, e.Config(t)), context.Background()
	start := time.Now().UTC().Truncate(time.Microsecond)
	const n = 1000
	var writes []unit.Write
	for i := range n {
		life := time.Minute
		if i%100 == 7 {
			life = 10 * time.Minute
		}
		writes = append(writes, unit.Insert(unit.Outcome{ID: strconv.Itoa(i), Version: 1, Sealed: []byte("x"), Expires: start.Add(life)}))
	}
	must(t, s.Commit(ctx, unit.Unit{Writes: writes, Record: Record("test.filled")}))
	clean := func(at time.Time) (steps int) {
		for ; ; steps++ {
			more, err := s.Expired(ctx, map[string]time.Time{"outcomes": at})
			must(t, err)
			if !more {
				return steps
			}
			must(t, s.Commit(ctx, unit.Unit{Writes: []unit.Write{unit.Do("outcomes.expire", unit.AnyRows, "", unit.Micros(at))}}))
		}
	}
	left := func() (ids []string) {
		for i := range n {
			if _, err := s.Outcome(ctx, strconv.Itoa(i)); err == nil {
				ids = append(ids, strconv.Itoa(i))
			} else {
				want(t, err, fault.NotFound)
			}
		}
		return ids
	}
	if steps := clean(start); steps != 0 || len(left()) != n {
		t.Errorf("%d of %d are left in %d steps before any has expired", len(left()), n, steps)
	}
	if steps, got := clean(start.Add(time.Minute)), left(); steps < 2 || len(got) != n/100 || got[0] != "7" {
		t.Errorf("%q are left after %d steps", got, steps)
	}
	if clean(start.Add(time.Hour)); len(left()) != 0 {
		t.Errorf("%q are left at the end", left())
	}
}

// forget empties the store's memory of identities, by a commit that may have
// changed any of them.
func forget(t *testing.T, s *store.Store) {
	t.Helper()
	must(t, s.Commit(context.Background(), unit.Unit{Writes: []unit.Write{unit.Do("passports.delete", unit.AnyRows, "", "none", int64(1))}, Record: Record("store.forgot")}))
}

// passportByToken: a result is found by hash and expiry of its token together, in
// memory as in the database, and no token is there twice.
func passportByToken(t *testing.T, e Engine) {
	cfg := e.Config(t)
	s, ctx := Open(t, cfg), context.Background()
	at := time.Now().UTC().Truncate(time.Second).Add(time.Hour)
	p := subject.Passport{ID: "h", Version: 1, Subject: "x", Digest: "d", Token: "token", Expires: at}
	must(t, s.Commit(ctx, insert(p)))
	look := func(s *store.Store) {
		t.Helper()
		for range 2 {
			for _, c := range []struct {
				digest  string
				expires time.Time
				there   bool
			}{{"d", at, true}, {"d", at.Add(time.Second), false}, {"e", at, false}} {
				got, err := s.PassportByToken(ctx, c.digest, c.expires)
				if c.there {
					must(t, err)
				} else {
					want(t, err, fault.NotFound)
				}
				if c.there && got.ID != p.ID {
					t.Errorf("got %+v", got)
				}
			}
		}
	}
	look(s)
	twin := p
	twin.ID = "another"
	want(t, s.Commit(ctx, insert(twin)), fault.Conflict)
	must(t, s.Close(ctx))
	look(Open(t, cfg))
}
