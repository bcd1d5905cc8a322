package policy

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
)

func releases(t testing.TB, s *Set, c Claims) bool {
	t.Helper()
	d, err := s.ResourceAllowed(context.Background(), ResourceRequest{Plugin: "resource", Path: []string{"a", "b", "c"}}, c)
	if err != nil {
		t.Error(err)
	}
	return d.Allow
}

// TestClaims_areKeptByName: tokens of different names never share what they say,
// and one without a name is never remembered.
func TestClaims_areKeptByName(t *testing.T) {
	s := mustCompile(t, Document{Name: "r", Version: 1, Kind: KBSResource, Source: resourceAffirming})
	good, bad := submods("snp", "affirming"), submods("snp", "warning")
	for range 2 {
		for _, c := range []struct {
			claims Claims
			want   bool
		}{
			{Claims{"good", good}, true},
			{Claims{"bad", bad}, false},
			{Claims{"", good}, true},
			{Claims{"", bad}, false},
			{Claims{"nothing", nil}, false},
		} {
			if got := releases(t, s, c.claims); got != c.want {
				t.Errorf("%q: allowed %v", c.claims.Token, got)
			}
		}
	}
	if n := len(s.tokens.known); n != 3 {
		t.Errorf("%d are kept", n)
	}
}

// TestClaims_areNotChangedByDocuments: a document that replaces parts of its
// input leaves what later requests, and those at the same time, see as it was.
func TestClaims_areNotChangedByDocuments(t *testing.T) {
	s := mustCompile(t, Document{Name: "r", Version: 1, Kind: KBSResource, Source: `package policy

affirming if every s in input.submods { s["ear.status"] == "affirming" }

lie if affirming with input.submods.cpu0["ear.status"] as "affirming"

more if count(input.submods) == 2 with input.submods.cpu1 as {"ear.status": "affirming"}

merged := object.union(input.submods, {"cpu0": {"ear.status": "affirming"}})

allow if {
	lie
	more
	merged.cpu0["ear.status"] == "affirming"
	affirming
}
`})
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for range 50 {
				if releases(t, s, Claims{"warning", submods("snp", "warning")}) {
					t.Error("a replaced member stayed")
				}
				if !releases(t, s, Claims{fmt.Sprint("affirming ", i%2), submods("snp", "affirming")}) {
					t.Error("refused")
				}
			}
		})
	}
	all.Wait()
}

func TestClaims_areBounded(t *testing.T) {
	s := mustCompile(t, Document{Name: "r", Version: 1, Kind: KBSResource, Source: "package policy\nallow if input.submods"})
	for i := range maxTokens + 10 {
		releases(t, s, Claims{fmt.Sprint(i), object{"submods": object{"cpu0": i}}})
	}
	if n := len(s.tokens.known); n != maxTokens || s.tokens.known["0"] != nil || s.tokens.known[fmt.Sprint(maxTokens+9)] == nil {
		t.Errorf("%d are kept", n)
	}
	many := make([]any, maxWeight)
	for i := range many {
		many[i] = "x"
	}
	if !releases(t, s, Claims{"large", object{"submods": many}}) || s.tokens.known["large"] != nil {
		t.Error("large claims are refused, or kept")
	}
	if n := weight(ast.MustInterfaceToValue(object{"a": []any{"b", object{"c": 1}}})); n != 5 {
		t.Errorf("weighs %d", n)
	}
}
