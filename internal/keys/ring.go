package keys

import (
	"context"
	"crypto"
	"slices"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// Ring is the keys of one purpose: the youngest active one signs, every usable
// one verifies. It holds rows only; private bytes are opened by the vault. A
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
		return nil, fault.Internalf("the store has no active %s key: run `sallyport init`, or restore the keys table", purpose)
	}
	return r, nil
}

// Signing is the key to sign with at time t. None is Unavailable.
func (r *Ring) Signing(t time.Time) (Key, error) {
	for _, k := range r.keys {
		if k.State == Active && k.Usable(t) {
			return k, nil
		}
	}
	return Key{}, fault.Unavailablef("no %s key is active: the operator must run `sallyport key rotate %s`", r.purpose, r.purpose)
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

// Due reports whether the signing key is older than the period, or gone.
func (r *Ring) Due(t time.Time, period time.Duration) bool {
	k, err := r.Signing(t)
	return err != nil || t.Sub(k.Created) >= period
}

// Rotation is what one turn of a ring changes, for one unit of work.
type Rotation struct {
	Fresh   Key   // to insert
	Changed []Key // to update: formerly active keys now retiring, outlived ones now retired
}

// Rotate makes a new signing key. Keys that were active keep verifying for two
// lives, where life is the longest life of what they sign: nothing that is
// still good becomes unverifiable, even if a replica signs a little longer with
// the old key. Keys whose time is over are retired. Not for Root: see
// [Vault.With].
func (v *Vault) Rotate(ctx context.Context, r *Ring, algorithm Algorithm, life time.Duration) (Rotation, error) {
	if r.purpose == Root {
		return Rotation{}, fault.Internalf("roots are replaced by With and a rewrap of every value, not by Rotate")
	}
	if life <= 0 {
		return Rotation{}, fault.Internalf("a ring of %s keys cannot turn with a life of %s", r.purpose, life)
	}
	fresh, err := v.Generate(ctx, r.purpose, algorithm)
	if err != nil {
		return Rotation{}, err
	}
	now := v.now()
	turn := Rotation{Fresh: fresh}
	for _, k := range r.keys {
		var next Key
		switch {
		case !k.Usable(now):
			next, err = v.Advance(ctx, k, Retired, time.Time{})
		case k.State == Active:
			next, err = v.Advance(ctx, k, Retiring, now.Add(2*life))
		default:
			continue
		}
		if err != nil {
			return Rotation{}, err
		}
		turn.Changed = append(turn.Changed, next)
	}
	return turn, nil
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
