package resource_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/resource"
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

func TestResource_ComesBackAsItWas(t *testing.T) {
	now := time.UnixMicro(1_700_000_000_123_456).UTC()
	r := resource.Resource{ID: "a/b/c", Version: 2, Sealed: []byte{1}, Author: "x", Created: now, Changed: now, Deleted: now}
	columns := r.Columns()
	var back resource.Resource
	if err := back.Scan(func(dest ...any) error {
		*dest[0].(*string), *dest[1].(*int64), *dest[2].(*[]byte) = columns[0].(string), columns[1].(int64), columns[2].([]byte)
		*dest[3].(*string), *dest[4].(*int64), *dest[5].(*int64) = columns[3].(string), columns[4].(int64), columns[5].(int64)
		*dest[6].(*int64) = columns[6].(int64)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(r, back); d != "" {
		t.Fatal(d)
	}
}

func TestResource_Delete_LeavesAVersionAndNoValue(t *testing.T) {
	now := time.UnixMicro(1_700_000_000_123_456).UTC()
	r := resource.Resource{ID: "a/b/c", Version: 2, Sealed: []byte{1}, Author: "x", Created: now, Changed: now}
	want := resource.Resource{ID: "a/b/c", Version: 3, Author: "y", Created: now, Changed: now.Add(1), Deleted: now.Add(1)}
	if d := cmp.Diff(want, r.Delete("y", now.Add(1))); d != "" {
		t.Fatal(d)
	}
}
