package plugin

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// shelf is Values in memory, with the preconditions of the store.
type shelf struct {
	mu   sync.Mutex
	rows map[string]Value
}

func newShelf() *shelf { return &shelf{rows: map[string]Value{}} }

func (s *shelf) PluginValue(_ context.Context, name, key string) (Value, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.rows[ValueID(name, key)]
	if !ok {
		return v, fault.NotFoundf("there is no such value")
	}
	return v, nil
}

func (s *shelf) ids() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.rows))
}

func (s *shelf) PluginKeys(_ context.Context, name, from string, limit int) ([]string, error) {
	first, end := ValueIDs(name)
	var out []string
	for _, id := range s.ids() {
		if id >= first+from && id < end && len(out) < limit {
			out = append(out, strings.TrimPrefix(id, first))
		}
	}
	return out, nil
}

func (s *shelf) CountPluginKeys(_ context.Context, name string) (int64, error) {
	first, end := ValueIDs(name)
	ids := slices.DeleteFunc(s.ids(), func(id string) bool { return id < first || id >= end })
	return int64(len(ids)), nil
}

func (s *shelf) Commit(_ context.Context, u unit.Unit) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range u.Writes {
		id, _ := w.Args[0].(string)
		version, _ := w.Args[1].(int64)
		old, there := s.rows[id]
		switch verb := strings.TrimPrefix(w.Statement, "plugin_values."); {
		case verb == "insert" && there, verb == "update" && old.Version != version-1, verb == "delete" && old.Version != version:
			return fault.Conflictf("%s", w.Conflict)
		case verb == "delete":
			delete(s.rows, id)
		default:
			space, key, _ := strings.Cut(id, "/")
			data, _ := w.Args[2].([]byte)
			s.rows[id] = Value{Space: space, Key: key, Version: version, Data: data}
		}
	}
	return nil
}

// ticking is a clock of which no two readings are equal.
func ticking() func() time.Time {
	at := time.Unix(1_800_000_000, 0)
	var mu sync.Mutex
	return func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		at = at.Add(time.Second)
		return at
	}
}

// Two plugins, of which one's name begins with the other's, do what a map of their
// own would do, and never see or change each other's keys.
func TestKeeper_IsAMapOfEachPlugin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := &keeper{values: newShelf(), now: ticking()}
		names := []string{"tag", "tag-s", "tags"}
		model := map[string]map[string]string{"tag": {}, "tag-s": {}, "tags": {}}
		key := rapid.SampledFrom([]string{"a", "a/b", "/", "s/a", "-s/a", "ab", "b", "\xf4\x8f\xbf\xbf"})
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			name, key := rapid.SampledFrom(names).Draw(t, "plugin"), key.Draw(t, "key")
			mine := model[name]
			switch rapid.IntRange(0, 2).Draw(t, "verb") {
			case 0:
				data := rapid.String().Draw(t, "data")
				if _, err := k.put(t.Context(), name, key, []byte(data), nil); err != nil {
					t.Fatal(err)
				}
				mine[key] = data
			case 1:
				if err := k.remove(t.Context(), name, key, nil); err != nil {
					t.Fatal(err)
				}
				delete(mine, key)
			default:
				listed(t, k, name, mine, rapid.SampledFrom([]string{"", "a", "/", "-"}).Draw(t, "prefix"), key)
			}
			for _, n := range names {
				if v, err := k.at(t.Context(), n, key); err != nil || string(v.Data) != model[n][key] {
					t.Fatalf("%s has %q under %q, %v; want %q", n, v.Data, key, err, model[n][key])
				}
			}
		}
	})
}

// listed compares a page of keys with what it must be.
func listed(t *rapid.T, k *keeper, name string, mine map[string]string, prefix, after string) {
	var want []string
	for _, key := range slices.Sorted(maps.Keys(mine)) {
		if strings.HasPrefix(key, prefix) && key > after {
			want = append(want, key)
		}
	}
	limit := rapid.IntRange(1, 3).Draw(t, "limit")
	got, more, err := k.list(t.Context(), name, prefix, after, limit)
	if err != nil || more != (len(want) > limit) || !slices.Equal(got, want[:min(limit, len(want))]) {
		t.Fatalf("keys of %s with %q after %q: %q, %v, %v; all are %q", name, prefix, after, got, more, err, want)
	}
}

// A plugin that has all its keys gets no further one, changes those that it has,
// and takes nobody else's room; at once or in a row.
func TestKeeper_CountsKeys(t *testing.T) {
	s := newShelf()
	k := &keeper{values: s, now: ticking()}
	for n := range mostKeys - 10 {
		key := fmt.Sprintf("key-%d", n)
		s.rows[ValueID("full", key)] = Value{Space: "full", Key: key, Version: 1}
	}
	var wait sync.WaitGroup
	var mu sync.Mutex
	made := 0
	for n := range 50 {
		wait.Go(func() {
			_, err := k.put(context.Background(), "full", fmt.Sprintf("more-%d", n), nil, nil)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				made++
			case !fault.Is(err, fault.Exhausted):
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if made != 10 {
		t.Errorf("%d keys were made, there was room for 10", made)
	}
	if _, err := k.put(t.Context(), "full", "key-1", []byte("new"), nil); err != nil {
		t.Errorf("a key that is there: %v", err)
	}
	if _, err := k.put(t.Context(), "other", "key-1", nil, nil); err != nil {
		t.Errorf("another plugin: %v", err)
	}
}

// Of many who count up at once each is counted, and nobody loses a change.
func TestKeeper_SwapsOnce(t *testing.T) {
	k := &keeper{values: newShelf(), now: ticking()}
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			for done := 0; done < 20; {
				old, err := k.at(context.Background(), "p", "n")
				if err != nil {
					t.Error(err)
					return
				}
				version := uint64(old.Version)
				_, err = k.put(context.Background(), "p", "n", append(old.Data[:len(old.Data):len(old.Data)], 'x'), &version)
				if err == nil {
					done++
				} else if !fault.Is(err, fault.Conflict) {
					t.Error(err)
					return
				}
			}
		})
	}
	wait.Wait()
	if v, err := k.at(t.Context(), "p", "n"); err != nil || len(v.Data) != 160 {
		t.Errorf("%d changes, %v", len(v.Data), err)
	}
}
