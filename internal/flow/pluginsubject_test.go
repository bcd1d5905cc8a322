package flow_test

import (
	"bytes"
	"context"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/policy"
	"github.com/sallyport-project/sallyport/internal/subject"
)

// onlyPackage is a plugin host that accepts one package, and says of it what it is told to.
type onlyPackage struct {
	noPackages
	mu     sync.Mutex
	entry  plugin.Entry
	status []plugin.Status
}

func (s *onlyPackage) Install(io.Reader, plugin.Trust) (plugin.Entry, error) { return s.entry, nil }

func (s *onlyPackage) Status() []plugin.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

func (s *onlyPackage) say(state plugin.State, reason plugin.Reason, use plugin.Use) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = []plugin.Status{{Name: "scanner", State: state, Reason: reason, SignedFor: use}}
}

const pluginsMayVend = `package sallyport
release := {"allow": true, "bounds": {"kind": input.request.kind, "max_params": {"principals": ["deploy"]}, "max_ttl_seconds": 300}, "reasons": ["plugin"]} if {
	input.subject.kind == "plugin"
	input.subject.name == "scanner"
	input.context.door == "plugin"
}
`

// asker is a house with an installed plugin that may ask for credentials of kinds.
type asker struct {
	*house
	packages *onlyPackage
	remote   *taker
}

func newAsker(t *testing.T) *asker {
	t.Helper()
	packages := &onlyPackage{}
	a := &asker{house: newHouse(t, func(c *flow.Config) { c.Packages = packages }), packages: packages, remote: newTaker(grant.EffectsNone)}
	a.vendors["opaque"] = a.remote
	a.install("1.0.0", "opaque")
	must(t, done(a.gate.SetPolicy(context.Background(), a.admin.caller(), "plugins", policy.Sallyport, pluginsMayVend)))
	return a
}

func (a *asker) install(version string, kinds ...string) {
	a.t.Helper()
	a.installOf("acme", version, kinds...)
}

func (a *asker) installOf(publisher, version string, kinds ...string) {
	a.t.Helper()
	m := manifest.Manifest{Name: "scanner", Version: version, Publisher: publisher, Roles: []string{manifest.RoleNotifier}, Contract: manifest.ContractSallyport}
	m.Capabilities.Services = &manifest.Services{Log: true, Vend: kinds}
	a.packages.entry = plugin.Entry{Digest: "sha256:" + version, Manifest: m, KeyIDs: []string{"k"}, Use: plugin.UsePackage}
	must(a.t, done(a.gate.InstallPlugin(context.Background(), a.admin.caller(), bytes.NewReader(nil), flow.InstallRequest{})))
}

func (a *asker) vend(key string) (flow.Vended, error) {
	return a.gate.VendToPlugin(context.Background(), "scanner", "acme", request("opaque"), key)
}

// self is the plugin's subject, which must be there.
func (a *asker) self() subject.Subject {
	a.t.Helper()
	s, err := a.store.SubjectByName(context.Background(), subject.Plugin, "scanner")
	must(a.t, err)
	return s
}

// gone demands that the plugin gets nothing any more, and that the sweeper takes
// back what it was given.
func (a *asker) gone(t *testing.T, of string, live int) {
	a.t.Helper()
	want(a.t, done(a.vend("")), fault.Denied)
	must(a.t, done(a.gate.Recall(context.Background())))
	same(t, "grants", a.states(of), map[grant.State]int{grant.Revoked: live})
	count(a.t, len(a.remote.tries()), live, "calls of the provider")
	s, err := a.store.Subject(context.Background(), of)
	must(a.t, err)
	if s.State != subject.Revoked || !s.Recall.IsZero() {
		a.t.Errorf("the subject is %+v", s)
	}
}

// A plugin gets what policy allows it, as itself, in its own name, and once a key.
func TestPlugin_VendsAsItself(t *testing.T) {
	a := newAsker(t)
	self := a.self()
	if self.Kind != subject.Plugin || self.Role != "plugin" || self.Name != "scanner" {
		t.Errorf("born as %+v", self)
	}
	if r := a.lastRecord("plugin.installed"); r.Subject != self.ID {
		t.Errorf("installed: %+v", r)
	}
	out, err := a.vend("one")
	must(t, err)
	if got := out.ExpiresAt.Sub(out.IssuedAt); got != 5*time.Minute {
		t.Errorf("lives %s", got)
	}
	again, err := a.vend("one")
	must(t, err)
	if again.Grant != out.Grant || !bytes.Equal(again.Value.Reveal(), out.Value.Reveal()) {
		t.Error("the same key gave another credential")
	}
	held, err := a.store.Grant(context.Background(), out.Grant)
	must(t, err)
	if held.Subject != self.ID {
		t.Errorf("the lease is %s's", held.Subject)
	}
	r := a.lastRecord("grant.issued")
	if r.Subject != self.ID || r.Actor != (audit.Actor{Kind: "plugin", Subject: self.ID, Via: "plugin:scanner"}) {
		t.Errorf("recorded %+v", r)
	}
	// Policy says no to what it does not know, and that is recorded as well.
	want(t, done(a.gate.VendToPlugin(context.Background(), "scanner", "acme", flow.VendRequest{Kind: "opaque", Params: map[string]any{"host.x": "1"}, TTL: hour}, "")), fault.Invalid)
	must(t, done(a.gate.SetPolicy(context.Background(), a.admin.caller(), "plugins", policy.Sallyport, strings.Replace(pluginsMayVend, `"scanner"`, `"another"`, 1))))
	want(t, done(a.vend("")), fault.Denied)
	if r := a.lastRecord("grant.issued"); r.Outcome != audit.Denied || r.Subject != self.ID {
		t.Errorf("recorded %+v", r)
	}
	want(t, done(a.gate.VendToPlugin(context.Background(), "another", "acme", request("opaque"), "")), fault.Denied)
}

func TestPlugin_EndTakesItsCredentialsBack(t *testing.T) {
	ctx := context.Background()
	for name, end := range map[string]func(*asker){
		"removed": func(a *asker) { must(a.t, a.gate.RemovePlugin(ctx, a.admin.caller(), "scanner")) },
		"asks no more": func(a *asker) {
			a.install("1.1.0")
		},
		"key revoked": func(a *asker) {
			a.packages.say(plugin.Refused, plugin.ReasonRevoked, plugin.UsePackage)
			must(a.t, a.gate.ApplyPlugins(ctx))
		},
		"key out of trust": func(a *asker) {
			a.packages.say(plugin.Refused, plugin.ReasonBadSignature, plugin.UsePackage)
			must(a.t, a.gate.ApplyPlugins(ctx))
		},
		"revoked by hand": func(a *asker) { a.revoke(a.self().ID, flow.Revoke) },
	} {
		t.Run(name, func(t *testing.T) {
			a := newAsker(t)
			must(t, done(a.vend("")))
			must(t, done(a.vend("")))
			was := a.self().ID
			end(a)
			a.gone(t, was, 2)
			// Whoever installs it again has decided so: it begins as somebody else. A key
			// that was out of trust must be trusted first.
			a.packages.say(plugin.Ready, plugin.ReasonOK, plugin.UsePackage)
			a.install("1.1.0", "opaque")
			if name == "asks no more" {
				a.install("1.2.0", "opaque")
			}
			must(t, done(a.vend("")))
			if a.self().ID == was {
				t.Error("it has risen again")
			}
		})
	}
}

// What says nothing about the publisher leaves a plugin what it has.
func TestPlugin_KeepsItsCredentialsWhileItOnlyStandsStill(t *testing.T) {
	a := newAsker(t)
	must(t, done(a.vend("")))
	self := a.self().ID
	for _, s := range []struct {
		state  plugin.State
		reason plugin.Reason
		use    plugin.Use
	}{
		{plugin.Refused, plugin.ReasonStale, plugin.UsePackage},
		{plugin.Refused, plugin.ReasonMissing, plugin.UsePackage},
		{plugin.Refused, plugin.ReasonDamaged, plugin.UsePackage},
		{plugin.Refused, plugin.ReasonBadSignature, plugin.UseDevelopment},
		{plugin.Broken, plugin.ReasonCrashed, plugin.UsePackage},
	} {
		a.packages.say(s.state, s.reason, s.use)
		must(t, a.gate.ApplyPlugins(context.Background()))
	}
	a.install("1.1.0", "opaque", "other")
	if a.self().ID != self {
		t.Error("an upgrade made it somebody else")
	}
	same(t, "grants", a.states(self), map[grant.State]int{grant.Active: 1})
	// An operator can lock it, and let it go on.
	a.change(self, "locked")
	want(t, done(a.vend("")), fault.Denied)
	a.change(self, "unlocked")
	must(t, done(a.vend("")))
}

// A credential that is being made while its plugin is removed is not handed out.
// A process can outlive a purge for seconds. It does not become the plugin of
// whoever has the name since.
func TestPlugin_GetsNothingAsTheOneWhoHasItsNameSince(t *testing.T) {
	a := newAsker(t)
	ctx := context.Background()
	must(t, done(a.vend("one")))
	must(t, a.gate.RemovePlugin(ctx, a.admin.caller(), "scanner"))
	must(t, a.gate.PurgePlugin(ctx, a.admin.caller(), "scanner"))
	a.installOf("other", "1.0.0", "opaque")
	for _, key := range []string{"", "one"} {
		want(t, done(a.vend(key)), fault.Unavailable)
	}
	same(t, "grants", a.states(a.self().ID), map[grant.State]int{})
	must(t, done(a.gate.VendToPlugin(ctx, "scanner", "other", request("opaque"), "one")))
}

func TestPlugin_RemovedMeanwhileGetsNothing(t *testing.T) {
	a := newAsker(t)
	self := a.self().ID
	a.remote.issue = func(_ context.Context, s grant.Scope, b grant.Bounds) (grant.Issued, error) {
		if a.remote.calls() == 1 {
			must(t, a.gate.RemovePlugin(context.Background(), a.admin.caller(), "scanner"))
		}
		return a.remote.proper(s, b), nil
	}
	want(t, done(a.vend("")), fault.Unauthenticated)
	same(t, "grants", a.states(self), map[grant.State]int{})
}
