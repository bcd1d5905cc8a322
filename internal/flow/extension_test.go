package flow_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/event"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/plugin/external"
	"github.com/sallyport-project/sallyport/internal/policy"
	"github.com/sallyport-project/sallyport/internal/store/storetest"
	"github.com/sallyport-project/sallyport/internal/subject"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// extensions is a host of one extension, which does as it is told.
type extensions struct {
	mu      sync.Mutex
	events  []event.Event
	fails   map[string]error // by type
	routed  []plugin.RouteRequest
	verdict plugin.Verdict
	silent  bool // of the gate
	any     bool // the gate is asked about other kinds than test
	purged  []string
	before  func()       // before anything is looked at
	during  func() error // while tables are dropped
	relay   func(ctx context.Context, name string, position uint64, r audit.Record) error
	follows []string
}

func (x *extensions) Extension(prefix string) (plugin.Extension, error) {
	if prefix != "myext" {
		return plugin.Extension{}, fault.NotFoundf("no extension")
	}
	return x.Extensions()[0], nil
}

func (x *extensions) Extensions() []plugin.Extension {
	return []plugin.Extension{{Plugin: "tags", Version: "1.0.0", Reason: plugin.ReasonOK, Extension: manifest.Extension{
		Prefix: "myext", Hooks: []string{"subject.*", "plugin.event"}, Gates: []string{"release"},
		Routes: []plugin.Route{{Path: "/machines/{id}/tags", Methods: []string{"GET", "POST"}}},
	}}}
}

func (x *extensions) Route(_ context.Context, name string, r plugin.RouteRequest) (*plugin.RouteAnswer, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if name != "tags" {
		return nil, errors.New("another plugin")
	}
	x.routed = append(x.routed, r)
	return &plugin.RouteAnswer{Status: 200, Body: io.NopCloser(strings.NewReader("ok"))}, nil
}

func (x *extensions) Hook(_ context.Context, _ string, e event.Event) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := x.fails[e.Type]; err != nil {
		return err
	}
	x.events = append(x.events, e)
	return nil
}

func (x *extensions) Ask(ctx context.Context, _, _ string, question []byte) (plugin.Verdict, error) {
	if x.silent {
		<-ctx.Done()
		return plugin.Verdict{Allow: true}, ctx.Err()
	}
	if !x.any && !strings.Contains(string(question), `"kind":"test"`) {
		return plugin.Verdict{}, errors.New("the question is not what policy was asked")
	}
	return x.verdict, nil
}

func (x *extensions) Purge(ctx context.Context, name string, still func(context.Context) (bool, error)) error {
	if x.before != nil {
		x.before()
	}
	if yes, err := still(ctx); !yes || err != nil {
		return err
	}
	x.purged = append(x.purged, name)
	if x.during != nil {
		return x.during()
	}
	return nil
}

func (x *extensions) Follow(names []string, f func(ctx context.Context, name string, position uint64, r audit.Record) error) {
	x.follows, x.relay = names, f
}

// extended is a house with the extension.
func extended(t *testing.T, change ...func(*flow.Config)) (*house, *extensions) {
	x := &extensions{fails: map[string]error{}}
	h := newHouse(t, append([]func(*flow.Config){func(c *flow.Config) {
		c.Extensions, c.Databases, c.Relay, c.HookPause = x, x, x, time.Millisecond
	}}, change...)...)
	h.vendors["test"] = newVendor(grant.EffectsNone)
	return h, x
}

const callers = `package sallyport
call := {"allow": true} if {
	input.subject.role == "deployer"
	input.target.kind == "extension"
	input.target.id == "myext"
	input.target.path[0] == "machines"
	input.target.path[1] != "secret"
	input.request.route == "/machines/{id}/tags"
	input.action in {"read", "write"}
}
`

func call(method string, segments ...string) flow.Call {
	e := (&extensions{}).Extensions()[0]
	return flow.Call{Extension: e, Route: e.Routes[0], Segments: segments, Request: plugin.RouteRequest{Method: method, Path: "/" + strings.Join(segments, "/")}}
}

func TestCallExtension_AsksPolicy(t *testing.T) {
	h, x := extended(t)
	ctx := context.Background()
	who := h.stored(subject.Agent, "deployer", "build-7").open()
	try := func(c *client, method string, segments ...string) error {
		return patiently(func() error { return done(h.gate.CallExtension(ctx, c.caller(), call(method, segments...))) })
	}
	// Nothing is allowed by itself, not even to administrators.
	for _, c := range []*client{who, h.admin} {
		want(t, try(c, "GET", "machines", "m1", "tags"), fault.Denied)
	}
	count(t, len(h.records("extension.called")), 2, "records of denials")
	must(t, done(h.gate.SetPolicy(ctx, h.admin.caller(), "callers", policy.Sallyport, callers)))
	must(t, try(who, "GET", "machines", "m1", "tags"))
	count(t, len(h.records("extension.called")), 2, "records after a read")
	must(t, try(who, "POST", "machines", "m1", "tags"))
	all := h.records("extension.called")
	if r := all[len(all)-1]; len(all) != 3 || r.Outcome != audit.Done || r.Target != "tags" || r.Data["route"] != "/machines/{id}/tags" || r.Data["method"] != "POST" || len(r.Policy) == 0 {
		t.Errorf("record of a write: %+v", all[len(all)-1])
	}
	if p := x.routed[1].Principal; p.ID != who.id || p.Kind != "agent" || p.Role != "deployer" || p.Name != "build-7" {
		t.Errorf("the extension hears of %+v", p)
	}
	want(t, try(who, "POST", "machines", "secret", "tags"), fault.Denied)
	want(t, try(h.stored(subject.Agent, "reporter", "other").open(), "GET", "machines", "m1", "tags"), fault.Denied)
	count(t, len(x.routed), 2, "calls that arrived")
	// A session that was narrowed to something else.
	want(t, try(h.stored(subject.Agent, "deployer", "narrow").open("release:test"), "GET", "machines", "m1", "tags"), fault.Denied)
	must(t, try(h.stored(subject.Agent, "deployer", "fitting").open("call:extension/myext"), "GET", "machines", "m1", "tags"))
}

// What cannot be recorded is not done.
func TestCallExtension_RecordsBeforeItCalls(t *testing.T) {
	h, x := extended(t)
	ctx := context.Background()
	must(t, done(h.gate.SetPolicy(ctx, h.admin.caller(), "callers", policy.Sallyport, callers)))
	who := h.stored(subject.Agent, "deployer", "build-7").open().caller()
	h.tap.on(func(unit.Unit) error { return fault.Unavailablef("the disk is full") })
	want(t, done(h.gate.CallExtension(ctx, who, call("POST", "machines", "m1", "tags"))), fault.Unavailable)
	count(t, len(x.routed), 0, "calls that arrived")
}

func TestGates_OnlyTakeAway(t *testing.T) {
	h, x := extended(t, func(c *flow.Config) { c.Gates = map[string][]string{"release": {"tags"}} })
	ctx := context.Background()
	who := h.stored(subject.Agent, "deployer", "build-7").open()
	vend := func(c *client) error {
		return patiently(func() error { return done(h.gate.Vend(ctx, c.caller(), request("test"))) })
	}
	x.verdict = plugin.Verdict{Reason: "in quarantine"}
	err := vend(who)
	want(t, err, fault.Denied)
	if !strings.Contains(fault.Public(err), "in quarantine") {
		t.Error(fault.Public(err))
	}
	x.verdict = plugin.Verdict{Allow: true}
	must(t, vend(who))
	// It cannot allow what policy denies.
	want(t, vend(h.stored(subject.Agent, "reporter", "other").open()), fault.Denied)
	x.silent = true
	err = done(h.gate.Vend(ctx, who.caller(), request("test")))
	want(t, err, fault.Unavailable)
	count(t, h.inState(grant.Active), 1, "grants")
}

// What a guest fetches is released like a credential: the gate is asked too.
func TestGates_AreAskedAboutGuests(t *testing.T) {
	b := &backend{answer: external.Response{Body: []byte("the answer"), Status: 200}}
	h, x := extended(t, func(c *flow.Config) { c.Gates, c.Backends = map[string][]string{"release": {"tags"}}, b })
	x.any = true
	h.put("the secret", "team", "db", "key")
	h.resourcePolicy(policy.ResourceAllowAll())
	g := h.guest()
	must(t, g.attest())
	x.verdict = plugin.Verdict{Reason: "in quarantine"}
	want(t, second(g.fetch(false, "team", "db", "key")), fault.Denied)
	want(t, second(b.ask(h, nil, g, "GET")), fault.Denied)
	if strings.Contains(strings.Join(b.said, " "), "Handle") {
		t.Errorf("the plugin was called: %v", b.said)
	}
	count(t, len(h.records("resource.released"))+len(h.records("external.called")), 2, "records of the refusals")
	x.verdict = plugin.Verdict{Allow: true}
	must(t, second(g.fetch(false, "team", "db", "key")))
	must(t, second(b.ask(h, nil, g, "GET")))
}

func TestHooks_TellAndSetAside(t *testing.T) {
	h, x := extended(t)
	ctx := context.Background()
	must(t, h.gate.ApplyPlugins(ctx))
	if len(x.follows) != 1 || x.follows[0] != "hook/tags" {
		t.Fatalf("followers %v", x.follows)
	}
	tell := func(position uint64, kind string, outcome audit.Outcome) {
		must(t, x.relay(ctx, "hook/tags", position, audit.Record{
			ID: "r", Type: kind, Outcome: outcome, Subject: "s", Target: "t", Actor: audit.System("test"), Data: map[string]string{"reason": "x"},
		}))
	}
	tell(1, "subject.locked", audit.Done)
	tell(2, "subject.locked", audit.Denied) // did not happen
	tell(3, "grant.issued", audit.Done)     // not asked for
	tell(4, "key.rotated", audit.Done)      // nobody's business
	by := func(position uint64, name string) {
		must(t, x.relay(ctx, "hook/tags", position, audit.Record{ID: "r", Type: "plugin.event", Outcome: audit.Done, Actor: audit.Plugin(name)}))
	}
	by(8, "tags") // its own word, to which it would answer for ever
	count(t, len(x.events), 1, "events")
	if e := x.events[0]; e.Position != 1 || e.Subject != "s" || e.Facts["target"] != "t" || e.Facts["reason"] != "x" || e.Facts["actor_kind"] != "system" {
		t.Errorf("%+v", e)
	}
	by(9, "another")
	count(t, len(x.events), 2, "events with one of another plugin")
	x.events = x.events[:1]
	x.fails["subject.revoked"] = fault.Unavailablef("no")
	tell(5, "subject.revoked", audit.Done)
	tell(6, "subject.locked", audit.Done)
	count(t, len(x.events), 2, "events after one that was set aside")
	aside := h.records("hook.set_aside")
	count(t, len(aside), 1, "events set aside")
	if aside[0].Target != "tags" || aside[0].Data["position"] != "5" || aside[0].Outcome != audit.Failed {
		t.Errorf("%+v", aside[0])
	}
	told := h.deliver()
	if len(told) == 0 || told[len(told)-1].Type != "hook.set_aside" {
		t.Errorf("nobody was told: %+v", told)
	}
	// It ends with its context, and the event is not lost.
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if err := x.relay(ended, "hook/tags", 7, audit.Record{ID: "r", Type: "subject.revoked", Outcome: audit.Done}); err == nil {
		t.Error("an event that was not taken counts as taken")
	}
}

func TestPurgePlugin_IsForWhatIsRemoved(t *testing.T) {
	h, x := extended(t)
	ctx := context.Background()
	want(t, h.gate.PurgePlugin(ctx, h.admin.caller(), "tags"), fault.NotFound)
	want(t, h.gate.PurgePlugin(ctx, h.stored(subject.Agent, "deployer", "build-7").open().caller(), "tags"), fault.Denied)
	row := plugin.Installed{Name: "tags", Version: 1, Package: "1.0.0", Digest: "sha256:x", State: plugin.Active, At: h.now()}
	must(t, h.store.Commit(ctx, unit.Unit{Writes: []unit.Write{unit.Insert(row)}, Record: storetest.Record("plugin.installed")}))
	want(t, h.gate.PurgePlugin(ctx, h.admin.caller(), "tags"), fault.Conflict)
	must(t, h.gate.RemovePlugin(ctx, h.admin.caller(), "tags"))
	must(t, h.gate.PurgePlugin(ctx, h.admin.caller(), "tags"))
	if len(x.purged) != 1 || x.purged[0] != "tags" || len(h.records("plugin.purged")) != 2 {
		t.Errorf("purged %v, recorded %d times", x.purged, len(h.records("plugin.purged")))
	}
}

// TestPurgePlugin_KeepsTheNameWhileItDrops installs again while tables are being
// dropped, and after the call was interrupted.
func TestPurgePlugin_KeepsTheNameWhileItDrops(t *testing.T) {
	h, x := extended(t)
	ctx := context.Background()
	row := plugin.Installed{Name: "tags", Version: 1, Package: "1.0.0", Digest: "sha256:x", Publisher: "acme", State: plugin.Removed, At: h.now()}
	must(t, h.store.Commit(ctx, unit.Unit{Writes: []unit.Write{unit.Insert(row)}, Record: storetest.Record("plugin.removed")}))
	purge := func(key string) error {
		c := h.admin.caller()
		c.Key = &flow.Key{Text: key}
		return h.gate.PurgePlugin(ctx, c, "tags")
	}
	state := func() plugin.Installed {
		all, err := h.store.Plugins(ctx)
		must(t, err)
		return all[0]
	}
	again := func(publisher string) error {
		now := state()
		return plugin.CheckUpgrade(&now, plugin.Installed{Name: "tags", Package: "1.0.0", Publisher: publisher}, false)
	}
	if err := again("rival"); plugin.ReasonOf(err) != plugin.ReasonConflict {
		t.Errorf("another publisher gets what is kept: %v", err)
	}
	must(t, again("acme"))

	x.during = func() error {
		if err := again("acme"); plugin.ReasonOf(err) != plugin.ReasonConflict {
			t.Errorf("installed again while its tables are dropped: %v", err)
		}
		return fault.Unavailablef("interrupted")
	}
	want(t, purge("a-key"), fault.Unavailable)
	if state().State != plugin.Purging || plugin.ReasonOf(again("acme")) != plugin.ReasonConflict {
		t.Errorf("after an interruption the name is free: %+v", state())
	}
	x.during = nil
	must(t, purge("a-key")) // goes on where the first call was
	if len(x.purged) != 2 || state().State != plugin.Removed {
		t.Errorf("purged %v, %+v", x.purged, state())
	}
	must(t, again("rival"))

	// Installed by now: the old call, repeated, takes nothing away.
	next := state()
	next.Version, next.State = next.Version+1, plugin.Active
	must(t, h.store.Commit(ctx, unit.Unit{Writes: []unit.Write{unit.Update(next)}, Record: storetest.Record("plugin.installed")}))
	must(t, purge("a-key"))
	if len(x.purged) != 2 || state().State != plugin.Active {
		t.Errorf("a repeated call purges what was installed since: %v, %+v", x.purged, state())
	}

	// Two at once: while the first one drops, no second one ends and frees the name.
	next = state()
	next.Version, next.State = next.Version+1, plugin.Removed
	must(t, h.store.Commit(ctx, unit.Unit{Writes: []unit.Write{unit.Update(next)}, Record: storetest.Record("plugin.removed")}))
	x.during = func() error {
		x.during = nil
		want(t, purge("b-key"), fault.Unavailable)
		if plugin.ReasonOf(again("acme")) != plugin.ReasonConflict {
			t.Error("installed again while the first call drops")
		}
		return nil
	}
	must(t, purge("c-key"))
	if state().State != plugin.Removed {
		t.Errorf("two calls leave %+v", state())
	}
	must(t, again("acme"))
	must(t, purge("b-key"))

	// Another replica ends the purge and installs before this one gets to dropping.
	x.before = func() {
		x.before = nil
		next = state()
		next.Version, next.State, next.Publisher = next.Version+1, plugin.Active, "acme"
		must(t, h.store.Commit(ctx, unit.Unit{Writes: []unit.Write{unit.Update(next)}, Record: storetest.Record("plugin.installed")}))
	}
	dropped := len(x.purged)
	must(t, purge("d-key"))
	if len(x.purged) != dropped || state().State != plugin.Active {
		t.Errorf("a purge that was overtaken drops what was installed since: %v, %+v", x.purged, state())
	}
	must(t, h.gate.PluginInstalled(ctx, "tags", "acme"))
	want(t, h.gate.PluginInstalled(ctx, "tags", "rival"), fault.Unavailable)
	want(t, h.gate.PluginInstalled(ctx, "none", "acme"), fault.Unavailable)
	must(t, h.gate.RemovePlugin(ctx, h.admin.caller(), "tags"))
	want(t, h.gate.PluginInstalled(ctx, "tags", "acme"), fault.Unavailable)
}
