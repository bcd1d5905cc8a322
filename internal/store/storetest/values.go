package storetest

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// pluginValues: plugins whose names begin alike have spaces of their own, keys are
// in the order of their bytes, and changes need no record, but a purge does.
func pluginValues(t *testing.T, e Engine) {
	ctx, s := context.Background(), Open(t, e.Config(t))
	Running(t, s)
	now := time.Now().UTC().Truncate(time.Microsecond)
	names := []string{"tag", "tag-s", "tag0", "tags"}
	keys := []string{"-", "/", "A", "a", "a/b", "aa", "ä", "\U0010ffff"}
	for _, name := range names {
		for _, key := range keys {
			v := plugin.Value{Plugin: name, Key: key, Version: 7, Data: []byte(name + key), Changed: now}
			must(t, s.Commit(ctx, unit.Unit{Writes: []unit.Write{unit.Insert(v)}}))
		}
	}
	if err := s.Commit(ctx, unit.Unit{Writes: []unit.Write{plugin.PurgeValues("tag")}}); !fault.Is(err, fault.Internal) {
		t.Errorf("a purge without a record: %v", err)
	}
	must(t, s.Commit(ctx, unit.Unit{Record: Record("plugin.purged"), Writes: []unit.Write{plugin.PurgeValues("tag")}}))
	for _, name := range names {
		want := keys
		if name == "tag" {
			want = nil
		}
		got, err := s.PluginKeys(ctx, name, "", 100)
		must(t, err)
		n, err := s.CountPluginKeys(ctx, name)
		must(t, err)
		if d := cmp.Diff(want, got); d != "" || n != int64(len(want)) {
			t.Errorf("%d keys of %s:\n%s", n, name, d)
		}
	}
	got, err := s.PluginKeys(ctx, "tags", "a", 3)
	must(t, err)
	if strings.Join(got, " ") != "a a/b aa" {
		t.Errorf("a page: %q", got)
	}
	v, err := s.PluginValue(ctx, "tags", "a/b")
	must(t, err)
	v.Version++
	v.Data = nil
	must(t, s.Commit(ctx, unit.Unit{Writes: []unit.Write{unit.Update(v)}}))
	if err := s.Commit(ctx, unit.Unit{Writes: []unit.Write{unit.Update(v)}}); !fault.Is(err, fault.Conflict) {
		t.Errorf("a stale update: %v", err)
	}
	must(t, s.Commit(ctx, unit.Unit{Writes: []unit.Write{unit.Delete(v.Table(), plugin.ValueID("tags", "a/b"), v.Version)}}))
	if _, err := s.PluginValue(ctx, "tags", "a/b"); !fault.Is(err, fault.NotFound) {
		t.Errorf("a deleted value: %v", err)
	}
}
