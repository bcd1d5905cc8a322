package app

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/id"
	"github.com/sallyport-project/sallyport/internal/keys"
	"github.com/sallyport-project/sallyport/internal/keys/ca"
	"github.com/sallyport-project/sallyport/internal/keys/sshca"
	"github.com/sallyport-project/sallyport/internal/store"
	"github.com/sallyport-project/sallyport/internal/token"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// keeper lets flow replace keys: it knows what makes a key of each purpose.
type keeper struct{ a *App }

var _ flow.Keyring = keeper{}

// handover is how long a replaced key of the ledger is kept at least. It stays
// longer while no newer key has signed the head.
const handover = time.Hour

// contextKept is how long a replaced key of contexts stays in the published set.
const contextKept = 10 * time.Minute

// Turn implements flow.Keyring.
func (k keeper) Turn(ctx context.Context, rows []keys.Key, purpose keys.Purpose) (keys.Rotation, map[string]string, error) {
	vault := k.a.keys().vault
	ring, err := keys.NewRing(purpose, rows)
	if err != nil {
		return keys.Rotation{}, nil, err
	}
	plain := func(algorithm keys.Algorithm, life time.Duration) (keys.Rotation, map[string]string, error) {
		turn, err := vault.Rotate(ctx, ring, algorithm, life)
		return turn, nil, err
	}
	switch purpose {
	case keys.Token:
		return plain(keys.Ed25519, token.MaxLife)
	case keys.EAR: // verifiers allow a minute after the end
		return plain(keys.ECDSAP256, k.a.cfg.KBS.AttestationResults.life()+time.Minute)
	case keys.Cookie:
		return plain(keys.Random256, token.CookieLife)
	case keys.Context: // plugins look for keys every few minutes
		return plain(keys.Ed25519, token.ContextLife+contextKept)
	case keys.Pepper, keys.RowMAC:
		return plain(keys.Random256, 0)
	case keys.Ledger:
		return k.turnLedger(ctx, ring)
	case keys.CAIntermediate:
		turn, err := ca.Renew(ctx, vault, rows, authorityConfig(k.a.cfg, time.Now))
		return turn, nil, err
	case keys.CARoot:
		turn, err := ca.Replace(ctx, vault, rows, authorityConfig(k.a.cfg, time.Now))
		return turn, nil, err
	case keys.SSHCA:
		fresh, err := sshca.Generate(ctx, vault)
		if err != nil {
			return keys.Rotation{}, nil, err
		}
		turn, err := vault.Turn(ctx, ring, fresh, 0)
		return turn, map[string]string{"public": fresh.Public}, err
	}
	return keys.Rotation{}, nil, fault.Invalidf("a %s key is not rotated; to change the key that wraps it: sallyport key rewrap", purpose)
}

// revive renews an intermediate whose time is over, which happens when a server
// was off for long: without one it could not start, and so not be told to rotate
// it. It is recorded like every rotation.
func revive(ctx context.Context, c Config, st *store.Store, ring *keyring, rows []keys.Key) ([]keys.Key, error) {
	now := time.Now()
	intermediates, err := keys.NewRing(keys.CAIntermediate, rows)
	if err != nil {
		return nil, err
	}
	if _, err := intermediates.Signing(now); err == nil {
		return rows, nil
	}
	turn, err := ca.Renew(ctx, ring.vault, rows, authorityConfig(c, time.Now))
	if err != nil {
		return nil, err
	}
	turn.Fresh.SignsFrom = time.Time{} // there is none that could sign until then
	writes := []unit.Write{
		unit.Do("generations.bump", 1, "another server has changed the keys just now, start again", "keys", ring.generation), unit.Insert(turn.Fresh),
	}
	for _, k := range turn.Changed {
		writes = append(writes, unit.Update(k))
	}
	if err := st.Commit(ctx, unit.Unit{Writes: writes, Record: audit.Record{
		Version: 1, ID: id.New(), Type: audit.KeyRotated, At: now.UTC().Truncate(time.Microsecond), Outcome: audit.Done,
		Actor: audit.System("start"), Target: string(keys.CAIntermediate), Reasons: []string{"the time of the one before is over"},
		Data: map[string]string{"key": turn.Fresh.ID},
	}}); err != nil {
		return nil, err
	}
	ring.generation++
	return st.Keys(ctx)
}

// turnLedger makes the next key of the ledger, with the statement of the present
// one that it is. The present one must have signed the head: two rotations that
// wait for their place at once could come into the ledger in the wrong order, and
// the second would be no rotation of the key that is there.
func (k keeper) turnLedger(ctx context.Context, ring *keys.Ring) (keys.Rotation, map[string]string, error) {
	ours := k.a.keys()
	now := time.Now()
	present, err := ring.Newest(now)
	if err != nil {
		return keys.Rotation{}, nil, err
	}
	head, err := k.a.store.Head(ctx)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return keys.Rotation{}, nil, fault.Wrap(err, "read head")
	}
	if !present.Begun(now) || !head.SignedBy(present.Public) {
		return keys.Rotation{}, nil, fault.Conflictf("ledger key %s has not signed a checkpoint yet: try again in a moment", present.ID)
	}
	fresh, err := ours.vault.Generate(ctx, keys.Ledger, keys.Ed25519)
	if err != nil {
		return keys.Rotation{}, nil, err
	}
	private, err := ours.ed25519(ctx, present)
	if err != nil {
		return keys.Rotation{}, nil, err
	}
	old, err := audit.NewSigner(ours.origin(), private)
	if err != nil {
		return keys.Rotation{}, nil, err
	}
	if fresh, err = nameLedger(ctx, ours.vault, fresh, ours.origin()); err != nil {
		return keys.Rotation{}, nil, err
	}
	facts, err := old.Rotate(fresh.Public)
	if err != nil {
		return keys.Rotation{}, nil, err
	}
	turn, err := ours.vault.Turn(ctx, ring, fresh, 0)
	return turn, facts, err
}

// nameLedger gives a key of the ledger its public form.
func nameLedger(ctx context.Context, vault *keys.Vault, row keys.Key, origin string) (keys.Key, error) {
	signer, err := vault.Signer(ctx, row)
	if err != nil {
		return row, err
	}
	public, ok := signer.Public().(ed25519.PublicKey)
	if !ok {
		return row, fault.Internalf("the ledger key is not Ed25519")
	}
	row.Public, err = audit.VerifierKey(origin, public)
	return row, err
}

// Bound implements flow.Keyring.
func (k keeper) Bound(ctx context.Context, rows []keys.Key, key keys.Key) (string, error) {
	now := time.Now()
	if !key.Usable(now) {
		return "", nil
	}
	switch key.Purpose {
	case keys.Pepper:
		return "leaked credentials are found by it", nil
	case keys.SSHCA:
		last, err := k.lastCertificate(ctx, key.ID, now)
		if since := replaced(rows, key); last.Before(since) {
			last = since // one that was begun before may be on its way
		}
		if err != nil || !now.Before(last.Add(keepRevoked)) {
			return "", err
		}
		return "certificates that it signed are good until " + stamp(last), nil
	case keys.Ledger:
		if until := replaced(rows, key).Add(handover); now.Before(until) {
			return "the integrator may need it until " + stamp(until), nil
		}
		return "", nil
	case keys.CAIntermediate:
		if until := replaced(rows, key).Add(operatorLife + ca.Backdate); now.Before(until) {
			return "certificates that it signed may be good until " + stamp(until), nil
		}
		return "", nil
	case keys.CARoot:
		return ca.Below(rows, key, now)
	}
	return "what it signed may be good until " + stamp(key.NotAfter), nil
}

// lastCertificate is when the last certificate of an SSH CA expires. The store is
// asked again only when the last answer is over: looking for it reads all grants.
func (k keeper) lastCertificate(ctx context.Context, id string, now time.Time) (time.Time, error) {
	if known, ok := k.a.sshLast.Load(id); ok {
		if last, ok := known.(time.Time); ok && now.Before(last.Add(keepRevoked)) {
			return last, nil
		}
	}
	last, err := k.a.store.LastExpiry(ctx, sshKind, id+"/")
	if err == nil {
		k.a.sshLast.Store(id, last)
	}
	return last, err
}

// replaced is when the key that came after a key began to sign.
func replaced(rows []keys.Key, key keys.Key) time.Time {
	var next keys.Key
	for _, r := range rows {
		if r.Purpose == key.Purpose && r.Created.After(key.Created) && (next.ID == "" || r.Created.Before(next.Created)) {
			next = r
		}
	}
	if next.SignsFrom.After(next.Created) {
		return next.SignsFrom
	}
	return next.Created
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// Retire implements flow.Keyring.
func (k keeper) Retire(ctx context.Context, key keys.Key) (keys.Key, error) {
	return k.a.keys().vault.Advance(ctx, key, keys.Retired, time.Time{})
}

// Reload implements flow.Keyring: it opens the keys anew if a row has changed or
// the time of one has come. What is in use stays so until all of it is open.
func (k keeper) Reload(ctx context.Context) error {
	a := k.a
	a.reloading.Lock()
	defer a.reloading.Unlock()
	now := time.Now()
	generation, err := a.store.Generation(ctx, "keys")
	if err != nil {
		return a.stale(fault.Wrap(err, "read generation of keys"))
	}
	present := a.keys()
	if generation == present.generation && (present.changes.IsZero() || now.Before(present.changes)) {
		return a.stale(nil)
	}
	rows, err := a.store.Keys(ctx)
	if err != nil {
		return a.stale(err)
	}
	next, err := newKeyring(ctx, present.vault, rows)
	if err == nil {
		next.generation = generation
		err = next.open(ctx, a.cfg, rows, time.Now)
	}
	if err == nil {
		err = a.useKeys(ctx, next)
	}
	if err != nil {
		return a.stale(fmt.Errorf("open keys of generation %d: %w", generation, err))
	}
	return a.stale(nil)
}

// stale remembers why the keys in use are not those of the store, for readiness.
func (a *App) stale(err error) error {
	a.keysErr.Store(&err)
	return err
}

// useKeys puts a keyring in the place of the present one: first what checks,
// then what signs.
func (a *App) useKeys(ctx context.Context, next *keyring) error {
	if err := a.trust.Replace(next.trust); err != nil {
		return err
	}
	if err := a.cookies.Replace(next.cookies); err != nil {
		return err
	}
	if err := a.sessions.Replace(next.sessions); err != nil {
		return err
	}
	if err := a.contextKeys.Replace(next.contexts); err != nil {
		return err
	}
	if err := a.results.Replace(next.results, next.chain); err != nil {
		return err
	}
	a.store.UseMAC(next.mac)
	a.store.UseSigners(next.signers, next.auditors)
	a.ring.Store(next)
	a.authority.forget()
	for _, s := range a.embedded {
		s.Use(next.authority)
	}
	a.log.InfoContext(ctx, "the keys of the house have changed and are in use")
	return nil
}
