package plugin

import (
	"context"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// Values keeps what plugins put under keys, each in its [Space]. Every call is safe
// for concurrent use. What is not there is NotFound.
type Values interface {
	PluginValue(ctx context.Context, space, key string) (Value, error)
	// PluginKeys lists keys from one on, sorted by bytes, at most so many.
	PluginKeys(ctx context.Context, space, from string, limit int) ([]string, error)
	CountPluginKeys(ctx context.Context, space string) (int64, error)
	Commit(ctx context.Context, u unit.Unit) error
}

// Value is what a plugin keeps under a key: a row of table plugin_values. It is
// not sealed.
type Value struct {
	Space   string
	Key     string
	Version int64 // grows with each change, also over a deletion
	Data    []byte
	Changed time.Time
}

// Space is where a plugin of a publisher keeps its values. After a purge the name
// can be somebody else's, who must not meet what a process of before still writes
// on a node that has not heard of it. Names have neither @ nor slash.
func Space(plugin, publisher string) string { return plugin + "@" + publisher }

// ValueID is the id of the row for a key of a space.
func ValueID(space, key string) string { return space + "/" + key }

// ValueIDs are the bounds of the ids of a space's rows: from the first on, and
// below the end.
func ValueIDs(space string) (first, end string) { return space + "/", space + string('/'+1) }

// PurgeValues removes everything that a plugin keeps, whoever published it.
func PurgeValues(plugin string) unit.Write {
	return unit.Do("plugin_values.purge", unit.AnyRows, "", plugin+"@", plugin+string('@'+1))
}

// Table names the store's table.
func (Value) Table() string { return "plugin_values" }

// Columns gives the row: id, version, value, changed (microseconds).
func (v Value) Columns() []any {
	return []any{ValueID(v.Space, v.Key), v.Version, v.Data, unit.Micros(v.Changed)}
}

// Scan fills the row from columns in the order of [Value.Columns].
func (v *Value) Scan(scan unit.Scanner) error {
	var id string
	var changed int64
	if err := scan(&id, &v.Version, &v.Data, &changed); err != nil {
		return err
	}
	v.Space, v.Key, _ = strings.Cut(id, "/")
	v.Changed = unit.Moment(changed)
	return nil
}

// The limits of a plugin's values.
const (
	mostKeys     = 10_000
	mostKeyBytes = 256
	mostValue    = 64 << 10
	mostListed   = 1000
	valueTries   = 4 // how often a change is made again that somebody overtook
)

// keeper changes values within their limits. Keys are counted and made by one at a
// time for each space; replicas do not wait for one another, and may together be
// over the limit by what they make at the same moment.
type keeper struct {
	values Values
	now    func() time.Time
	making sync.Map // *sync.Mutex, by space
}

func checkKey(key string) error {
	if key == "" {
		return fault.Invalidf("a key has 1 to %d bytes of UTF-8", mostKeyBytes)
	}
	return checkPrefix(key)
}

func checkPrefix(key string) error {
	if len(key) > mostKeyBytes || !utf8.ValidString(key) || strings.Contains(key, "\x00") {
		return fault.Invalidf("a key has 1 to %d bytes of UTF-8, none of them zero", mostKeyBytes)
	}
	return nil
}

// errVersion is the answer to who expected another version.
func errVersion() error { return fault.Conflictf("the key has another version now; read it again") }

// at reads a key; one that is not there has version 0.
func (k *keeper) at(ctx context.Context, space, key string) (Value, error) {
	v, err := k.values.PluginValue(ctx, space, key)
	if fault.Is(err, fault.NotFound) {
		return Value{Space: space, Key: key}, nil
	}
	return v, err
}

// change reads a key, demands the version that was expected, if one was, and
// commits what write makes of it; nil is nothing to do. Without an expectation it
// is repeated when somebody was faster.
func (k *keeper) change(ctx context.Context, space, key string, expected *uint64, write func(old Value) (*unit.Write, error)) error {
	err := errVersion()
	for range valueTries {
		old, failed := k.at(ctx, space, key)
		if failed != nil {
			return failed
		}
		if expected != nil && *expected != uint64(old.Version) { //nolint:gosec // versions are positive
			return errVersion()
		}
		w, failed := write(old)
		if failed != nil || w == nil {
			return failed
		}
		if err = k.values.Commit(ctx, unit.Unit{Writes: []unit.Write{*w}}); !fault.Is(err, fault.Conflict) {
			return err
		}
		if expected != nil {
			return errVersion()
		}
	}
	return err
}

// put writes a key and returns its new version.
func (k *keeper) put(ctx context.Context, space, key string, data []byte, expected *uint64) (int64, error) {
	if err := checkKey(key); err != nil {
		return 0, err
	}
	if len(data) > mostValue {
		return 0, fault.Invalidf("a value has at most %d bytes", mostValue)
	}
	if old, err := k.at(ctx, space, key); err != nil {
		return 0, err
	} else if old.Version == 0 {
		lock, _ := k.making.LoadOrStore(space, &sync.Mutex{})
		making := lock.(*sync.Mutex) //nolint:forcetypeassert // nothing else is stored
		making.Lock()
		defer making.Unlock()
	}
	next := Value{Space: space, Key: key, Data: data}
	err := k.change(ctx, space, key, expected, func(old Value) (*unit.Write, error) {
		next.Changed = k.now().UTC()
		if old.Version > 0 {
			next.Version = old.Version + 1
			w := unit.Update(next)
			return &w, nil
		}
		n, err := k.values.CountPluginKeys(ctx, space)
		if err != nil {
			return nil, err
		}
		if n >= mostKeys {
			return nil, fault.Exhaustedf("a plugin keeps at most %d keys; delete some", mostKeys)
		}
		// Versions begin with the time, so that none comes again after a deletion.
		next.Version = max(1, unit.Micros(next.Changed))
		w := unit.Insert(next)
		return &w, nil
	})
	return next.Version, err
}

// remove deletes a key. One that is not there is removed.
func (k *keeper) remove(ctx context.Context, space, key string, expected *uint64) error {
	if err := checkKey(key); err != nil {
		return err
	}
	return k.change(ctx, space, key, expected, func(old Value) (*unit.Write, error) {
		if old.Version == 0 {
			return nil, nil //nolint:nilnil // there is nothing to do
		}
		w := unit.Delete(old.Table(), ValueID(space, key), old.Version)
		return &w, nil
	})
}

// list gives keys with a prefix after one, and whether there are more.
func (k *keeper) list(ctx context.Context, space, prefix, after string, limit int) (keys []string, more bool, err error) {
	for _, text := range []string{prefix, after} {
		if err := checkPrefix(text); err != nil {
			return nil, false, err
		}
	}
	if limit <= 0 || limit > mostListed {
		limit = mostListed
	}
	found, err := k.values.PluginKeys(ctx, space, max(prefix, after), limit+2) // after itself, and one more
	if err != nil {
		return nil, false, err
	}
	for _, key := range found {
		switch {
		case key == after:
		case !strings.HasPrefix(key, prefix):
			return keys, false, nil
		case len(keys) == limit:
			return keys, true, nil
		default:
			keys = append(keys, key)
		}
	}
	return keys, false, nil
}
