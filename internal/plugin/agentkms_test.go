package plugin

import (
	"strings"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/grant"
)

func TestAgentKMS_RunsAllStages(t *testing.T) {
	r := newRig(t, nil, testManifest("akms"))
	p := r.provider(t, "fixture-akms")
	if err := p.Vet(t.Context(), ask("fixture-akms", nil)); err != nil {
		t.Fatal(err)
	}
	out, err := p.Issue(t.Context(), ask("fixture-akms", map[string]any{"repo": "a/b"}), limits("fixture-akms"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(out.Value.Reveal()), "token-") || out.Handle != "uuid-1" || out.Scope.Params["repo"] != "a/b" {
		t.Fatalf("issued %+v", out)
	}
	if len(out.Anomalies) != 1 || out.Anomalies[0] != (grant.Anomaly{Level: grant.Warn, Code: "seen", Message: "by the analyzer"}) {
		t.Fatalf("anomalies %+v", out.Anomalies)
	}
	if left := time.Until(out.ExpiresAt); left <= 0 || left > time.Minute {
		t.Fatalf("expires in %v", left)
	}
	if calls := r.Status()[0].Calls; calls != 6 {
		t.Fatalf("%d calls, want Validate, Narrow, Validate, Analyze, Serialize, Vend", calls)
	}
}

func TestAgentKMS_EveryStageCanRefuse(t *testing.T) {
	r := newRig(t, nil, testManifest("akms"))
	p := r.provider(t, "fixture-akms")
	for do, want := range map[string]struct {
		kind fault.Kind
		text string
	}{
		"invalid":        {fault.Invalid, "validate says no"},
		"deny":           {fault.Denied, "narrow says no"},
		"unserializable": {fault.Denied, "serialize says no"},
		"vend-fails":     {fault.Unavailable, "could not make the credential"},
	} {
		_, err := p.Issue(t.Context(), ask("fixture-akms", map[string]any{"do": do}), limits("fixture-akms"))
		if fault.KindOf(err) != want.kind || !strings.Contains(fault.Public(err), want.text) || strings.Contains(fault.Public(err), "canary") {
			t.Errorf("%s: %v", do, err)
		}
	}
	if err := p.Vet(t.Context(), ask("fixture-akms", map[string]any{"do": "invalid"})); !fault.Is(err, fault.Invalid) {
		t.Errorf("vet: %v", err)
	}
	out, err := p.Issue(t.Context(), ask("fixture-akms", map[string]any{"do": "analyze-fails"}), limits("fixture-akms"))
	if err != nil || len(out.Anomalies) != 1 || out.Anomalies[0].Code != "plugin-rpc-error" || out.Anomalies[0].Level != grant.Alert {
		t.Errorf("a broken analyzer: %+v, %v", out.Anomalies, err)
	}
}

// The defect of a published plugin: bounds contents:read, request
// contents:write, and the narrowed scope still says write.
func TestAgentKMS_HostCatchesNarrowingThatFailsOpen(t *testing.T) {
	r := newRig(t, nil, testManifest("akms"))
	p := r.provider(t, "fixture-akms")
	b := limits("fixture-akms")
	b.MaxParams = map[string]any{"permissions": map[string]any{"contents": "read"}}
	request := func(do string) grant.Scope {
		return ask("fixture-akms", map[string]any{"do": do, "permissions": map[string]any{"contents": "write"}})
	}
	if _, err := p.Issue(t.Context(), request("open"), b); !fault.Is(err, fault.Denied) {
		t.Fatalf("write was granted where read is allowed: %v", err)
	}
	out, err := p.Issue(t.Context(), request("good"), b)
	if err != nil {
		t.Fatal(err)
	}
	if got := out.Scope.Params["permissions"].(map[string]any)["contents"]; got != "read" {
		t.Fatalf("granted %v", got)
	}
}

func TestAgentKMS_WorksWithoutAnalyzerAndSerializer(t *testing.T) {
	r := newRig(t, nil, testManifest("akmslean"))
	out, err := r.provider(t, "fixture-akmslean").Issue(t.Context(), ask("fixture-akmslean", nil), limits("fixture-akmslean"))
	if err != nil || len(out.Anomalies) != 0 {
		t.Fatalf("%+v, %v", out, err)
	}
}

func TestAgentKMS_RefusesAnAnswerWithoutTheDeclaredService(t *testing.T) {
	m := testManifest("akmslean")
	m.Roles = append(m.Roles, manifest.RoleAnalyzer) // which the binary does not have
	r := newRig(t, func(c *Config) { c.CallTimeout = time.Second }, m)
	_, err := r.provider(t, "fixture-akmslean").Issue(t.Context(), ask("fixture-akmslean", nil), limits("fixture-akmslean"))
	if !fault.Is(err, fault.Unavailable) {
		t.Fatalf("got %v", err)
	}
}
