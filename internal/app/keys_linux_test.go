package app_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/app"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/keys"
	"github.com/sallyport-project/sallyport/internal/keys/file"
	"github.com/sallyport-project/sallyport/internal/store"
	"github.com/sallyport-project/sallyport/internal/store/storetest"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// alter changes the key rows of a stopped server, as only somebody with the key
// file could.
func alter(t *testing.T, c app.Config, purpose keys.Purpose, change func(*keys.Vault, keys.Key) (keys.Key, error)) {
	t.Helper()
	ctx := t.Context()
	st, err := store.Open(ctx, store.Config{Dir: c.DataDir, StateDir: c.DataDir})
	if err != nil {
		t.Fatal(err)
	}
	defer storetest.Close(t, st)
	kek, err := file.Load(file.Config{Path: c.KEK.File})
	if err != nil {
		t.Fatal(err)
	}
	rows, err := st.Keys(ctx)
	if err != nil {
		t.Fatal(err)
	}
	vault, err := keys.Load(ctx, keys.Config{KEK: kek}, rows)
	if err != nil {
		t.Fatal(err)
	}
	ring, err := keys.NewRing(keys.RowMAC, rows)
	if err != nil {
		t.Fatal(err)
	}
	mac, err := keys.NewMAC(ctx, vault, ring)
	if err != nil {
		t.Fatal(err)
	}
	st.UseMAC(mac)
	for _, k := range rows {
		if k.Purpose != purpose {
			continue
		}
		if k, err = change(vault, k); err != nil {
			t.Fatal(err)
		}
		if err := st.Commit(ctx, unit.Unit{Writes: []unit.Write{unit.Update(k)}, Record: storetest.Record("test.altered")}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestNew_RenewsAnIntermediateWhoseTimeIsOver(t *testing.T) {
	c := parse(t, onLoopback)
	founded, err := app.Found(t.Context(), c, "alice")
	if err != nil {
		t.Fatal(err)
	}
	alter(t, c, keys.CAIntermediate, func(v *keys.Vault, k keys.Key) (keys.Key, error) {
		return v.Advance(t.Context(), k, keys.Active, time.Now().Add(-time.Hour))
	})
	if _, err := app.Recover(t.Context(), c, "bob"); err != nil {
		t.Errorf("recover: %v", err)
	}
	again, err := app.Recover(t.Context(), c, "carol")
	if err != nil {
		t.Fatal(err)
	}
	a, _ := serve(t, c)
	founded.Certificate, founded.Private = again.Certificate, again.Private
	list, err := client(t, a, founded).Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	states := ""
	for _, k := range list.Items {
		if k.Purpose == string(keys.CAIntermediate) {
			states += k.State + " " + k.Does + ";"
		}
	}
	if states != "active signs;retired nothing;" {
		t.Errorf("the intermediates are %s", states)
	}
}

// TestNew_RefusesAMissingKey takes the keys of each purpose away: the server
// says which, and what to do, and makes none of its own.
func TestNew_RefusesAMissingKey(t *testing.T) {
	for _, purpose := range keys.Purposes() {
		if purpose == keys.Root || purpose == keys.RowMAC {
			continue // without them nothing of the rest could be written by this test
		}
		t.Run(string(purpose), func(t *testing.T) {
			c := parse(t, onLoopback)
			if _, err := app.Found(t.Context(), c, "alice"); err != nil {
				t.Fatal(err)
			}
			alter(t, c, purpose, func(v *keys.Vault, k keys.Key) (keys.Key, error) {
				return v.Advance(t.Context(), k, keys.Retired, time.Time{})
			})
			_, err := app.New(t.Context(), c, app.Options{Version: "test", Output: &logged{}})
			if err == nil || !strings.Contains(err.Error(), string(purpose)) || !strings.Contains(err.Error(), "restore") {
				t.Errorf("without a %s key: %v", purpose, err)
			}
		})
	}
}

func TestRewrap(t *testing.T) {
	c := parse(t, onLoopback)
	if _, err := app.Found(t.Context(), c, "alice"); err != nil {
		t.Fatal(err)
	}
	first := c.KEK.File
	fresh := filepath.Join(filepath.Dir(first), "fresh")
	if _, err := app.Rewrap(t.Context(), c, filepath.Join(c.DataDir, "kek")); !fault.Is(err, fault.Denied) {
		t.Errorf("into the data directory: %v", err)
	}
	if _, err := app.Rewrap(t.Context(), c, first); !fault.Is(err, fault.Conflict) {
		t.Errorf("to the key in use: %v", err)
	}
	if _, err := file.Create(file.Config{Path: fresh}); err != nil { // as an interrupted run leaves it
		t.Fatal(err)
	}
	done, err := app.Rewrap(t.Context(), c, fresh)
	if err != nil || len(done.Keys) != 2 || done.New == done.Old {
		t.Fatalf("%+v %v", done, err)
	}
	again, err := app.Rewrap(t.Context(), c, fresh)
	if err != nil || len(again.Keys) != 0 {
		t.Errorf("repeated: %+v %v", again, err)
	}
	if _, err := app.New(t.Context(), c, app.Options{Version: "test", Output: &logged{}}); !fault.Is(err, fault.Unavailable) ||
		!strings.Contains(fault.Public(err), "point the configuration at its file") {
		t.Errorf("with the old key alone: %v", err)
	}
	if err := os.Remove(first); err != nil {
		t.Fatal(err)
	}
	c.KEK.File = fresh
	a, _ := serve(t, c)
	_ = a
}

func TestParse_Periods(t *testing.T) {
	for text, good := range map[string]bool{
		"token: 30d": true, "token: 12h": true, "cookie: 1m": true, "ledger: 365d": true, "ca_root: 1500d": true, "token: off": true,
		"token: 30s": false, "token: 0d": false, "token: -1d": false, "token: 1.5d": false, "token: 030d": false, "token: never": false, "token: d": false,
		"pepper: 1h": false, "ledger: 1m": false, "ca_intermediate: 306d": false, "ca_intermediate: 305d": true, "token: 99999999999d": false, "root: 30d": false,
	} {
		_, err := app.Parse([]byte(onLoopback+"keys: {rotate: {"+text+"}}\n"), t.TempDir())
		if (err == nil) != good || err != nil && !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
