package storetest

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/resource"
	"github.com/sallyport-project/sallyport/internal/store"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// deletedResources are not served and not listed, and their versions go on.
func deletedResources(t *testing.T, e Engine) {
	ctx, s := context.Background(), Open(t, e.Config(t))
	now := time.Now().UTC().Truncate(time.Microsecond)
	kept := resource.Resource{ID: "a/b/c", Version: 1, Sealed: []byte("x"), Author: "o", Created: now, Changed: now}
	gone := resource.Resource{ID: "a/b/d", Version: 1, Sealed: []byte("x"), Author: "o", Created: now, Changed: now}
	must(t, s.Commit(ctx, insert(kept)))
	must(t, s.Commit(ctx, insert(gone)))
	left := gone.Delete("o", now)
	must(t, s.Commit(ctx, unit.Unit{Writes: []unit.Write{unit.Update(left)}, Record: Record("resource.deleted")}))
	if _, err := s.Resource(ctx, gone.ID); !fault.Is(err, fault.NotFound) {
		t.Errorf("a deleted resource is served: %v", err)
	}
	if _, err := s.LastResource(ctx, "a/b/e"); !fault.Is(err, fault.NotFound) {
		t.Errorf("a resource that never was is there: %v", err)
	}
	last, err := s.LastResource(ctx, gone.ID)
	if d := cmp.Diff(left, last, cmpopts.EquateEmpty()); err != nil || d != "" {
		t.Errorf("what is left of a deleted resource: %v\n%s", err, d)
	}
	for _, prefix := range []string{"", "a/b/"} {
		if list, err := s.Resources(ctx, prefix, "", 10); err != nil || len(list) != 1 || list[0].ID != kept.ID {
			t.Errorf("listed below %q: %v, %v", prefix, list, err)
		}
	}
	want(t, s.Commit(ctx, insert(gone)), fault.Conflict) // it cannot begin at version 1 again
	olderVersions(t, s, now)
}

// olderVersions are listed by number, the newest first, those of one path alone,
// and lose their values when they are erased.
func olderVersions(t *testing.T, s *store.Store, now time.Time) {
	ctx := context.Background()
	for _, path := range []string{"a/b/d", "a/b/d-", "a/b/dd"} {
		for n := range int64(11) {
			v := resource.Version{Path: path, Number: n + 1, Sealed: []byte("x"), Bytes: 1, Author: "o", At: now, Deleted: n == 3}
			must(t, s.Commit(ctx, insert(v)))
		}
	}
	erase := unit.Do("resource_versions.erase", unit.AnyRows, "", resource.VersionID("a/b/d", 2), resource.VersionID("a/b/d", 10))
	must(t, s.Commit(ctx, unit.Unit{Writes: []unit.Write{erase}, Record: Record("resource.deleted")}))
	list, err := s.ResourceVersions(ctx, "a/b/d", 12, 100)
	if err != nil || len(list) != 11 {
		t.Fatalf("%d older versions, %v", len(list), err)
	}
	for i, v := range list {
		n := int64(11 - i)
		if v.Path != "a/b/d" || v.Number != n || v.Deleted != (n == 4) || (len(v.Sealed) > 0) != (n == 1 || n == 11) || v.Bytes != 1 || !v.At.Equal(now) {
			t.Errorf("at place %d: %+v", i, v)
		}
	}
	if list, err := s.ResourceVersions(ctx, "a/b/d", 10, 2); err != nil || len(list) != 2 || list[0].Number != 9 || list[1].Number != 8 {
		t.Errorf("the two below 10: %+v, %v", list, err)
	}
	if v, err := s.ResourceVersion(ctx, "a/b/dd", 2); err != nil || string(v.Sealed) != "x" {
		t.Errorf("erasing took another path's value: %v", err)
	}
	_, err = s.ResourceVersion(ctx, "a/b/d", 12)
	want(t, err, fault.NotFound)
}
