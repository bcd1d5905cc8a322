package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sallyport-project/sallyport/internal/app"
	evidencer "github.com/sallyport-project/sallyport/internal/attester/sample"
	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/id"
	"github.com/sallyport-project/sallyport/internal/keys"
	"github.com/sallyport-project/sallyport/internal/keys/file"
	"github.com/sallyport-project/sallyport/internal/resource"
	"github.com/sallyport-project/sallyport/internal/seal"
	"github.com/sallyport-project/sallyport/internal/secret"
	"github.com/sallyport-project/sallyport/internal/store"
	"github.com/sallyport-project/sallyport/internal/subject"
	"github.com/sallyport-project/sallyport/internal/token"
	"github.com/sallyport-project/sallyport/internal/unit"
	judge "github.com/sallyport-project/sallyport/internal/verifier/sample"
)

// filler writes rows into the store of an installation that does not run, with its
// own keys, as the server would.
type filler struct {
	store    *store.Store
	vault    *keys.Vault
	cookies  *token.Cookies
	minter   *token.Minter
	trust    *token.Trust
	attester evidence.Attester
	verify   evidence.Verifiers
	now      time.Time
}

// sessionLife is how long the sessions that are written live: longer than any run.
const sessionLife = time.Hour

// writesAtOnce is how many rows one unit writes.
const writesAtOnce = 1000

// fill stores resources and live sessions of guests with a key each, and returns
// the sessions' cookies.
func fill(ctx context.Context, config string, sessions, resources int) (cookies []string, err error) {
	f, err := openFiller(ctx, config)
	if err != nil {
		return nil, err
	}
	defer func() {
		ended, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, f.store.Close(ended))
	}()
	err = f.write(ctx, resources, 1, func(n int) ([]unit.Write, error) { return f.resource(filledPath(n)) })
	if err != nil {
		return nil, fmt.Errorf("fill in resources: %w", err)
	}
	cookies = make([]string, sessions)
	err = f.write(ctx, sessions, 3, func(n int) (writes []unit.Write, err error) {
		cookies[n], writes, err = f.session(ctx)
		return writes, err
	})
	if err != nil {
		return nil, fmt.Errorf("fill in sessions: %w", err)
	}
	return cookies, nil
}

func openFiller(ctx context.Context, config string) (*filler, error) {
	c, err := app.Load(config)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	f := &filler{now: time.Now().UTC().Truncate(time.Microsecond)}
	if f.store, err = store.Open(ctx, store.Config{Dir: c.DataDir, StateDir: c.DataDir}); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if err := f.open(ctx, c); err != nil {
		return nil, errors.Join(fmt.Errorf("open keys: %w", err), f.store.Close(ctx))
	}
	return f, nil
}

func (f *filler) open(ctx context.Context, c app.Config) error {
	kek, err := file.Load(file.Config{Path: c.KEK.File, Old: c.KEK.Old, DataDir: c.DataDir})
	if err != nil {
		return err
	}
	rows, err := f.store.Keys(ctx)
	if err != nil {
		return err
	}
	if f.vault, err = keys.Load(ctx, keys.Config{KEK: kek, Now: time.Now}, rows); err != nil {
		return err
	}
	ring := func(p keys.Purpose) (r *keys.Ring) {
		if err == nil {
			r, err = keys.NewRing(p, rows)
		}
		return r
	}
	macs, cookie, ear := ring(keys.RowMAC), ring(keys.Cookie), ring(keys.EAR)
	if err != nil {
		return err
	}
	mac, err := keys.NewMAC(ctx, f.vault, macs)
	if err != nil {
		return err
	}
	f.store.UseMAC(mac)
	return errors.Join(f.openCookies(ctx, cookie), f.openMinter(ctx, ear), f.openGuest())
}

func (f *filler) openCookies(ctx context.Context, ring *keys.Ring) error {
	row, err := ring.Signing(f.now)
	if err != nil {
		return err
	}
	value, err := f.vault.Reveal(ctx, row)
	if err != nil {
		return err
	}
	f.cookies, err = token.NewCookies(token.CookiesConfig{
		Keys: []token.CookieKey{{ID: row.ID, Secret: value, NotBefore: row.Created, RetireAt: f.now.Add(24 * time.Hour)}}, Now: time.Now,
	})
	return err
}

func (f *filler) openMinter(ctx context.Context, ring *keys.Ring) error {
	row, err := ring.Signing(f.now)
	if err != nil {
		return err
	}
	signers, err := f.vault.Signers(ctx, ring, f.now)
	if err != nil {
		return err
	}
	if f.minter, err = token.NewMinter(token.MinterConfig{Key: signers[row.ID], Build: "load", Now: time.Now, Life: sessionLife}); err != nil {
		return err
	}
	f.trust, err = token.NewTrust(token.TrustConfig{Keys: []token.SignerKey{{Public: signers[row.ID].Public()}}, Now: time.Now})
	return err
}

func (f *filler) openGuest() error {
	v, err := judge.New(judge.Config{Insecure: true, TEE: evidence.Sample})
	if err != nil {
		return err
	}
	f.verify = evidence.Verifiers{evidence.Sample: v}
	f.attester, err = evidencer.New(evidence.Sample)
	return err
}

// write commits the writes of n things, some at once.
func (f *filler) write(ctx context.Context, n, each int, writesOf func(n int) ([]unit.Write, error)) error {
	var writes []unit.Write
	for i := range n {
		more, err := writesOf(i)
		if err != nil {
			return err
		}
		writes = append(writes, more...)
		if len(writes)+each <= writesAtOnce && i < n-1 {
			continue
		}
		record := audit.Record{
			Version: audit.Version, ID: id.New(), Type: "load.filled", At: f.now, Outcome: audit.Done, Actor: audit.System("load"),
		}
		if err := f.store.Commit(ctx, unit.Unit{Writes: writes, Record: record}); err != nil {
			return err
		}
		writes = nil
	}
	return nil
}

func (f *filler) resource(path string) ([]unit.Write, error) {
	r := resource.Resource{ID: path, Version: 1, Author: "load", Created: f.now, Changed: f.now}
	var err error
	r.Sealed, err = f.vault.Seal(r.Table(), r.ID, r.Version, secret.FromString(resourceValue))
	return []unit.Write{unit.Insert(r)}, err
}

// session is what a handshake leaves: a guest, a used nonce and a result.
func (f *filler) session(ctx context.Context) (cookie string, writes []unit.Write, err error) {
	key, err := seal.GenerateKey()
	if err != nil {
		return "", nil, err
	}
	nonce, err := evidence.NewNonce(nil)
	if err != nil {
		return "", nil, err
	}
	a := evidence.Attestation{Version: evidence.V040, Runtime: evidence.Runtime{Nonce: nonce, Key: key.Public()}}
	digest, err := a.Runtime.Digest(a.Version)
	if err != nil {
		return "", nil, err
	}
	e, err := f.attester.Evidence(ctx, evidence.Binding{ReportData: digest})
	if err != nil {
		return "", nil, err
	}
	a.Primary = e.Body
	verdict, err := f.verify.Verify(ctx, evidence.Sample, a, f.now)
	if err != nil {
		return "", nil, err
	}
	verdict.Devices[0].Policy, verdict.Devices[0].Vector = "default_cpu", evidence.Vector{"hardware": 97}
	raw, expires, err := f.minter.Mint(verdict)
	if err != nil {
		return "", nil, err
	}
	checked, err := f.trust.VerifyKept(raw)
	if err != nil {
		return "", nil, err
	}
	h := token.Handshake{
		Nonce: nonce, TEE: evidence.Sample, Version: evidence.V040, Expires: time.Now().UTC().Add(sessionLife).Truncate(time.Microsecond),
	}
	value, err := f.cookies.Seal(h)
	thumb := key.Public().Thumbprint()
	guest := subject.Subject{
		ID: id.Derived("workload " + thumb), Version: 1, Kind: subject.Workload, State: subject.Attested, Role: "guest", Name: "tee-" + thumb,
		Created: f.now, Changed: f.now,
	}
	return token.CookieName + "=" + value, []unit.Write{
		unit.Insert(guest), unit.Do("nonces.insert", 1, "", "kbs/"+h.ID(), unit.Micros(h.Expires)),
		unit.Insert(subject.Passport{ID: h.ID(), Version: 1, Subject: guest.ID, Digest: checked.ID, Token: raw, Expires: expires}),
	}, err
}
