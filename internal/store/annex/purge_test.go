package annex

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
)

// row is a plugin's row in the store of the house, which all replicas see.
type row struct {
	mu        sync.Mutex
	publisher string // of what is installed; empty for nothing
}

func (r *row) set(publisher string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.publisher = publisher
}

func (r *row) installed(_ context.Context, _, publisher string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.publisher != publisher {
		return fault.Unavailablef("not installed any more")
	}
	return nil
}

// replicas are two servers on one database, and a plugin's row.
func replicas(t *testing.T) (first, second *Annexes, r *row) {
	t.Helper()
	first, dsn := postgres(t)
	r = &row{publisher: "acme"}
	first.cfg.Installed = r.installed
	return first, replica(t, dsn, r.installed), r
}

// waits returns when f has ended or waits for a lock of the database, and says which.
func waits(t *testing.T, a *Annexes, f func() error) (ended <-chan error, waiting bool) {
	t.Helper()
	end := make(chan error, 1)
	go func() { end <- f() }()
	for {
		var n int
		err := a.eng.(*postgresEngine).admin.QueryRowContext(t.Context(),
			"SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'").Scan(&n)
		if err != nil {
			t.Fatal(err)
		}
		if n > 0 {
			return end, true
		}
		select {
		case err := <-end:
			end <- err
			return end, false
		case <-time.After(time.Millisecond):
		}
	}
}

func schemas(t *testing.T, a *Annexes) []string {
	t.Helper()
	var out []string
	rows, err := a.eng.(*postgresEngine).admin.QueryContext(t.Context(), "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'ext%' ORDER BY 1")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		out = append(out, name)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

var tagOne = []plugin.Statement{{SQL: "INSERT INTO extension_myext_tags (machine_id, label) VALUES ('m1', 'new')"}}

func labels(ctx context.Context, a *Annexes) (any, error) {
	got, err := a.Query(ctx, "my-ext", plugin.Statement{SQL: "SELECT label FROM extension_myext_tags"}, 2)
	return got.Rows, err
}

// A replica that hangs between looking and dropping keeps every other from ending
// the purge, so that nothing is installed that it could still take away.
func TestPostgres_PurgesWaitForOneAnother(t *testing.T) {
	first, second, r := replicas(t)
	ctx := t.Context()
	if err := migrate(ctx, first, "my-ext", tags()); err != nil {
		t.Fatal(err)
	}
	r.set("")
	looked, goOn, hung := make(chan bool), make(chan bool), make(chan error, 1)
	go func() {
		hung <- first.Purge(ctx, "my-ext", func(context.Context) (bool, error) {
			close(looked)
			<-goOn
			return true, nil
		})
	}()
	<-looked
	again, waiting := waits(t, second, func() error {
		if err := second.Purge(ctx, "my-ext", always); err != nil {
			return err
		}
		r.set("acme")
		if err := migrate(ctx, second, "my-ext", tags()); err != nil {
			return err
		}
		_, err := second.Exec(ctx, "my-ext", tagOne)
		return err
	})
	if !waiting {
		t.Error("the name is free while another replica drops")
	}
	close(goOn)
	if err := <-hung; err != nil {
		t.Fatal(err)
	}
	if err := <-again; err != nil {
		t.Fatal(err)
	}
	got, err := labels(ctx, second)
	if diff := cmp.Diff([][]any{{"new"}}, got); err != nil || diff != "" {
		t.Errorf("what was installed since: %v %s", err, diff)
	}
	// One that comes when all is over sees so, and drops nothing.
	late := func(context.Context) (bool, error) { return false, nil }
	if err := first.Purge(ctx, "my-ext", late); err != nil {
		t.Fatal(err)
	}
	if got, err = labels(ctx, second); err != nil || !cmp.Equal([][]any{{"new"}}, got) {
		t.Errorf("after a late purge: %v, %v", got, err)
	}
}

// A replica that hangs between looking and making leaves nothing behind a purge.
func TestPostgres_NothingIsMadeBehindAPurge(t *testing.T) {
	first, second, r := replicas(t)
	ctx := t.Context()
	looked, goOn, hung := make(chan bool), make(chan bool), make(chan error, 1)
	first.cfg.Installed = func(ctx context.Context, name, publisher string) error {
		err := r.installed(ctx, name, publisher)
		close(looked)
		<-goOn
		return err
	}
	go func() { hung <- migrate(ctx, first, "my-ext", tags()) }()
	<-looked
	r.set("")
	purged, waiting := waits(t, second, func() error { return second.Purge(ctx, "my-ext", always) })
	if !waiting {
		t.Error("a purge ends while another replica makes")
	}
	close(goOn)
	<-hung // its migrations may have come before the purge, or not
	if err := <-purged; err != nil {
		t.Fatal(err)
	}
	if left := schemas(t, second); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	first.cfg.Installed = r.installed
	if err := migrate(ctx, first, "my-ext", tags()); !fault.Is(err, fault.Unavailable) || len(schemas(t, first)) > 0 {
		t.Errorf("made for a plugin that is not installed: %v", err)
	}
}

// What was connected before a purge by another replica reaches nothing that was made
// after it, and is not in the way of it.
func TestPostgres_PurgedElsewhere(t *testing.T) {
	first, second, r := replicas(t)
	ctx := t.Context()
	of := func(a *Annexes, publisher string) error {
		m := manifestOf("my-ext", tags())
		m.Publisher = publisher
		return a.Migrate(ctx, m)
	}
	if err := of(first, "acme"); err != nil {
		t.Fatal(err)
	}
	if _, err := labels(ctx, first); err != nil { // connected
		t.Fatal(err)
	}
	r.set("")
	if err := second.Purge(ctx, "my-ext", always); err != nil {
		t.Fatal(err)
	}
	r.set("rival")
	if err := of(second, "rival"); err != nil {
		t.Fatal(err)
	}
	if _, err := second.Exec(ctx, "my-ext", tagOne); err != nil {
		t.Fatal(err)
	}
	for range connections + 1 { // on the old connection, and on new ones
		if got, err := labels(ctx, first); err == nil {
			t.Fatalf("the old plugin reads what the new one keeps: %v", got)
		}
		first.open["my-ext"].SetMaxIdleConns(0)
	}
	if err := of(first, "acme"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("the old plugin migrates what the new one keeps: %v", err)
	}
	if err := of(first, "rival"); err != nil {
		t.Fatal(err)
	}
	if got, err := labels(ctx, first); err != nil || !cmp.Equal([][]any{{"new"}}, got) {
		t.Errorf("the new plugin on the other replica: %v, %v", got, err)
	}
}

// In one process a turn keeps making and purging apart, and nothing opens the
// database of a plugin that was purged but its migrations.
func TestAnnexes_TakeTurns(t *testing.T) {
	each(t, func(t *testing.T, a *Annexes) {
		ctx := t.Context()
		if err := migrate(ctx, a, "my-ext", tags()); err != nil {
			t.Fatal(err)
		}
		err := a.Purge(ctx, "my-ext", func(ctx context.Context) (bool, error) {
			short, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
			defer cancel()
			if err := migrate(short, a, "my-ext", tags()); !fault.Is(err, fault.Unavailable) {
				t.Errorf("made while it is purged: %v", err)
			}
			if err := migrate(ctx, a, "another", tags()); err != nil {
				t.Errorf("a purge keeps others waiting: %v", err)
			}
			return true, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := labels(ctx, a); !fault.Is(err, fault.Invalid) {
			t.Errorf("opened again: %v", err)
		}
		refused := fault.Unavailablef("not installed any more")
		a.cfg.Installed = func(context.Context, string, string) error { return refused }
		if err := migrate(ctx, a, "my-ext", tags()); !fault.Is(err, fault.Unavailable) {
			t.Errorf("made for a plugin that is not installed: %v", err)
		}
		if _, err := labels(ctx, a); !fault.Is(err, fault.Invalid) {
			t.Errorf("opened again: %v", err)
		}
	})
}
