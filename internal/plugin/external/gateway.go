package external

import (
	"context"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/obs"
)

// Packages are the installed packages with role kbs.
type Packages interface {
	// Backend finds one by its name, NotFound if there is none.
	Backend(name string) (Backend, error)
	// Backends says whether there is any.
	Backends() bool
}

// Config is what a gateway is made of.
type Config struct {
	Addresses []Address
	// Packages are the plugins that run here; required.
	Packages Packages
	// Rules are the operator's for packages, by name; those of addresses are in
	// theirs.
	Rules   map[string]Rules
	Metrics *obs.Metrics     // required
	Now     func() time.Time // required
}

// Gateway finds what answers below a name. Safe for concurrent use.
type Gateway struct {
	cfg       Config
	addresses map[string]*address
	meters    meters
}

// New begins to connect to the addresses, whose names differ. Faults are Invalid:
// an endpoint or a file that cannot be used.
func New(c Config) (*Gateway, error) {
	g := &Gateway{cfg: c, addresses: map[string]*address{}}
	for _, a := range c.Addresses {
		open, err := dial(a)
		if err != nil {
			g.Close()
			return nil, err
		}
		g.addresses[a.Name] = open
	}
	g.meters = newMeters(c.Metrics, g.up)
	return g, nil
}

// Close ends the connections.
func (g *Gateway) Close() {
	for _, a := range g.addresses {
		_ = a.conn.Close()
	}
}

// Open reports whether anything answers here at all.
func (g *Gateway) Open() bool { return len(g.addresses) > 0 || g.cfg.Packages.Backends() }

// Find gives what answers below a name, NotFound if nothing does. A package of an
// address's name is refused where it is installed and before it starts.
func (g *Gateway) Find(name string) (Backend, error) {
	if a := g.addresses[name]; a != nil {
		return g.counted(a, a.About()), nil
	}
	b, err := g.cfg.Packages.Backend(name)
	if err != nil {
		return nil, err
	}
	about := b.About()
	own := g.cfg.Rules[name]
	about.Rules.Configured, about.Rules.Rich = own.Configured, own.Rich
	return g.counted(b, about), nil
}

func (g *Gateway) up(emit func(float64, ...string)) {
	for name, a := range g.addresses {
		v := 0.0
		if a.up() {
			v = 1
		}
		emit(v, name)
	}
}

func (g *Gateway) counted(b Backend, about About) Backend { return counted{b, about, g} }

// counted is a backend whose calls are counted.
type counted struct {
	Backend
	about   About
	gateway *Gateway
}

// About says which it is, with the operator's rules.
func (c counted) About() About { return c.about }

// ValidateAuth asks; see [Backend].
func (c counted) ValidateAuth(ctx context.Context, r Request) (bool, error) {
	done := c.begin(callValidateAuth)
	yes, err := c.Backend.ValidateAuth(ctx, r)
	done(err, true)
	return yes, err
}

// Handle asks; see [Backend].
func (c counted) Handle(ctx context.Context, r Request) (Response, error) {
	done := c.begin(callHandle)
	a, err := c.Backend.Handle(ctx, r)
	done(err, a.Success())
	return a, err
}

// NeedsEncryption asks; see [Backend].
func (c counted) NeedsEncryption(ctx context.Context, r Request) (bool, error) {
	done := c.begin(callNeedsEncryption)
	yes, err := c.Backend.NeedsEncryption(ctx, r)
	done(err, true)
	return yes, err
}

func (c counted) begin(call string) func(err error, success bool) {
	begun := c.gateway.cfg.Now()
	return func(err error, success bool) {
		outcome := outcomeOK
		switch {
		case fault.Is(err, fault.Exhausted):
			outcome = outcomeBusy
		case err != nil && late(err):
			outcome = outcomeLate
		case err != nil:
			outcome = outcomeFailed
		case !success:
			outcome = outcomeRefused
		}
		c.gateway.meters.count(c.about.Name, call, outcome, c.gateway.cfg.Now().Sub(begun))
	}
}
