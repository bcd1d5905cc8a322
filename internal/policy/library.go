package policy

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// library answers query_reference_value for one appraisal.
type library struct {
	read   func(id string) (value any, found bool, err error)
	known  map[string]*ast.Term
	given  []given // in the order in which they were asked for
	large  bool    // an answer is too large to be kept
	failed error
}

// given is one answer of a library.
type given struct {
	id   string
	form string // as of answerForm
}

// appraised is an appraisal, kept under what its document reads of the evidence,
// with every answer that the document got about reference values. As long as all of
// them are the same the document would answer the same: which one it asks for next
// depends on nothing but those before.
type appraised struct {
	Appraisal
	answers []given
}

// clone shares nothing that could be changed.
func (a appraised) clone() appraised {
	a.Claims, a.Extensions = maps.Clone(a.Claims), slices.Clone(a.Extensions)
	for i := range a.Extensions {
		a.Extensions[i].Value = cloned(a.Extensions[i].Value)
	}
	return a
}

// cloned copies a JSON value.
func cloned(v any) any {
	switch v := v.(type) {
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = cloned(v[i])
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for name := range v {
			out[name] = cloned(v[name])
		}
		return out
	}
	return v
}

// stands reports whether the reference values still are what they were.
func (a appraised) stands(ctx context.Context, refs ReferenceValues) bool {
	l := newLibrary(ctx, refs)
	for _, g := range a.answers {
		value, found, err := l.read(g.id)
		if err != nil {
			return false
		}
		if form, ok := answerForm(value, found); !ok || form != g.form {
			return false
		}
	}
	return true
}

// answerForm writes an answer so that no two answers have the same text; false for
// what is too large to be kept.
func answerForm(value any, found bool) (string, bool) {
	if !found {
		return "", true
	}
	b, ok := appendFact(nil, value)
	return string(b), ok && len(b) <= longestKey
}

// mostAnswers bounds the reference values of an appraisal that is kept.
const mostAnswers = 64

// kept are all answers; false if they are too large, or too many.
func (l *library) kept() ([]given, bool) { return l.given, !l.large && len(l.given) <= mostAnswers }

func newLibrary(ctx context.Context, refs ReferenceValues) *library {
	l := &library{known: map[string]*ast.Term{}}
	l.read = func(id string) (any, bool, error) {
		if refs == nil {
			return nil, false, nil
		}
		return refs.ReferenceValue(ctx, id)
	}
	return l
}

func (l *library) builtins() map[string]*topdown.Builtin {
	return map[string]*topdown.Builtin{referenceValue.Name: {Decl: referenceValue, Func: l.query}}
}

func (l *library) query(_ topdown.BuiltinContext, operands []*ast.Term, iter func(*ast.Term) error) error {
	id, ok := operands[0].Value.(ast.String)
	if !ok {
		return errors.New("the id of a reference value is a string")
	}
	value, err := l.value(string(id))
	if err != nil {
		l.failed = err
		return err
	}
	return iter(value)
}

func (l *library) value(id string) (*ast.Term, error) {
	if t, ok := l.known[id]; ok {
		return t, nil
	}
	value, found, err := l.read(id)
	if err != nil {
		return nil, err
	}
	form, ok := answerForm(value, found)
	l.large = l.large || !ok
	l.given = append(l.given, given{id, form})
	t := ast.NullTerm()
	if found {
		if t, err = term(value); err != nil {
			return nil, err
		}
	}
	l.known[id] = t
	return t, nil
}
