package keys

import (
	"context"
	"crypto"
	"slices"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// Ring is the keys of one purpose: the youngest active one signs once its time
// has come, every usable one verifies. It holds rows only; private bytes are opened by the vault. A
// ring never changes after it was made and is safe for concurrent use.
type Ring struct {
	purpose Purpose
	keys    []Key // youngest first
}

// NewRing takes the keys of a purpose out of rows. A broken row is an error,
// and so is a ring in which nothing signs.
func NewRing(purpose Purpose, rows []Key) (*Ring, error) {
	r := &Ring{purpose: purpose}
	for _, k := range rows {
		if k.Purpose != purpose {
			continue
		}
		if err := k.Validate(); err != nil {
			return nil, err
		}
		if k.State != Retired {
			r.keys = append(r.keys, k)
		}
	}
	slices.SortFunc(r.keys, func(a, b Key) int {
		if younger(a, b) {
			return -1
		}
		return 1
	})
	if !slices.ContainsFunc(r.keys, func(k Key) bool { return k.State == Active }) {
		return nil, fault.Internalf("the store has no active %s key, its row is missing: restore the keys table from a backup of this store", purpose)
	}
	return r, nil
}

// Signing is the key to sign with at time t: the youngest active one that has
// begun, or, while the active ones are only announced, the youngest of those
// that they replace. None is Unavailable.
func (r *Ring) Signing(t time.Time) (Key, error) {
	announced := false
	for _, k := range r.keys {
		switch {
		case !k.Usable(t):
		case !k.Begun(t):
			announced = announced || k.State == Active
		case k.State == Active || announced:
			return k, nil
		}
	}
	return Key{}, fault.Unavailablef("no %s key is active: the operator must run `sallyport key rotate %s`", r.purpose, r.purpose)
}

// Newest is the youngest active key that is usable at time t, even if it is only
// announced: the one that the next key replaces. None is Unavailable.
func (r *Ring) Newest(t time.Time) (Key, error) {
	for _, k := range r.keys {
		if k.State == Active && k.Usable(t) {
			return k, nil
		}
	}
	return r.Signing(t)
}

// Changes is the next time after t at which another key signs or one stops to
// verify, without anybody writing a row; zero for never.
func (r *Ring) Changes(t time.Time) time.Time {
	var next time.Time
	for _, k := range r.keys {
		for _, at := range []time.Time{k.SignsFrom, k.NotAfter} {
			if at.After(t) && (next.IsZero() || at.Before(next)) {
				next = at
			}
		}
	}
	return next
}

// Verifying gives the keys that verify at time t, youngest first.
func (r *Ring) Verifying(t time.Time) []Key {
	usable := make([]Key, 0, len(r.keys))
	for _, k := range r.keys {
		if k.Usable(t) {
			usable = append(usable, k)
		}
	}
	return usable
}

// Lookup finds a key that verifies at time t by its id.
func (r *Ring) Lookup(id string, t time.Time) (Key, bool) {
	for _, k := range r.keys {
		if k.ID == id && k.Usable(t) {
			return k, true
		}
	}
	return Key{}, false
}

// Due reports whether the youngest active key, announced or signing, is older
// than the period, or whether none is usable any more.
func (r *Ring) Due(t time.Time, period time.Duration) bool {
	k, err := r.Newest(t)
	return err != nil || t.Sub(k.Created) >= period
}

// Rotation is what one turn of a ring changes, for one unit of work.
type Rotation struct {
	Fresh   Key   // to insert
	Under   []Key // to insert too: what a new key vouches for, the intermediate of a new root
	Changed []Key // to update: formerly active keys now retiring, outlived ones now retired
}

// Rotate makes a new signing key and turns the ring to it; see [Vault.Turn] for
// life. Certificate authorities and SSH CAs make their keys themselves, and
// roots are replaced by [Vault.With].
func (v *Vault) Rotate(ctx context.Context, r *Ring, algorithm Algorithm, life time.Duration) (Rotation, error) {
	switch r.purpose {
	case Root, CARoot, CAIntermediate, SSHCA:
		return Rotation{}, fault.Internalf("a %s key is not made by Rotate", r.purpose)
	}
	fresh, err := v.Generate(ctx, r.purpose, algorithm)
	if err != nil {
		return Rotation{}, err
	}
	return v.Turn(ctx, r, fresh, life)
}

// Turn puts a fresh key in front of a ring; it signs after the vault's lead
// ([Config]). Keys that were active keep verifying for two lives from then on,
// where life is the longest life of what they sign: nothing that is still good
// becomes unverifiable, even if a replica signs a little longer with the old
// key. Keys of an endless purpose retire without an end of their own, and life is
// ignored for them. Keys whose time is over are retired. A ring that is full is
// Exhausted.
func (v *Vault) Turn(ctx context.Context, r *Ring, fresh Key, life time.Duration) (Rotation, error) {
	endless := r.purpose.endless()
	now := v.now()
	switch {
	case fresh.Purpose != r.purpose || fresh.State != Active:
		return Rotation{}, fault.Internalf("key %s is a %s %s key and cannot sign for a ring of %s keys", fresh.ID, fresh.State, fresh.Purpose, r.purpose)
	case life <= 0 && !endless:
		return Rotation{}, fault.Internalf("a ring of %s keys cannot turn with a life of %s", r.purpose, life)
	case r.purpose != RowMAC && len(r.Verifying(now)) >= maxRing:
		return Rotation{}, fault.Exhaustedf("%d %s keys still verify, and no more are held: wait until the oldest retires, see: sallyport key list", maxRing, r.purpose)
	}
	begins := now
	if v.lead > 0 {
		begins = now.Add(v.lead).UTC().Truncate(time.Microsecond)
		fresh.SignsFrom = begins
	}
	end := time.Time{}
	if !endless {
		end = begins.Add(2 * life)
	}
	turn := Rotation{Fresh: fresh}
	for _, k := range r.keys {
		next, changed, err := v.step(ctx, k, now, end)
		if err != nil {
			return Rotation{}, err
		}
		if changed {
			turn.Changed = append(turn.Changed, next)
		}
	}
	return turn, nil
}

// maxRing is how many keys of one purpose may verify at a time: each pepper, for
// example, is one more place where a leaked value is looked for.
const maxRing = 31 // and the fresh one

// step is what a turn does to a key that was there before.
func (v *Vault) step(ctx context.Context, k Key, now, end time.Time) (next Key, changed bool, err error) {
	switch {
	case !k.Usable(now):
		next, err = v.Advance(ctx, k, Retired, time.Time{})
	case k.State == Active:
		next, err = v.Advance(ctx, k, Retiring, end)
	default:
		return k, false, nil
	}
	return next, true, err
}

// endless reports whether no fixed time ends what keys of the purpose made: rows
// and fingerprints are read for ever, certificates have an end of their own, and
// a key of the ledger is needed until the next one has signed a checkpoint.
func (p Purpose) endless() bool {
	switch p {
	case RowMAC, Pepper, Ledger, CARoot, CAIntermediate, SSHCA:
		return true
	}
	return false
}

// Signers opens every key of a ring that verifies at time t, by id: what a
// minter keeps in memory.
func (v *Vault) Signers(ctx context.Context, r *Ring, t time.Time) (map[string]crypto.Signer, error) {
	signers := make(map[string]crypto.Signer, len(r.keys))
	for _, k := range r.Verifying(t) {
		s, err := v.Signer(ctx, k)
		if err != nil {
			return nil, err
		}
		signers[k.ID] = s
	}
	return signers, nil
}
