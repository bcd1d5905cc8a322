package store_test

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-project/sallyport/internal/store"
	"github.com/sallyport-project/sallyport/internal/store/storetest"
)

func TestStore_Smoke(t *testing.T) {
	ctx := context.Background()
	s := storetest.Open(t, store.Config{Dir: t.TempDir()})
	sub := storetest.Subject("a")
	if err := s.Commit(ctx, storetest.Birth(sub)); err != nil {
		t.Fatal(err)
	}
	got, err := s.Subject(ctx, sub.ID)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(sub, got); d != "" {
		t.Fatal(d)
	}
	g := storetest.Grant(sub.ID)
	if err := s.Commit(ctx, storetest.Issue(g)); err != nil {
		t.Fatal(err)
	}
	gg, err := s.Grant(ctx, g.ID)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(g, gg); d != "" {
		t.Fatal(d)
	}
	storetest.Running(t, s)
	storetest.Eventually(t, "head", func() bool { h, err := s.Head(ctx); return err == nil && h.Size == 2 })
}
