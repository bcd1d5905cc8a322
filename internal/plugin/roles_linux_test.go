package plugin

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/notify"
	"github.com/sallyport-project/sallyport/internal/secret"
)

// allRoles is a package with every role of our own contract but vender and
// extension.
func allRoles(name, needs string) manifest.Manifest {
	m := testManifest(name)
	m.Roles = []string{manifest.RoleRevoker, manifest.RoleNotifier, manifest.RoleVerifier}
	m.Evidence = []string{"example-" + name}
	m.Effects, m.Revocation.Needs = manifest.EffectsRemote, needs
	return m
}

func TestRevoker_SaysHowItWent(t *testing.T) {
	const name = "rolestake"
	r := newRig(t, func(c *Config) { c.CallTimeout = 2 * time.Second }, allRoles(name, manifest.NeedsHandle))
	taker, err := r.Revoker("fixture-" + name)
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := taker.Supports(t.Context()); err != nil || !ok {
		t.Fatalf("supports: %v, %v", ok, err)
	}
	for handle, want := range map[string]struct {
		kind   fault.Kind // of the fault; its zero value for none
		byHand bool
	}{
		"good": {}, "no-value": {}, "denied": {kind: fault.Denied}, "fails": {kind: fault.Unavailable}, "hangs": {kind: fault.Unavailable},
		"by-hand": {fault.Unavailable, true},
	} {
		err := taker.Revoke(t.Context(), grant.Revocation{ID: "G1", Handle: handle, Value: secret.FromString("the-value"), Reason: "leak"})
		if want.kind == 0 {
			if err != nil {
				t.Errorf("%s: %v", handle, err)
			}
			continue
		}
		if !fault.Is(err, want.kind) || errors.Is(err, grant.ErrByHand) != want.byHand {
			t.Errorf("%s: %v", handle, err)
		}
	}
	if _, err := r.Revoker("fixture-other"); !fault.Is(err, fault.NotFound) {
		t.Errorf("a kind that nobody revokes: %v", err)
	}
}

// Only a plugin whose manifest says so gets the credential itself.
func TestRevoker_GetsTheValueIfItNeedsIt(t *testing.T) {
	const name = "rolesvalue"
	r := newRig(t, nil, allRoles(name, manifest.NeedsValue), testManifest("alpha"))
	taker, err := r.Revoker("fixture-" + name)
	if err != nil {
		t.Fatal(err)
	}
	if err := taker.Revoke(t.Context(), grant.Revocation{ID: "G1", Handle: "value", Value: secret.FromString("the-value"), Reason: "leak"}); err != nil {
		t.Fatal(err)
	}
	if s := r.provider(t, "fixture-alpha").Source(); s.Revocable || s.KeepValue {
		t.Errorf("a kind without revoker: %+v", s)
	}
}

// One package may vend what another takes back: from then on it is revocable, and
// its value is kept if the revoker needs it.
func TestRevoker_MayBeAnotherPackage(t *testing.T) {
	m := allRoles("rolesother", manifest.NeedsValue)
	m.Kinds = []string{"fixture-alpha"}
	r := newRig(t, nil, testManifest("alpha"), m)
	if s := r.provider(t, "fixture-alpha").Source(); !s.Revocable || !s.KeepValue {
		t.Errorf("source %+v", s)
	}
}

func TestRevoker_OfWhoSupportsNothing(t *testing.T) {
	r := newRig(t, nil, allRoles("roleshand", manifest.NeedsHandle))
	taker, err := r.Revoker("fixture-roleshand")
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := taker.Supports(t.Context()); err != nil || ok {
		t.Fatalf("supports: %v, %v", ok, err)
	}
}

// Two packages that take back the same kind, or judge the same evidence, stand in
// each other's way; two that notify do not.
func TestCheckRoles_OfOurContract(t *testing.T) {
	both := testManifest("rolesboth")
	both.Roles = append(both.Roles, manifest.RoleRevoker)
	first, second := allRoles("rolesa", manifest.NeedsHandle), allRoles("rolesb", manifest.NeedsHandle)
	active := []Installed{
		{Name: both.Name, State: Active, Offer: offerOf(both)}, {Name: first.Name, State: Active, Offer: offerOf(first)},
	}
	if err := CheckRoles(active, second.Name, offerOf(second)); err != nil {
		t.Errorf("two notifiers: %v", err)
	}
	second.Evidence = first.Evidence
	if err := CheckRoles(active, second.Name, offerOf(second)); ReasonOf(err) != ReasonConflict {
		t.Errorf("the same evidence: %v", err)
	}
	second = allRoles("rolesb", manifest.NeedsHandle)
	second.Kinds = both.Kinds
	if err := CheckRoles(active, second.Name, offerOf(second)); ReasonOf(err) != ReasonConflict || !strings.Contains(fault.Public(err), "rolesboth and plugin rolesb") {
		t.Errorf("the same kind: %v", err)
	}
}

func TestNotifier_IsAChannel(t *testing.T) {
	r := newRig(t, nil, testManifest("alpha"), allRoles("rolesa", manifest.NeedsHandle), allRoles("rolesb", manifest.NeedsHandle))
	all := r.Notifiers()
	if len(all) != 2 || all[0].Name() != "plugin:rolesa" || all[1].Name() != "plugin:rolesb" {
		t.Fatalf("channels %v", all)
	}
	n := notify.Notification{
		ID: "N1", Type: "grant.manual", At: time.Now(), Urgency: notify.High, Title: "a title", Grant: "G1",
		Address: "https://console.example", Data: map[string]string{"source": "scan", "grant": "forged"},
	}
	if err := all[0].Notify(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	for title, kind := range map[string]fault.Kind{"invalid": fault.Invalid, "denied": fault.Invalid, "busy": fault.Unavailable} {
		n.Title = title
		if err := all[1].Notify(t.Context(), n); !fault.Is(err, kind) {
			t.Errorf("%s: %v", title, err)
		}
	}
	if err := r.Sync(t.Context(), r.rows[:2], r.publisher.trust); err != nil {
		t.Fatal(err)
	}
	if err := all[1].Notify(t.Context(), n); !fault.Is(err, fault.NotFound) {
		t.Errorf("a channel that is gone: %v", err)
	}
}

func TestVerifier_IsHeldToTheBinding(t *testing.T) {
	r := newRig(t, nil, allRoles("rolesjudge", manifest.NeedsHandle))
	v := r.Verifiers()["example-rolesjudge"]
	if v == nil {
		t.Fatal("there is no verifier")
	}
	b := evidence.Binding{ReportData: []byte("report"), InitData: []byte("init")}
	show := func(body string, b evidence.Binding) (evidence.Claims, error) {
		return v.Verify(t.Context(), evidence.Evidence{TEE: "example-rolesjudge", Body: json.RawMessage(`"` + body + `"`)}, b, time.Now())
	}
	got, err := show("genuine", b)
	if err != nil {
		t.Fatal(err)
	}
	if got.Class != evidence.CPU || got.Values["debug"] != false || got.ReportData != "7265706f7274" || got.InitData != "696e6974" || len(got.Checks) != 3 {
		t.Errorf("%+v", got)
	}
	for body, want := range map[string]struct {
		kind  fault.Kind
		check string // the one that failed
	}{
		"malformed": {fault.Invalid, ""}, "forged": {fault.Denied, "signature"}, "missing": {fault.Unavailable, ""},
		"quiet": {fault.Denied, "signature"}, "unchecked": {fault.Unavailable, ""}, "other": {fault.Denied, "host-report-data"},
		"otherinit": {fault.Denied, "host-init-data"}, "classless": {fault.Unavailable, ""}, "crowd": {fault.Denied, "the-last"},
		"panics": {fault.Unavailable, ""},
	} {
		_, err := show(body, b)
		if !fault.Is(err, want.kind) || strings.Contains(fault.Public(err), "canary") {
			t.Errorf("%s: %v", body, err)
			continue
		}
		if refused, ok := errors.AsType[*evidence.RefusedError](err); ok {
			if k, _ := refused.Checks.Refused(); k.Name != want.check || len(refused.Checks) > maxChecks+1 {
				t.Errorf("%s: refused by %q of %d", body, k.Name, len(refused.Checks))
			}
		} else if want.check != "" {
			t.Errorf("%s: %v has no checks", body, err)
		}
	}
	if _, err := show("genuine", evidence.Binding{}); !fault.Is(err, fault.Denied) {
		t.Errorf("evidence for no binding: %v", err)
	}
	if _, err := show("genuine", evidence.Binding{Unknown: true}); err != nil {
		t.Errorf("looked at offline: %v", err)
	}
}

func TestManifest_RolesOfOurContract(t *testing.T) {
	good := withFile(allRoles("rolesx", manifest.NeedsHandle))
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	if err := Supported(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*manifest.Manifest){
		"evidence of the host's own":  func(m *manifest.Manifest) { m.Evidence = []string{"tdx"} },
		"no evidence":                 func(m *manifest.Manifest) { m.Evidence = nil },
		"evidence without role":       func(m *manifest.Manifest) { m.Roles = []string{manifest.RoleNotifier} },
		"a revoker that needs none":   func(m *manifest.Manifest) { m.Revocation.Needs = manifest.NeedsNone },
		"a revoker of no kind":        func(m *manifest.Manifest) { m.Kinds = nil },
		"another contract":            func(m *manifest.Manifest) { m.Contract = manifest.ContractAgentKMS },
		"vends its own kind":          func(m *manifest.Manifest) { m.Capabilities.Services = &manifest.Services{Vend: m.Kinds} },
		"vends what no kind is":       func(m *manifest.Manifest) { m.Capabilities.Services = &manifest.Services{Vend: []string{"A b"}} },
		"vends the same kind twice":   func(m *manifest.Manifest) { m.Capabilities.Services = &manifest.Services{Vend: []string{"a", "a"}} },
		"evidence of a strange name":  func(m *manifest.Manifest) { m.Evidence = []string{"no/path"} },
		"the same kind of it, twice":  func(m *manifest.Manifest) { m.Evidence = []string{"x", "x"} },
		"the older name of the hosts": func(m *manifest.Manifest) { m.Evidence = []string{"azsnpvtpm"} },
	} {
		m := good
		change(&m)
		if err := m.Validate(); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	asks := Asks(withFile(func() manifest.Manifest {
		m := allRoles("rolesx", manifest.NeedsValue)
		m.Capabilities.Services = &manifest.Services{KV: true, Signals: true, Vend: []string{"other"}}
		return m
	}()), manifest.ForServer)
	for _, want := range []string{"evidence example-rolesx", "service kv", "service signals", "vend other", "keeps credentials, to revoke them"} {
		if !strings.Contains(strings.Join(asks, "\n"), want) {
			t.Errorf("%q is not shown", want)
		}
	}
}
