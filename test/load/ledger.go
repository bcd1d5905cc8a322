package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/id"
	"github.com/sallyport-project/sallyport/internal/keys"
	"github.com/sallyport-project/sallyport/internal/keys/file"
	"github.com/sallyport-project/sallyport/internal/secret"
	"github.com/sallyport-project/sallyport/internal/store"
	"github.com/sallyport-project/sallyport/internal/store/storetest"
	"github.com/sallyport-project/sallyport/internal/unit"
)

func ledgerBudgets(o options) []budget {
	if o.driver == store.PostgreSQL {
		return []budget{atLeast("requests_per_s", 25_000), atLeast("group_ratio", 0.21)}
	}
	return []budget{atLeast("requests_per_s", 60_000), atMost("p99_ms", 3), atLeast("group_ratio", 0.5)}
}

// ledger commits units as releases do: a new grant with its MAC, and its
// record, durable before the caller goes on, while the integrator gives records
// their places.
func ledger(ctx context.Context, o options) (r result, err error) {
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // as `sallyport serve` does
	cfg := store.Config{Driver: o.driver, Dir: filepath.Join(o.dir, "data"), StateDir: filepath.Join(o.dir, "state")}
	cpu := ownTime
	if o.driver == store.PostgreSQL {
		pg, err := startPostgres()
		if err != nil {
			return result{}, err
		}
		defer func() { err = errors.Join(err, pg.Stop()) }()
		cfg.Dir, cfg.DSN = "", secret.FromString(pg.DSN("postgres"))
		if cpu, err = withPostgres(pg); err != nil {
			return result{}, err
		}
	}
	before, err := diskFloors(ctx, o)
	if err != nil {
		return result{}, err
	}
	s, err := openLedger(ctx, cfg, filepath.Join(o.dir, "kek"))
	if err != nil {
		return result{}, err
	}
	defer func() { err = errors.Join(err, closeLedger(ctx, s)) }()
	if r, err = commits(ctx, s, o, cpu); err != nil {
		return r, err
	}
	after, err := diskFloors(ctx, o)
	if err != nil {
		return r, err
	}
	r.Driver, r.CPUOf = o.driver, "this process, generator included"
	if o.driver == store.PostgreSQL {
		r.CPUOf += ", and PostgreSQL"
	}
	r.against("append of 512 bytes and fsync, one at a time, same disk", (before.appends+after.appends)/2)
	group := (before.group + after.group) / 2
	r.figure("group_commit_per_s", group)
	r.figure("group_commit_p99_ms", milliseconds(max(before.p99, after.p99)))
	r.figure("group_ratio", r.PerSecond/group)
	return r, nil
}

// diskFloor is what the disk gives without a database.
type diskFloor struct {
	appends float64 // per second, each with its own fsync
	group   float64 // per second, of as many callers as there are
	p99     time.Duration
}

func diskFloors(ctx context.Context, o options) (diskFloor, error) {
	length := min(o.duration, time.Second)
	times, err := appends(o.dir, length)
	if err != nil {
		return diskFloor{}, err
	}
	g, err := group(ctx, o.dir, o.conns, length)
	return diskFloor{appends: float64(len(times)) / length.Seconds(), group: g.perSecond(), p99: quantile(g.times, 0.99)}, err
}

// commits drives the store and then waits for the integrator.
func commits(ctx context.Context, s *store.Store, o options, cpu func() (time.Duration, error)) (result, error) {
	before, err := written()
	if err != nil {
		return result{}, err
	}
	running, stop := context.WithCancel(ctx)
	integrated := make(chan error, 1)
	go func() { integrated <- s.Integrate(running) }()
	sampled, err := drive{
		conns: o.conns, warm: o.warm, duration: o.duration, cpu: cpu,
		open: func(context.Context, int) (call, error) {
			of, session := id.New(), id.New()
			return func(ctx context.Context) error {
				if err := s.Commit(ctx, issue(of, session, time.Now())); err != nil {
					return kindError{err}
				}
				return nil
			}, nil
		},
	}.run(ctx)
	var r result
	r.take(sampled)
	after, unread := written()
	begin := time.Now()
	pending, failed := s.PendingCount(ctx)
	r.figure("pending_at_end", float64(pending))
	for left := pending; left > 0 && failed == nil && time.Since(begin) < time.Minute; {
		time.Sleep(5 * time.Millisecond)
		left, failed = s.PendingCount(ctx)
	}
	r.figure("integrated_after_ms", milliseconds(time.Since(begin)))
	head, headErr := s.Head(ctx)
	r.figure("ledger_size", float64(head.Size))
	if head.Size > 0 && o.driver != store.PostgreSQL { // where another process writes
		r.figure("written_bytes_per_unit", float64(after-before)/float64(head.Size)) // warming up included, on both sides
	}
	stop()
	return r, errors.Join(err, unread, failed, headErr, <-integrated)
}

// issue is a release without outside effects, about as large as a real one.
func issue(subject, session string, now time.Time) unit.Unit {
	now = now.UTC().Truncate(time.Microsecond)
	ends := now.Add(15 * time.Minute)
	g := grant.Grant{
		ID: id.New(), Version: 1, State: grant.Active, Subject: subject, Session: session, Kind: "ssh-user-cert",
		Scope: grant.Scope{
			Kind: "ssh-user-cert", Params: map[string]any{"principals": []any{"deploy"}}, TTL: ends.Sub(now), IssuedAt: now, ExpiresAt: ends,
		},
		Source: grant.Source{Plugin: "sshcert", Version: "0.1.0", Digest: digest, Effects: grant.EffectsNone},
		Handle: "7", Policy: []string{"base@1", "deploy@1"}, IssuedAt: now, ExpiresAt: ends, DueAt: ends,
	}
	return unit.Unit{Writes: []unit.Write{unit.Insert(g)}, Record: issued(g)}
}

// issued is the record of a new grant.
func issued(g grant.Grant) audit.Record {
	return audit.Record{
		Version: audit.Version, ID: id.New(), Type: "grant.issued", At: g.IssuedAt, Outcome: audit.Done,
		Actor:   audit.Actor{Subject: g.Subject, Kind: "agent", Session: g.Session, Via: "rest", Address: "127.0.0.1"},
		Subject: g.Subject, Serial: "1", Grant: g.ID, Policy: g.Policy,
		Data: map[string]string{"kind": g.Kind, "plugin": "sshcert", "plugin_version": "0.1.0", "plugin_digest": digest},
	}
}

const digest = "sha256:c5a9f1d2e3b4a5968778695a4b3c2d1e0f1e2d3c4b5a69788796a5b4c3d2e1f0"

// kindError is a fault that is counted by its kind.
type kindError struct{ error }

func (k kindError) errorKind() string { return fault.KindOf(k.error).String() }
func (k kindError) Unwrap() error     { return k.error }

// openLedger opens a store with real keys.
func openLedger(ctx context.Context, cfg store.Config, kekFile string) (*store.Store, error) {
	s, err := store.Open(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if err := equip(ctx, s, kekFile); err != nil {
		return nil, errors.Join(err, closeLedger(ctx, s))
	}
	return s, nil
}

func equip(ctx context.Context, s *store.Store, kekFile string) error {
	kek, err := file.Create(file.Config{Path: kekFile})
	if err != nil {
		return fmt.Errorf("make key file: %w", err)
	}
	vault, _, err := keys.Create(ctx, keys.Config{KEK: kek})
	if err != nil {
		return fmt.Errorf("make vault: %w", err)
	}
	row, err := vault.Generate(ctx, keys.RowMAC, keys.Random256)
	if err != nil {
		return fmt.Errorf("make key: %w", err)
	}
	ring, err := keys.NewRing(keys.RowMAC, []keys.Key{row})
	if err != nil {
		return fmt.Errorf("make key ring: %w", err)
	}
	mac, err := keys.NewMAC(ctx, vault, ring)
	if err != nil {
		return fmt.Errorf("open row MAC: %w", err)
	}
	s.UseMAC(mac)
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("make ledger key: %w", err)
	}
	signer, err := audit.NewSigner("load.sallyport/ledger", private)
	if err != nil {
		return fmt.Errorf("make ledger key: %w", err)
	}
	trusted, err := audit.NewKeys(signer.VerifierKey())
	if err != nil {
		return fmt.Errorf("make ledger key: %w", err)
	}
	return s.UseSigner(ctx, signer, trusted)
}

func closeLedger(ctx context.Context, s *store.Store) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	return s.Close(ctx)
}

// startPostgres starts the installed PostgreSQL on a private socket.
func startPostgres() (*storetest.Server, error) {
	pg, reason, err := storetest.NewServer()
	if err != nil {
		return nil, fmt.Errorf("start PostgreSQL: %w", err)
	}
	if pg == nil {
		return nil, fmt.Errorf("skipped: needs PostgreSQL: %s", reason)
	}
	return pg, nil
}

// withPostgres adds the database's processor time to our own.
func withPostgres(pg *storetest.Server) (func() (time.Duration, error), error) {
	pid, err := postmaster(pg.DSN("postgres"))
	if err != nil {
		return nil, err
	}
	return func() (time.Duration, error) {
		own, err := ownTime()
		if err != nil {
			return 0, err
		}
		theirs, err := processTime(pid)
		return own + theirs, err
	}, nil
}
