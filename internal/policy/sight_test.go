package policy

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"
)

// sights are documents that look at facts in every way that is known to see less
// than all of them, or that could be mistaken for one; with how many decisions are
// kept when hundreds of guests ask who differ in much.
var sights = map[string]string{
	"one member":             `allow if input.a.b == 1`,
	"a member of each":       `allow if every x in input.a { x.b == 1 }`,
	"a nested each":          `allow if every x in input.a { every y in x { y == 1 } }`,
	"a count":                `allow if count(input.a) > 1`,
	"the names":              `allow if "b" in object.keys(input.a)`,
	"a type":                 `allow if is_object(input.a.b)`,
	"a type of each":         `allow if every x in input.a { is_number(x) }`,
	"whether it is there":    `allow if x := input.a.b`,
	"the value":              `allow if input.a`,
	"some element":           `allow if input.a[_] == 1`,
	"some member of one":     `allow if input.a[_].b == 1`,
	"the name of a member":   "allow if {\n\tsome k, v in input.a\n\tk == v\n}",
	"each by its name":       `allow if every k, x in input.a { k == x }`,
	"each name by a fact":    `allow if every k, _ in input.a { k == input.c }`,
	"each by a fact":         `allow if every x in input.a { x == input.c }`,
	"an index by a fact":     `allow if input.a[input.c] == 1`,
	"an index by a name":     "allow if {\n\tx := input.c\n\tinput.a[x] == 1\n}",
	"an element":             `allow if input.a[1] == 1`,
	"two parts compared":     "allow if {\n\tx = input.a\n\tx = input.c\n}",
	"two parts in turn":      "allow if {\n\tx := input.a\n\ty := x.b\n\ty.c == 1\n}",
	"an argument":            "same(x) if x = input.c\n\nallow if same(input.a)",
	"an argument of a count": "few(x) if count(x) < 2\n\nallow if few(input.a)",
	"a rule's value":         "part := input.a\n\nallow if part.b == 1",
	"a rule's member":        "part[x] := input.a[x] if x == \"b\"\n\nallow if part.b == 1",
	"a name within a head":   "part[x].y := 1 if x := input.c\n\nallow if part.b.y == 1",
	"another rule's variable": `allow if {
	x = input.a
	count(x) == 1
}

allow if {
	x = 1
	input.c == x
}`,
	"a comprehension":                  `allow if {x | some x in input.a} == {1}`,
	"a list of each":                   `allow if [x.b | some x in input.a] == [1]`,
	"a negation":                       `allow if not input.a.b`,
	"a negated equation":               `allow if not input.a = input.c`,
	"a negated every":                  "ok if every x in input.a { x == 1 }\n\nallow if not ok",
	"another branch":                   "allow := false if input.a.b else := true if input.c == 1",
	"a replaced input":                 `allow if count(input.a) == 1 with input.a as input.c`,
	"a replaced function":              "inner(x) := x.b\n\nother if count(input.a) == 1\n\nallow if other with count as inner",
	"a member by a call":               `allow if object.get(input, ["a", "b"], 0) == 1`,
	"a union":                          `allow if object.union(input, {"z": 1}).a == 1`,
	"a walk":                           `allow if some [_, 1] in walk_of(input.a)` + "\n\nwalk_of(x) := {[p, v] | walk(x, [p, v])}",
	"an object of all":                 `allow if {"x": input.a}.x.b == 1`,
	"the other way round":              `allow if 1 = input.a.b`,
	"the request's path":               `allow if data["resource-path"][0] == "b"`,
	"an element by a text":             `allow if data["resource-path"]["0"] == "b"`,
	"the request's length":             `allow if count(data["resource-path"]) == 2`,
	"the request's query":              `allow if data.query.b == "c"`,
	"the request's method":             `allow if data.method == "b"`,
	"an index of a call":               `allow if split(input.c, "x")[0] == "b"`,
	"an index of a list":               `allow if [input.a, 1][0] == 1`,
	"an index in both":                 "allow if {\n\tsome i\n\tinput.a[i] == data[\"resource-path\"][i]\n}",
	"the root by a name and a fact":    "allow if {\n\tx := input\n\ty := x[input.c]\n\ty == 1\n}",
	"a function's equation":            "f(x) if x = input.c\n\nallow if f(1)",
	"a function's equation of members": "f(x) if x.b = input.c\n\nallow if f({\"b\": 1})",
	"a pattern":                        "allow if {\n\t{\"b\": x} = input.a\n\tx == 1\n}",
	"names of what holds":              `allow if {k | input.a[k]} == {"b"}`,
	"an iterator compared":             "allow if {\n\tsome x in input.a\n\tx = input.c\n}",
	"a key compared":                   "allow if {\n\tinput.a[x]\n\tx = input.c\n}",
	"a key of two":                     "allow if {\n\tinput.a[x]\n\tinput.c[x]\n}",
	"two of each":                      "allow if {\n\tx := input.a[i]\n\ty := input.a[j]\n\ti != j\n\tx.b == y.c\n}",
	"a negated index":                  "allow if {\n\tsome k in [\"b\", \"c\"]\n\tnot input.a[k]\n}",
	"own rules by a fact":              "part.b := 1\n\nallow if part[input.c] == 1",
	"an own count":                     "count(x) := x.b\n\nallow if count(input.a) == 1",
	"a count of an index":              `allow if count(input.a[input.c]) == 1`,
	"every over a rule":                "part := input.a\n\nallow if every x in part { x == 1 }",
	"every shadowed":                   "allow if every x in input.a {\n\tevery x in x { x == 1 }\n}",
	"a membership":                     `allow if input.c in input.a`,
	"nothing":                          `allow := true`,
}

// TestSight_tellsApartWhatDocumentsTellApart: whatever was asked before, a set that
// remembers answers as one that does not.
func TestSight_tellsApartWhatDocumentsTellApart(t *testing.T) {
	word := rapid.SampledFrom([]string{"b", "c"})
	var value func(depth int) *rapid.Generator[any]
	value = func(depth int) *rapid.Generator[any] {
		all := []*rapid.Generator[any]{
			rapid.SampledFrom([]any{false, 1.0, "b", "c"}),
		}
		if depth > 0 {
			all = append(all,
				rapid.Map(rapid.SliceOfN(value(depth-1), 0, 2), func(l []any) any { return l }),
				rapid.Map(rapid.MapOfN(word, value(depth-1), 0, 2), func(m map[string]any) any { return m }))
		}
		return rapid.OneOf(all...)
	}
	maybe := func(t *rapid.T, c map[string]any, name string, v *rapid.Generator[any]) {
		delete(c, name)
		if rapid.IntRange(0, 4).Draw(t, "there") > 0 {
			c[name] = v.Draw(t, name)
		}
	}
	for name, text := range sights {
		t.Run(name, func(t *testing.T) {
			s := mustCompile(t, resource("package policy\n\n"+text))
			rapid.Check(t, func(rt *rapid.T) {
				c := map[string]any{}
				maybe(rt, c, "a", value(3))
				r := ResourceRequest{
					Plugin: word.Draw(rt, "plugin"), Method: word.Draw(rt, "method"),
					Path: rapid.SliceOfN(word, 0, 2).Draw(rt, "path"), Query: rapid.MapOfN(word, word, 0, 1).Draw(rt, "query"),
				}
				for range 3 { // that differ in one fact
					maybe(rt, c, "c", value(1))
					got, err := s.ResourceAllowed(context.Background(), r, Claims{Members: c})
					want, _, wanted := s.resourceAllowed(context.Background(), s.resources[0], r, Claims{Members: c})
					if got.Allow != want.Allow || fmt.Sprint(got, err) != fmt.Sprint(want, wanted) {
						rt.Fatalf("%v, %v; want %v, %v", got, err, want, wanted)
					}
				}
			})
		})
	}
}

// TestSight_ofWhatIsInstalled: guests of which all that a document looks at is the
// same share one decision, whatever their tokens say beside it.
func TestSight_ofWhatIsInstalled(t *testing.T) {
	guest := func(n int, tee, status string) Claims {
		c := submods(tee, status)
		c["iat"], c["exp"] = float64(n), float64(n+300)
		cpu := c["submods"].(map[string]any)["cpu0"].(map[string]any)
		cpu["ear.veraison.annotated-evidence"] = object{tee: object{"report_data": fmt.Sprint(n)}, "runtime_data_claims": object{"nonce": fmt.Sprint(n)}}
		return Claims{Token: fmt.Sprint(n, tee, status), Members: c}
	}
	for name, kept := range map[string]int{"resource.rego": 2, "resource-affirming.rego": 2, "resource-allow-all.rego": 1, "resource-deny-all.rego": 1} {
		text, err := os.ReadFile(filepath.Join("rego", name))
		if err != nil {
			t.Fatal(err)
		}
		s := mustCompile(t, resource(string(text)))
		for n := range 50 {
			for _, c := range []Claims{guest(n, "snp", "affirming"), guest(n, "sample", "warning")} {
				r := ResourceRequest{Plugin: "resource", Path: []string{"a", "b", fmt.Sprint(n)}, Method: "GET"}
				got, err := s.ResourceAllowed(context.Background(), r, c)
				want, _, wanted := s.resourceAllowed(context.Background(), s.resources[0], r, c)
				if err != nil || wanted != nil || got.Allow != want.Allow {
					t.Fatalf("%s: %v, %v; want %v, %v", name, got, err, want, wanted)
				}
			}
		}
		if n := len(s.released.known); n != kept {
			t.Errorf("%s: %d decisions are kept, want %d", name, n, kept)
		}
	}
}

// TestSight_ofAllIsByToken: where a document looks at all claims, the token stands
// for them, and a token without a name is not remembered.
func TestSight_ofAllIsByToken(t *testing.T) {
	for _, text := range []string{"allow if input", "allow if object.get(input, \"a\", 0)", "allow if input.a with input.b as 1"} {
		s := mustCompile(t, resource("package policy\n\n"+text))
		for _, c := range []Claims{{Members: object{"a": true}}, {Token: "1", Members: object{"a": true}}, {Token: "2", Members: object{"a": true}}} {
			for range 2 { // the second is remembered, where the token has a name
				if !releases(t, s, c) {
					t.Errorf("%s: refused", text)
				}
			}
		}
		if n := len(s.released.known); n != 2 {
			t.Errorf("%s: %d decisions are kept, want 2", text, n)
		}
	}
}
