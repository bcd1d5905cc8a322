package resource_test

import (
	"cmp"
	"reflect"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/resource"
	"github.com/sallyport-project/sallyport/internal/unit"
)

func TestParsePath_TakesThreePlainSegments(t *testing.T) {
	for _, path := range []string{"default/key/1", "A_b-c.d/type/tag", "0/1/2", strings.Repeat("a", 128) + "/b/c"} {
		got, err := resource.ParsePath(strings.Split(path, "/"))
		if err != nil || got != path {
			t.Errorf("%q gave %q, %v", path, got, err)
		}
	}
	for _, path := range []string{
		"", "a", "a/b", "a/b/c/d", "a//c", "/b/c", "a/b/", "../b/c", "a/./c", "a/..c/d", "a/.hidden/c", "a b/c/d", "a%2fb/c/d",
		"a\x00/b/c", "ä/b/c", "a\\b/c/d", "a:b/c/d", strings.Repeat("a", 129) + "/b/c",
	} {
		if got, err := resource.ParsePath(strings.Split(path, "/")); !fault.Is(err, fault.Invalid) || got != "" {
			t.Errorf("%q gave %q, %v", path, got, err)
		}
	}
	if _, err := resource.ParsePath([]string{"a/b", "c", "d"}); !fault.Is(err, fault.Invalid) {
		t.Errorf("a decoded slash gave %v", err)
	}
}

func FuzzParsePath(f *testing.F) {
	f.Add("a", "b", "c")
	f.Add("..", "b/c", "\x00")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		got, err := resource.ParsePath([]string{a, b, c})
		if err != nil {
			return
		}
		if got != a+"/"+b+"/"+c || strings.Count(got, "/") != 2 || strings.Contains(got, "..") && strings.HasPrefix(got, ".") {
			t.Fatalf("took %q", got)
		}
		for _, s := range strings.Split(got, "/") {
			if s == "" || s[0] == '.' || len(s) > 128 {
				t.Fatalf("took the segment %q", s)
			}
		}
	})
}

// scan gives columns back to whoever scans them.
func scan(columns []any) unit.Scanner {
	return func(dest ...any) error {
		for i, c := range columns {
			reflect.ValueOf(dest[i]).Elem().Set(reflect.ValueOf(c))
		}
		return nil
	}
}

func TestResource_ComesBackAsItWas(t *testing.T) {
	now := time.UnixMicro(1_700_000_000_123_456).UTC()
	r := resource.Resource{ID: "a/b/c", Version: 2, Sealed: []byte{1}, Bytes: 7, Author: "x", Created: now, Changed: now, Deleted: now}
	var back resource.Resource
	if err := back.Scan(scan(r.Columns())); err != nil {
		t.Fatal(err)
	}
	if d := gocmp.Diff(r, back); d != "" {
		t.Fatal(d)
	}
	past, was := r.Past(true), resource.Version{}
	if err := was.Scan(scan(past.Columns())); err != nil {
		t.Fatal(err)
	}
	if d := gocmp.Diff(resource.Version{Path: "a/b/c", Number: 2, Sealed: []byte{1}, Bytes: 7, Author: "x", At: now, Deleted: true}, was); d != "" {
		t.Fatal(d)
	}
	if got := r.Past(false); got.Sealed != nil || got.Bytes != 7 {
		t.Fatalf("without its value: %+v", got)
	}
	for _, name := range []string{"a/b/c", "a/b/c@", "a/b/c@x"} {
		columns := past.Columns()
		columns[0] = name
		if err := was.Scan(scan(columns)); !fault.Is(err, fault.Internal) {
			t.Errorf("%q was read: %v", name, err)
		}
	}
}

// Ids of versions sort by number, and each path's lie together.
func TestVersionID_Sorts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.Int64Range(0, 1e12-1).Draw(t, "a"), rapid.Int64Range(0, 1e12-1).Draw(t, "b")
		if got := strings.Compare(resource.VersionID("a/b/c", a), resource.VersionID("a/b/c", b)); got != cmp.Compare(a, b) {
			t.Fatalf("%d and %d compare %d", a, b, got)
		}
		other := "a/b/c" + rapid.StringMatching(`[A-Za-z0-9_.-]{1,3}`).Draw(t, "suffix")
		if id := resource.VersionID(other, a); id >= resource.VersionID("a/b/c", 0) && id <= resource.VersionID("a/b/c", 1e12-1) {
			t.Fatalf("%s lies among those of a/b/c", id)
		}
	})
}

func TestResource_Delete_LeavesAVersionAndNoValue(t *testing.T) {
	now := time.UnixMicro(1_700_000_000_123_456).UTC()
	r := resource.Resource{ID: "a/b/c", Version: 2, Sealed: []byte{1}, Author: "x", Created: now, Changed: now}
	want := resource.Resource{ID: "a/b/c", Version: 3, Author: "y", Created: now, Changed: now.Add(1), Deleted: now.Add(1)}
	if d := gocmp.Diff(want, r.Delete("y", now.Add(1))); d != "" {
		t.Fatal(d)
	}
}
