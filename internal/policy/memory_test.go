package policy

import (
	"bytes"
	"context"
	"fmt"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/sallyport-project/sallyport/internal/fault"
)

func TestDecide_RemembersByWhatDocumentsRead(t *testing.T) {
	s := mustCompile(t, doc("a", sshAllow))
	role := func(r string) object {
		return object{"subject": object{"kind": "agent", "role": r, "state": "registered"}}
	}
	first := decide(t, s, "release", request(role("deployer")))
	again := decide(t, s, "release", request(role("deployer"), object{"context": object{"time": "2026-03-01T13:00:00Z"}}))
	if diff := cmp.Diff(first, again); diff != "" || len(s.memory.known) != 1 {
		t.Errorf("%d kept, -first +again:\n%s", len(s.memory.known), diff)
	}
	other := decide(t, s, "release", request(role("reporter")))
	if !first.Allow || other.Allow || len(s.memory.known) != 2 {
		t.Errorf("%d kept, deployer %v, reporter %v", len(s.memory.known), first.Allow, other.Allow)
	}
	if d := decide(t, mustCompile(t, doc("a", sshAllow), doc("veto", `release := {"allow": false}`)), "release", request(role("deployer"))); d.Allow {
		t.Error("another set answers from memory")
	}
}

// TestDecide_AsksTheClockAnew: what depends on the time is never kept, also where
// the document hides it.
func TestDecide_AsksTheClockAnew(t *testing.T) {
	for name, text := range map[string]string{
		"a call":     `release := {"allow": false, "reasons": [sprintf("%d", [time.now_ns()])]}`,
		"a function": "now(_) := time.now_ns()\n\nrelease := {\"allow\": false, \"reasons\": [sprintf(\"%d\", [now(1)])]}",
		"a rule":     "at := time.now_ns()\n\nrelease := {\"allow\": false, \"reasons\": [sprintf(\"%d\", [at])]}",
		"a nesting":  `release := {"allow": false, "reasons": [r | r := sprintf("%v", [time.clock(time.now_ns())])]}`,
		"the input":  `release := {"allow": false, "reasons": [input.context.time]}`,
	} {
		m, seen := mustCompile(t, doc("a", text)), map[string]bool{}
		for n := range 3 {
			d := decide(t, m, "release", request(object{"context": object{"time": fmt.Sprintf("2026-03-01T12:00:0%dZ", n)}}))
			seen[d.Reasons[0]] = true
		}
		if len(seen) != 3 {
			t.Errorf("%s: at three times %v", name, seen)
		}
	}
}

func TestDecide_RefusesWhatIsNoInputAlsoWhenItRemembers(t *testing.T) {
	s := mustCompile(t, doc("a", sshAllow))
	decide(t, s, "release", request())
	for name, in := range map[string]object{
		"no time": request(object{"context": object{"time": "noon"}}), "no JSON": request(object{"evidence": make(chan int)}),
	} {
		if _, err := s.Decide(context.Background(), "release", in); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: got %v, want Invalid", name, err)
		}
	}
	if _, err := s.Decide(context.Background(), "nonsense", request()); !fault.Is(err, fault.Invalid) {
		t.Errorf("unknown verb: got %v, want Invalid", err)
	}
}

// TestDecide_HandsOutCopies: who changes a decision changes nobody else's.
func TestDecide_HandsOutCopies(t *testing.T) {
	s := mustCompile(t, doc("a", sshAllow))
	want := decide(t, mustCompile(t, doc("a", sshAllow)), "release", request())
	for range 3 {
		d := decide(t, s, "release", request())
		if diff := cmp.Diff(want, d); diff != "" {
			t.Fatalf("-want +got:\n%s", diff)
		}
		d.Reasons[0], d.Documents[0] = "changed", "changed"
		for name, v := range d.Bounds.MaxParams {
			if list, ok := v.([]any); ok {
				list[0] = "changed"
			}
			d.Bounds.MaxParams[name+"2"] = true
		}
	}
}

func TestMemory_IsBounded(t *testing.T) {
	s := mustCompile(t, doc("a", `release := {"allow": false, "reasons": [input.action]}`))
	for n := range 2*mostKnown + 10 {
		decide(t, s, "release", request(object{"action": fmt.Sprint(n)}))
	}
	if n := len(s.memory.known); n == 0 || n > mostKnown {
		t.Errorf("%d decisions are kept", n)
	}
	before := len(s.memory.known)
	decide(t, s, "release", request(object{"action": string(make([]byte, longestKey))}))
	if len(s.memory.known) != before {
		t.Error("the decision on a large request is kept")
	}
}

// TestAppendFact_TellsValuesApart: two facts have the same bytes only if they
// are the same value of the same type.
func TestAppendFact_TellsValuesApart(t *testing.T) {
	word := rapid.SampledFrom([]string{"", "a", "aa", "s", "\x01a", "n"})
	var value func(depth int) *rapid.Generator[any]
	value = func(depth int) *rapid.Generator[any] {
		all := []*rapid.Generator[any]{
			rapid.Just[any](nil), rapid.Map(word, func(s string) any { return s }), rapid.Map(rapid.Bool(), func(b bool) any { return b }),
			rapid.Map(rapid.IntRange(0, 1), func(n int) any { return n }), rapid.Map(rapid.IntRange(0, 1), func(n int) any { return float64(n) }),
		}
		if depth > 0 {
			all = append(all,
				rapid.Map(rapid.SliceOfN(value(depth-1), 0, 3), func(l []any) any { return l }),
				rapid.Map(rapid.MapOfN(word, value(depth-1), 0, 3), func(m map[string]any) any { return m }))
		}
		return rapid.OneOf(all...)
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b := value(2).Draw(t, "a"), value(2).Draw(t, "b")
		x, ok := appendFact(nil, a)
		y, too := appendFact(nil, b)
		if !ok || !too || bytes.Equal(x, y) != reflect.DeepEqual(a, b) {
			t.Fatalf("%#v is %q, %#v is %q", a, x, b, y)
		}
	})
	if _, ok := appendFact(nil, []any{make(chan int)}); ok {
		t.Error("a channel has a form")
	}
}
