package policy

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// TestResourceAllowed_RemembersByAllThatWasAsked: one decision stands for no other
// token, path, query, method, plugin or policy.
func TestResourceAllowed_RemembersByAllThatWasAsked(t *testing.T) {
	const text = `package policy
allow if {
	data.plugin == "resource"
	data.method == "GET"
	data["resource-path"] == ["a", "b", "c"]
	data.query == {"v": "1"}
	input.good == true
}`
	s := mustCompile(t, resource(text))
	good := Claims{Token: "1", Members: object{"good": true}}
	first := ResourceRequest{Plugin: "resource", Path: []string{"a", "b", "c"}, Query: map[string]string{"v": "1"}, Method: "GET"}
	ask := func(s *Set, r ResourceRequest, c Claims) Decision {
		t.Helper()
		d, err := s.ResourceAllowed(context.Background(), r, c)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	for range 2 {
		if !ask(s, first, good).Allow {
			t.Fatal("refused")
		}
	}
	if len(s.released.known) != 1 {
		t.Errorf("%d decisions are kept", len(s.released.known))
	}
	for name, change := range map[string]func(*ResourceRequest, *Claims){
		"another token":   func(_ *ResourceRequest, c *Claims) { *c = Claims{Token: "2", Members: object{"good": false}} },
		"no name":         func(_ *ResourceRequest, c *Claims) { *c = Claims{Members: object{"good": false}} },
		"another path":    func(r *ResourceRequest, _ *Claims) { r.Path = []string{"a", "b", "d"} },
		"other segments":  func(r *ResourceRequest, _ *Claims) { r.Path = []string{"a", "b/c"} },
		"no query":        func(r *ResourceRequest, _ *Claims) { r.Query = nil },
		"another query":   func(r *ResourceRequest, _ *Claims) { r.Query = map[string]string{"v": "2"} },
		"query as path":   func(r *ResourceRequest, _ *Claims) { r.Path, r.Query = append(slices.Clone(r.Path), "v", "1"), nil },
		"another method":  func(r *ResourceRequest, _ *Claims) { r.Method = "POST" },
		"another plugin":  func(r *ResourceRequest, _ *Claims) { r.Plugin = "external" },
		"shifted members": func(r *ResourceRequest, _ *Claims) { r.Plugin, r.Method = "", "resource"+r.Method },
	} {
		for range 2 {
			r, c := first, good
			change(&r, &c)
			if ask(s, r, c).Allow {
				t.Errorf("%s: allowed", name)
			}
		}
	}
	if !ask(s, first, good).Allow {
		t.Error("refused after others were")
	}
	if ask(mustCompile(t, resource(resourceDenyAll)), first, good).Allow {
		t.Error("another set answers from memory")
	}
}

func TestResourceAllowed_AsksTheClockAnew(t *testing.T) {
	s := mustCompile(t, resource("package policy\nallow if time.now_ns() > 0"))
	if _, err := s.ResourceAllowed(context.Background(), ResourceRequest{Plugin: "resource", Path: []string{"a", "b", "c"}}, Claims{Token: "1"}); err != nil {
		t.Fatal(err)
	}
	if len(s.released.known) != 0 {
		t.Error("a decision by the clock is kept")
	}
}

// TestResourceAllowed_IsAlwaysAsFresh: whatever was asked before, a set answers as
// one that remembers nothing.
func TestResourceAllowed_IsAlwaysAsFresh(t *testing.T) {
	document := resource(byPath)
	s := mustCompile(t, document)
	word := rapid.SampledFrom([]string{"team-a", "key", "1", ""})
	rapid.Check(t, func(rt *rapid.T) {
		r := ResourceRequest{
			Plugin: rapid.SampledFrom([]string{"resource", "external"}).Draw(rt, "plugin"), Path: rapid.SliceOfN(word, 0, 3).Draw(rt, "path"),
			Query: rapid.MapOfN(rapid.Just("version"), rapid.SampledFrom([]string{"1.0.0", "2"}), 0, 1).Draw(rt, "query"),
		}
		status := rapid.SampledFrom([]string{"affirming", "warning", "contraindicated"}).Draw(rt, "status")
		claims := Claims{Token: status, Members: submods("snp", status)}
		got, err := s.ResourceAllowed(context.Background(), r, claims)
		want, wanted := mustCompile(t, document).ResourceAllowed(context.Background(), r, claims)
		if diff := cmp.Diff(want, got); diff != "" || fmt.Sprint(err) != fmt.Sprint(wanted) {
			rt.Fatalf("%v, want %v; -want +got:\n%s", err, wanted, diff)
		}
	})
}
