package plugin

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/notify"
	"github.com/sallyport-project/sallyport/internal/secret"
	signals "github.com/sallyport-project/sallyport/internal/signal"
)

// ledger is a house that remembers what plugins had done.
type ledger struct {
	mu     sync.Mutex
	events []Event
	leaks  []signals.Signal
	vends  []grant.Scope
	keys   []string
	vend   func(plugin string, s grant.Scope) (Vended, error) // in place of an answer of its own
	by     map[string]bool
}

func (l *ledger) Emit(_ context.Context, plugin string, e Event) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events, l.by[plugin] = append(l.events, e), true
	return nil
}

func (l *ledger) Raise(_ context.Context, plugin string, s signals.Signal, key string) (string, int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if key == "refuse" {
		return "", 0, fault.Deniedf("policy says no").Because(fault.Internalf("canary-in-cause"))
	}
	l.leaks, l.by[plugin] = append(l.leaks, s), true
	return "R1", 2, nil
}

func (l *ledger) Vend(_ context.Context, plugin, publisher string, s grant.Scope, key string) (Vended, error) {
	if publisher != "tester" {
		return Vended{}, fault.Internalf("asked for by a plugin of %q", publisher)
	}
	l.mu.Lock()
	l.vends, l.keys, l.by[plugin] = append(l.vends, s), append(l.keys, key), true
	vend := l.vend
	l.mu.Unlock()
	if vend != nil {
		return vend(plugin, s)
	}
	s.TTL, s.ExpiresAt = 30*time.Second, time.Unix(1_700_000_000, 0)
	return Vended{Grant: "G1", Scope: s, Value: secret.FromString("value"), Private: secret.FromString("private")}, nil
}

// asking is a plugin that calls the host when it is told something, and the house.
func asking(t *testing.T, s *manifest.Services) (*rig, notify.Channel, *ledger) {
	t.Helper()
	m := allRoles("rolesasks", manifest.NeedsHandle)
	m.Capabilities.Services = s
	house := &ledger{by: map[string]bool{}}
	r := newRig(t, func(c *Config) { c.House = house }, m)
	return r, r.Notifiers()[0], house
}

func say(t *testing.T, c notify.Channel, title string) string {
	t.Helper()
	err := c.Notify(t.Context(), notify.Notification{ID: "N1", Type: "ask", Title: title})
	if err == nil {
		return ""
	}
	return fault.Public(err)
}

func TestServices_DoWhatWasGranted(t *testing.T) {
	r, c, house := asking(t, &manifest.Services{Log: true, Events: true, Signals: true})
	for _, what := range []string{"log", "emit", "raise"} {
		if got := say(t, c, what); got != "" {
			t.Fatalf("%s: %s", what, got)
		}
	}
	if len(house.events) != 1 || house.events[0].Type != "saw.it" || house.events[0].Data["what"] != "this" || !house.by["rolesasks"] {
		t.Errorf("events %+v of %v", house.events, house.by)
	}
	if len(house.leaks) != 1 || string(house.leaks[0].Value.Reveal()) != "leaked-value" || house.leaks[0].Source != "the plugin" {
		t.Errorf("leaks %+v", house.leaks)
	}
	if log := r.log.String(); !strings.Contains(log, `said="a line"`) || !strings.Contains(log, "field.where=here") {
		t.Errorf("the log has no line of the plugin: %s", log)
	}
	if got := say(t, c, "raise-refused"); !strings.Contains(got, "policy says no") || strings.Contains(got, "canary") {
		t.Errorf("refused: %s", got)
	}
}

// Without the manifest's word each service is denied, to whom the host serves some
// other one; what is not well-formed never reaches the house.
func TestServices_DenyWhatWasNotGranted(t *testing.T) {
	_, c, house := asking(t, &manifest.Services{Log: true})
	for _, what := range []string{"emit", "raise", "kv", "vend", "query"} {
		if got := say(t, c, what); !strings.Contains(got, "not asked for") {
			t.Errorf("%s: %q", what, got)
		}
	}
	if len(house.events)+len(house.leaks) != 0 {
		t.Errorf("done all the same: %+v", house)
	}
	_, c, house = asking(t, &manifest.Services{Events: true})
	for _, what := range []string{"emit-shouting", "emit-much", "emit-many"} {
		if got := say(t, c, what); got == "" {
			t.Errorf("%s was taken", what)
		}
	}
	if len(house.events) != 0 {
		t.Errorf("recorded: %+v", house.events)
	}
}

// A plugin that records without end is told so, and harms neither itself nor the
// ledger; its log lines beyond the rate are dropped.
func TestServices_BoundFloods(t *testing.T) {
	r, c, house := asking(t, &manifest.Services{Log: true, Events: true})
	if got := say(t, c, "flood"); !strings.Contains(got, "a second") {
		t.Errorf("got %q", got)
	}
	house.mu.Lock()
	n := len(house.events)
	house.mu.Unlock()
	if n == 0 || n > 400 {
		t.Errorf("%d events of 1000 were recorded", n)
	}
	if got := say(t, c, "log"); got != "" {
		t.Errorf("afterwards: %s", got)
	}
	if s := r.Status()[0]; s.Crashes != 0 {
		t.Errorf("status %+v", s)
	}
}

func TestSupported_ServesAllServices(t *testing.T) {
	m := withFile(allRoles("rolesx", manifest.NeedsHandle))
	m.Capabilities.Services = &manifest.Services{Log: true, KV: true, Database: true, Events: true, Signals: true, Vend: []string{"other"}}
	if err := Supported(m); err != nil {
		t.Errorf("%v", err)
	}
}

// keeping is asking with the service kv, and what is kept. Another plugin's value
// is there already.
func keeping(t *testing.T) (notify.Channel, *shelf) {
	t.Helper()
	m := allRoles("rolesasks", manifest.NeedsHandle)
	m.Capabilities.Services = &manifest.Services{KV: true}
	s := newShelf()
	theirs := Value{Space: Space("rolesother", "acme"), Key: "x", Version: 1, Data: []byte("theirs")}
	s.rows[ValueID(theirs.Space, theirs.Key)] = theirs
	still := time.Now() // so that rates do not depend on this machine
	r := newRig(t, func(c *Config) { c.Values, c.Now = s, func() time.Time { return still } }, m)
	return r.Notifiers()[0], s
}

func TestServices_KeepValues(t *testing.T) {
	c, s := keeping(t)
	if got := say(t, c, "kv-use"); got != "" {
		t.Fatal(got)
	}
	if ids := s.ids(); len(ids) != 1 {
		t.Errorf("left: %v", ids)
	}
}

// Whatever key a plugin names is one of its own; what is too large, too long or too
// often is refused and changes nothing.
func TestServices_KeepValuesApartAndSmall(t *testing.T) {
	c, s := keeping(t)
	if got := say(t, c, "kv-elsewhere"); got != "" {
		t.Fatal(got)
	}
	for _, id := range s.ids() {
		if !strings.HasPrefix(id, Space("rolesasks", "tester")+"/") && id != ValueID(Space("rolesother", "acme"), "x") {
			t.Errorf("written: %s", id)
		}
	}
	if v := s.rows[ValueID(Space("rolesother", "acme"), "x")]; string(v.Data) != "theirs" {
		t.Errorf("another plugin's value is %q", v.Data)
	}
	before := len(s.ids())
	for what, want := range map[string]string{
		"kv-large": "65536 bytes", "kv-nameless": "256 bytes", "kv-long": "256 bytes", "kv-zero": "none of them zero",
	} {
		if got := say(t, c, what); !strings.Contains(got, want) {
			t.Errorf("%s: %q", what, got)
		}
	}
	if n := len(s.ids()); n != before {
		t.Errorf("%d keys, before there were %d", n, before)
	}
	if got := say(t, c, "kv-flood"); !strings.Contains(got, "a second") {
		t.Errorf("flood: %q", got)
	}
}
