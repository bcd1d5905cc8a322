// Package app puts the parts together: it reads the configuration, opens the
// store and its keys, wires every built-in by an explicit list, runs the
// listeners and the work in the background, and stops all of it in reverse.
//
// It is the only package that sees adapters and doors together, and one of two
// that read the environment.
package app

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	kbsplugin "github.com/sallyport-project/sallyport/api/kbs/plugin/v1"
	"github.com/sallyport-project/sallyport/internal/api/extension"
	"github.com/sallyport-project/sallyport/internal/channel/console"
	"github.com/sallyport-project/sallyport/internal/channel/webhook"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/keys/ca"
	"github.com/sallyport-project/sallyport/internal/keys/jwks"
	"github.com/sallyport-project/sallyport/internal/notify"
	"github.com/sallyport-project/sallyport/internal/obs"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/plugin/external"
	"github.com/sallyport-project/sallyport/internal/plugin/repository"
	"github.com/sallyport-project/sallyport/internal/plugin/sandbox"
	"github.com/sallyport-project/sallyport/internal/secret"
	"github.com/sallyport-project/sallyport/internal/signal"
	"github.com/sallyport-project/sallyport/internal/store"
	"github.com/sallyport-project/sallyport/internal/store/annex"
	"github.com/sallyport-project/sallyport/internal/token"
	"github.com/sallyport-project/sallyport/internal/verifier/sample"
)

// App is a server with everything plugged in. Make it with [New], run it with
// [App.Run].
type App struct {
	cfg      Config
	version  string
	log      *slog.Logger
	metrics  *obs.Metrics
	store    *store.Store
	host     *plugin.Host
	sandbox  *sandbox.Sandbox
	external *external.Gateway
	gate     *flow.Gate
	depot    *repository.Depot    // nil for none
	files    map[string]*ca.Files // by listener name
	rest     http.Handler
	kbs      http.Handler
	ext      http.Handler // routes of extensions
	before   func(plugin.Extensions) plugin.Extensions
	annexes  *annex.Annexes // databases of extensions
	weak     []string       // switches that weaken, for status and start-up
	lock     *plugin.Lock   // nil for none

	unlisted atomic.Pointer[error] // why a plugin of the configuration is missing

	// The keys in use, and what holds some of them; see rotation.go.
	ring      atomic.Pointer[keyring]
	authority *authority
	sessions  *token.Ring
	// contextKeys are the keys of contexts, which signs with them.
	contextKeys *token.Ring
	contexts    *token.Contexts
	cookies     *token.Cookies
	results     *token.Minter
	trust       *token.Trust
	fetched     []*jwks.Sets // keys of others
	embedded    []*ca.Server
	reloading   sync.Mutex            // one reload at a time
	keysErr     atomic.Pointer[error] // why they could not be opened anew
	sshLast     sync.Map              // id of an SSH CA -> when its last known certificate expires

	bound map[string]string // listener name -> address, once listening
	ready chan struct{}     // closed once all listeners are open
}

// keys are the keys in use now.
func (a *App) keys() *keyring { return a.ring.Load() }

// pepper finds fingerprints by the keys in use now.
type pepper struct{ a *App }

var _ flow.Pepper = pepper{}

func (p pepper) Fingerprint(digest [32]byte) string { return p.a.keys().peppers.Fingerprint(digest) }

func (p pepper) Candidates(digest [32]byte) []string { return p.a.keys().peppers.Candidates(digest) }

// Options are what a program adds to the configuration.
type Options struct {
	Version string
	Output  io.Writer // log and console notifications; standard error if nil
	// Extensions stands before the host of extensions if it is set: for measuring
	// what the way to a plugin costs.
	Extensions func(plugin.Extensions) plugin.Extensions
}

// New opens everything that a server needs and starts nothing. On an error
// nothing stays open.
func New(ctx context.Context, c Config, o Options) (*App, error) {
	if o.Output == nil {
		o.Output = os.Stderr
	}
	level, err := obs.ParseLevel(c.Log.Level)
	if err != nil {
		return nil, err
	}
	log, err := obs.NewLogger(obs.LogConfig{Writer: o.Output, Format: obs.Format(c.Log.Format), Level: level})
	if err != nil {
		return nil, err
	}
	a := &App{
		cfg: c, version: o.Version, before: o.Extensions, log: log, metrics: obs.NewMetrics(), files: map[string]*ca.Files{},
		bound: map[string]string{}, ready: make(chan struct{}),
	}
	if err := a.open(ctx, o.Output); err != nil {
		a.close(context.WithoutCancel(ctx))
		return nil, err
	}
	return a, nil
}

func (a *App) open(ctx context.Context, console io.Writer) error {
	var err error
	var ring *keyring
	if a.store, ring, err = openData(ctx, a.cfg, a.log); err != nil {
		return err
	}
	a.ring.Store(ring)
	if err := a.openFiles(); err != nil {
		return err
	}
	packages, err := a.openPlugins(ctx)
	if err != nil {
		return err
	}
	if a.external, err = a.openExternal(ctx); err != nil {
		return err
	}
	if a.gate, err = a.wireGate(ctx, packages, console); err != nil {
		return err
	}
	if err := a.openKBS(); err != nil {
		return err
	}
	if a.rest, err = a.restDoor(); err != nil {
		return err
	}
	a.ext = extension.New(extension.Config{Gate: a.gate, Log: a.log, Metrics: a.metrics, Now: time.Now})
	if err := a.gate.Reload(ctx); err != nil {
		return err
	}
	if err := a.gate.ApplyPlugins(ctx); err != nil {
		return err
	}
	return a.settlePlugins(ctx)
}

// openStore opens the store alone.
func openStore(ctx context.Context, c Config, log *slog.Logger) (*store.Store, error) {
	if err := os.MkdirAll(c.StateDir, 0o700); err != nil {
		return nil, fault.Unavailablef("the state directory %s cannot be made", c.StateDir).Because(err)
	}
	cfg := store.Config{Driver: c.Storage.Driver, Dir: c.DataDir, StateDir: c.StateDir, Writers: c.Storage.Writers, Logger: log}
	if c.Storage.Driver == store.PostgreSQL {
		dsn, err := connection(c.Storage)
		if err != nil {
			return nil, err
		}
		cfg.DSN = dsn
	}
	return store.Open(ctx, cfg)
}

// connection reads PostgreSQL's connection string, which may hold a password.
func connection(s Storage) (secret.Bytes, error) {
	if s.DSNFile == "" {
		dsn := os.Getenv("SALLYPORT_DATABASE_URL")
		if dsn == "" {
			return secret.Bytes{}, fault.Invalidf("storage.driver is postgres: set storage.dsn_file, or SALLYPORT_DATABASE_URL")
		}
		return secret.FromString(dsn), nil
	}
	text, err := os.ReadFile(s.DSNFile)
	if err != nil {
		return secret.Bytes{}, fault.Unavailablef("storage.dsn_file %s cannot be read", s.DSNFile).Because(err)
	}
	return secret.New(bytes.TrimSpace(text)), nil
}

// openData opens store and keys, in the order in which one guards the other.
func openData(ctx context.Context, c Config, log *slog.Logger) (*store.Store, *keyring, error) {
	st, err := openStore(ctx, c, log)
	if err != nil {
		return nil, nil, err
	}
	ring, err := openKeys(ctx, c, st)
	if err != nil {
		_ = st.Close(context.WithoutCancel(ctx))
		return nil, nil, err
	}
	return st, ring, nil
}

func openKeys(ctx context.Context, c Config, st *store.Store) (*keyring, error) {
	generation, err := st.Generation(ctx, "keys")
	if err != nil {
		return nil, err
	}
	rows, err := st.Keys(ctx)
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		return nil, fault.NotFoundf("this store is not set up yet; run: sallyport init")
	}
	ring, err := openVault(ctx, c, rows, time.Now)
	if err != nil {
		return nil, err
	}
	st.UseMAC(ring.mac)
	if rows, err = st.Keys(ctx); err != nil { // again, now with every MAC checked
		return nil, err
	}
	ring.generation = generation
	if err := ring.openLedger(ctx, rows, time.Now()); err != nil {
		return nil, err
	}
	if err := st.UseSigner(ctx, ring.signers[0], ring.auditors); err != nil {
		return nil, err
	}
	st.UseSigners(ring.signers, ring.auditors)
	if rows, err = revive(ctx, c, st, ring, rows); err != nil {
		return nil, err
	}
	return ring, ring.open(ctx, c, rows, time.Now)
}

// openFiles opens certificates that come from files.
func (a *App) openFiles() error {
	for _, l := range append([]Listener{a.cfg.Listen.Main}, a.cfg.Listen.Further...) {
		if l.Certificate == "" && l.ClientCA == "" {
			continue
		}
		files, err := ca.OpenFiles(ca.FilesConfig{Certificate: l.Certificate, Key: l.Key, ClientCA: l.ClientCA, Logger: a.log})
		if err != nil {
			return err
		}
		a.files[l.Name] = files
	}
	return nil
}

// packages joins the plugin store and the host for flow.
type packages struct {
	*plugin.Host
	store *plugin.Store
}

func (p packages) Install(pack io.Reader, trust plugin.Trust) (plugin.Entry, error) {
	return p.store.Install(pack, trust)
}

func (p packages) Verify(digest string, trust plugin.Trust) (plugin.Entry, error) {
	return p.store.Verify(digest, trust)
}

func (p packages) Apply(ctx context.Context, rows []plugin.Installed, trust plugin.Trust) error {
	return p.Sync(ctx, rows, trust)
}

func (a *App) openPlugins(ctx context.Context) (packages, error) {
	box, err := a.openSandbox(ctx)
	if err != nil {
		return packages{}, err
	}
	if a.lock, err = a.cfg.Plugins.readLock(); err != nil {
		return packages{}, err
	}
	if a.cfg.Plugins.Development {
		a.weak = append(a.weak, "plugins.development is on: PACKAGES SIGNED BY A DEVELOPER'S OWN KEY RUN HERE; this is nobody's production")
	}
	st, err := plugin.OpenStore(filepath.Join(a.cfg.DataDir, "plugins"))
	if err != nil {
		return packages{}, err
	}
	if a.annexes, err = a.openAnnexes(); err != nil {
		return packages{}, err
	}
	a.host, err = plugin.New(plugin.Config{
		Databases: a.annexes,
		Store:     st, Log: a.log, Metrics: a.metrics, Scale: a.cfg.Plugins.scale(), Sandbox: box, Eager: true,
		Interpreters: a.cfg.Plugins.Interpreters, House: house{a}, Values: a.store,
		Witness: func(ctx context.Context, name string, i plugin.Interpreter) error {
			return a.gate.WitnessInterpreter(ctx, name, i)
		},
	})
	if err != nil {
		return packages{}, err
	}
	return packages{Host: a.host, store: st}, nil
}

// house does for plugins what they ask for as services. The gate is there before
// the first plugin runs.
type house struct{ a *App }

func (h house) Emit(ctx context.Context, name string, e plugin.Event) error {
	return h.a.gate.Emit(ctx, name, e)
}

func (h house) Raise(ctx context.Context, name string, s signal.Signal, key string) (string, int, error) {
	return h.a.gate.Raise(ctx, name, s, key)
}

func (h house) Vend(ctx context.Context, name, publisher string, s grant.Scope, key string) (plugin.Vended, error) {
	out, err := h.a.gate.VendToPlugin(ctx, name, publisher, flow.VendRequest{Kind: s.Kind, Params: s.Params, TTL: s.TTL}, key)
	if err != nil {
		return plugin.Vended{}, err
	}
	scope := grant.Scope{Kind: out.Kind, Params: out.Params, TTL: out.ExpiresAt.Sub(out.IssuedAt), IssuedAt: out.IssuedAt, ExpiresAt: out.ExpiresAt}
	return plugin.Vended{Grant: out.Grant, Scope: scope, Value: out.Value, Private: out.Private}, nil
}

// wireGate lists every built-in part.
func (a *App) wireGate(ctx context.Context, p packages, output io.Writer) (*flow.Gate, error) {
	var err error
	if a.sessions, err = token.NewRing(a.keys().sessions); err != nil {
		return nil, err
	}
	sessions, err := token.NewSessions(token.SessionsConfig{Issuer: a.cfg.TrustDomain, Ring: a.sessions, Now: time.Now})
	if err != nil {
		return nil, err
	}
	if a.contextKeys, err = token.NewRing(a.keys().contexts); err != nil {
		return nil, err
	}
	if a.contexts, err = token.NewContexts(a.cfg.TrustDomain, kbsplugin.ContextType, a.contextKeys, time.Now); err != nil {
		return nil, err
	}
	a.authority = newAuthority(a)
	guests, err := a.wireGuests()
	if err != nil {
		return nil, err
	}
	channels := []notify.Channel{console.New(output)}
	for _, w := range a.cfg.Notify.Webhooks {
		channel, err := openWebhook(w)
		if err != nil {
			return nil, err
		}
		channels = append(channels, channel)
	}
	own, err := a.openDepot(ctx)
	if err != nil {
		return nil, err
	}
	extensions := plugin.Extensions(a.host)
	if a.before != nil {
		extensions = a.before(extensions)
	}
	var locked map[string]string
	if a.lock != nil {
		locked = a.lock.Digests()
	}
	return flow.New(flow.Config{
		Development: a.cfg.Plugins.Development, Locked: locked, Addresses: a.cfg.KBS.External.addresses(),
		Ledger: a.store, Store: a.store, Clock: a.store,
		Envelope: a.keys().vault, Pepper: pepper{a}, Authority: a.authority, Keyring: keeper{a}, KeyPeriods: a.cfg.Keys.periods(),
		Sessions: sessions, Providers: a.host, Packages: p, Extensions: extensions, Databases: a.annexes, Relay: a.store, Gates: a.cfg.Plugins.gates(),
		Repositories: repositories{}, Depot: own,
		Signers:  map[string]grant.Signer{sshKind: sshSigner{a.keys}},
		Channels: channels, Notifiers: a.host.Notifiers, Guests: guests, Backends: a.external, Contexts: a.contexts, Log: a.log, Now: time.Now,
		LeafLife: agentLife, OperatorLife: operatorLife, KeepVersions: max(a.cfg.KBS.ResourceVersions, 0),
	})
}

func openWebhook(w Webhook) (notify.Channel, error) {
	key, err := os.ReadFile(w.SecretFile)
	if err != nil {
		return nil, fault.Unavailablef("notify.webhooks: the secret_file of %s cannot be read", w.Name).Because(err)
	}
	return webhook.New(webhook.Config{Name: w.Name, URL: w.URL, Secret: secret.New(bytes.TrimSpace(key)), Client: http.DefaultTransport})
}

// wireGuests gives the key broker's door its verifiers and keys.
func (a *App) wireGuests() (flow.Guests, error) {
	g := flow.Guests{Library: library{a.cfg.Verifiers}}
	if a.cfg.Verifiers.Sample.Insecure {
		a.weak = append(a.weak, sample.Banner)
	}
	var err error
	if g.Fetcher, err = a.cfg.Verifiers.Fetch.open(); err != nil {
		return g, err
	}
	g.Further, g.Selectors, g.LegacyRSA = a.host.Verifiers, a.cfg.KBS.AttestationPolicies, a.cfg.KBS.AllowRSA15
	a.weak = append(a.weak, a.cfg.KBS.weak()...)
	a.weak = append(a.weak, a.cfg.weakListeners()...)
	ring := a.keys()
	if a.cookies, err = token.NewCookies(token.CookiesConfig{Keys: ring.cookies, Now: time.Now}); err != nil {
		return g, err
	}
	if a.results, err = a.cfg.KBS.AttestationResults.minter(ring, a.version); err != nil {
		return g, err
	}
	if err := a.openTrust(ring.trust); err != nil {
		return g, err
	}
	g.Cookies, g.Results, g.Trust = a.cookies, a.results, a.trust
	return g, nil
}
