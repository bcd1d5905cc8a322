package policy

import (
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// reads is what documents can look at in their input, as a tree of member names.
// Facts that no document can see need not be brought into the engine's form,
// which costs as much as asking a document.
//
// A document reaches its input in one way, by references that begin with input.
// Up to its first part that is not a name in the text, a reference says what is
// read; from there on it may read everything.
type reads struct {
	all     bool // this value as a whole
	clock   bool // time.now_ns is called somewhere; of the top alone
	members []member
}

// clockRef is how a document asks for the time beside its input.
var clockRef = ast.MustParseRef("time.now_ns")

type member struct {
	name  string
	term  *ast.Term // the name, shared by all evaluations
	reads *reads
}

// note adds the references of a compiled document.
func (r *reads) note(m *ast.Module) {
	var visit func(any) bool
	visit = func(x any) bool {
		switch x := x.(type) {
		case ast.Ref:
			r.clock = r.clock || x.Equal(clockRef)
			if !x.HasPrefix(ast.InputRootRef) {
				return false
			}
			r.path(x[1:])
			for _, part := range x[1:] { // input.a[input.b]
				ast.NewGenericVisitor(visit).Walk(part)
			}
			return true
		case ast.Var:
			// The compiler makes references of all; should it leave a variable
			// once, everything is read.
			r.all = r.all || x.Equal(ast.InputRootDocument.Value)
		}
		return false
	}
	ast.NewGenericVisitor(visit).Walk(m)
}

func (r *reads) path(parts ast.Ref) {
	for _, part := range parts {
		name, ok := part.Value.(ast.String)
		if !ok {
			break
		}
		r = r.member(string(name))
	}
	r.all = true
}

func (r *reads) member(name string) *reads {
	if i := slices.IndexFunc(r.members, func(m member) bool { return m.name == name }); i >= 0 {
		return r.members[i].reads
	}
	m := member{name, ast.StringTerm(name), &reads{}}
	r.members = append(r.members, m)
	return m.reads
}

// term turns plain facts into the engine's form as far as they are read.
func (r *reads) term(facts map[string]any) (*ast.Term, error) {
	if !decoded(facts) {
		return term(facts) // finds out whether there is a form for it
	}
	v, err := r.value(facts)
	if err != nil {
		return nil, fault.Invalidf("the facts for the policy are not plain JSON values").Because(err)
	}
	return ast.NewTerm(v), nil
}

func (r *reads) value(fact any) (ast.Value, error) {
	object, ok := fact.(map[string]any)
	if !ok || r.all {
		return ast.InterfaceToValue(fact)
	}
	items := make([][2]*ast.Term, 0, len(r.members))
	for _, m := range r.members {
		inner, ok := object[m.name]
		if !ok {
			continue
		}
		v, err := m.reads.value(inner)
		if err != nil {
			return nil, err
		}
		items = append(items, ast.Item(m.term, ast.NewTerm(v)))
	}
	return ast.NewObject(items...), nil
}

// decoded reports whether a fact has only the types that JSON is decoded into, or
// whole numbers: what is not read need not be converted to see whether it could
// be.
func decoded(fact any) bool {
	switch fact := fact.(type) {
	case nil, bool, string, float64, int, int64:
		return true
	case []any:
		return !slices.ContainsFunc(fact, func(v any) bool { return !decoded(v) })
	case map[string]any:
		for _, v := range fact {
			if !decoded(v) {
				return false
			}
		}
		return true
	}
	return false
}
