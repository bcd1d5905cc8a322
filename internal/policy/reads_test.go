package policy

import (
	"context"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/open-policy-agent/opa/v1/ast"
	"pgregory.net/rapid"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// paths writes what is read, in order; a star is a value as a whole.
func (r *reads) paths(prefix string) []string {
	if r.all {
		return []string{prefix + "*"}
	}
	var out []string
	for _, m := range r.members {
		out = append(out, m.reads.paths(prefix+m.name+".")...)
	}
	slices.Sort(out)
	return out
}

// looks are ways of a document to look at its input, and what they read.
var looks = []struct {
	name, text string
	want       []string
}{
	{"nothing", `release := {"allow": false}`, nil},
	{"a member", `release := {"allow": false} if input.subject.role == "a"`, []string{"subject.role.*"}},
	{"by brackets", `release := {"allow": false} if input["subject"]["role"] == "a"`, []string{"subject.role.*"}},
	{"a parent and its member", "release := {\"allow\": false} if {\n\tinput.subject.role == \"a\"\n\tcount(input.subject) == 2\n}", []string{"subject.*"}},
	{"a name from the input", `release := {"allow": false} if input.subject[input.action] == "a"`, []string{"action.*", "subject.*"}},
	{"any member", `release := {"allow": false} if input.subject[_] == "a"`, []string{"subject.*"}},
	{"any member of the top", `release := {"allow": false} if input[_].role == "a"`, []string{"*"}},
	{"an item of a list", `release := {"allow": false} if input.list[0] == "a"`, []string{"list.*"}},
	{"everything", `release := {"allow": false} if object.get(input, ["subject", "role"], "") == "a"`, []string{"*"}},
	{"everything by another name", "release := {\"allow\": false} if {\n\tx := input\n\tx.subject.role == \"a\"\n}", []string{"*"}},
	{"by another name", "release := {\"allow\": false} if {\n\tx := input.subject\n\tx.role == \"a\"\n}", []string{"subject.*"}},
	{"by an import", "import input.subject as who\n\nrelease := {\"allow\": false} if who.role == \"a\"", []string{"subject.role.*"}},
	{"in a function", "role(x) := x.role\n\nrelease := {\"allow\": false} if role(input.subject) == \"a\"", []string{"subject.*"}},
	{"the default of a function", "default role(_) := \"a\"\n\nrole(x) := input.subject.role if x == input.action\n\nrelease := {\"allow\": false} if role(\"b\") == \"a\"", []string{"action.*", "subject.role.*"}},
	{"in a comprehension", `release := {"allow": false, "reasons": [r | some r in input.list]}`, []string{"list.*"}},
	{"in the head", `release := {"allow": false, "reasons": [input.subject.role]}`, []string{"subject.role.*"}},
	{"in another branch", "release := {\"allow\": false} if {\n\tinput.action == \"b\"\n} else := {\"allow\": false, \"reasons\": [\"else\"]} if {\n\tinput.subject.role == \"a\"\n}", []string{"action.*", "subject.role.*"}},
	{"in every", `release := {"allow": false} if every x in input.list { x == input.action }`, []string{"action.*", "list.*"}},
	{"in not", `release := {"allow": false} if not input.subject.role`, []string{"subject.role.*"}},
	{"in another rule", "agent if input.subject.kind == \"agent\"\n\nrelease := {\"allow\": false} if agent", []string{"subject.kind.*"}},
	{"in a template", `release := {"allow": false, "reasons": [$"role {input.subject.role}"]}`, []string{"subject.role.*"}},
	{"replaced", "role := input.subject.role\n\nrelease := {\"allow\": false, \"reasons\": [role]} if role == \"b\" with input.subject.role as \"b\"", []string{"subject.role.*"}},
	{"replaced as a whole", "role := input.subject.role\n\nrelease := {\"allow\": false} if role == \"b\" with input as {\"subject\": {\"role\": \"b\"}}", []string{"*"}},
	{"replaced by the input", "role := input.subject.role\n\nrelease := {\"allow\": false} if role == \"b\" with input.subject.role as input.action", []string{"action.*", "subject.role.*"}},
	{"walked", `release := {"allow": false} if { some p; walk(input.subject, [p, "a"]) }`, []string{"subject.*"}},
}

func TestReads_finds(t *testing.T) {
	for _, l := range looks {
		t.Run(l.name, func(t *testing.T) {
			s := mustCompile(t, doc("a", l.text))
			got := s.reads["release"].paths("")
			if s.reads["release"].all {
				got = []string{"*"}
			}
			if diff := cmp.Diff(l.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if other := s.reads["respond"].paths(""); other != nil {
				t.Errorf("for another verb %v is read", other)
			}
		})
	}
}

// TestReads_changeNothing decides on random inputs with what documents read and
// with everything: the answers are the same.
func TestReads_changeNothing(t *testing.T) {
	var sets, whole []*Set
	for _, l := range looks {
		sets, whole = append(sets, mustCompile(t, doc("a", l.text))), append(whole, mustCompile(t, doc("a", l.text)))
		whole[len(whole)-1].reads["release"].all = true
	}
	word := rapid.SampledFrom([]string{"a", "b", "role", "kind", "agent", ""})
	var value func(depth int) *rapid.Generator[any]
	value = func(depth int) *rapid.Generator[any] {
		all := []*rapid.Generator[any]{
			rapid.Map(word, func(s string) any { return s }), rapid.Map(rapid.Bool(), func(b bool) any { return b }), rapid.Just[any](nil),
			rapid.Map(rapid.IntRange(-1, 1), func(n int) any { return float64(n) }),
		}
		if depth > 0 {
			all = append(all,
				rapid.Map(rapid.SliceOfN(value(depth-1), 0, 3), func(l []any) any { return l }),
				rapid.Map(rapid.MapOfN(word, value(depth-1), 0, 3), func(m map[string]any) any { return m }))
		}
		return rapid.OneOf(all...)
	}
	rapid.Check(t, func(t *rapid.T) {
		input := object{"context": object{"time": "2026-03-01T12:00:00Z"}}
		for _, name := range []string{"subject", "list", "action"} {
			if rapid.Bool().Draw(t, "has "+name) {
				input[name] = value(2).Draw(t, name)
			}
		}
		if rapid.Bool().Draw(t, "usual") {
			input["subject"], input["action"] = object{"role": word.Draw(t, "role"), "kind": word.Draw(t, "kind")}, word.Draw(t, "action")
		}
		for i, l := range looks {
			got, err := sets[i].Decide(context.Background(), "release", input)
			if err != nil {
				t.Fatal(err)
			}
			want, err := whole[i].Decide(context.Background(), "release", input)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("%s: -with everything +with what is read:\n%s", l.name, diff)
			}
		}
	})
}

// TestDecide_refusesWhatIsNotJSON also where no document looks.
func TestDecide_refusesWhatIsNotJSON(t *testing.T) {
	s := mustCompile(t, doc("a", sshAllow))
	for name, x := range map[string]any{"a channel": make(chan int), "deep": object{"x": []any{func() {}}}} {
		if _, err := s.Decide(context.Background(), "release", request(object{"evidence": x})); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: got %v, want Invalid", name, err)
		}
	}
	if d := decide(t, s, "release", request(object{"evidence": []string{"a form that JSON has"}})); !d.Allow {
		t.Errorf("got %v", d)
	}
}

// TestReads_ofResourcePolicies: the documents that we ship decide alike with what
// they read and with all claims, and one that reads nothing gets nothing.
func TestReads_ofResourcePolicies(t *testing.T) {
	for name, text := range map[string]string{"installed": resourceText, "affirming": resourceAffirming, "all": resourceAllowAll, "none": resourceDenyAll} {
		s := mustCompile(t, Document{Name: "r", Version: 1, Kind: KBSResource, Source: text})
		whole := mustCompile(t, Document{Name: "r", Version: 1, Kind: KBSResource, Source: text})
		whole.reads[resourceEntry].all = true
		for _, claims := range []object{nil, {}, snpClaims(), {"submods": object{}}, {"submods": object{"cpu0": object{"ear.status": "affirming"}}}} {
			got, err := s.ResourceAllowed(context.Background(), ResourceRequest{Plugin: "resource", Path: []string{"a", "b", "c"}}, Claims{Members: claims})
			if err != nil {
				t.Fatal(err)
			}
			want, err := whole.ResourceAllowed(context.Background(), ResourceRequest{Plugin: "resource", Path: []string{"a", "b", "c"}}, Claims{Members: claims})
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("%s: %v, -with everything +with what is read:\n%s", name, err, diff)
			}
		}
		in, err := s.reads[resourceEntry].term(snpClaims())
		if blind := name == "all" || name == "none"; err != nil || blind != (in.Value.Compare(ast.NewObject()) == 0) {
			t.Errorf("%s: sees %v, %v", name, in, err)
		}
	}
}
