package conformance

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/plugin/external"
)

var (
	isServed = expectation{
		"start/served", "this version of the host serves it",
		"see the reason; docs/plugins/overview.md has what this version serves",
	}
	wantsCookie = expectation{
		"start/cookie", "it refuses to run for somebody who is no host",
		"before anything else, compare the variable of the handshake's cookie, and exit with a code that is not 0",
	}
	startsUp = expectation{
		"start/identity", "it comes up within 10 s, in its folder, and is what its manifest says",
		"read what it wrote; name, version and kinds must be those of plugin.json, and the address a socket in the folder that it was given",
	}
	isConfined = expectation{
		"start/sandbox", "it runs in the sandbox with nothing but what its manifest declares",
		"declare what it needs in capabilities, or do without it; see docs/plugins/sandbox.md",
	}
	startsFast = expectation{
		"start/time", "it is ready within 5 s",
		"do less before the handshake: connect, read and compute with the first call",
	}
	isSmall = expectation{
		"start/memory", "it rests within the memory that its manifest declares",
		"declare capabilities.memory_mb, or keep less in memory",
	}
)

const (
	ready         = 5 * time.Second
	comesUp       = 10 * time.Second // a third of what a server gives it, which may be busy
	restingMemory = 128              // MB, where the manifest declares nothing
)

// now is the clock of checks about times of plugins, which run on this machine.
func now() time.Time { return time.Now() }

// processChecks start the package and look at what it does.
func (r *run) processChecks(ctx context.Context) error {
	file, public, err := r.signedCopy()
	if err != nil {
		return err
	}
	key, err := plugin.NewKey(public, r.m.Publisher, nil, "", now())
	if err != nil {
		return err
	}
	trust := plugin.Trust{Keys: []plugin.Key{key}}
	store, err := plugin.OpenStore(filepath.Join(r.dir, "store"))
	if err != nil {
		return err
	}
	f, err := os.Open(file) //nolint:gosec // our own copy
	if err != nil {
		return fault.Wrap(err, "open package")
	}
	_, err = store.Install(f, trust)
	_ = f.Close()
	if err != nil {
		r.add(isServed, Skipped, r.unserved(err))
		r.skipProcess("it cannot be started here")
		return nil
	}
	r.add(isServed, Pass, r.m.Contract)
	p := &process{run: r, trust: trust}
	if p.host, err = r.newHost(store, ""); err != nil {
		return err
	}
	defer func() { _ = p.host.Close(context.WithoutCancel(ctx)) }()
	p.startChecks(ctx)
	if p.probe == nil {
		r.skipProcess("it does not start")
		return nil
	}
	if r.m.Contract == manifest.ContractKBS {
		r.kbsChecks(ctx, external.Wire{ClientConnInterface: p.probe.Conn()})
	} else {
		p.callChecks(ctx)
		p.secretChecks(ctx, store)
	}
	p.endChecks()
	return nil
}

// unserved says why a package does not run here: a role that comes later is no
// fault of its author.
func (r *run) unserved(err error) string {
	for _, role := range r.m.RolesFor(manifest.ForServer) {
		switch role {
		case manifest.RoleVender, manifest.RoleValidator, manifest.RoleAnalyzer, manifest.RoleSerializer, manifest.RoleKBS,
			manifest.RoleRevoker, manifest.RoleNotifier, manifest.RoleVerifier, manifest.RoleExtension:
		default:
			return "needs the host's support for role " + role
		}
	}
	return text(err)
}

// skipProcess notes all that needs a running process.
func (r *run) skipProcess(why string) {
	done := map[string]bool{}
	for _, c := range r.report.Checks {
		done[c.ID] = true
	}
	for _, e := range ofProcess() {
		if !done[e.id] {
			r.add(e, Skipped, why)
		}
	}
}

// ofProcess are the checks of a running process, in order.
func ofProcess() []expectation {
	return []expectation{
		wantsCookie, startsUp, isConfined, startsFast, isSmall,
		grants, knowsItsParams, narrowsOnly, expires, isPunctual, isParallel, isHealthy, survivesCancel, survivesGarbage, survivesSize,
		keepsSecrets, endsWhenAsked, leavesNothing, saysOneLine,
	}
}

func (r *run) newHost(store *plugin.Store, marker string) (*plugin.Host, error) {
	return plugin.New(plugin.Config{
		Store: store, RunDir: r.short, Log: r.log.logger(), Sandbox: r.Sandbox, StartTimeout: comesUp,
		Settings: func(context.Context, string) ([]byte, error) { return r.settings(marker) },
	})
}

// process is a package that can be started, and its process of this moment.
type process struct {
	*run
	trust plugin.Trust
	host  *plugin.Host
	probe *plugin.Probe
	wire  wire
	good  []example // what it granted
	seen  [][]byte  // credentials that it made
}

// startChecks start it as a stranger and as a host.
func (p *process) startChecks(ctx context.Context) {
	if p.m.Contract == manifest.ContractKBS {
		p.add(wantsCookie, Skipped, "without a host it may serve an address, as under Trustee")
	} else {
		problem, err := p.host.ProbeStranger(ctx, p.digest, p.trust)
		p.judge(wantsCookie, first(problem, text(err)), "it ends by itself")
	}
	begun := time.Now()
	if err := p.start(ctx); err != nil {
		said := p.log.said(3)
		if said != "" {
			said = "; it wrote: " + said
		}
		p.add(startsUp, Fail, text(err)+said)
		return
	}
	took := time.Since(begun)
	if alone, ok := unhurried(p.probe.PID()); ok {
		took = min(took, alone)
	}
	address := p.probe.Address()
	p.add(startsUp, Pass, fmt.Sprintf("%s %s for %v, at a %s socket", p.m.Name, p.m.Version, p.m.Kinds, address.Network()))
	p.sandboxCheck()
	p.judge(startsFast, late(took, ready), took.Round(time.Millisecond).String())
	p.memoryCheck()
}

func (p *process) start(ctx context.Context) error {
	probe, err := p.host.Probe(ctx, p.digest, p.trust)
	if err != nil {
		return err
	}
	p.probe, p.wire = probe, p.run.wire(probe.Conn())
	return nil
}

func late(took, limit time.Duration) string {
	if took > limit {
		return "it took " + took.Round(time.Millisecond).String()
	}
	return ""
}

func (p *process) sandboxCheck() {
	p.report.Sandbox = p.probe.Sandbox()
	switch box, ok := p.Sandbox.(interface{ Lacks() string }); {
	case p.Sandbox == nil:
		p.add(isConfined, Skipped, "there is no sandbox")
	case ok && box.Lacks() != "":
		p.add(isConfined, Skipped, "this machine has no "+box.Lacks())
	default:
		p.add(isConfined, Pass, asks(p.m.Capabilities))
	}
}

// asks says what a manifest declares.
func asks(c manifest.Capabilities) string {
	if len(c.Network)+len(c.Files)+len(c.Environment) == 0 {
		return "without network, files, environment and home"
	}
	return fmt.Sprintf("network %v, files %v, environment %v", c.Network, c.Files, c.Environment)
}

func (p *process) memoryCheck() {
	mb, ok := resting(p.probe.PID())
	limit := restingMemory
	if p.m.Capabilities.MemoryMB > 0 {
		limit = p.m.Capabilities.MemoryMB
	}
	switch {
	case !ok:
		p.add(isSmall, Skipped, "this system does not say how much it uses")
	case mb > limit:
		p.add(isSmall, Fail, fmt.Sprintf("%d MB, and %d are allowed", mb, limit))
	default:
		p.add(isSmall, Pass, fmt.Sprintf("%d MB of %d", mb, limit))
	}
}

func first(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}
