package token

import (
	"crypto/ed25519"
	"slices"
	"sync/atomic"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/secret"
)

const maxRing = 32

// Key is one Ed25519 key of a ring.
type Key struct {
	ID     string       // kid, 1 to 64 letters, digits, '-' or '_'; unique for ever
	Seed   secret.Bytes // the 32-byte seed; empty for a key that only verifies
	Public ed25519.PublicKey
	// NotBefore and RetireAt bound the key's life: it signs and verifies from
	// the first until right before the second, and signs nothing that would
	// expire later than RetireAt.
	NotBefore, RetireAt time.Time
}

// Ring is the set of session keys, the same on every replica because it comes
// from the store. Safe for concurrent use.
type Ring struct {
	keys atomic.Pointer[[]ringKey]
}

type ringKey struct {
	Key
	private ed25519.PrivateKey
}

// NewRing checks the keys: ids are unique, a seed fits its public key, a life
// is not empty. A defect is Internal, because keys come from our own store.
func NewRing(keys []Key) (*Ring, error) {
	r := &Ring{}
	if err := r.Replace(keys); err != nil {
		return nil, err
	}
	return r, nil
}

// Replace swaps all keys at once, after a rotation; on an error the old ones
// stay.
func (r *Ring) Replace(keys []Key) error {
	if len(keys) == 0 || len(keys) > maxRing {
		return fault.Internalf("build a ring of %d keys", len(keys))
	}
	out := make([]ringKey, 0, len(keys))
	for _, k := range keys {
		rk, err := newRingKey(k)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(out, func(o ringKey) bool { return o.ID == k.ID || o.Public.Equal(rk.Public) }) {
			return fault.Internalf("build a ring with key %q twice", k.ID)
		}
		out = append(out, rk)
	}
	// Newest first, so that signing takes the first that fits.
	slices.SortStableFunc(out, func(a, b ringKey) int { return b.NotBefore.Compare(a.NotBefore) })
	r.keys.Store(&out)
	return nil
}

func newRingKey(k Key) (ringKey, error) {
	if !keyID(k.ID) {
		return ringKey{}, fault.Internalf("build a ring with a malformed key id")
	}
	if !k.NotBefore.Before(k.RetireAt) {
		return ringKey{}, fault.Internalf("build a ring with key %q that never lives", k.ID)
	}
	out := ringKey{Key: k}
	out.Public = slices.Clone(k.Public)
	if k.Seed.Len() > 0 {
		if k.Seed.Len() != ed25519.SeedSize {
			return ringKey{}, fault.Internalf("build a ring with key %q of wrong size", k.ID)
		}
		out.private = ed25519.NewKeyFromSeed(k.Seed.Reveal())
		public, _ := out.private.Public().(ed25519.PublicKey)
		if len(k.Public) > 0 && !public.Equal(k.Public) {
			return ringKey{}, fault.Internalf("build a ring with key %q whose halves differ", k.ID)
		}
		out.Public = public
	}
	if len(out.Public) != ed25519.PublicKeySize {
		return ringKey{}, fault.Internalf("build a ring with key %q without a public half", k.ID)
	}
	return out, nil
}

func keyID(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return true
}

// signer is the newest key that lives now and still will when the token
// expires.
func (r *Ring) signer(now, expires time.Time) (ringKey, error) {
	for _, k := range *r.keys.Load() {
		if k.private != nil && !now.Before(k.NotBefore) && !expires.After(k.RetireAt) {
			return k, nil
		}
	}
	return ringKey{}, fault.Unavailablef("no session key is active, an operator must rotate the keys")
}

// public is the key that an id names, if it lives.
func (r *Ring) public(id string, now time.Time) (ed25519.PublicKey, bool) {
	for _, k := range *r.keys.Load() {
		if k.ID == id {
			// A replica whose clock is behind may see a key of the near future.
			return k.Public, !now.Before(k.NotBefore.Add(-backdate)) && now.Before(k.RetireAt)
		}
	}
	return nil, false
}
