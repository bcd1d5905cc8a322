package policy

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
)

// Limits of one answer. They keep a document from filling the ledger.
const (
	maxReasons = 32
	maxText    = 1024 // bytes of a reason, and of a string in max_params
	maxParams  = 64
	maxItems   = 1024 // strings in one list of max_params
)

// vote is what one document says about one request.
type vote struct {
	allow   bool
	bounds  Bounds // only of an allow
	reasons []string
}

// check says what is wrong with a value, empty if nothing is.
type check func(ast.Value) string

var (
	answerMembers = map[string]check{"allow": checkAllow, "bounds": checkObject, "reasons": checkReasons}
	boundsMembers = map[string]check{"kind": checkKind, "max_params": checkParams, "max_ttl_seconds": checkTTL}
	boundsShape   = map[string]check{"kind": checkKind, "max_params": checkObject, "max_ttl_seconds": checkTTL}
)

// The members of an answer as the engine wants them named: made once, because
// every vote is read by them.
var (
	allowTerm     = ast.StringTerm("allow")
	reasonsTerm   = ast.StringTerm("reasons")
	boundsTerm    = ast.StringTerm("bounds")
	kindTerm      = ast.StringTerm("kind")
	maxParamsTerm = ast.StringTerm("max_params")
	maxTTLTerm    = ast.StringTerm("max_ttl_seconds")
)

// decodeAnswer reads the answer of a verb's rule. Every deviation is an error,
// and an error is a vote to deny: what a document meant is not guessed.
func decodeAnswer(verb string, answer ast.Value) (vote, error) {
	o, ok := answer.(ast.Object)
	if !ok {
		return vote{}, errors.New("the answer is not an object")
	}
	if err := checkMembers("", o, answerMembers); err != nil {
		return vote{}, err
	}
	allow := o.Get(allowTerm)
	if allow == nil {
		return vote{}, errors.New("allow is missing")
	}
	v := vote{allow: bool(allow.Value.(ast.Boolean))}
	if r := o.Get(reasonsTerm); r != nil {
		v.reasons, _ = texts(r.Value)
	}
	if b := o.Get(boundsTerm); b != nil {
		bounds, err := decodeBounds(b.Value.(ast.Object))
		if err != nil {
			return vote{}, err
		}
		v.bounds = bounds
	}
	switch {
	case !v.allow:
		v.bounds = Bounds{}
	case verb == "release" && v.bounds.Kind == "":
		return vote{}, errors.New("bounds.kind is missing, release is allowed for one kind of credential")
	case verb == "release" && v.bounds.MaxTTL == 0:
		return vote{}, errors.New("bounds.max_ttl_seconds is missing, nothing is released without an end")
	}
	return v, nil
}

func decodeBounds(o ast.Object) (Bounds, error) {
	if err := checkMembers("bounds.", o, boundsShape); err != nil {
		return Bounds{}, err
	}
	var b Bounds
	if k := o.Get(kindTerm); k != nil {
		b.Kind = string(k.Value.(ast.String))
	}
	if t := o.Get(maxTTLTerm); t != nil {
		seconds, _ := t.Value.(ast.Number).Int64()
		b.MaxTTL = time.Duration(seconds) * time.Second
	}
	if p := o.Get(maxParamsTerm); p != nil {
		var why string
		if b.MaxParams, why = params(p.Value); why != "" {
			return Bounds{}, fmt.Errorf("bounds.max_params %s", why)
		}
	}
	return b, nil
}

func checkMembers(prefix string, o ast.Object, known map[string]check) error {
	return o.Iter(func(k, v *ast.Term) error {
		key, ok := k.Value.(ast.String)
		if !ok {
			return fmt.Errorf("a member's name is not a string")
		}
		c, ok := known[string(key)]
		if !ok {
			return fmt.Errorf("%s%s is not a known member", prefix, strconv.Quote(cut(string(key))))
		}
		if why := c(v.Value); why != "" {
			return fmt.Errorf("%s%s %s", prefix, string(key), why)
		}
		return nil
	})
}

func checkAllow(v ast.Value) string {
	if _, ok := v.(ast.Boolean); !ok {
		return "must be true or false"
	}
	return ""
}

func checkObject(v ast.Value) string {
	if _, ok := v.(ast.Object); !ok {
		return "must be an object"
	}
	return ""
}

func checkReasons(v ast.Value) string {
	list, ok := texts(v)
	if !ok {
		return "must be a list of strings"
	}
	if len(list) > maxReasons {
		return fmt.Sprintf("has more than %d entries", maxReasons)
	}
	for _, s := range list {
		if len(s) > maxText {
			return fmt.Sprintf("has an entry of more than %d bytes", maxText)
		}
	}
	return ""
}

func checkKind(v ast.Value) string {
	s, ok := v.(ast.String)
	if !ok || s == "" || len(s) > maxText {
		return "must be the name of a kind of credential"
	}
	return ""
}

func checkTTL(v ast.Value) string {
	n, ok := v.(ast.Number)
	if ok {
		seconds, whole := n.Int64()
		ok = whole && seconds > 0 && seconds <= int64(MaxTTL/time.Second)
	}
	if !ok {
		return fmt.Sprintf("must be a whole number from 1 to %d", int64(MaxTTL/time.Second))
	}
	return ""
}

func checkParams(v ast.Value) string {
	_, why := params(v)
	return why
}

// params reads max_params, or says what is wrong with it.
func params(v ast.Value) (out map[string]any, why string) {
	o, ok := v.(ast.Object)
	if !ok {
		return nil, "must be an object"
	}
	if o.Len() > maxParams {
		return nil, fmt.Sprintf("has more than %d members", maxParams)
	}
	out = make(map[string]any, o.Len())
	o.Foreach(func(k, v *ast.Term) {
		key, named := k.Value.(ast.String)
		if !named || key == "" || len(key) > maxText {
			why = "has a member whose name is not a string"
		} else if out[string(key)], ok = param(v.Value); !ok {
			why = fmt.Sprintf("has a member %s that is not a list of strings, a string, a boolean or a finite number", strconv.Quote(cut(string(key))))
		}
	})
	return out, why
}

// param is a bound in plain form: []any of strings without repetition, float64,
// bool or string. A whole number that a double cannot hold exactly is refused:
// rounded up it would widen the bound.
func param(v ast.Value) (any, bool) {
	switch v := v.(type) {
	case ast.Boolean:
		return bool(v), true
	case ast.String:
		return string(v), len(v) <= maxText
	case ast.Number:
		f, ok := v.Float64()
		if !ok || math.IsInf(f, 0) || math.IsNaN(f) || math.Abs(f) > 1<<53-1 {
			return nil, false
		}
		return f, true
	}
	list, ok := texts(v)
	if !ok || len(list) > maxItems {
		return nil, false
	}
	return distinct(list)
}

// distinct gives each text once, in the order of their first; false if one is too
// long.
func distinct(list []string) ([]any, bool) {
	out, seen := make([]any, 0, len(list)), make(map[string]struct{}, len(list))
	for _, s := range list {
		if len(s) > maxText {
			return nil, false
		}
		if _, twice := seen[s]; !twice {
			seen[s] = struct{}{}
			out = append(out, s)
		}
	}
	return out, true
}

// texts reads an array or a set of strings.
func texts(v ast.Value) ([]string, bool) {
	var out []string
	ok := true
	add := func(t *ast.Term) {
		s, is := t.Value.(ast.String)
		ok = ok && is
		out = append(out, string(s))
	}
	switch v := v.(type) {
	case *ast.Array:
		out = make([]string, 0, v.Len())
		v.Foreach(add)
	case ast.Set:
		out = make([]string, 0, v.Len())
		v.Foreach(add)
	default:
		return nil, false
	}
	return out, ok
}

// cut keeps a foreign word short enough to be shown.
func cut(s string) string {
	if len(s) > 64 {
		return s[:64] + "..."
	}
	return s
}
