package app

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/id"
	"github.com/sallyport-project/sallyport/internal/keys"
	"github.com/sallyport-project/sallyport/internal/keys/file"
	"github.com/sallyport-project/sallyport/internal/store"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// Rewrapped is what [Rewrap] did.
type Rewrapped struct {
	File string   `json:"file"`    // of the new key
	New  string   `json:"new_key"` // id
	Old  string   `json:"old_key"` // id
	Keys []string `json:"keys"`    // ids of the keys that were wrapped anew; none if all were
}

// Rewrap changes the key encryption key of an installation that is not running.
// The new key file is made unless it exists. Everything that a key encryption key
// wraps itself is wrapped anew in one unit, which is recorded: an interrupted call
// has changed nothing or all, and may be repeated. The old file is left alone.
func Rewrap(ctx context.Context, c Config, newFile string) (Rewrapped, error) {
	path, err := filepath.Abs(newFile)
	if err != nil {
		return Rewrapped{}, fault.Invalidf("the path of the new key file cannot be resolved").Because(err)
	}
	present, err := file.Load(file.Config{Path: c.KEK.File, Old: c.KEK.Old, DataDir: c.DataDir})
	if err != nil {
		return Rewrapped{}, err
	}
	fresh := file.Config{Path: path, DataDir: c.DataDir}
	if _, err := file.Create(fresh); err != nil && !fault.Is(err, fault.Conflict) {
		return Rewrapped{}, err
	}
	fresh.Old = append([]string{c.KEK.File}, c.KEK.Old...)
	kek, err := file.Load(fresh)
	if err != nil {
		return Rewrapped{}, err
	}
	out := Rewrapped{File: path, New: kek.ID(), Old: present.ID(), Keys: []string{}}
	if out.New == out.Old {
		return out, fault.Conflictf("%s holds the key that is in use already: name another file", path)
	}
	c.KEK = KEK{File: path, Old: fresh.Old}
	st, ring, err := openData(ctx, c, nil)
	if err != nil {
		return out, err
	}
	err = rewrap(ctx, st, ring.vault, &out)
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if closed := st.Close(closing); err == nil {
		err = closed
	}
	return out, err
}

func rewrap(ctx context.Context, st *store.Store, vault *keys.Vault, out *Rewrapped) error {
	generation, err := st.Generation(ctx, "keys")
	if err != nil {
		return err
	}
	rows, err := st.Keys(ctx)
	if err != nil {
		return err
	}
	record := audit.Record{
		Version: 1, ID: id.New(), Type: "key.rewrapped", At: time.Now().UTC().Truncate(time.Microsecond), Outcome: audit.Done,
		Actor: audit.System("rewrap"), Target: out.New, Data: map[string]string{"old": out.Old, "uid": strconv.Itoa(os.Getuid())},
	}
	writes := []unit.Write{unit.Do("generations.bump", 1, "the keys have changed: a server is running, stop it", "keys", generation)}
	for _, k := range rows {
		if !k.Wrapped() || file.WrappedBy(k.Sealed) == out.New {
			continue
		}
		next, err := vault.Advance(ctx, k, k.State, time.Time{})
		if err != nil {
			return fault.Wrap(err, "wrap %s key %s anew", k.Purpose, k.ID)
		}
		writes = append(writes, unit.Update(next))
		record.Data["key."+k.ID] = string(k.Purpose)
		out.Keys = append(out.Keys, k.ID)
	}
	if len(out.Keys) == 0 {
		return nil
	}
	return st.Commit(ctx, unit.Unit{Writes: writes, Record: record})
}
