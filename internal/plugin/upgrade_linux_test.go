package plugin

import (
	"context"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// stuck installs a further version of fixtures whose processes never come up.
func (r *rig) stuck(t *testing.T, names ...string) []Installed {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "stuck")
	if err := buildFixture(binary, "-X main.as=never -X main.version=2.0.0"); err != nil {
		t.Fatal(err)
	}
	var rows []Installed
	for n, name := range names {
		rows = append(rows, r.next(t, name, "2.0.0", int64(n+10), binary))
	}
	return rows
}

// pidOf is the process that answers.
func (r *rig) pidOf(t *testing.T, name string) int {
	t.Helper()
	warm(t, r.provider(t, "fixture-"+name), "fixture-"+name)
	return r.one(name).PID
}

// An upgrade that hangs stands in nobody's way: what runs by a revoked key dies,
// what is new runs, what is gone goes, and the old version serves all the while.
func TestSync_WaitsBehindNoUpgrade(t *testing.T) {
	r := newRig(t, func(c *Config) { c.StartTimeout, c.CallTimeout = time.Hour, time.Minute }, testManifest("alpha"), testManifest("gamma"))
	thief := newPublisher(t)
	both := Trust{Keys: []Key{r.publisher.trust.Keys[0], thief.trust.Keys[0]}}
	beta := thief.install(t, r.cfg.Store, thief.pack(t, testManifest("beta"), fixtureBinary), 3)
	if err := r.Sync(t.Context(), append(r.rows, beta), both); err != nil {
		t.Fatal(err)
	}
	alpha, doomed, removed := r.pidOf(t, "alpha"), r.pidOf(t, "beta"), r.pidOf(t, "gamma")
	next := r.stuck(t, "alpha")[0]
	if err := r.Host.Sync(t.Context(), []Installed{next, r.rows[1], beta}, both); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the upgrade hangs", func() bool { return len(r.running(t, "alpha")) == 2 })
	gone, err := both.Keys[1].Revoke("stolen", "test", time.Unix(9, 0))
	if err != nil {
		t.Fatal(err)
	}
	fresh := r.install(t, r.cfg.Store, r.pack(t, testManifest("delta"), fixtureBinary), 4)
	if err := r.Host.Sync(t.Context(), []Installed{next, beta, fresh}, Trust{Keys: []Key{both.Keys[0], gone}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "what a revoked key has signed is dead", func() bool { return len(groupMembers(t, doomed)) == 0 })
	eventually(t, "what was removed is gone", func() bool { return len(groupMembers(t, removed)) == 0 })
	if s := r.one("beta"); s.State != Refused || s.Reason != ReasonRevoked {
		t.Fatalf("status %+v", s)
	}
	r.pidOf(t, "delta")
	if s := r.one("alpha"); s.Version != "1.0.0" || r.pidOf(t, "alpha") != alpha || s.Starts != 1 {
		t.Fatalf("the old version does not serve: %+v", s)
	}
	if n := len(r.running(t, "alpha")); n != 2 {
		t.Fatalf("%d processes: the upgrade was begun anew", n)
	}
}

// A version of another publisher is no upgrade: a purge lies between the two, so
// that the process of before serves nobody, and has neither tables nor values of
// the name any more.
func TestSync_KeepsNothingForAnotherPublisher(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Databases = tables{} }, testManifest("alpha"))
	before := r.pidOf(t, "alpha")
	rival := newPublisher(t)
	rival.trust.Keys[0].Publisher = "rival"
	m := testManifest("alpha")
	m.Publisher = "rival"
	row := rival.install(t, r.cfg.Store, rival.pack(t, m, fixtureBinary), 9)
	both := Trust{Keys: append(slices.Clone(r.publisher.trust.Keys), rival.trust.Keys...)}
	if err := r.Host.Sync(t.Context(), []Installed{row}, both); err != nil {
		t.Fatal(err)
	}
	if now := r.table.Load().routes[0].row.Publisher; now != "rival" {
		t.Fatalf("the plugin of %s still serves", now)
	}
	if err := r.Host.tables("alpha", "tester"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("the publisher of before reaches the tables: %v", err)
	}
	if err := r.Host.tables("alpha", "rival"); err != nil {
		t.Errorf("the publisher of now does not: %v", err)
	}
	if Space("alpha", "tester") == Space("alpha", "rival") {
		t.Error("two publishers share their values")
	}
	eventually(t, "the process of before ends", func() bool { return len(groupMembers(t, before)) == 0 })
	r.pidOf(t, "alpha")
}

// Whatever is decided while an upgrade hangs ends it: going back, another version,
// removal, a revoked key of either version. The version that was decided on serves,
// and no process is left.
func TestSync_GivesAnUpgradeUp(t *testing.T) {
	r := newRig(t, func(c *Config) { c.StartTimeout, c.CallTimeout = time.Hour, time.Minute }, testManifest("alpha"))
	trust := r.publisher.trust
	hang := r.stuck(t, "alpha")[0]
	m := testManifest("alpha")
	m.Summary = "another digest"
	good := r.install(t, r.cfg.Store, r.pack(t, m, fixtureBinary), 30)
	gone, err := trust.Keys[0].Revoke("stolen", "test", time.Unix(9, 0))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		rows  []Installed
		trust Trust
		left  int // processes
	}{
		"going back":      {r.rows, trust, 1},
		"another version": {[]Installed{good}, trust, 1},
		"removal":         {nil, trust, 0},
		"a revoked key":   {[]Installed{hang}, Trust{Keys: []Key{gone}}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			if err := r.Sync(t.Context(), r.rows, trust); err != nil {
				t.Fatal(err)
			}
			first := r.pidOf(t, "alpha")
			if err := r.Host.Sync(t.Context(), []Installed{hang}, trust); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the upgrade hangs", func() bool { return len(r.running(t, "alpha")) == 2 })
			if err := r.Sync(t.Context(), c.rows, c.trust); err != nil {
				t.Fatal(err)
			}
			eventually(t, "only what was decided runs", func() bool { return len(r.running(t, "alpha")) == c.left })
			if c.left == 1 && (r.pidOf(t, "alpha") == first) != (name == "going back") {
				t.Fatalf("status %+v", r.one("alpha"))
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			if len(r.upgrades) != 0 {
				t.Fatal("an upgrade is still under way")
			}
		})
	}
}

// Several upgrades wait side by side, and Settle for all of them; those that do not
// come up take over when their time is over, as was decided.
func TestSettle_WaitsForAllTogether(t *testing.T) {
	r := newRig(t, func(c *Config) { c.StartTimeout, c.CallTimeout = 5*time.Second, time.Minute }, testManifest("alpha"), testManifest("beta"))
	r.pidOf(t, "alpha")
	r.pidOf(t, "beta")
	rows := r.stuck(t, "alpha", "beta")
	if err := r.Host.Sync(t.Context(), rows, r.publisher.trust); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		eventually(t, "both start at the same time", func() bool {
			return len(r.running(t, "alpha")) == 2 && len(r.running(t, "beta")) == 2 || t.Failed()
		})
	})
	short, cancel := context.WithCancel(t.Context())
	cancel()
	r.Settle(short) // returns with its context
	r.Settle(t.Context())
	wg.Wait()
	for _, name := range []string{"alpha", "beta"} {
		if s := r.one(name); s.Version != "2.0.0" {
			t.Errorf("status %+v", s)
		}
	}
}

// A host that ends waits for no upgrade.
func TestClose_GivesUpgradesUp(t *testing.T) {
	r := newRig(t, func(c *Config) { c.StartTimeout, c.CallTimeout = time.Hour, time.Minute }, testManifest("alpha"))
	r.pidOf(t, "alpha")
	if err := r.Host.Sync(t.Context(), r.stuck(t, "alpha"), r.publisher.trust); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the upgrade hangs", func() bool { return len(r.running(t, "alpha")) == 2 })
	if err := r.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := r.running(t, "alpha"); len(left) > 0 {
		t.Fatalf("processes %v are left", left)
	}
	if err := r.Host.Sync(t.Context(), r.rows, r.publisher.trust); !fault.Is(err, fault.Unavailable) {
		t.Fatal(err)
	}
	r.Settle(t.Context())
}

// What was decided before an upgrade is not carried out by a package that needs other
// decisions: an intent for what has effects, a value that is kept to revoke it, other
// calls. Who asks again gets the new one.
func TestProvider_EndsWhereAnUpgradePromisesLess(t *testing.T) {
	for name, change := range map[string]func(*manifest.Manifest){
		"effects":    func(m *manifest.Manifest) { m.Effects = manifest.EffectsRemote },
		"revocation": func(m *manifest.Manifest) { m.Revocation.Needs = manifest.NeedsValue },
		"the same":   func(*manifest.Manifest) {},
	} {
		for _, plugin := range []string{"alpha", "akms"} {
			t.Run(plugin+": "+name, func(t *testing.T) {
				r := newRig(t, nil, testManifest(plugin))
				kind := "fixture-" + plugin
				before := r.provider(t, kind)
				warm(t, before, kind)
				m := testManifest(plugin)
				m.Summary = "another digest"
				change(&m)
				row := r.install(t, r.cfg.Store, r.pack(t, m, fixtureBinary), 9)
				if err := r.Sync(t.Context(), []Installed{row}, r.publisher.trust); err != nil {
					t.Fatal(err)
				}
				_, err := before.Issue(t.Context(), ask(kind, nil), limits(kind))
				if want := name != "the same"; fault.Is(err, fault.Unavailable) != want || err != nil && !want {
					t.Errorf("got %v", err)
				}
				warm(t, r.provider(t, kind), kind)
			})
		}
	}
}
