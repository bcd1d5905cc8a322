package grant_test

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/grant"
)

type params = map[string]any

func scope(ttl time.Duration, p params) grant.Scope {
	return grant.Scope{Kind: "k", Params: p, TTL: ttl}
}

func TestWithin_Rules(t *testing.T) {
	list := func(v ...any) []any { return v }
	for _, c := range []struct {
		name                string
		inner, asked, bound params
		ok                  bool
	}{
		{"equal", params{"a": "x"}, params{"a": "x"}, nil, true},
		{"nothing at all", nil, nil, nil, true},
		{"other text", params{"a": "y"}, params{"a": "x"}, nil, false},
		{"added", params{"a": "x", "admin": true}, params{"a": "x"}, nil, false},
		{"added, as bounds say", params{"src": list("10.1.0.0/16")}, params{}, params{"src": list("10.0.0.0/8")}, true},
		{"added, wider than bounds say", params{"src": list("0.0.0.0/0")}, params{}, params{"src": list("10.0.0.0/8")}, false},
		{"left out", params{}, params{"src": "x"}, nil, false},
		{"bounded and left out", params{}, params{}, params{"src": "x"}, false},
		{"fewer elements", params{"p": list("a")}, params{"p": list("a", "b")}, nil, true},
		{"more elements", params{"p": list("a", "b")}, params{"p": list("a")}, nil, false},
		{"no element", params{"p": list()}, params{"p": list("a")}, nil, false},
		{"no element asked", params{"p": list()}, params{"p": list()}, nil, true},
		{"outside of bounds", params{"p": list("a", "b")}, params{"p": list("a", "b")}, params{"p": list("a")}, false},
		{"cut to bounds", params{"p": list("a")}, params{"p": list("a", "b")}, params{"p": list("a")}, true},
		{"one of a list", params{"r": "a"}, params{"r": "a"}, params{"r": list("a", "b")}, true},
		{"none of a list", params{"r": "c"}, params{"r": "c"}, params{"r": list("a", "b")}, false},
		{"list for text", params{"r": list("a")}, params{"r": "a"}, nil, false},
		{"smaller prefix", params{"s": list("10.1.2.3")}, params{"s": list("10.0.0.0/8")}, nil, true},
		{"larger prefix", params{"s": list("10.0.0.0/7")}, params{"s": list("10.0.0.0/8")}, nil, false},
		{"same address, other text", params{"s": "10.0.0.1/32"}, params{"s": "10.0.0.1"}, nil, true},
		{"IPv6 in IPv4", params{"s": "::ffff:10.0.0.1"}, params{"s": "10.0.0.0/8"}, nil, false},
		{"read within write", params{"c": "read"}, params{"c": "write"}, params{"c": "read"}, true},
		{"write within read", params{"c": "write"}, params{"c": "read"}, nil, false},
		{"the published defect", params{"c": "write"}, params{"c": "write"}, params{"c": "read"}, false},
		{"the published defect in an object", params{"m": params{"contents": "write"}}, params{"m": params{"contents": "write"}}, params{"m": params{"contents": "read"}}, false},
		{"no overlap, request unchanged", params{"repos": list("a")}, params{"repos": list("a")}, params{"repos": list("b")}, false},
		{"member left out, bounds lack it", params{"m": params{"a": "read"}}, params{"m": params{"a": "read", "b": "read"}}, params{"m": params{"a": "read"}}, true},
		{"member left out, bounds name it", params{"m": params{"a": "read"}}, params{"m": params{"a": "read", "b": "read"}}, params{"m": params{"a": "read", "b": "read"}}, false},
		{"member left out, no bounds", params{"m": params{"a": "read"}}, params{"m": params{"a": "read", "b": "read"}}, nil, false},
		{"member added", params{"m": params{"a": "read", "b": "read"}}, params{"m": params{"a": "read"}}, nil, false},
		{"object emptied", params{"m": params{}}, params{"m": params{"a": "read"}}, params{"m": params{}}, false},
		{"another number", params{"n": 3.0}, params{"n": 7.0}, nil, false},
		{"number lowered to its bound", params{"n": 3.0}, params{"n": 7.0}, params{"n": 3.0}, true},
		{"number above its bound", params{"n": 7.0}, params{"n": 7.0}, params{"n": 3.0}, false},
		{"no number at all", params{"n": math.NaN()}, params{"n": 7.0}, params{"n": 3.0}, false},
		{"number lowered to zero", params{"n": 0.0}, params{"n": 7.0}, params{"n": 3.0}, false},
		{"number below zero", params{"n": -1.0}, params{"n": 7.0}, params{"n": 3.0}, false},
		{"true for false", params{"b": true}, params{"b": false}, params{"b": true}, false},
		{"false for true", params{"b": false}, params{"b": true}, nil, false},
		{"false for true, as bounds say", params{"b": false}, params{"b": true}, params{"b": false}, true},
		{"false for true, bounds say true", params{"b": false}, params{"b": true}, params{"b": true}, false},
		{"null", params{"z": nil}, params{"z": nil}, nil, true},
		{"null for text", params{"z": nil}, params{"z": "x"}, nil, false},
		{"a Go value that JSON does not have", params{"z": 1}, params{"z": 1}, nil, false},
		{"host's equal", params{"host.a": "1"}, params{"host.a": "1"}, nil, true},
		{"host's left out", params{}, params{"host.a": "1"}, nil, true},
		{"host's changed", params{"host.a": "2"}, params{"host.a": "1"}, nil, false},
		{"host's invented", params{"host.b": "1"}, params{}, nil, false},
		{"host's in bounds", params{}, params{}, params{"host.b": "1"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := grant.Bounds{Kind: "k", MaxParams: c.bound, MaxTTL: time.Hour}
			err := grant.Within(scope(time.Minute, c.inner), scope(time.Minute, c.asked), b)
			if (err == nil) != c.ok || err != nil && !fault.Is(err, fault.Denied) {
				t.Fatalf("got %v", err)
			}
		})
	}
}

func TestWithin_KindAndTime(t *testing.T) {
	good := scope(time.Minute, nil)
	b := grant.Bounds{Kind: "k", MaxTTL: time.Minute}
	for name, c := range map[string]struct {
		inner grant.Scope
		b     grant.Bounds
		ok    bool
	}{
		"equal":          {good, b, true},
		"shorter":        {scope(time.Second, nil), b, true},
		"longer":         {scope(61*time.Second, nil), b, false},
		"above bounds":   {good, grant.Bounds{Kind: "k", MaxTTL: time.Second}, false},
		"no time":        {scope(0, nil), b, false},
		"negative":       {scope(-1, nil), b, false},
		"no bounds":      {good, grant.Bounds{Kind: "k"}, false},
		"other kind":     {grant.Scope{Kind: "root", TTL: time.Minute}, b, false},
		"bounds of else": {good, grant.Bounds{Kind: "else", MaxTTL: time.Hour}, false},
		"empty kind":     {grant.Scope{TTL: time.Minute}, grant.Bounds{MaxTTL: time.Hour}, false},
	} {
		if err := grant.Within(c.inner, good, c.b); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// atoms are the smallest permissions of the model: each value of the test's
// parameters stands for a set of them.
func atoms(v any) map[string]bool {
	out := map[string]bool{}
	switch v := v.(type) {
	case string:
		for _, level := range []string{"none", "read", "write", "admin"} {
			out[level] = true
			if level == v {
				return out
			}
		}
		return map[string]bool{v: true}
	case []any:
		for _, e := range v {
			for a := range atoms(e) {
				out[a] = true
			}
		}
	case map[string]any:
		for name, e := range v {
			for a := range atoms(e) {
				out[name+"/"+a] = true
			}
		}
	}
	return out
}

func drawValue(r *rapid.T, label string) any {
	word := rapid.SampledFrom([]string{"none", "read", "write", "admin", "x", "y"})
	switch rapid.IntRange(0, 2).Draw(r, label+" form") {
	case 0:
		return word.Draw(r, label)
	case 1:
		var out []any
		for _, s := range rapid.SliceOfN(word, 1, 3).Draw(r, label) {
			out = append(out, s)
		}
		return out
	default:
		out := map[string]any{}
		for _, k := range rapid.SliceOfN(rapid.SampledFrom([]string{"p", "q"}), 1, 2).Draw(r, label+" members") {
			out[k] = word.Draw(r, label+"."+k)
		}
		return out
	}
}

// Whatever a plugin answers: what Within lets pass holds no permission that the
// request or the bounds do not hold.
func TestWithin_NeverWidens(t *testing.T) {
	passed := 0
	rapid.Check(t, func(r *rapid.T) {
		draw := func(label string) params {
			out := params{}
			for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b"}), 0, 2, rapid.ID).Draw(r, label) {
				out[name] = drawValue(r, label+"."+name)
			}
			return out
		}
		asked, bound := draw("asked"), draw("bound")
		inner := draw("inner")
		if rapid.Bool().Draw(r, "start from the request") {
			inner = params{}
			for k, v := range asked {
				inner[k] = v
			}
		}
		b := grant.Bounds{Kind: "k", MaxParams: bound, MaxTTL: time.Hour}
		if grant.Within(scope(time.Minute, inner), scope(time.Minute, asked), b) != nil {
			return
		}
		passed++
		for name, v := range inner {
			req, wasAsked := asked[name]
			lim, bounded := bound[name]
			for a := range atoms(v) {
				if wasAsked && !atoms(req)[a] {
					r.Fatalf("%s: %s was not asked for", name, a)
				}
				if bounded && !atoms(lim)[a] {
					r.Fatalf("%s: %s is out of bounds", name, a)
				}
				if !wasAsked && !bounded {
					r.Fatalf("%s was invented", name)
				}
			}
		}
		// What passed can be narrowed by itself, and passes again.
		if err := grant.Within(scope(time.Minute, inner), scope(time.Minute, inner), b); err != nil {
			r.Fatalf("what was granted is not within itself: %v", err)
		}
	})
	if passed == 0 {
		t.Fatal("nothing passed, so nothing was tested")
	}
}
