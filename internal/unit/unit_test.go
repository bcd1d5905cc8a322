package unit_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/sallyport-project/sallyport/internal/unit"
)

func TestMoment_IsTheInverseOfMicros(t *testing.T) {
	if unit.Micros(time.Time{}) != 0 || !unit.Moment(0).IsZero() {
		t.Fatal("the zero time is not 0")
	}
	rapid.Check(t, func(r *rapid.T) {
		us := rapid.Int64Range(-1<<50, 1<<52).Draw(r, "us")
		m := unit.Moment(us)
		if unit.Micros(m) != us || us != 0 && m.Location() != time.UTC {
			r.Fatalf("%d became %v", us, m)
		}
		if n := unit.Micros(m.Add(999)); n != us && us != 0 { // below a microsecond is cut off
			r.Fatalf("%d became %d", us, n)
		}
	})
}

func TestWrites_SayWhatMustBeTrueBefore(t *testing.T) {
	o := unit.Outcome{ID: "o", Version: 1, Sealed: []byte{1}, Expires: time.UnixMicro(7)}
	row := []any{"o", int64(1), []byte{1}, int64(7)}
	for name, c := range map[string]struct {
		got       unit.Write
		statement string
		args      []any
		rows      int64
	}{
		"insert": {unit.Insert(o), "outcomes.insert", row, 1},
		"update": {unit.Update(o), "outcomes.update", row, 1},
		"check":  {unit.Check("subjects", "s", 4), "subjects.check", []any{"s", int64(4)}, 1},
		"delete": {unit.Delete("resources", "a/b/c", 2), "resources.delete", []any{"a/b/c", int64(2)}, 1},
		"do":     {unit.Do("nonces.expire", unit.AnyRows, "", int64(5)), "nonces.expire", []any{int64(5)}, -1},
	} {
		if c.got.Statement != c.statement || c.got.Rows != c.rows || (c.got.Conflict == "") != (name == "do") {
			t.Errorf("%s: %+v", name, c.got)
		}
		if d := cmp.Diff(c.args, c.got.Args); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
	var back unit.Outcome
	if err := back.Scan(func(dest ...any) error {
		*dest[0].(*string), *dest[1].(*int64), *dest[2].(*[]byte), *dest[3].(*int64) = "o", 1, []byte{1}, 7
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	o.Expires = o.Expires.UTC()
	if d := cmp.Diff(o, back); d != "" {
		t.Fatal(d)
	}
}
