package policy

import (
	"encoding/json"
	"fmt"
	"time"
)

// Bounds is the widest scope that the documents allow together. A parameter
// that MaxParams does not name is not restricted; an empty list allows no value
// at all. MaxTTL zero, which a release never has, means not bounded.
type Bounds struct {
	Kind      string
	MaxParams map[string]any // []any of strings, float64, bool or string
	MaxTTL    time.Duration
}

// MarshalJSON writes bounds as documents do: kind, max_params, max_ttl_seconds.
func (b Bounds) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Kind      string         `json:"kind,omitempty"`
		MaxParams map[string]any `json:"max_params,omitempty"`
		MaxTTL    int64          `json:"max_ttl_seconds,omitempty"`
	}{b.Kind, b.MaxParams, int64(b.MaxTTL / time.Second)})
}

// narrow is the widest scope within both bounds. It is commutative, associative
// and idempotent but for the order in lists, and the result never allows what
// one of them forbids. The error says why nothing lies within both.
//
//	kind             equal, or named by one of them alone
//	MaxTTL           the shorter; zero yields
//	list of strings  those in both, in the order of the first
//	number           the smaller
//	boolean          true if both are
//	string           equal
//	absent in one    the other's
func narrow(a, b Bounds) (Bounds, error) {
	out := Bounds{Kind: a.Kind, MaxTTL: a.MaxTTL}
	switch {
	case a.Kind == "":
		out.Kind = b.Kind
	case b.Kind != "" && b.Kind != a.Kind:
		return Bounds{}, fmt.Errorf("the policies allow different kinds")
	}
	if a.MaxTTL == 0 || b.MaxTTL != 0 && b.MaxTTL < a.MaxTTL {
		out.MaxTTL = b.MaxTTL
	}
	if a.MaxParams == nil && b.MaxParams == nil {
		return out, nil
	}
	out.MaxParams = make(map[string]any, len(a.MaxParams)+len(b.MaxParams))
	for k, v := range a.MaxParams {
		out.MaxParams[k] = v
	}
	for k, v := range b.MaxParams {
		before, both := out.MaxParams[k]
		if !both {
			out.MaxParams[k] = v
			continue
		}
		within, ok := narrowParam(before, v)
		if !ok {
			return Bounds{}, fmt.Errorf("the policies leave no value for the parameter %s", cut(k))
		}
		out.MaxParams[k] = within
	}
	return out, nil
}

func narrowParam(a, b any) (any, bool) {
	switch a := a.(type) {
	case []any:
		b, ok := b.([]any)
		return both(a, b), ok
	case float64:
		b, ok := b.(float64)
		return min(a, b), ok
	case bool:
		b, ok := b.(bool)
		return a && b, ok
	case string:
		b, ok := b.(string)
		return a, ok && a == b
	}
	return nil, false
}

func both(a, b []any) []any {
	in := make(map[any]bool, len(b))
	for _, v := range b {
		in[v] = true
	}
	out := make([]any, 0, len(a))
	for _, v := range a {
		if in[v] {
			out = append(out, v)
		}
	}
	return out
}
