package grant

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// Within reports whether a scope that a provider narrowed lies within what was
// requested and within what policy allows; nil if it does. It trusts nothing
// that the provider says, and guesses nothing about a kind, so it refuses what
// it cannot compare. A refusal is Denied and names the parameter, not its value.
//
//   - The kinds are equal. The TTL is positive, at most the requested one and at
//     most MaxTTL, which must be positive.
//   - A requested parameter must be present: what its absence means is a matter
//     of the kind, and may be "everything". For the same reason a parameter that
//     the bounds name must be present, and a list or object that was not empty
//     must not become empty.
//   - A parameter that was not requested may be present only if the bounds name
//     it: what the request leaves open, policy fills in. Parameters that begin with "host." are the host's: they must be equal
//     to the requested ones, or absent.
//   - Text: equal, or lower on the ladder none, read, write, admin, or an IP
//     address or prefix inside the outer prefix. An outer list holds a text if one
//     of its elements does.
//   - A list: each element lies within an element of the outer list.
//   - An object: no member that the outer one lacks; each member within the outer
//     one. A member may be left out only where the bounds' object lacks it.
//   - A number or a truth value: equal to the requested one; where the bounds
//     name it, it may be lowered to the bound: a number to at most the bound (to
//     zero only if one of the two is zero), true to false only if the bound is
//     false.
//   - Values of different types are never within each other.
//
// It is a pure function.
func Within(inner, requested Scope, bounds Bounds) error {
	switch {
	case inner.Kind != requested.Kind || inner.Kind != bounds.Kind || inner.Kind == "":
		return fault.Deniedf("the granted scope is of another kind than the requested or the allowed one")
	case bounds.MaxTTL <= 0:
		return fault.Deniedf("policy gives no time limit for this kind")
	case inner.TTL <= 0 || inner.TTL > requested.TTL || inner.TTL > bounds.MaxTTL:
		return fault.Deniedf("the granted scope lives longer than requested or allowed (%s)", min(requested.TTL, bounds.MaxTTL).Round(time.Second))
	}
	for _, name := range names(inner.Params, requested.Params, bounds.MaxParams) {
		if err := within(name, inner.Params, requested.Params, bounds.MaxParams); err != nil {
			return err
		}
	}
	return nil
}

func within(name string, inner, requested, bounds map[string]any) error {
	in, has := inner[name]
	req, asked := requested[name]
	limit, bounded := bounds[name]
	if strings.HasPrefix(name, HostPrefix) {
		if has && (!asked || !same(in, req)) || bounded {
			return wider(name)
		}
		return nil
	}
	switch {
	case !has:
		return fault.Deniedf("the granted scope lacks %q, and its absence may mean everything; name it in the request", short(name))
	case !asked && !bounded:
		return wider(name)
	case asked && !inside(in, req, limit, bounded):
		return wider(name)
	case bounded && !inside(in, limit, limit, true):
		return wider(name)
	}
	return nil
}

func wider(name string) error {
	return fault.Deniedf("the granted scope is wider in %q than requested or allowed", short(name))
}

func short(s string) string {
	if len(s) > 64 {
		return s[:64]
	}
	return s
}

// inside compares one value with one outer value. limit is what the bounds say
// about the same place, where they say something.
func inside(in, out, limit any, bounded bool) bool {
	switch in := in.(type) {
	case nil:
		return out == nil
	case string:
		return textInside(in, out)
	case bool:
		o, ok := out.(bool)
		if !ok {
			return false
		}
		l, isBool := limit.(bool)
		return in == o || bounded && isBool && !in && !l
	case float64:
		return numberInside(in, out, limit, bounded)
	case []any:
		o, ok := out.([]any)
		if !ok || len(in) == 0 && len(o) != 0 {
			return false
		}
		for _, e := range in {
			if !slices.ContainsFunc(o, func(x any) bool { return inside(e, x, nil, false) }) {
				return false
			}
		}
		return true
	case map[string]any:
		o, ok := out.(map[string]any)
		if !ok || len(in) == 0 && len(o) != 0 {
			return false
		}
		return membersInside(in, o, limit, bounded)
	default:
		return false
	}
}

func membersInside(in, out map[string]any, limit any, bounded bool) bool {
	limits, isMap := limit.(map[string]any)
	for name, v := range in {
		o, ok := out[name]
		l, named := limits[name]
		if !ok || !inside(v, o, l, named) {
			return false
		}
	}
	for name := range out {
		if _, ok := in[name]; ok {
			continue
		}
		if _, named := limits[name]; !bounded || !isMap || named {
			return false
		}
	}
	return true
}

// ladder orders the words by which providers grade access.
var ladder = map[string]int{"none": 0, "read": 1, "write": 2, "admin": 3}

func textInside(in string, out any) bool {
	switch o := out.(type) {
	case string:
		if in == o {
			return true
		}
		if a, ok := ladder[in]; ok {
			b, ok := ladder[o]
			return ok && a <= b
		}
		a, err := prefix(in)
		if err != nil {
			return false
		}
		b, err := prefix(o)
		return err == nil && b.Bits() <= a.Bits() && b.Contains(a.Addr())
	case []any:
		return slices.ContainsFunc(o, func(x any) bool {
			s, ok := x.(string)
			return ok && textInside(in, s)
		})
	default:
		return false
	}
}

// prefix reads an address as the prefix that holds it alone.
func prefix(s string) (netip.Prefix, error) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p.Masked(), nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Prefix{}, fmt.Errorf("no address")
	}
	return a.Prefix(a.BitLen())
}

func numberInside(in float64, out, limit any, bounded bool) bool {
	o, ok := out.(float64)
	if !ok {
		return false
	}
	if in == o {
		return true
	}
	l, isNumber := limit.(float64)
	if !bounded || !isNumber {
		return false
	}
	return in <= o && in <= l && (in > 0 || in == 0 && l == 0) // what is no number is none of it
}

func same(a, b any) bool {
	x, ok := a.(string)
	y, ok2 := b.(string)
	return ok && ok2 && x == y
}

// names are those of all members, each once, in order.
func names(all ...map[string]any) []string {
	out := make([]string, 0, 16)
	for _, m := range all {
		for n := range m {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
