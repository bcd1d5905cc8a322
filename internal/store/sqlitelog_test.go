package store_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/sallyport-project/sallyport/internal/store"
	"github.com/sallyport-project/sallyport/internal/store/storetest"
)

// TestSQLite_WidensNoLogThatSomebodyWrites who is not this store: zeros would
// cover what stands behind the end by now.
func TestSQLite_WidensNoLogThatSomebodyWrites(t *testing.T) {
	ctx := context.Background()
	cfg := store.Config{Dir: t.TempDir()}
	s := storetest.Open(t, cfg)
	other, err := storetest.Files().DB(t, cfg).Conn(ctx)
	noError(t, err)
	run := func(text string) {
		t.Helper()
		_, err := other.ExecContext(ctx, text)
		noError(t, err)
	}
	size := func() int64 {
		fi, err := os.Stat(filepath.Join(cfg.Dir, "sallyport.db-wal"))
		noError(t, err)
		return fi.Size()
	}
	noError(t, s.Commit(ctx, storetest.Birth(storetest.Subject("a"))))
	run("BEGIN IMMEDIATE")
	before := size()
	if wider, err := s.Widen(); before < store.WALFull && (wider || err != nil) || size() != before {
		t.Errorf("the log of %d bytes has %d while somebody writes (%v), %v", before, size(), wider, err)
	}
	run("ROLLBACK")
	storetest.Eventually(t, "the log is widened", func() bool { return size() > before || before >= store.WALFull })
	run("UPDATE clock SET highest = highest")
	noError(t, other.Close())
	noError(t, s.Commit(ctx, storetest.Birth(storetest.Subject("b"))))
}
