package plugin

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/grant"
)

func TestServices_Vend(t *testing.T) {
	r, c, house := asking(t, &manifest.Services{Vend: []string{"ticket"}})
	if got := say(t, c, "vend"); got != "" {
		t.Fatal(got)
	}
	if len(house.vends) != 1 || house.vends[0].Kind != "ticket" || house.vends[0].TTL != time.Minute || house.keys[0] != "a key" || !house.by["rolesasks"] {
		t.Errorf("asked for %+v under %v by %v", house.vends, house.keys, house.by)
	}
	// What the operator did not agree to, and what is not well-formed, reaches nobody.
	for what, want := range map[string]string{"vend-other": "kind root were not asked for", "vend-endless": "between a second and a year", "vend-much": "at most 262144 bytes"} {
		if got := say(t, c, what); !strings.Contains(got, want) {
			t.Errorf("%s: %q", what, got)
		}
	}
	if n := len(house.vends); n != 1 {
		t.Errorf("%d requests came through", n)
	}
	house.vend = func(string, grant.Scope) (Vended, error) {
		return Vended{}, fault.Deniedf("policy says no").Because(fault.Internalf("canary-in-cause"))
	}
	if got := say(t, c, "vend"); !strings.Contains(got, "policy says no") || strings.Contains(got, "canary") {
		t.Errorf("denied: %q", got)
	}
	house.vend = nil
	if got := say(t, c, "vend-flood"); !strings.Contains(got, "50 credentials a second") {
		t.Errorf("flood: %q", got)
	}
	if log := r.log.String(); strings.Contains(log, "private") || strings.Contains(log, "canary") {
		t.Errorf("the log has a secret: %s", log)
	}
}

// Two venders of which each asks for the other's kind come to an end, by a refusal,
// and can be asked again.
func TestServices_VendEndsARing(t *testing.T) {
	ring := func(name, other string) manifest.Manifest {
		m := testManifest(name)
		m.Capabilities.Services = &manifest.Services{Vend: []string{"fixture-" + other}}
		return m
	}
	house := &ledger{by: map[string]bool{}}
	r := newRig(t, func(c *Config) { c.House = house }, ring("here", "there"), ring("there", "here"))
	issue := func(s grant.Scope) (grant.Issued, error) {
		return r.provider(t, s.Kind).Issue(context.Background(), s, grant.Bounds{Kind: s.Kind, MaxTTL: time.Hour})
	}
	house.vend = func(_ string, s grant.Scope) (Vended, error) {
		out, err := issue(s)
		return Vended{Scope: out.Scope, Value: out.Value}, err
	}
	first := grant.Scope{Kind: "fixture-here", TTL: time.Minute, Params: map[string]any{"do": "vend", "from": "fixture-there"}}
	for range 2 {
		_, err := issue(first)
		if !fault.Is(err, fault.Exhausted) {
			t.Fatalf("got %v", err)
		}
	}
	if n := len(house.vends); n > 4*vendDepth {
		t.Errorf("it went round %d times", n)
	}
	if len(r.depths.of) != 0 {
		t.Errorf("under way for ever: %v", r.depths.of)
	}
	plain := grant.Scope{Kind: "fixture-here", TTL: time.Minute, Params: map[string]any{}}
	if _, err := issue(plain); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}
