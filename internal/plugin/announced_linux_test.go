package plugin

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/grant"
)

// What a plugin of a later AgentKMS says that it can do is shown; saying nothing,
// nonsense or too much of it harms nothing.
func TestAgentKMS_AnnouncesWhatItCanDo(t *testing.T) {
	for name, want := range map[string]*Announced{
		"akmscap": {Capabilities: []string{"analyze", "narrow"}, APIVersion: 2}, "akmscaphangs": nil, "akmscapfails": nil,
		"akmslean": nil, // which does not know the question
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, s := announcing(t, name)
			if d := cmp.Diff(want, s.Announced); d != "" {
				t.Error(d)
			}
			if log := r.log.String(); strings.Contains(log, "later version") != (want != nil) || strings.Contains(log, "canary") {
				t.Errorf("logged: %s", log)
			}
		})
	}
	_, s := announcing(t, "akmscapmuch")
	if n := len(s.Announced.Capabilities); n != maxAnnounced || len(s.Announced.Capabilities[0]) > 70 {
		t.Errorf("%d capabilities: %q", n, s.Announced.Capabilities[0])
	}
}

// announcing is a plugin that has vended once, and its status.
func announcing(t *testing.T, name string) (*rig, Status) {
	t.Helper()
	m := testManifest(name)
	m.Roles = []string{manifest.RoleValidator, manifest.RoleVender}
	r := newRig(t, func(c *Config) { c.CallTimeout = 20 * time.Second }, m)
	kind := "fixture-" + name
	scope := grant.Scope{Kind: kind, TTL: time.Minute, Params: map[string]any{}}
	if _, err := r.provider(t, kind).Issue(t.Context(), scope, grant.Bounds{Kind: kind, MaxTTL: time.Hour}); err != nil {
		t.Fatal(err)
	}
	return r, r.Status()[0]
}

// Whatever a vender of agentkms.plugin.v1 answers with that is no credential ends
// that call alone: with Unavailable, and no word of what it said.
func TestAgentKMS_TakesRightAnswersOnly(t *testing.T) {
	const name, kind = "akmsraw", "fixture-akmsraw"
	m := testManifest(name)
	m.Roles = []string{manifest.RoleValidator, manifest.RoleAnalyzer, manifest.RoleVender}
	r := newRig(t, func(c *Config) { c.CallTimeout = 20 * time.Second }, m)
	issue := func(do string) (grant.Issued, error) {
		ctx := t.Context()
		if do == "late" {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, time.Second)
			defer cancel()
		}
		scope := grant.Scope{Kind: kind, TTL: time.Minute, Params: map[string]any{"do": do}}
		return r.provider(t, kind).Issue(ctx, scope, grant.Bounds{Kind: kind, MaxTTL: time.Hour})
	}
	for _, do := range []string{"wrong", "late", "much", "more", "nothing", "twice", "status"} {
		if _, err := issue(do); !fault.Is(err, fault.Unavailable) || strings.Contains(fault.Public(err), "canary") {
			t.Errorf("%s: %v", do, err)
		}
		out, err := issue("right")
		if err != nil || string(out.Value.Reveal()) != "token" {
			t.Fatalf("after %s: %v", do, err)
		}
		for _, a := range out.Anomalies { // of levels that there are not
			if a.Level != grant.Unspecified {
				t.Errorf("level %d", a.Level)
			}
		}
	}
}
