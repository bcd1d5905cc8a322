package token

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/sallyport-project/sallyport/internal/fault"
)

func TestScope_Grammar(t *testing.T) {
	for _, good := range []string{"vend:ssh-user-cert", "*:**", "*:*", "read:resource/team-a/*/key", "read:a/b/**", "read:prod-*/x", "a1-b:A.b_c-d", "read:*/x*/y", "read:..."} {
		if _, err := ParseScope(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{
		"", ":", "vend", "vend:", ":x", "Vend:x", "1vend:x", "ve*:x", "**:x", "vend:/x", "vend:x/", "vend:x//y", "vend:.", "vend:x/../y",
		"vend:**/x", "vend:a**", "vend:*a", "vend:a*b", "vend:***", "vend:x y", "vend:x:y", "vend:x%2fy", "vend:é", "vend:x\n", " vend:x",
		"vend:" + strings.Repeat("a", maxScope), "vend:" + strings.Repeat("a/", maxSegments) + "a",
	} {
		if _, err := ParseScope(bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := ParseScopes(nil); !fault.Is(err, fault.Invalid) {
		t.Error("no scopes are scopes")
	}
	if _, err := ParseScopes(make([]string, maxScopes+1)); !fault.Is(err, fault.Invalid) {
		t.Error("too many scopes")
	}
	if got, err := ParseScopes([]string{"b:x", "a:x", "b:x"}); err != nil || len(got) != 2 || got[0] != "a:x" {
		t.Errorf("%v, %v", got, err)
	}
}

func TestScope_Covers(t *testing.T) {
	for _, c := range []struct {
		parent, child string
		want          bool
	}{
		{"vend:x", "vend:x", true},
		{"vend:x", "read:x", false},
		{"*:x", "read:x", true},
		{"read:x", "*:x", false},
		{"read:*", "read:x", true},
		{"read:*", "read:x/y", false},
		{"read:*", "read:**", false},
		{"read:**", "read:*", true},
		{"read:**", "read:**", true},
		{"read:**", "read:x/y/z", true},
		{"read:a/**", "read:a", false},
		{"read:a/**", "read:a/b", true},
		{"read:a/**", "read:a/b/**", true},
		{"read:a/**", "read:ab/c", false},
		{"read:a/**", "read:**", false},
		{"read:a/*/**", "read:a/**", false},
		{"read:a/*/**", "read:a/b/**", true},
		{"read:a/b/**", "read:a/**", false},
		{"read:a/*/c", "read:a/b/c", true},
		{"read:a/*/c", "read:a/b/d/c", false},
		{"read:a/*/c", "read:a/**", false},
		{"read:x", "read:*", false},
		{"read:prod-*", "read:prod-db", true},
		{"read:prod-*", "read:prod-*", true},
		{"read:prod-*", "read:prod-db-*", true},
		{"read:prod-db-*", "read:prod-*", false},
		{"read:prod-*", "read:*", false},
		{"read:prod-*", "read:test-db", false},
		{"read:prod-*", "read:prod-/x", false},
		{"", "read:x", false},
		{"read:x", "", false},
	} {
		if got := Scope(c.parent).Covers(Scope(c.child)); got != c.want {
			t.Errorf("%s covers %s: %v", c.parent, c.child, got)
		}
	}
}

func TestScopes_AllowOnlyConcreteActs(t *testing.T) {
	ss := scopesOf(t, "vend:**", "read:a/*")
	for act, want := range map[[2]string]bool{
		{"vend", "x/y"}: true, {"read", "a/b"}: true, {"read", "a/b/c"}: false, {"vend", "*"}: false, {"*", "x"}: false,
		{"vend", "**"}: false, {"vend", "x/../y"}: false, {"vend", ""}: false, {"", "x"}: false, {"vend", "x:y"}: false,
	} {
		if got := ss.Allows(act[0], act[1]); got != want {
			t.Errorf("%v: %v", act, got)
		}
	}
	if Scopes(nil).Allows("vend", "x") || !Scopes(nil).Covers(nil) || Scopes(nil).Covers(ss) {
		t.Error("nothing allows something")
	}
}

func segments() *rapid.Generator[string] {
	return rapid.SampledFrom([]string{"a", "b", "ab", "a*", "ab*", "*"})
}

func scopes() *rapid.Generator[Scope] {
	return rapid.Custom(func(t *rapid.T) Scope {
		parts := rapid.SliceOfN(segments(), 0, 3).Draw(t, "segments")
		if len(parts) == 0 || rapid.Bool().Draw(t, "rest") {
			parts = append(parts, "**")
		}
		s, err := ParseScope(rapid.SampledFrom([]string{"r", "w", "*"}).Draw(t, "verb") + ":" + strings.Join(parts, "/"))
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}

// What a covered child allows, its parent allows; so delegation never widens.
func TestScope_CoveringIsSoundAndTransitive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, c, g := scopes().Draw(t, "parent"), scopes().Draw(t, "child"), scopes().Draw(t, "grandchild")
		if !p.Covers(p) {
			t.Fatalf("%s does not cover itself", p)
		}
		if p.Covers(c) && c.Covers(g) && !p.Covers(g) {
			t.Fatalf("%s covers %s covers %s", p, c, g)
		}
		verb := rapid.SampledFrom([]string{"r", "w"}).Draw(t, "act")
		target := strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "ab", "abc"}), 1, 4).Draw(t, "target"), "/")
		if p.Covers(c) && (Scopes{c}).Allows(verb, target) && !(Scopes{p}).Allows(verb, target) {
			t.Fatalf("%s covers %s, which alone allows %s %s", p, c, verb, target)
		}
	})
}

func FuzzScope(f *testing.F) {
	f.Add("read:a/*/b", "read:a/**")
	f.Fuzz(func(t *testing.T, a, b string) {
		x, errA := ParseScope(a)
		y, errB := ParseScope(b)
		if errA != nil || errB != nil {
			return
		}
		if !x.Covers(x) || !Scope("*:**").Covers(x) {
			t.Fatalf("%s is not covered", x)
		}
		if x.Covers(y) && y.Covers(x) && x != y && !strings.Contains(a+b, "*") {
			t.Fatalf("%s and %s cover each other", x, y)
		}
	})
}
