// Package plugin is the host of signed plugins: packages and the trust by which
// they are judged, the store of their files, the processes that run them, and
// the providers that the rest of the house sees.
//
// The rules, in the order in which a package meets them:
//
//   - A package is one archive with manifest.json, signature.dat (DSSE, Ed25519)
//     and executables. Nothing is unpacked before the manifest's signatures were
//     checked against keys that an operator trusts ([Trust], [Store.Install]).
//   - Which packages run is decided by rows ([Installed]), so that replicas
//     agree; the files lie in a store by digest that is trusted for nothing.
//   - Before every start the signatures are checked again, and the executable is
//     copied once into sealed memory and hashed on the way; that object runs.
//   - A process gets a clean environment, no descriptors, its own process group
//     and a private channel; it is restarted when it ends, and no call ever
//     reaches a process that is gone.
//   - What a plugin answers is compared with what was asked before it counts.
//
// docs/plugins has the formats and contracts in words. The package confines no
// process by itself; [Sandbox] is the seam for that.
package plugin

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	own "github.com/sallyport-project/sallyport/api/sallyport/plugin/v1"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/obs"
)

// Config has the settings of a host. Zero values mean the defaults named here.
type Config struct {
	// Store has the files of packages; required.
	Store *Store
	// RunDir is the folder for private sockets, at most 40 bytes long because a
	// socket's name has only 107; default a fresh folder among temporary files.
	RunDir string
	Log    *slog.Logger     // default: discard
	Now    func() time.Time // default: time.Now
	// Settings returns the configuration of a plugin, JSON that may hold secrets,
	// or nothing. The host wipes the bytes after use. Only plugins of
	// sallyport.plugin.v1 can take one.
	Settings func(ctx context.Context, plugin string) ([]byte, error)
	// Databases keeps the tables of extensions; nil refuses those that have any.
	Databases Database
	// Sandbox confines processes; nil runs them as this user, and status says so.
	Sandbox Sandbox
	// Interpreters are the programs for interpreted plugins, absolute paths by
	// the name that a manifest uses. python3 and python3.N need no entry: they are
	// looked for in the system's folders, whatever PATH says.
	Interpreters map[string]string
	// Witness is told which interpreter runs a plugin, before its first start and
	// whenever path or digest have changed since. Its error keeps the plugin from
	// starting.
	Witness func(ctx context.Context, plugin string, i Interpreter) error
	// Values keeps what plugins put under keys; nil: the service kv does not exist.
	Values Values
	// House does what plugins ask for as services; nil: those services do not exist.
	House House
	// Eager starts plugins when they are put in place, not with the first call.
	Eager bool

	CallTimeout  time.Duration    // for each call, with waiting and repetition; 5 s
	RouteTimeout time.Duration    // until the answer of a route begins, after the last part of the request's body; 10 s
	StartTimeout time.Duration    // from start to the first answer; 30 s
	HealthEvery  time.Duration    // between health checks; 30 s
	CheckTimeout time.Duration    // for one health check; 5 s
	CoolDown     time.Duration    // how long the circuit stays open; 30 s
	SteadyAfter  time.Duration    // a process that lived that long ends a row of failures; 3 s
	Scale        map[string]Scale // how wide each plugin runs, by name
	Metrics      *obs.Metrics     // where to count; default: nowhere
	MaxMessage   int              // bytes, in either direction; 4 MiB
}

const maxRunDir = 40

// Host runs the installed plugins. It is safe for concurrent use.
type Host struct {
	cfg    Config
	store  *Store
	runDir string
	spawn  *spawner
	images images
	meters *meters
	pace   pace
	told   told
	keeper *keeper
	depths depths

	scratch *Scratch // nil if the run folder was given

	ending context.Context // ends when Close begins
	stop   context.CancelFunc

	mu       sync.Mutex // serialises whoever changes the table
	closed   bool
	upgrades map[string]*upgrade // under way, by name
	old      sync.WaitGroup      // lives that are being drained, and upgrades
	table    atomic.Pointer[table]
	trust    atomic.Pointer[Trust]
}

// told is which interpreters were witnessed, by plugin.
type told struct {
	mu sync.Mutex
	by map[string]Interpreter
}

// New makes a host without plugins; [Host.Sync] gives it some. Close ends it.
func New(cfg Config) (*Host, error) {
	if cfg.Store == nil {
		return nil, fault.Internalf("a plugin host needs a store")
	}
	cfg = withDefaults(cfg)
	h := &Host{cfg: cfg, store: cfg.Store, runDir: cfg.RunDir, images: images{held: map[string]*held{}}}
	h.keeper = &keeper{values: cfg.Values, now: cfg.Now}
	if h.runDir == "" {
		var err error
		if h.scratch, err = NewScratch("sp-"); err != nil {
			return nil, err
		}
		h.runDir = h.scratch.Dir()
	}
	if runtime.GOOS != "windows" && len(h.runDir) > maxRunDir {
		_ = h.scratch.Close()
		return nil, fault.Invalidf("the folder for plugin sockets, %s, must be at most %d bytes long; choose a shorter one", h.runDir, maxRunDir)
	}
	h.pace = pace{
		healthEvery: cfg.HealthEvery, checkWithin: cfg.CheckTimeout,
		firstPause: 50 * time.Millisecond, maxPause: 5 * time.Second,
		breakAfter: 5, coolDown: cfg.CoolDown, steadyAfter: cfg.SteadyAfter,
	}
	if err := h.store.sweepTrees(); err != nil {
		return nil, errors.Join(err, h.scratch.Close())
	}
	h.told.by = map[string]Interpreter{}
	h.spawn = newSpawner()
	h.ending, h.stop = context.WithCancel(context.Background())
	h.meters = newMeters(cfg.Metrics, h)
	h.table.Store(&table{})
	h.trust.Store(&Trust{})
	return h, nil
}

func withDefaults(c Config) Config {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	for _, d := range []struct {
		value *time.Duration
		def   time.Duration
	}{
		{&c.CallTimeout, 5 * time.Second},
		{&c.RouteTimeout, 10 * time.Second},
		{&c.StartTimeout, 30 * time.Second},
		{&c.HealthEvery, 30 * time.Second},
		{&c.CheckTimeout, 5 * time.Second},
		{&c.CoolDown, 30 * time.Second},
		{&c.SteadyAfter, 3 * time.Second},
	} {
		if *d.value <= 0 {
			*d.value = d.def
		}
	}
	if c.Metrics == nil {
		c.Metrics = obs.NewMetrics()
	}
	if c.MaxMessage <= 0 {
		c.MaxMessage = own.MaxMessageBytes
	}
	return c
}

// Provider returns what issues credentials of a kind, NotFound if no installed
// plugin does. The value stays good over restarts, upgrades and removals: each
// call goes to what is in place at that moment.
func (h *Host) Provider(kind string) (grant.Provider, error) {
	r, err := h.vender(kind)
	if err != nil {
		return nil, err
	}
	if r.oneCall() {
		return oneCall{h, kind, r}, nil
	}
	return stages{h, kind, r}, nil
}

// Kinds lists the credential kinds that can be issued now, sorted.
func (h *Host) Kinds() []string { return h.table.Load().kinds() }

// Close drains and stops all plugins. Calls in flight finish, or are cut off
// when ctx ends. After it every call is Unavailable. It returns when no process,
// thread or descriptor is left, and may be called once.
func (h *Host) Close(ctx context.Context) error {
	h.stop()
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return nil
	}
	h.closed = true
	all := h.table.Swap(&table{closed: true}).routes
	for _, u := range h.upgrades {
		all = append(all, u.next)
	}
	for _, r := range all {
		h.retire(ctx, r, drainWithin)
	}
	h.mu.Unlock()
	h.old.Wait()
	h.spawn.close()
	return h.scratch.Close()
}
