package policy

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/open-policy-agent/opa/v1/ast"
	"pgregory.net/rapid"
)

// scope is what somebody asks for, as the host will compare it with bounds.
type scope struct {
	kind   string
	params map[string]any
	ttl    time.Duration
}

// permits is the meaning of bounds, written apart from narrow: it is the oracle.
func permits(b Bounds, s scope) bool {
	if b.Kind != "" && b.Kind != s.kind || b.MaxTTL != 0 && s.ttl > b.MaxTTL {
		return false
	}
	for k, limit := range b.MaxParams {
		v, asked := s.params[k]
		if asked && !within(limit, v) {
			return false
		}
	}
	return true
}

func within(limit, v any) bool {
	switch limit := limit.(type) {
	case float64:
		f, ok := v.(float64)
		return ok && f <= limit
	case bool:
		b, ok := v.(bool)
		return ok && (limit || !b)
	case string:
		return v == any(limit)
	case []any:
		list, ok := v.([]any)
		for _, one := range list {
			found := false
			for _, l := range limit {
				found = found || l == one
			}
			ok = ok && found
		}
		return ok
	}
	return false
}

var (
	names  = rapid.SampledFrom([]string{"a", "b", "c"})
	values = rapid.OneOf(
		rapid.Map(rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"x", "y", "z"}), 0, 3, rapid.ID[string]), func(l []string) any {
			out := make([]any, len(l))
			for i, s := range l {
				out[i] = s
			}
			return out
		}),
		rapid.Map(rapid.IntRange(0, 3), func(i int) any { return float64(i) }),
		rapid.Map(rapid.Bool(), func(b bool) any { return b }),
		rapid.Map(rapid.SampledFrom([]string{"x", "y"}), func(s string) any { return s }),
	)
	kinds  = rapid.SampledFrom([]string{"", "ssh", "pat"})
	bounds = rapid.Custom(func(t *rapid.T) Bounds {
		return Bounds{
			Kind: kinds.Draw(t, "kind"), MaxTTL: time.Duration(rapid.IntRange(0, 3).Draw(t, "ttl")) * time.Second,
			MaxParams: rapid.MapOfN(names, values, 0, 3).Draw(t, "params"),
		}
	})
	scopes = rapid.Custom(func(t *rapid.T) scope {
		return scope{
			kinds.Draw(t, "kind"), rapid.MapOfN(names, values, 0, 3).Draw(t, "params"),
			time.Duration(rapid.IntRange(1, 4).Draw(t, "ttl")) * time.Second,
		}
	})
)

// Narrowing is exactly "permitted by both": never wider, and not tighter than
// needed unless nothing is left at all.
func TestNarrow_permitsWhatBothPermit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, s := bounds.Draw(t, "a"), bounds.Draw(t, "b"), scopes.Draw(t, "scope")
		n, err := narrow(a, b)
		if err != nil {
			return
		}
		if got, want := permits(n, s), permits(a, s) && permits(b, s); got != want {
			t.Fatalf("narrow %+v permits %v, each: %v", n, got, want)
		}
	})
}

func TestNarrow_isALattice(t *testing.T) {
	same := cmpopts.SortSlices(func(a, b any) bool { return fmt.Sprint(a) < fmt.Sprint(b) })
	equal := func(a Bounds, aErr error, b Bounds, bErr error) bool {
		return (aErr != nil) == (bErr != nil) && (aErr != nil || cmp.Equal(a, b, same, cmpopts.EquateEmpty()))
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := bounds.Draw(t, "a"), bounds.Draw(t, "b"), bounds.Draw(t, "c")
		if n, err := narrow(a, a); !equal(n, err, a, nil) {
			t.Fatalf("not idempotent: %+v, %v", n, err)
		}
		ab, abErr := narrow(a, b)
		ba, baErr := narrow(b, a)
		if !equal(ab, abErr, ba, baErr) {
			t.Fatalf("not commutative: %+v %v, %+v %v", ab, abErr, ba, baErr)
		}
		three := func(x, y, z Bounds) (Bounds, error) {
			n, err := narrow(x, y)
			if err != nil {
				return n, err
			}
			return narrow(n, z)
		}
		left, leftErr := three(a, b, c)
		right, rightErr := three(b, c, a)
		if !equal(left, leftErr, right, rightErr) {
			t.Fatalf("not associative: %+v %v, %+v %v", left, leftErr, right, rightErr)
		}
	})
}

func TestNarrow_doesNotChangeItsArguments(t *testing.T) {
	a := Bounds{Kind: "ssh", MaxParams: object{"p": []any{"x", "y"}}}
	b := Bounds{MaxParams: object{"p": []any{"y"}, "q": true}}
	if _, err := narrow(a, b); err != nil {
		t.Fatal(err)
	}
	if !cmp.Equal(a.MaxParams, object{"p": []any{"x", "y"}}) || !cmp.Equal(b.MaxParams, object{"p": []any{"y"}, "q": true}) {
		t.Errorf("changed: %v, %v", a, b)
	}
}

// The two ways in which a narrowing function fails open (agentkms.md 5.2): more
// was asked than is bounded, and nothing is common to both.
func TestNarrow_neverGivesBackWhatWasAsked(t *testing.T) {
	read, write := Bounds{MaxParams: object{"contents": "read"}}, Bounds{MaxParams: object{"contents": "write"}}
	if n, err := narrow(read, write); err == nil {
		t.Errorf("read and write gave %+v", n)
	}
	n, err := narrow(Bounds{MaxParams: object{"repos": []any{"a"}}}, Bounds{MaxParams: object{"repos": []any{"b"}}})
	if list, ok := n.MaxParams["repos"].([]any); err != nil || !ok || list == nil || len(list) != 0 {
		t.Errorf("no overlap gave %#v, %v; want an empty list that is there", n.MaxParams["repos"], err)
	}
}

// random is a document with a random vote on release.
var random = rapid.Custom(func(t *rapid.T) string {
	switch rapid.IntRange(0, 5).Draw(t, "vote") {
	case 0:
		return `release := {"allow": false} if input.action`
	case 1:
		return `release := {"allow": false} if input.never`
	case 2:
		return `release := x if some x in [{"allow": 1}]`
	}
	b := bounds.Draw(t, "bounds")
	b.Kind, b.MaxTTL = "ssh", b.MaxTTL+time.Second
	text, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`release := {"allow": true, "bounds": %s} if input.action`, text)
})

// Adding a document never widens a decision, but for one case that is the point
// of documents: it is itself an allow, and nobody had voted before.
func TestSet_Decide_addedDocumentNeverWidens(t *testing.T) {
	in := request(object{"request": object{"kind": "ssh"}})
	rapid.Check(t, func(t *rapid.T) {
		texts := rapid.SliceOfN(random, 1, 4).Draw(t, "documents")
		var documents []Document
		for i, text := range texts {
			documents = append(documents, doc(fmt.Sprintf("d%d", i), text))
		}
		added := rapid.IntRange(0, len(documents)-1).Draw(t, "added")
		with := decideIn(t, documents, in)
		without := decideIn(t, append(append([]Document(nil), documents[:added]...), documents[added+1:]...), in)
		s := scopes.Draw(t, "scope")
		s.kind = "ssh"
		switch {
		case !with.Allow:
		case !without.Allow && len(without.Documents) > 0:
			t.Fatalf("an added document turned a refusal by %v into %+v", without.Documents, with)
		case without.Allow && permits(with.Bounds, s) && !permits(without.Bounds, s):
			t.Fatalf("an added document widened %+v to %+v", without.Bounds, with.Bounds)
		case !without.Allow && !cmp.Equal(with.Documents, []string{documents[added].Label()}):
			t.Fatalf("allowed by %v, not by the added document alone", with.Documents)
		}
	})
}

func decideIn(t *rapid.T, documents []Document, in map[string]any) Decision {
	s, err := Compile(documents, clock)
	if err != nil {
		t.Fatal(err)
	}
	s.limit = TestLimit
	d, err := s.Decide(context.Background(), "release", in)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func FuzzDecodeAnswer(f *testing.F) {
	f.Add(`{"allow":true,"bounds":{"kind":"ssh","max_params":{"p":["a","a"],"n":1,"b":true,"s":"x"},"max_ttl_seconds":900},"reasons":["r"]}`)
	f.Add(`{"allow":false}`)
	f.Add(`{"allow":true,"bounds":{"max_ttl_seconds":1e400}}`)
	f.Add(`[]`)
	f.Fuzz(func(t *testing.T, text string) {
		v, err := ast.ValueFromReader(strings.NewReader(text))
		if err != nil {
			return
		}
		got, err := decodeAnswer("release", v)
		if err != nil || !got.allow {
			if got.allow || got.bounds.MaxParams != nil {
				t.Fatalf("a refusal carries %+v", got)
			}
			return
		}
		if got.bounds.Kind == "" || got.bounds.MaxTTL <= 0 || got.bounds.MaxTTL > MaxTTL {
			t.Fatalf("allowed with %+v", got.bounds)
		}
		if n, err := narrow(got.bounds, got.bounds); err != nil || !cmp.Equal(n, got.bounds, cmpopts.EquateEmpty()) {
			t.Fatalf("narrowed by itself: %+v, %v", n, err)
		}
	})
}
