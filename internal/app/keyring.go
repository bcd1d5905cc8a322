package app

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/keys"
	"github.com/sallyport-project/sallyport/internal/keys/ca"
	"github.com/sallyport-project/sallyport/internal/keys/file"
	"github.com/sallyport-project/sallyport/internal/keys/sshca"
	"github.com/sallyport-project/sallyport/internal/secret"
	"github.com/sallyport-project/sallyport/internal/store"
	"github.com/sallyport-project/sallyport/internal/token"
)

// keyring is every key of a server, opened: the state of table keys at one
// moment. It never changes; a rotation makes another one (rotation.go).
type keyring struct {
	vault     *keys.Vault
	mac       *keys.MAC
	peppers   *keys.Peppers
	authority *ca.Authority
	sessions  []token.Key
	contexts  []token.Key
	cookies   []token.CookieKey
	results   crypto.Signer       // signs attestation results
	chain     []*x509.Certificate // of that key, if they carry one
	trust     []token.SignerKey
	signing   string                   // verifier key of the ledger's active key
	signers   []*audit.Signer          // of the ledger, the oldest first
	auditors  audit.Keys               // all keys that notes were signed with
	ssh       map[string]*sshca.Issuer // SSH CAs that may sign, by id of the row
	sshKey    string                   // the one that signs new certificates
	sshTrust  []string                 // public lines that sshd is to trust, the youngest first
	sshLines  map[string]string        // public lines of all SSH CAs that ever signed, by id of the row

	generation int64     // of table keys when the rows were read, or before
	changes    time.Time // when another key begins to sign or one stops to verify by itself; zero for never
}

// origin names the ledger.
func (k *keyring) origin() string {
	origin, _, _ := strings.Cut(k.signing, "+")
	return origin
}

// openVault opens the envelope and the row MAC, the two that reading other
// rows needs.
func openVault(ctx context.Context, c Config, rows []keys.Key, now func() time.Time) (*keyring, error) {
	kek, err := file.Load(file.Config{Path: c.KEK.File, Old: c.KEK.Old, DataDir: c.DataDir})
	if err != nil {
		return nil, err
	}
	vault, err := keys.Load(ctx, keys.Config{KEK: kek, Now: now, Lead: lead(c)}, rows)
	if err != nil {
		return nil, err
	}
	return newKeyring(ctx, vault, rows)
}

// lead is how long a fresh key is known before it is used. Replicas look for
// changes every second; ten of them leave room for clocks that differ by some.
func lead(c Config) time.Duration {
	if c.Storage.Driver == store.PostgreSQL {
		return 10 * time.Second
	}
	return 0
}

// newKeyring opens the row MAC.
func newKeyring(ctx context.Context, vault *keys.Vault, rows []keys.Key) (*keyring, error) {
	k := &keyring{vault: vault}
	ring, err := keys.NewRing(keys.RowMAC, rows)
	if err != nil {
		return nil, err
	}
	k.mac, err = keys.NewMAC(ctx, k.vault, ring)
	return k, err
}

// open opens all further keys from rows whose MAC was checked.
func (k *keyring) open(ctx context.Context, c Config, rows []keys.Key, now func() time.Time) error {
	for _, step := range []func() error{
		func() error { return k.openPeppers(ctx, rows) },
		func() (err error) {
			k.authority, err = ca.Load(ctx, k.vault, rows, authorityConfig(c, now))
			return err
		},
		func() (err error) { k.sessions, err = k.openRing(ctx, keys.Token, rows, now()); return err },
		func() (err error) { k.contexts, err = k.openRing(ctx, keys.Context, rows, now()); return err },
		func() error { return k.openGuests(ctx, rows, now()) },
		func() error { return k.openLedger(ctx, rows, now()) },
		func() error { return k.openSSH(ctx, rows, now()) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	k.changes = nextChange(rows, now())
	return k.certify(c, now())
}

// certify issues the certificate of the key that signs attestation results, if
// they are to carry one. It lives little longer than they do, because nothing
// takes it back, and is issued anew by the next keyring.
func (k *keyring) certify(c Config, now time.Time) (err error) {
	if !c.KBS.AttestationResults.Certificate {
		return nil
	}
	if k.chain, err = k.authority.IssueResults(k.results.Public(), 2*certifyEvery+c.KBS.AttestationResults.life()); err != nil {
		return fault.Wrap(err, "certify the key of attestation results")
	}
	if next := now.Add(certifyEvery); k.changes.IsZero() || next.Before(k.changes) {
		k.changes = next
	}
	return nil
}

// certifyEvery is how often the key of attestation results is certified.
const certifyEvery = time.Hour

// nextChange is the next time at which some ring changes by itself.
func nextChange(rows []keys.Key, now time.Time) time.Time {
	var next time.Time
	for _, purpose := range keys.Purposes() {
		ring, err := keys.NewRing(purpose, rows)
		if err != nil {
			continue // nothing of it is opened
		}
		if at := ring.Changes(now); !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	return next
}

// authorityConfig allows for the longest leaf, an operator's.
func authorityConfig(c Config, now func() time.Time) ca.Config {
	return ca.Config{TrustDomain: c.TrustDomain, MaxLife: operatorLife, Now: now}
}

// The lives of client certificates.
const (
	operatorLife = 7 * 24 * time.Hour
	agentLife    = ca.AgentLife
)

func (k *keyring) openPeppers(ctx context.Context, rows []keys.Key) error {
	ring, err := keys.NewRing(keys.Pepper, rows)
	if err != nil {
		return err
	}
	k.peppers, err = keys.NewPeppers(ctx, k.vault, ring)
	return err
}

// openRing opens the keys of a purpose that sign tokens: all that verify, and the
// private half of the one that signs.
func (k *keyring) openRing(ctx context.Context, purpose keys.Purpose, rows []keys.Key, now time.Time) ([]token.Key, error) {
	ring, err := keys.NewRing(purpose, rows)
	if err != nil {
		return nil, err
	}
	signing, err := ring.Signing(now)
	if err != nil {
		return nil, err
	}
	var out []token.Key
	for _, row := range ring.Verifying(now) {
		private, err := k.ed25519(ctx, row)
		if err != nil {
			return nil, err
		}
		// A token counts time in whole seconds.
		key := token.Key{ID: row.ID, NotBefore: row.Created.Truncate(time.Second), RetireAt: retires(row)}
		key.Public, _ = private.Public().(ed25519.PublicKey)
		if row.ID == signing.ID {
			key.Seed = seed(private)
		}
		out = append(out, key)
	}
	return out, nil
}

func (k *keyring) openGuests(ctx context.Context, rows []keys.Key, now time.Time) error {
	cookies, err := keys.NewRing(keys.Cookie, rows)
	if err != nil {
		return err
	}
	for _, row := range cookies.Verifying(now) {
		value, err := k.vault.Reveal(ctx, row)
		if err != nil {
			return err
		}
		from := row.Created
		if row.SignsFrom.After(from) {
			from = row.SignsFrom // only sealing waits for it
		}
		k.cookies = append(k.cookies, token.CookieKey{ID: row.ID, Secret: value, NotBefore: from, RetireAt: retires(row)})
	}
	results, err := keys.NewRing(keys.EAR, rows)
	if err != nil {
		return err
	}
	signers, err := k.vault.Signers(ctx, results, now)
	if err != nil {
		return err
	}
	signing, err := results.Signing(now)
	if err != nil {
		return err
	}
	k.results = signers[signing.ID]
	for _, row := range results.Verifying(now) {
		k.trust = append(k.trust, token.SignerKey{Public: signers[row.ID].Public(), NotBefore: row.Created, RetireAt: retires(row)})
	}
	return nil
}

// openLedger opens every key of the ledger that may still have to sign. Which of
// them signs a checkpoint follows from the ledger itself: a rotation is a record
// in it (store.UseSigners).
func (k *keyring) openLedger(ctx context.Context, rows []keys.Key, now time.Time) error {
	ring, err := keys.NewRing(keys.Ledger, rows)
	if err != nil {
		return err
	}
	signing, err := ring.Signing(now)
	if err != nil {
		return err
	}
	k.signing, k.signers = signing.Public, nil
	usable := ring.Verifying(now)
	for _, row := range slices.Backward(usable) {
		if !row.Begun(now) {
			continue // other replicas may not know it yet
		}
		private, err := k.ed25519(ctx, row)
		if err != nil {
			return err
		}
		origin, _, found := strings.Cut(row.Public, "+")
		if !found {
			return fault.Internalf("ledger key %s has no verifier key", row.ID)
		}
		signer, err := audit.NewSigner(origin, private)
		if err != nil {
			return err
		}
		if signer.VerifierKey() != row.Public {
			return fault.Internalf("ledger key %s: public and private part do not belong together", row.ID)
		}
		k.signers = append(k.signers, signer)
	}
	var vkeys []string
	for _, row := range rows { // retired ones too: their notes must stay verifiable
		if row.Purpose == keys.Ledger {
			vkeys = append(vkeys, row.Public)
		}
	}
	k.auditors, err = audit.NewKeys(vkeys...)
	return err
}

func (k *keyring) openSSH(ctx context.Context, rows []keys.Key, now time.Time) error {
	ring, err := keys.NewRing(keys.SSHCA, rows)
	if err != nil {
		return err
	}
	signing, err := ring.Signing(now)
	if err != nil {
		return err
	}
	k.sshKey, k.sshLines, k.ssh = signing.ID, map[string]string{}, map[string]*sshca.Issuer{}
	for _, row := range rows {
		if row.Purpose == keys.SSHCA {
			k.sshLines[row.ID] = row.Public
		}
	}
	for _, row := range ring.Verifying(now) {
		if k.ssh[row.ID], err = sshca.Load(ctx, k.vault, row); err != nil {
			return err
		}
		k.sshTrust = append(k.sshTrust, row.Public)
	}
	return nil
}

func (k *keyring) ed25519(ctx context.Context, row keys.Key) (ed25519.PrivateKey, error) {
	signer, err := k.vault.Signer(ctx, row)
	if err != nil {
		return nil, err
	}
	private, ok := signer.(ed25519.PrivateKey)
	if !ok {
		return nil, fault.Internalf("%s key %s is not Ed25519", row.Purpose, row.ID)
	}
	return private, nil
}

// retires is when a key stops to verify: an active key far away, when it has
// no end yet.
func retires(row keys.Key) time.Time {
	if row.NotAfter.IsZero() {
		return row.Created.AddDate(10, 0, 0)
	}
	return row.NotAfter
}

func seed(private ed25519.PrivateKey) secret.Bytes { return secret.New(private.Seed()) }
