package keys

import (
	"context"
	"crypto/rand"
	"io"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/id"
	"github.com/sallyport-project/sallyport/internal/secret"
)

// Config is what a vault needs. KEK must be set; the rest has defaults.
type Config struct {
	KEK  KEK
	Rand io.Reader        // nil: crypto/rand
	Now  func() time.Time // nil: time.Now
	// Lead is how long the fresh key of a turn is only known, not used, so that
	// every replica knows it before the first one signs with it. Zero where one
	// process alone uses the store.
	Lead time.Duration
}

func (c Config) filled() Config {
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// Vault seals and opens values, and makes keys. It holds the unwrapped roots in
// memory and never changes after it was made, so it is safe for concurrent use.
type Vault struct {
	kek    KEK
	rand   io.Reader
	now    func() time.Time
	lead   time.Duration
	roots  map[string]secret.Bytes
	newest string
}

// Create makes the first root of a new store. The caller stores the returned
// row, and the rows of further keys from [Vault.Generate], in one unit.
func Create(ctx context.Context, cfg Config) (*Vault, Key, error) {
	cfg = cfg.filled()
	if cfg.KEK == nil {
		return nil, Key{}, fault.Internalf("a vault was asked for without a key encryption key")
	}
	v := &Vault{kek: cfg.KEK, rand: cfg.Rand, now: cfg.Now, lead: cfg.Lead, roots: map[string]secret.Bytes{}}
	root, err := v.Generate(ctx, Root, Random256)
	if err != nil {
		return nil, Key{}, err
	}
	material, err := v.Reveal(ctx, root)
	if err != nil {
		return nil, Key{}, err
	}
	v.roots[root.ID], v.newest = material, root.ID
	return v, root, nil
}

// Load unwraps the roots among rows; rows of other purposes are ignored. Every
// root that is not retired can open, the youngest active one seals. No root at
// all, or one that does not unwrap, is an error: values sealed under it would
// be lost without a word.
func Load(ctx context.Context, cfg Config, rows []Key) (*Vault, error) {
	cfg = cfg.filled()
	if cfg.KEK == nil {
		return nil, fault.Internalf("a vault was asked for without a key encryption key")
	}
	v := &Vault{kek: cfg.KEK, rand: cfg.Rand, now: cfg.Now, lead: cfg.Lead, roots: map[string]secret.Bytes{}}
	var newest Key
	for _, k := range rows {
		if k.Purpose != Root || k.State == Retired {
			continue
		}
		material, err := v.Reveal(ctx, k)
		if err != nil {
			return nil, fault.Wrap(err, "unwrap root key %s", k.ID)
		}
		if material.Len() != 32 {
			return nil, fault.Internalf("root key %s has %d bytes, not 32", k.ID, material.Len())
		}
		v.roots[k.ID] = material
		if k.State == Active && younger(k, newest) {
			newest = k
		}
	}
	if newest.ID == "" {
		return nil, fault.Internalf("the store has no active root key, its row is missing: restore the keys table from a backup of this store")
	}
	v.newest = newest.ID
	return v, nil
}

// With returns a vault that knows one more root, which seals from now on. The
// row comes from Generate(ctx, Root, Random256).
func (v *Vault) With(ctx context.Context, root Key) (*Vault, error) {
	if root.Purpose != Root || root.State != Active {
		return nil, fault.Internalf("key %s is a %s %s key, not an active root", root.ID, root.State, root.Purpose)
	}
	material, err := v.Reveal(ctx, root)
	if err != nil {
		return nil, err
	}
	next := *v
	next.roots = map[string]secret.Bytes{root.ID: material}
	for k, m := range v.roots {
		next.roots[k] = m
	}
	next.newest = root.ID
	return &next, nil
}

// Generate makes an active key of version 1. Public holds PKIX PEM for
// asymmetric keys; the packages that know a better form replace it before the
// row is stored. Root and RowMAC must be Random256.
func (v *Vault) Generate(ctx context.Context, purpose Purpose, algorithm Algorithm) (Key, error) {
	if !purpose.Valid() {
		return Key{}, fault.Internalf("a key of the unknown purpose %q was asked for", string(purpose))
	}
	if purpose.byKEK() && algorithm != Random256 {
		return Key{}, fault.Internalf("a %s key is symmetric, not %s", purpose, algorithm)
	}
	private, public, err := generate(v.rand, algorithm)
	if err != nil {
		return Key{}, err
	}
	defer private.Wipe()
	now := v.now().UTC().Truncate(time.Microsecond)
	k := Key{
		ID: id.At(now), Version: 1, Purpose: purpose, Algorithm: algorithm, State: Active,
		Public: public, Created: now,
	}
	if k.Sealed, err = v.wrap(ctx, k, private); err != nil {
		return Key{}, err
	}
	return k, nil
}

// Reveal opens the private bytes of a key: 32 random bytes, or PKCS #8. Faults
// are those of [Vault.Open] and of the KEK.
func (v *Vault) Reveal(ctx context.Context, k Key) (secret.Bytes, error) {
	if err := k.Validate(); err != nil {
		return secret.Bytes{}, err
	}
	if k.State == Retired {
		return secret.Bytes{}, fault.Internalf("key %s is retired and must not be used", k.ID)
	}
	if !k.Purpose.byKEK() {
		return v.Open(k.Table(), k.ID, k.Version, k.Sealed)
	}
	private, err := v.kek.Unwrap(ctx, k.Sealed, k.kekBinding())
	return private, fault.Wrap(err, "unwrap %s key %s version %d", k.Purpose, k.ID, k.Version)
}

// Advance returns the next version of a key in a new state, sealed for that
// version under the newest root or KEK. With the state it has already, it is
// the rewrap after a change of root or KEK. A retired key loses its private
// bytes, which need not open for that: one whose seal is damaged can be retired.
// NotAfter, if not zero, replaces the key's.
func (v *Vault) Advance(ctx context.Context, k Key, state State, notAfter time.Time) (Key, error) {
	rank := map[State]int{Active: 0, Retiring: 1, Retired: 2}
	if to, known := rank[state]; !known || to < rank[k.State] || k.State == Retired {
		return Key{}, fault.Internalf("key %s is %s and cannot become %q", k.ID, k.State, string(state))
	}
	if err := k.Validate(); err != nil {
		return Key{}, err
	}
	next := k
	next.Version++
	next.State = state
	if !notAfter.IsZero() {
		next.NotAfter = notAfter.UTC().Truncate(time.Microsecond)
	}
	if state == Retired {
		next.Sealed = nil
		return next, nil
	}
	private, err := v.Reveal(ctx, k)
	if err != nil {
		return Key{}, err
	}
	defer private.Wipe()
	next.Sealed, err = v.wrap(ctx, next, private)
	return next, err
}

// wrap seals private bytes for exactly this version of the row.
func (v *Vault) wrap(ctx context.Context, k Key, private secret.Bytes) ([]byte, error) {
	if !k.Purpose.byKEK() {
		return v.Seal(k.Table(), k.ID, k.Version, private)
	}
	blob, err := v.kek.Wrap(ctx, private, k.kekBinding())
	return blob, fault.Wrap(err, "wrap %s key %s", k.Purpose, k.ID)
}

// kekBinding is what the KEK authenticates: the purpose too, so that a row-MAC
// key cannot be passed off as a root.
func (k Key) kekBinding() []byte {
	return binding("sallyport/keys/kek/v1", string(k.Purpose), k.Table(), k.ID, k.Version)
}

// younger reports whether a was made after b; a zero b is older than all.
func younger(a, b Key) bool {
	if b.ID == "" {
		return true
	}
	if !a.Created.Equal(b.Created) {
		return a.Created.After(b.Created)
	}
	return a.ID > b.ID
}
