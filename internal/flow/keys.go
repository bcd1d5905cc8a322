package flow

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/keys"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// Keyring makes, replaces and judges the keys of the house. The rows that it
// gets were read after the generation that the unit checks.
type Keyring interface {
	// Turn makes the next key of a purpose. Facts go into the record.
	Turn(ctx context.Context, rows []keys.Key, purpose keys.Purpose) (turn keys.Rotation, facts map[string]string, err error)
	// Bound says until when, or why, something that the key made still needs it;
	// empty if nothing does.
	Bound(ctx context.Context, rows []keys.Key, k keys.Key) (string, error)
	// Retire gives the key's last version.
	Retire(ctx context.Context, k keys.Key) (keys.Key, error)
	// Reload makes this replica use the rows that are in the store now.
	Reload(ctx context.Context) error
}

// KeyState is a key and what it does now.
type KeyState struct {
	keys.Key
	Signs bool // it is the one of its purpose that signs, seals or writes
}

// Keys lists the keys of the house, by purpose, the youngest first. Private
// parts are left out.
func (g *Gate) Keys(ctx context.Context, c Caller) ([]KeyState, error) {
	record := audit.Record{Type: "key.listed", Actor: c.actor()}
	if _, err := g.inspected(ctx, c, "list", record, "key", ""); err != nil {
		return nil, err
	}
	rows, err := g.Store.Keys(ctx)
	if err != nil {
		return nil, fault.Wrap(err, "read keys")
	}
	return keyStates(rows, g.Now()), nil
}

func keyStates(rows []keys.Key, now time.Time) []KeyState {
	slices.SortFunc(rows, func(a, b keys.Key) int {
		if a.Purpose != b.Purpose {
			if a.Purpose < b.Purpose {
				return -1
			}
			return 1
		}
		if c := b.Created.Compare(a.Created); c != 0 {
			return c
		}
		if a.ID > b.ID {
			return -1
		}
		return 1
	})
	out := make([]KeyState, 0, len(rows))
	for _, k := range rows {
		k.Sealed = nil
		out = append(out, KeyState{Key: k, Signs: signing(rows, k.Purpose, now) == k.ID})
	}
	return out
}

// signing is the id of the key of a purpose that signs now, empty if none does.
func signing(rows []keys.Key, purpose keys.Purpose, now time.Time) string {
	ring, err := keys.NewRing(purpose, rows)
	if err != nil {
		return ""
	}
	k, err := ring.Signing(now)
	if err != nil {
		return ""
	}
	return k.ID
}

// RotateKey replaces the signing key of a purpose. What the old one signed stays
// good to its own end. When somebody else has rotated it in between, the call is
// a Conflict and changes nothing: one rotation was wanted. The answer has no
// private part, sealed or not.
func (g *Gate) RotateKey(ctx context.Context, c Caller, purpose keys.Purpose) (keys.Rotation, error) {
	if !purpose.Valid() {
		return keys.Rotation{}, fault.NotFoundf("there is no purpose %.40q; see: sallyport key list", string(purpose))
	}
	var turn keys.Rotation
	first := ""
	c.keyed(audit.KeyRotated, plainAnswer[keys.Rotation]{&turn, keyRetired}, string(purpose))
	err := g.decide(ctx, &c, func() (unit.Unit, error) {
		r := audit.Record{Type: audit.KeyRotated, Actor: c.actor(), Target: string(purpose)}
		d, err := g.administered(ctx, c, "rotate", r, "key", string(purpose))
		if err != nil {
			return unit.Unit{}, err
		}
		generation, rows, err := g.readKeys(ctx)
		if err != nil {
			return unit.Unit{}, err
		}
		switch newest := newestKey(rows, purpose); first {
		case "", newest:
			first = newest
		default:
			return unit.Unit{}, fault.Conflictf("the %s key was rotated by somebody else just now; see: sallyport key list", purpose)
		}
		r.Policy = d.Documents
		u, made, err := g.turnKey(ctx, rows, purpose, generation, r)
		turn = withoutPrivate(made)
		u.Writes = append(u.Writes, g.still(c, d.under)...)
		return u, err
	})
	if err != nil {
		return keys.Rotation{}, err
	}
	return turn, g.reloadKeys(ctx)
}

// withoutPrivate is a rotation as it is shown.
func withoutPrivate(r keys.Rotation) keys.Rotation {
	bare := func(all []keys.Key) []keys.Key {
		all = slices.Clone(all)
		for i := range all {
			all[i].Sealed = nil
		}
		return all
	}
	r.Fresh.Sealed = nil
	return keys.Rotation{Fresh: r.Fresh, Under: bare(r.Under), Changed: bare(r.Changed)}
}

// keyRetired refuses to say again that a key is new which was retired since.
func keyRetired(ctx context.Context, g *Gate, was keys.Rotation) error {
	rows, err := g.Store.Keys(ctx)
	if err != nil {
		return fault.Wrap(err, "read keys")
	}
	if !slices.ContainsFunc(rows, func(k keys.Key) bool { return k.ID == was.Fresh.ID && k.State != keys.Retired }) {
		return gone("the key was retired")
	}
	return nil
}

// readKeys reads the keys after the generation they are checked against.
func (g *Gate) readKeys(ctx context.Context) (int64, []keys.Key, error) {
	generation, err := g.Store.Generation(ctx, "keys")
	if err != nil {
		return 0, nil, fault.Wrap(err, "read generation of keys")
	}
	rows, err := g.Store.Keys(ctx)
	return generation, rows, fault.Wrap(err, "read keys")
}

// newestKey is the id of the youngest key of a purpose.
func newestKey(rows []keys.Key, purpose keys.Purpose) string {
	var newest keys.Key
	for _, k := range rows {
		if k.Purpose == purpose && (newest.ID == "" || k.Created.After(newest.Created) || k.Created.Equal(newest.Created) && k.ID > newest.ID) {
			newest = k
		}
	}
	return newest.ID
}

// turnKey is the unit of one rotation, whoever asks for it.
func (g *Gate) turnKey(ctx context.Context, rows []keys.Key, purpose keys.Purpose, generation int64, r audit.Record) (unit.Unit, keys.Rotation, error) {
	turn, facts, err := g.Keyring.Turn(ctx, rows, purpose)
	if err != nil {
		return unit.Unit{}, turn, err
	}
	r.Data = map[string]string{"key": turn.Fresh.ID, "algorithm": string(turn.Fresh.Algorithm)}
	maps.Copy(r.Data, facts)
	if !turn.Fresh.SignsFrom.IsZero() {
		r.Data["signs_from"] = turn.Fresh.SignsFrom.Format(time.RFC3339)
	}
	writes := []unit.Write{keysMoved(generation), unit.Insert(turn.Fresh)}
	for _, k := range turn.Under {
		writes = append(writes, unit.Insert(k))
		r.Data["key."+string(k.Purpose)] = k.ID
	}
	for _, k := range turn.Changed {
		writes = append(writes, unit.Update(k))
		r.Data[string(k.State)+"."+k.ID] = string(k.Purpose)
	}
	return unit.Unit{Record: r, Writes: writes}, turn, nil
}

// keysMoved lets one change of the keys commit at a time, on any replica, and
// tells all of them.
func keysMoved(generation int64) unit.Write {
	return unit.Do("generations.bump", 1, "the keys have changed, try again", "keys", generation)
}

// RetireKey ends a key that no longer signs. Without force, only one that
// nothing good needs any more goes, all else is a Conflict that says until when;
// with force, what it signed is not believed from then on. Keys that sign, and
// those that rows are read by, never go; one of the ledger goes when a newer one
// has signed the head.
func (g *Gate) RetireKey(ctx context.Context, c Caller, id string, force bool) (keys.Key, error) {
	var next keys.Key
	c.keyed("key.retired", plainAnswer[keys.Key]{to: &next}, id, strconv.FormatBool(force))
	err := g.decide(ctx, &c, func() (unit.Unit, error) {
		r := audit.Record{Type: "key.retired", Actor: c.actor(), Target: id}
		d, err := g.administered(ctx, c, "retire", r, "key", id)
		if err != nil {
			return unit.Unit{}, err
		}
		generation, rows, err := g.readKeys(ctx)
		if err != nil {
			return unit.Unit{}, err
		}
		at := slices.IndexFunc(rows, func(k keys.Key) bool { return k.ID == id })
		if at < 0 {
			return unit.Unit{}, fault.NotFoundf("there is no such key; see: sallyport key list")
		}
		if err := g.mayRetire(ctx, rows, rows[at], force); err != nil {
			return unit.Unit{}, err
		}
		r.Policy = d.Documents
		u, err := g.retireKey(ctx, rows[at], force, generation, r)
		if err != nil {
			return unit.Unit{}, err
		}
		next = rows[at]
		next.Version, next.State, next.Sealed = next.Version+1, keys.Retired, nil
		u.Writes = append(u.Writes, g.still(c, d.under)...)
		return u, nil
	})
	if err != nil {
		return keys.Key{}, err
	}
	return next, g.reloadKeys(ctx)
}

func (g *Gate) mayRetire(ctx context.Context, rows []keys.Key, k keys.Key, force bool) error {
	switch {
	case k.State == keys.Retired:
		return fault.Conflictf("key %s is retired already", k.ID)
	case k.State == keys.Active || signing(rows, k.Purpose, g.Now()) == k.ID:
		return fault.Conflictf("key %s is in use: replace it first, with: sallyport key rotate %s", k.ID, k.Purpose)
	case k.Purpose == keys.RowMAC || k.Purpose == keys.Root:
		return fault.Conflictf("key %s stays: rows of the store are read by it", k.ID)
	}
	if k.Purpose == keys.Ledger {
		if err := g.ledgerTurned(ctx, rows, k); err != nil {
			return err
		}
	}
	if force {
		return nil
	}
	why, err := g.Keyring.Bound(ctx, rows, k)
	if err != nil {
		return err
	}
	if why != "" {
		return fault.Conflictf("key %s is still needed: %s; --force retires it all the same, and what it made is not believed any more", k.ID, why)
	}
	return nil
}

// ledgerTurned demands that a key of the ledger has signed its last checkpoint:
// the head is signed by a newer one. Records that wait ahead of the rotation's can
// have their place by the old key only, so nobody can destroy it before.
func (g *Gate) ledgerTurned(ctx context.Context, rows []keys.Key, k keys.Key) error {
	head, err := g.Store.Head(ctx)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return fault.Wrap(err, "read head")
	}
	for _, r := range rows {
		if r.Purpose == keys.Ledger && r.Created.After(k.Created) && head.SignedBy(r.Public) {
			return nil
		}
	}
	return fault.Conflictf("key %s is in use: the integrator still needs it, try again in a moment", k.ID)
}

// retireKey is the unit that ends a key, whoever asks for it. It takes something
// away, and may use reserved space.
func (g *Gate) retireKey(ctx context.Context, k keys.Key, force bool, generation int64, r audit.Record) (unit.Unit, error) {
	next, err := g.Keyring.Retire(ctx, k)
	if err != nil {
		return unit.Unit{}, err
	}
	r.Data = map[string]string{"purpose": string(k.Purpose), "force": strconv.FormatBool(force)}
	return unit.Unit{Urgent: true, Record: r, Writes: []unit.Write{keysMoved(generation), unit.Update(next)}}, nil
}

// reloadKeys makes a change of keys act here. It is committed already, so a
// failure says that this replica is behind, and is repeated in the background.
func (g *Gate) reloadKeys(ctx context.Context) error {
	if err := g.Keyring.Reload(ctx); err != nil {
		return fault.Unavailablef("the change of keys is committed, and this server cannot use it yet: look at its log").Because(err)
	}
	return nil
}

// TendKeys rotates each key whose period is over, and retires those that
// nothing needs any more, by the same units as an operator does. Two replicas
// that do it at once change a key once: the slower one misses the check and finds
// nothing to do.
func (g *Gate) TendKeys(ctx context.Context) error {
	if err := g.Clock.CheckClock(ctx); err != nil {
		return err
	}
	changed := false
	for {
		generation, rows, err := g.readKeys(ctx)
		if err != nil {
			return err
		}
		u, found, err := g.tend(ctx, generation, rows)
		if err != nil {
			return err
		}
		if !found {
			break
		}
		if err := g.commit(ctx, u); err != nil && !fault.Is(err, fault.Conflict) {
			return err
		}
		changed = true
	}
	if changed {
		return g.reloadKeys(ctx)
	}
	return nil
}

// tend is the unit of the first thing that is to do. One purpose that cannot be
// rotated keeps no other from it.
func (g *Gate) tend(ctx context.Context, generation int64, rows []keys.Key) (unit.Unit, bool, error) {
	actor := audit.System("keys")
	for _, purpose := range slices.Sorted(maps.Keys(g.KeyPeriods)) {
		ring, err := keys.NewRing(purpose, rows)
		if err != nil {
			return unit.Unit{}, false, err
		}
		if !ring.Due(g.Now(), g.KeyPeriods[purpose]) {
			continue
		}
		u, _, err := g.turnKey(ctx, rows, purpose, generation, audit.Record{
			Type: audit.KeyRotated, Actor: actor, Target: string(purpose), Reasons: []string{"its period of " + g.KeyPeriods[purpose].String() + " is over"},
		})
		if err == nil {
			return u, true, nil
		}
		g.Log.ErrorContext(ctx, "a key whose period is over was not rotated", slog.Any("purpose", purpose), slog.Any("err", err))
	}
	for _, k := range rows {
		// Who trusts a root is known to nobody here: an operator decides.
		if k.State != keys.Retiring || k.Purpose == keys.CARoot || g.mayRetire(ctx, rows, k, false) != nil {
			continue
		}
		u, err := g.retireKey(ctx, k, false, generation, audit.Record{Type: "key.retired", Actor: actor, Target: k.ID})
		return u, err == nil, err
	}
	return unit.Unit{}, false, nil
}
