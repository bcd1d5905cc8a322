package app

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/keys"
	"github.com/sallyport-project/sallyport/internal/store/storetest"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// standing is a server of a new installation that does not run: nothing gives
// records their places but the test.
func standing(t *testing.T) *App {
	t.Helper()
	c, err := Parse([]byte("listen: {main: {address: '127.0.0.1:0'}, operations: '127.0.0.1:0'}\n"), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Found(t.Context(), c, "alice"); err != nil {
		t.Fatal(err)
	}
	a, err := New(t.Context(), c, Options{Version: "test", Output: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.close(context.WithoutCancel(t.Context())) })
	return a
}

// turn makes the next key of a purpose, without a commit.
func turn(t *testing.T, a *App, purpose keys.Purpose) (keys.Rotation, map[string]string, error) {
	t.Helper()
	rows, err := a.store.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return keeper{a}.Turn(t.Context(), rows, purpose)
}

// rotated commits a turn as flow does, and takes the keys into use.
func rotated(t *testing.T, a *App, purpose keys.Purpose, made keys.Rotation, facts map[string]string) {
	t.Helper()
	r := storetest.Record("key.rotated")
	r.Target, r.Data = string(purpose), facts
	writes := []unit.Write{unit.Do("generations.bump", 1, "moved", "keys", a.keys().generation), unit.Insert(made.Fresh)}
	for _, k := range made.Changed {
		writes = append(writes, unit.Update(k))
	}
	if err := a.store.Commit(t.Context(), unit.Unit{Writes: writes, Record: r}); err != nil {
		t.Fatal(err)
	}
	if err := (keeper{a}).Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestTurnLedger_OneAtATime: the ledger's key is not replaced before it has
// signed the head.
func TestTurnLedger_OneAtATime(t *testing.T) {
	a := standing(t)
	refused := func(when string) {
		t.Helper()
		if _, _, err := turn(t, a, keys.Ledger); !fault.Is(err, fault.Conflict) {
			t.Errorf("%s: %v, want Conflict", when, err)
		}
	}
	signedBy := func(vkey string) {
		t.Helper()
		stop := storetest.Running(t, a.store)
		storetest.Eventually(t, "the head is signed by "+vkey, func() bool {
			head, err := a.store.Head(t.Context())
			return err == nil && head.SignedBy(vkey)
		})
		stop()
	}
	refused("without a checkpoint")
	signedBy(a.keys().signing)
	made, facts, err := turn(t, a, keys.Ledger)
	if err != nil {
		t.Fatal(err)
	}
	if old := made.Changed[0]; !old.NotAfter.IsZero() {
		t.Errorf("the old key ends at %s, whether or not it is needed", old.NotAfter)
	}
	made.Fresh.SignsFrom = time.Now().Add(time.Second).Truncate(time.Microsecond) // as on PostgreSQL
	rotated(t, a, keys.Ledger, made, facts)
	refused("while the next key is announced")
	time.Sleep(time.Until(made.Fresh.SignsFrom))
	if err := (keeper{a}).Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	refused("before the next key has signed")
	signedBy(made.Fresh.Public)
	if _, _, err := turn(t, a, keys.Ledger); err != nil {
		t.Errorf("when it has signed: %v", err)
	}
}
