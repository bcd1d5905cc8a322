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

// pluginValues: plugins whose names begin alike, and publishers, have spaces of their own, keys are
// in the order of their bytes, and changes need no record, but a purge does.
func pluginValues(t *testing.T, e Engine) {
	ctx, s := context.Background(), Open(t, e.Config(t))
	Running(t, s)
	now := time.Now().UTC().Truncate(time.Microsecond)
	names := []string{"tag", "tag-s", "tag0", "tags"}
	spaces := []string{plugin.Space("tag", "rival")}
	for _, name := range names {
		spaces = append(spaces, plugin.Space(name, "acme"))
	}
	keys := []string{"-", "/", "A", "a", "a/b", "aa", "ä", "\U0010ffff"}
	for _, space := range spaces {
		for _, key := range keys {
			v := plugin.Value{Space: space, Key: key, Version: 7, Data: []byte(space + key), Changed: now}
			must(t, s.Commit(ctx, unit.Unit{Writes: []unit.Write{unit.Insert(v)}}))
		}
	}
	if err := s.Commit(ctx, unit.Unit{Writes: []unit.Write{plugin.PurgeValues("tag")}}); !fault.Is(err, fault.Internal) {
		t.Errorf("a purge without a record: %v", err)
	}
	must(t, s.Commit(ctx, unit.Unit{Record: Record("plugin.purged"), Writes: []unit.Write{plugin.PurgeValues("tag")}}))
	for _, space := range spaces {
		want := keys
		if strings.HasPrefix(space, "tag@") {
			want = nil
		}
		got, err := s.PluginKeys(ctx, space, "", 100)
		must(t, err)
		n, err := s.CountPluginKeys(ctx, space)
		must(t, err)
		if d := cmp.Diff(want, got); d != "" || n != int64(len(want)) {
			t.Errorf("%d keys of %s:\n%s", n, space, d)
		}
	}
	got, err := s.PluginKeys(ctx, "tags@acme", "a", 3)
	must(t, err)
	if strings.Join(got, " ") != "a a/b aa" {
		t.Errorf("a page: %q", got)
	}
	v, err := s.PluginValue(ctx, "tags@acme", "a/b")
	must(t, err)
	v.Version++
	v.Data = nil
	must(t, s.Commit(ctx, unit.Unit{Writes: []unit.Write{unit.Update(v)}}))
	if err := s.Commit(ctx, unit.Unit{Writes: []unit.Write{unit.Update(v)}}); !fault.Is(err, fault.Conflict) {
		t.Errorf("a stale update: %v", err)
	}
	must(t, s.Commit(ctx, unit.Unit{Writes: []unit.Write{unit.Delete(v.Table(), plugin.ValueID("tags@acme", "a/b"), v.Version)}}))
	if _, err := s.PluginValue(ctx, "tags@acme", "a/b"); !fault.Is(err, fault.NotFound) {
		t.Errorf("a deleted value: %v", err)
	}
}
