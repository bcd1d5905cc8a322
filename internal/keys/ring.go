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

// Turn puts a fresh key in front of a ring. Keys that were active keep verifying
// for two lives, where life is the longest life of what they sign: nothing that
// is still good becomes unverifiable, even if a replica signs a little longer
// with the old key. What row-MAC keys and peppers made has no end, so those
// retire without one, until Advance retires them after a rewrite; life is
// ignored for them. Keys whose time is over are retired.
func (v *Vault) Turn(ctx context.Context, r *Ring, fresh Key, life time.Duration) (Rotation, error) {
	endless := r.purpose == RowMAC || r.purpose == Pepper
	switch {
	case fresh.Purpose != r.purpose || fresh.State != Active:
		return Rotation{}, fault.Internalf("key %s is a %s %s key and cannot sign for a ring of %s keys", fresh.ID, fresh.State, fresh.Purpose, r.purpose)
	case life <= 0 && !endless:
		return Rotation{}, fault.Internalf("a ring of %s keys cannot turn with a life of %s", r.purpose, life)
	}
	now, end := v.now(), time.Time{}
	if !endless {
		end = now.Add(2 * life)
	}
	turn := Rotation{Fresh: fresh}
	for _, k := range r.keys {
		var next Key
		var err error
		switch {
		case !k.Usable(now):
			next, err = v.Advance(ctx, k, Retired, time.Time{})
		case k.State == Active:
			next, err = v.Advance(ctx, k, Retiring, end)
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
