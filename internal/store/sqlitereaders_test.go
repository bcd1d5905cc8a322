package store

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// readersOf opens n read connections to a database with the numbers 1 to 100.
func readersOf(t *testing.T, n int) (r *sqliteReaders, dsn string) {
	t.Helper()
	dsn = "file:" + filepath.Join(t.TempDir(), "x.db")
	w, err := connect(dsn)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		"CREATE TABLE x (n INTEGER PRIMARY KEY, text TEXT NOT NULL, blob BLOB NOT NULL)",
		"WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 100) INSERT INTO x SELECT n, 'text ' || n, x'0102' FROM c",
	} {
		if err := w.exec(text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	if r, err = openReaders(dsn, n); err != nil {
		t.Fatal(err)
	}
	return r, dsn
}

// unread demands that no reader holds a lock: one that did would keep every
// checkpoint from beginning the log anew.
func unread(t *testing.T, dsn, after string) {
	t.Helper()
	w, err := connect(dsn)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.exec("BEGIN EXCLUSIVE"), w.close()); err != nil {
		t.Errorf("after %s somebody reads: %v", after, err)
	}
}

func TestSQLiteReaders_ReadWhatIsThere(t *testing.T) {
	r, _ := readersOf(t, 2)
	defer func() {
		if err := r.close(); err != nil {
			t.Error(err)
		}
	}()
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for range 20 {
				var n uint64
				var text string
				var blob []byte
				var raw sql.RawBytes
				found := 0
				err := r.query(t.Context(), "SELECT n, text, blob, text FROM x WHERE n = $1", []any{i + 1}, func(row foundRow) error {
					found++
					return row.Scan(&n, &text, &blob, &raw)
				})
				if err != nil || found != 1 || n != uint64(i+1) || text != "text "+string(rune('1'+i)) || string(blob) != "\x01\x02" || string(raw) != text {
					t.Errorf("%d: %d rows, %d %q %x %q, %v", i, found, n, text, blob, raw, err)
				}
			}
		})
	}
	all.Wait()
}

// TestSQLiteReaders_GiveConnectionsBack after whatever ended a query, and say what did.
func TestSQLiteReaders_GiveConnectionsBack(t *testing.T) {
	r, dsn := readersOf(t, 1)
	enough := errors.New("enough")
	ctx, cancel := context.WithCancel(t.Context())
	const every = "SELECT n FROM x ORDER BY n"
	for name, c := range map[string]struct {
		ctx  context.Context
		text string
		args []any
		each func(foundRow) error
		want error // nil for any
	}{
		"the function":   {t.Context(), every, nil, func(foundRow) error { return enough }, enough},
		"the context":    {ctx, every, nil, func(foundRow) error { cancel(); return nil }, context.Canceled},
		"no such table":  {t.Context(), "SELECT n FROM y", nil, nil, nil},
		"a wrong kind":   {t.Context(), every, nil, func(row foundRow) error { var s string; return row.Scan(&s) }, nil},
		"too few places": {t.Context(), every, nil, func(row foundRow) error { return row.Scan() }, nil},
		"nothing stored": {t.Context(), "SELECT NULL", nil, func(row foundRow) error { var s string; return row.Scan(&s) }, nil},
		"an argument":    {t.Context(), "SELECT n FROM x WHERE n = $1", []any{struct{}{}}, nil, nil},
	} {
		rows := 0
		err := r.query(c.ctx, c.text, c.args, func(row foundRow) error { rows++; return c.each(row) })
		if err == nil || c.want != nil && !errors.Is(err, c.want) || rows > 1 {
			t.Errorf("%s: %v after %d rows", name, err, rows)
		}
		unread(t, dsn, name)
	}
	func() {
		defer func() { _ = recover() }()
		_ = r.query(t.Context(), every, nil, func(foundRow) error { panic("lost") })
	}()
	unread(t, dsn, "a panic")
	var count int64
	if err := r.query(t.Context(), "SELECT count(*) FROM x", nil, func(row foundRow) error { return row.Scan(&count) }); err != nil || count != 100 {
		t.Errorf("%d rows, %v", count, err)
	}
	// While the only connection is taken others wait, until they are not wanted any more.
	short, end := context.WithTimeout(t.Context(), time.Millisecond)
	defer end()
	err := r.query(t.Context(), "SELECT 1", nil, func(foundRow) error {
		if err := r.query(short, "SELECT 1", nil, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("waited for the connection in use: %v", err)
		}
		return nil
	})
	if err := errors.Join(err, r.close()); err != nil {
		t.Error(err)
	}
	if err := r.query(t.Context(), "SELECT 1", nil, nil); !errors.Is(err, errReadersClosed) {
		t.Errorf("after the end: %v", err)
	}
}

// TestSQLite_CheckpointsWaitForNobody while all who write wait for them: what a
// reader keeps from being copied is copied later.
func TestSQLite_CheckpointsWaitForNobody(t *testing.T) {
	c, err := Config{Dir: t.TempDir()}.checkpointer()
	if err != nil {
		t.Fatal(err)
	}
	n, err := c.numbers("PRAGMA busy_timeout")
	if err := errors.Join(err, c.close()); err != nil || len(n) != 1 || n[0] > 100 {
		t.Errorf("a checkpoint waits for %v ms, %v", n, err)
	}
}

// TestSQLiteReaders_UseTheLastFirst: the connection that has the most pages.
func TestSQLiteReaders_UseTheLastFirst(t *testing.T) {
	r, _ := readersOf(t, 3)
	warm := r.free[len(r.free)-1]
	for range 5 {
		if err := r.query(t.Context(), "SELECT 1", nil, func(foundRow) error {
			if len(r.free) != 2 || r.free[0] == warm || r.free[1] == warm {
				t.Error("another connection was taken")
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.close(); err != nil {
		t.Error(err)
	}
}
