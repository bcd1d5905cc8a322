package conformance

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/grant"
)

var narrowsOnly = expectation{
	"calls/narrow", "it narrows and never widens, whatever policy allows",
	"start from the requested scope and make it smaller; keep every parameter that was asked for or that policy names; refuse what cannot be narrowed",
}

// cases is how many random requests and bounds are tried for each example.
const cases = 200

// narrowCheck asks for random scopes within random bounds. The cases are the
// same each time, so that a failure can be found again.
func (p *process) narrowCheck(ctx context.Context) {
	if len(p.good) == 0 {
		p.add(narrowsOnly, Skipped, nothingGranted)
		return
	}
	granted, asked := 0, 0
	for n, x := range p.good {
		dice := rand.New(rand.NewPCG(1, uint64(n))) //nolint:gosec // makes cases, guards nothing
		for range cases {
			s, b := p.shake(dice, x)
			asked++
			limited, cancel := context.WithTimeout(ctx, p.Calls)
			out, ok, err := p.wire.narrow(limited, s, b)
			cancel()
			if !ok {
				p.add(narrowsOnly, Skipped, "the package has no role that narrows")
				return
			}
			if _, no := errors.AsType[refused](err); no {
				continue
			}
			if err == nil {
				filled := s
				filled.Params = p.m.Params[s.Kind].Fill(s.Params)
				err = grant.Within(out, filled, b)
			}
			if err != nil {
				p.add(narrowsOnly, Fail, fmt.Sprintf("%s with %v for %s, allowed %v for %s: %s",
					s.Kind, shown(s.Params), s.TTL, shown(b.MaxParams), b.MaxTTL, first(fault.Public(err), said(err))))
				return
			}
			granted++
		}
	}
	if granted == 0 {
		p.add(narrowsOnly, Skipped, fmt.Sprintf("all of %d requests were refused", asked))
		return
	}
	p.add(narrowsOnly, Pass, fmt.Sprintf("%d of %d random requests granted, none beyond", granted, asked))
}

// shown leaves out what the host adds.
func shown(params map[string]any) map[string]any {
	out := map[string]any{}
	for _, name := range callers(grant.Scope{Params: params}) {
		out[name] = params[name]
	}
	return out
}

// shake changes an example and makes bounds for it: wider, equal, narrower, and
// of something else.
func (p *process) shake(dice *rand.Rand, x example) (grant.Scope, grant.Bounds) {
	s := x.scope(now())
	b := grant.Bounds{Kind: s.Kind, MaxParams: map[string]any{}, MaxTTL: time.Duration(1+dice.IntN(int(2*s.TTL/time.Second))) * time.Second}
	if dice.IntN(2) == 0 {
		s.TTL = max(time.Second, s.TTL/time.Duration(1+dice.IntN(10)))
	}
	form := p.m.Params[s.Kind]
	for _, name := range callers(s) {
		switch dice.IntN(4) {
		case 0: // policy says nothing
		case 1:
			b.MaxParams[name] = s.Params[name]
		case 2:
			b.MaxParams[name] = less(dice, s.Params[name])
		case 3:
			b.MaxParams[name] = more(dice, s.Params[name], form[name].Values)
		}
		if list, ok := s.Params[name].([]any); ok && dice.IntN(3) == 0 {
			s.Params[name] = less(dice, list)
		}
	}
	for name, f := range form {
		if _, asked := s.Params[name]; !asked && dice.IntN(4) == 0 {
			b.MaxParams[name] = sampleOf(f) // policy names what was left open
		}
	}
	if dice.IntN(20) == 0 {
		b.MaxParams[unknown] = "x" // as a policy for another version may
	}
	return s, b
}

// ladder is what [grant.Within] takes for lower and higher texts.
var ladder = []any{"none", "read", "write", "admin"}

// less is a value that lies within v, or beside it.
func less(dice *rand.Rand, v any) any {
	switch v := v.(type) {
	case []any:
		if len(v) == 0 {
			return v
		}
		at := dice.IntN(len(v))
		return slices.Clone(v[at : at+1+dice.IntN(len(v)-at)])
	case string:
		if at := slices.Index(ladder, any(v)); at > 0 {
			return ladder[dice.IntN(at)]
		}
		return v + "-other"
	case float64:
		return v / 2
	case bool:
		return false
	}
	return v
}

// more is a value that v lies within, or beside.
func more(dice *rand.Rand, v any, values []string) any {
	switch v := v.(type) {
	case []any:
		return append(slices.Clone(v), any("conformance-more"))
	case string:
		switch {
		case dice.IntN(2) == 0:
			return []any{"conformance-more", v}
		case slices.Contains(ladder, any(v)):
			return "admin"
		case len(values) > 0:
			return values[dice.IntN(len(values))]
		}
		return v
	case float64:
		return v * 2
	case bool:
		return true
	}
	return v
}
