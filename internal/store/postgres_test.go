package store_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/id"
	"github.com/sallyport-project/sallyport/internal/store"
	"github.com/sallyport-project/sallyport/internal/store/storetest"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// TestPostgreSQL_SlowTransaction holds a transaction with an early id open while
// later ids are integrated and delivered. A cursor that followed ids would skip
// it for ever.
func TestPostgreSQL_SlowTransaction(t *testing.T) {
	ctx := context.Background()
	e := postgres(t).Engine()
	cfg := e.Config(t)
	s := storetest.Open(t, cfg)
	storetest.Running(t, s)
	got := make(chan string, 100)
	s.Subscribe("test", func(_ context.Context, _ uint64, r audit.Record) error { got <- r.ID; return nil })
	run, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- s.Relay(run) }()
	defer func() { cancel(); <-done }()

	slow := storetest.Record("test.slow")
	slow.ID = id.At(time.Now().Add(-time.Minute))
	leaf, err := slow.Leaf()
	noError(t, err)
	tx, err := e.DB(t, cfg).BeginTx(ctx, nil)
	noError(t, err)
	_, err = tx.ExecContext(ctx, "INSERT INTO pending (id, subject, type, grant_id, at, leaf) VALUES ($1, '', 'test.slow', '', 1, $2)", slow.ID, string(leaf))
	noError(t, err)
	for range 5 {
		noError(t, s.Commit(ctx, unit.Unit{Record: storetest.Record("test.fast")}))
	}
	for range 5 {
		if id := wait(t, got); id == slow.ID {
			t.Fatal("an uncommitted record was delivered")
		}
	}
	noError(t, tx.Commit())
	if id := wait(t, got); id != slow.ID {
		t.Errorf("got %s, want the record of the slow transaction", id)
	}
	if entry, err := s.RecordByID(ctx, slow.ID); err != nil || entry.Position != 5 {
		t.Errorf("position %d, %v", entry.Position, err)
	}
}

func wait(t *testing.T, from <-chan string) string {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(10 * time.Second):
		t.Fatal("nothing was delivered")
		return ""
	}
}

func noError(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("unexpected: %+v", err)
	}
}

func TestPostgreSQL_RefusesAServerThatForgets(t *testing.T) {
	p := postgres(t)
	cfg := p.Config(t)
	var name string
	db := p.Engine().DB(t, cfg)
	noError(t, db.QueryRowContext(context.Background(), "SELECT current_database()").Scan(&name))
	noError(t, p.Exec(context.Background(), "postgres", "ALTER DATABASE "+name+" SET synchronous_commit = off"))
	s, err := store.Open(context.Background(), cfg)
	if !fault.Is(err, fault.Unavailable) || !strings.Contains(fault.Public(err), "synchronous_commit") {
		t.Fatalf("got %v, %v", s, err)
	}
}

// TestPostgreSQL_LostConnection kills the writer's connections under load: no
// acknowledged unit is lost, and the store goes on.
func TestPostgreSQL_LostConnection(t *testing.T) {
	ctx := context.Background()
	e := postgres(t).Engine()
	cfg := e.Config(t)
	s := storetest.Open(t, cfg)
	db := e.DB(t, cfg)
	var acknowledged []string
	refused := 0
	for i := range 300 {
		if i%50 == 25 {
			var n int
			err := db.QueryRowContext(ctx, "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'sallyport' AND datname = current_database()").Scan(&n)
			noError(t, err)
		}
		r := storetest.Record("test.filled")
		switch err := s.Commit(ctx, unit.Unit{Record: r}); {
		case err == nil:
			acknowledged = append(acknowledged, r.ID)
		case fault.Is(err, fault.Unavailable):
			refused++
		default:
			t.Fatalf("unexpected: %v", err)
		}
	}
	if refused == 0 || len(acknowledged) < 200 {
		t.Errorf("%d refused, %d acknowledged", refused, len(acknowledged))
	}
	for _, name := range acknowledged {
		var one int
		if err := db.QueryRowContext(ctx, "SELECT 1 FROM pending WHERE id = $1", name).Scan(&one); err != nil {
			t.Fatalf("acknowledged record %s: %v", name, err)
		}
	}
}

// TestPostgreSQL_Deadlock makes two writers take the same rows in opposite
// order, many times: each unit happens or is refused, none hangs.
func TestPostgreSQL_Deadlock(t *testing.T) {
	ctx := context.Background()
	e := postgres(t).Engine()
	cfg := e.Config(t)
	cfg.Writers = 2
	s := storetest.Open(t, cfg)
	a, b := storetest.Subject("a"), storetest.Subject("b")
	noError(t, s.Commit(ctx, storetest.Birth(a)))
	noError(t, s.Commit(ctx, storetest.Birth(b)))
	bump := func(first, second string) func() error {
		return func() error {
			n1, err := s.Subject(ctx, first)
			noError(t, err)
			n2, err := s.Subject(ctx, second)
			noError(t, err)
			n1.Version++
			n2.Version++
			return s.Commit(ctx, unit.Unit{Writes: []unit.Write{unit.Update(n1), unit.Update(n2)}, Record: storetest.Record("subject.changed")})
		}
	}
	results := make(chan error, 2)
	good := 0
	for range 20 {
		for _, f := range []func() error{bump(a.ID, b.ID), bump(b.ID, a.ID)} {
			go func() { results <- f() }()
		}
		for range 2 {
			select {
			case err := <-results:
				if err == nil {
					good++
				} else if !fault.Is(err, fault.Conflict) {
					t.Fatalf("unexpected: %v", err)
				}
			case <-time.After(20 * time.Second):
				t.Fatal("a unit hangs")
			}
		}
	}
	after, err := s.Subject(ctx, a.ID)
	noError(t, err)
	if after.Version != int64(good)+1 {
		t.Errorf("version %d after %d changes", after.Version, good)
	}
}

// TestPostgreSQL_PoolersByTransaction: what two connections see of a pooler that
// lends the server's own for one transaction each, in whatever order.
func TestPostgreSQL_PoolersByTransaction(t *testing.T) {
	for name, c := range map[string]struct {
		seen [][2]int
		want bool
	}{
		"no pooler, or by session": {[][2]int{{7, 8}, {7, 8}, {7, 8}}, false},
		"the one used last":        {[][2]int{{7, 7}, {7, 7}, {7, 7}}, true},
		"one after the other":      {[][2]int{{7, 8}, {9, 7}, {8, 9}}, true},
		"of two in turn":           {[][2]int{{7, 8}, {8, 7}, {7, 8}}, true},
		"changed late":             {[][2]int{{7, 8}, {7, 8}, {7, 9}}, true},
	} {
		if got := store.Lent(c.seen); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
