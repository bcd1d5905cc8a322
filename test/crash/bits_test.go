package crash

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/store"
	"github.com/sallyport-project/sallyport/internal/store/storetest"
	"github.com/sallyport-project/sallyport/internal/subject"
)

// TestBits_FlippedBitsAreNeverServed flips bits of a database file, and tears
// sectors of it. What is served of grants, subjects and records afterwards must
// be what was stored; anything else must be an error or an absence.
func TestBits_FlippedBitsAreNeverServed(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	s := storetest.Open(t, config(dir, ""))
	stop := storetest.Running(t, s)
	for c := range 2 {
		noError(t, commits(ctx, s, c, 60, func(string) {}))
	}
	storetest.Eventually(t, "the ledger has all", func() bool {
		n, err := s.PendingCount(ctx)
		return err == nil && n == 0
	})
	stop()
	good := everything(t, s)
	storetest.Close(t, s)
	name := filepath.Join(dir, "sallyport.db")
	data, err := os.ReadFile(name)
	noError(t, err)
	note, err := os.ReadFile(filepath.Join(dir, "last-checkpoint"))
	noError(t, err)

	chance := rand.New(rand.NewPCG(7, 7))
	detected := 0
	for round := range 2 * *rounds {
		bad := append([]byte{}, data...)
		if round%4 == 0 { // a torn write: a sector of zeros
			at := chance.IntN(len(bad)/sector) * sector
			clear(bad[at : at+sector])
		} else {
			bad[chance.IntN(len(bad))] ^= 1 << chance.IntN(8)
		}
		other := t.TempDir()
		noError(t, os.WriteFile(filepath.Join(other, "sallyport.db"), bad, 0o600))
		noError(t, os.WriteFile(filepath.Join(other, "last-checkpoint"), note, 0o600))
		if damaged(t, config(other, ""), good) {
			detected++
		}
		noError(t, os.RemoveAll(other))
	}
	t.Logf("%d of %d damages were noticed, the others hit nothing that is served", detected, 2**rounds)
	if detected == 0 {
		t.Error("no damage was noticed at all")
	}
}

// stored is what a store serves, by kind and id.
type stored map[string]any

func everything(t *testing.T, s *store.Store) stored {
	t.Helper()
	all := stored{}
	if err := all.read(s); err != nil {
		t.Fatal(err)
	}
	return all
}

// read reads row by row, so that one damaged row does not hide the others.
func (all stored) read(s *store.Store) error {
	ctx := context.Background()
	var first error
	keep := func(err error) {
		if first == nil {
			first = err
		}
	}
	subjects, err := s.Subjects(ctx, subject.Filter{})
	keep(err)
	for _, v := range subjects {
		all["subject "+v.ID] = v
	}
	grants, err := s.Grants(ctx, grant.Filter{})
	keep(err)
	for _, v := range grants {
		all["grant "+v.ID] = v
		one, err := s.Grant(ctx, v.ID)
		keep(err)
		if err == nil {
			all["grant "+v.ID] = one
		}
	}
	for from := uint64(0); from < 300; from += 10 {
		records, err := s.Records(ctx, audit.Filter{From: from, Limit: 10})
		keep(err)
		for _, e := range records {
			if e.Position < from+10 {
				all["record "+string(rune(e.Position))] = string(e.Leaf)
			}
		}
	}
	return first
}

// damaged opens a damaged database and reports whether anything was noticed.
// Something wrong that is served fails the test.
func damaged(t *testing.T, cfg store.Config, good stored) bool {
	t.Helper()
	ctx := context.Background()
	s, err := store.Open(ctx, cfg)
	if err != nil {
		return true
	}
	defer func() { _ = s.Close(ctx) }()
	s.UseMAC(storetest.MAC{})
	signer, keys, err := storetest.NewSigner()
	noError(t, err)
	noticed := s.UseSigner(ctx, signer, keys) != nil
	got := stored{}
	noticed = got.read(s) != nil || noticed
	for k, v := range got {
		if d := cmp.Diff(good[k], v); d != "" {
			t.Fatalf("%s was served damaged:\n%s", k, d)
		}
	}
	return noticed || len(got) != len(good)
}
