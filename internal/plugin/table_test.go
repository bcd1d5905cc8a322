package plugin

import (
	"context"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
)

func TestSync_RefusesASecondImplementation(t *testing.T) {
	second := testManifest("beta")
	second.Kinds = []string{"fixture-alpha", "fixture-beta"}
	r := newRig(t, nil, testManifest("alpha"), second)
	s := r.Status()
	if s[0].State == Refused || s[1].State != Refused || s[1].Reason != ReasonConflict {
		t.Fatalf("status %+v", s)
	}
	if !strings.Contains(s[1].Detail, "alpha") || !strings.Contains(s[1].Detail, "beta") {
		t.Fatalf("both names must be said: %s", s[1].Detail)
	}
	err := CheckRoles(r.rows[:1], "beta", r.rows[1].Offer)
	if !fault.Is(err, fault.Conflict) || ReasonOf(err) != ReasonConflict {
		t.Fatalf("got %v", err)
	}
	if err := CheckRoles(r.rows[:1], "alpha", r.rows[0].Offer); err != nil {
		t.Fatalf("an upgrade stands in its own way: %v", err)
	}
	if kinds := r.Kinds(); !reflect.DeepEqual(kinds, []string{"fixture-alpha"}) {
		t.Fatalf("kinds %v", kinds)
	}
}

func TestSync_StopsWhatIsNoLongerTrusted(t *testing.T) {
	r := newRig(t, nil, testManifest("alpha"))
	p := r.provider(t, "fixture-alpha")
	if _, err := p.Issue(t.Context(), ask("fixture-alpha", nil), limits("fixture-alpha")); err != nil {
		t.Fatal(err)
	}
	gone, err := r.publisher.trust.Keys[0].Remove("test", time.Unix(9, 0))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Sync(t.Context(), r.rows, Trust{Keys: []Key{gone}}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Issue(t.Context(), ask("fixture-alpha", nil), limits("fixture-alpha")); !fault.Is(err, fault.Unavailable) {
		t.Fatalf("a plugin of a removed key answers: %v", err)
	}
	if s := r.Status()[0]; s.Reason != ReasonBadSignature || s.State != Refused {
		t.Fatalf("status %+v", s)
	}
}

func TestSync_RemovesAndKeeps(t *testing.T) {
	r := newRig(t, nil, testManifest("alpha"), testManifest("beta"))
	first, err := r.provider(t, "fixture-alpha").Issue(t.Context(), ask("fixture-alpha", nil), limits("fixture-alpha"))
	if err != nil {
		t.Fatal(err)
	}
	gone, err := r.rows[1].Remove("test", time.Unix(9, 0))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Sync(t.Context(), []Installed{r.rows[0], gone}, r.publisher.trust); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Provider("fixture-beta"); !fault.Is(err, fault.NotFound) {
		t.Fatalf("got %v", err)
	}
	second, err := r.provider(t, "fixture-alpha").Issue(t.Context(), ask("fixture-alpha", nil), limits("fixture-alpha"))
	if err != nil || !first.Value.Equal(second.Value) {
		t.Fatalf("what did not change was restarted: %v", err)
	}
}

func TestSync_RefusesARowThatLies(t *testing.T) {
	r := newRig(t, nil, testManifest("alpha"))
	for name, change := range map[string]func(*Installed){
		"another name":    func(i *Installed) { i.Name = "beta" },
		"another version": func(i *Installed) { i.Package = "2.0.0" },
		"more kinds":      func(i *Installed) { i.Offer.Kinds = append([]string{"root"}, i.Offer.Kinds...) },
	} {
		row := r.rows[0]
		change(&row)
		if err := r.Sync(t.Context(), []Installed{row}, r.publisher.trust); err != nil {
			t.Fatal(err)
		}
		if s := r.Status()[0]; s.State != Refused || s.Reason != ReasonIncompatible {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

// A plugin is replaced under load; every call finds the old or the new one.
func TestSync_ReplacesWithoutAFailedCall(t *testing.T) {
	r := newRig(t, nil, testManifest("alpha"))
	next := testManifest("alpha")
	next.Summary = "another manifest, so another digest"
	row := r.install(t, r.cfg.Store, r.pack(t, next, fixtureBinary), 5)
	p := r.provider(t, "fixture-alpha")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				q := ask("fixture-alpha", map[string]any{"do": "sleep"})
				if _, err := p.Issue(context.Background(), q, limits("fixture-alpha")); err != nil {
					t.Errorf("a call failed: %v", err)
					return
				}
			}
		})
	}
	time.Sleep(200 * time.Millisecond)
	for n := range 4 {
		rows := []Installed{row}
		if n%2 == 1 {
			rows = r.rows
		}
		if err := r.Sync(t.Context(), rows, r.publisher.trust); err != nil {
			t.Fatal(err)
		}
		time.Sleep(200 * time.Millisecond)
	}
	close(stop)
	wg.Wait()
}

func TestRows_ReadBack(t *testing.T) {
	r := newRig(t, nil, testManifest("alpha"))
	key := r.publisher.trust.Keys[0]
	key.Names = []string{"a*", "b"}
	var backKey Key
	if err := backKey.Scan(columns(key.Columns())); err != nil {
		t.Fatal(err)
	}
	key.At, backKey.At = key.At.UTC(), backKey.At.UTC()
	if !reflect.DeepEqual(key, backKey) {
		t.Fatalf("key %+v, read %+v", key, backKey)
	}
	row := r.rows[0]
	var back Installed
	if err := back.Scan(columns(row.Columns())); err != nil {
		t.Fatal(err)
	}
	row.At, back.At = row.At.UTC(), back.At.UTC()
	if !reflect.DeepEqual(row, back) {
		t.Fatalf("row %+v, read %+v", row, back)
	}
	broken := key.Columns()
	broken[0] = "another id"
	if err := backKey.Scan(columns(broken)); !fault.Is(err, fault.Internal) || err == nil {
		t.Fatalf("a key under another id: %v", err)
	}
}

// columns stands for a row in the store.
func columns(values []any) func(dest ...any) error {
	return func(dest ...any) error {
		for n, d := range dest {
			reflect.ValueOf(d).Elem().Set(reflect.ValueOf(values[n]))
		}
		return nil
	}
}

func TestKey_CoversOnlyItsNames(t *testing.T) {
	p := newPublisher(t)
	k, err := NewKey(public(p.key), "tester", []string{"aws-*", "one"}, "test", time.Unix(1, 0))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"aws-sts": true, "one": true, "two": false, "x-aws-sts": false} {
		if k.covers("tester", name, UsePackage) != want {
			t.Errorf("%s: %v", name, !want)
		}
	}
	if k.covers("another", "one", UsePackage) {
		t.Error("a key signs for another publisher")
	}
	if k, err = k.Remove("test", time.Unix(2, 0)); err != nil || k.stands(time.Unix(3, 0), forStart) != ignored || k.Version != 2 {
		t.Errorf("after removal: %+v, %v", k, err)
	}
	for _, bad := range [][]string{{"["}, {""}, {strings.Repeat("x", 65)}} {
		if _, err := NewKey(public(p.key), "tester", bad, "test", time.Unix(1, 0)); !fault.Is(err, fault.Invalid) {
			t.Errorf("pattern %q: %v", bad, err)
		}
	}
}

func TestKeygen_WritesAPairThatReadsBack(t *testing.T) {
	prefix := filepath.Join(t.TempDir(), "publisher")
	files, err := Keygen(prefix)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(files.Private)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	private, err := os.ReadFile(files.Private)
	if err != nil {
		t.Fatal(err)
	}
	public, err := os.ReadFile(files.Public)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ParsePrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := ParsePublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	if KeyID(pub) != files.ID || !pub.Equal(key.Public()) {
		t.Fatal("the pair does not match")
	}
	if _, err := ParsePrivateKey(public); !fault.Is(err, fault.Invalid) {
		t.Fatalf("a public key passed as private: %v", err)
	}
	if _, err := ParsePublicKey(append(public, public...)); !fault.Is(err, fault.Invalid) {
		t.Fatalf("two keys in one file: %v", err)
	}
	if _, err := Keygen(prefix); !fault.Is(err, fault.Conflict) {
		t.Fatalf("an existing key was overwritten: %v", err)
	}
}
