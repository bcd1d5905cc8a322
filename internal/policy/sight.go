package policy

import (
	"encoding/binary"
	"maps"
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
)

// sight is what one document can tell apart in a fact. It is finer than [reads]: a
// document that counts members, or that looks at one member of each, sees no more
// of them. It serves to remember decisions; what is brought into the engine's form
// goes by reads.
//
// A part that no document is seen to look at may be missing here, but for whether
// it is there: whatever is done to a value and not known below to see less of it
// sees all of it.
type sight struct {
	all     bool   // the value as a whole
	shape   bool   // its type, and the names of an object's members, or the length of an array
	each    *sight // what is seen of every member or element, beside the shape
	members map[string]*sight
}

// shapely are the builtins whose answer depends on the shape of a value alone, or
// on the value if it is neither object nor array.
var shapely = map[string]bool{
	ast.Count.Name: true, ast.ObjectKeys.Name: true, ast.IsObject.Name: true, ast.IsArray.Name: true,
	ast.IsString.Name: true, ast.IsNumber.Name: true, ast.IsBoolean.Name: true, ast.IsNull.Name: true,
}

// ownRules is where a document of kind [KBSResource] finds its own rules; no fact
// has that name.
const ownRules = "policy"

// look finds what a compiled document sees of its input, and of the facts beside
// its rules.
func look(m *ast.Module) *sight {
	l := looking{
		root: sight{members: map[string]*sight{"input": {}, "data": {}}}, aliases: map[ast.Var]ast.Ref{}, defined: map[ast.Var]int{}, defines: map[*ast.Expr]ast.Var{},
	}
	ast.NewGenericVisitor(l.define).Walk(m)
	if l.replaces {
		return &sight{all: true}
	}
	ast.NewGenericVisitor(l.use).Walk(m)
	return &l.root
}

// looking is one reading of a document. The compiler gives parts of facts names:
// v = input.submods. Where a variable stands in one such equation alone, it is a
// name for that part; everywhere else it stands it is used, so that another value
// for it, which would make the equation a comparison, would be a use of all.
type looking struct {
	root     sight
	aliases  map[ast.Var]ast.Ref
	defined  map[ast.Var]int
	defines  map[*ast.Expr]ast.Var
	replaces bool // facts or functions by others: with
}

// define finds the names.
func (l *looking) define(x any) bool {
	switch x := x.(type) {
	case *ast.With:
		l.replaces = true
	case *ast.Every:
		if x.Key != nil {
			if k, ok := x.Key.Value.(ast.Var); ok {
				l.defined[k]++
			}
		}
		if v, ok := x.Value.Value.(ast.Var); ok {
			l.defined[v]++
			if domain, ok := asRef(x.Domain); ok {
				l.aliases[v] = append(slices.Clone(domain), ast.VarTerm("$every"))
			}
		}
	case *ast.Expr:
		if !x.IsEquality() || len(x.Operands()) != 2 {
			return false
		}
		a, b := x.Operand(0), x.Operand(1)
		v, ok := a.Value.(ast.Var)
		if !ok {
			v, ok = b.Value.(ast.Var)
			b = a
		}
		if ref, isRef := b.Value.(ast.Ref); ok && isRef {
			l.defined[v]++
			l.aliases[v], l.defines[x] = ref, v
		}
	}
	return false
}

// asRef is a term as a reference: a variable is one without parts.
func asRef(t *ast.Term) (ast.Ref, bool) {
	switch v := t.Value.(type) {
	case ast.Ref:
		return v, true
	case ast.Var:
		return ast.Ref{t}, true
	}
	return nil, false
}

// use notes what is done to facts and names of them.
func (l *looking) use(x any) bool {
	switch x := x.(type) {
	case *ast.Rule:
		for _, part := range x.Head.Reference[min(1, len(x.Head.Reference)):] {
			ast.NewGenericVisitor(l.use).Walk(part)
		}
	case *ast.Expr:
		if v, ok := l.defines[x]; ok && l.defined[v] == 1 {
			l.find(l.aliases[v], 0)
			l.parts(l.aliases[v])
			return true
		}
		if op := x.Operator(); op != nil && shapely[op.String()] && len(x.Operands()) > 0 {
			l.shape(x.Operand(0))
			for _, t := range x.Operands()[1:] {
				ast.NewGenericVisitor(l.use).Walk(t)
			}
			return true
		}
	case *ast.Every:
		if x.Key != nil {
			l.whole(x.Key)
		}
		l.shape(x.Domain)
		if v, ok := x.Value.Value.(ast.Var); !ok || l.defined[v] != 1 {
			l.whole(x.Domain)
		}
		ast.NewGenericVisitor(l.use).Walk(x.Body)
		return true
	case ast.Ref:
		if at := l.find(x, 0); at != nil {
			at.all = true
		}
		l.parts(x)
		return true
	case ast.Var:
		if at := l.find(ast.Ref{ast.NewTerm(x)}, 0); at != nil {
			at.all = true
		}
	}
	return false
}

// parts notes what stands within a reference: input.a[input.b].
func (l *looking) parts(r ast.Ref) {
	for _, part := range r[min(1, len(r)):] {
		ast.NewGenericVisitor(l.use).Walk(part)
	}
}

func (l *looking) whole(t *ast.Term) { ast.NewGenericVisitor(l.use).Walk(t) }

func (l *looking) shape(t *ast.Term) {
	r, ok := asRef(t)
	if !ok {
		l.whole(t)
		return
	}
	if at := l.find(r, 0); at != nil {
		at.shape = true
	}
	l.parts(r)
}

// deepest bounds how many names stand for names of each other.
const deepest = 64

// find is the part of the facts that a reference leads to, nil if it leads to none.
func (l *looking) find(r ast.Ref, depth int) *sight {
	head, ok := r[0].Value.(ast.Var)
	if !ok {
		return nil // of a call's answer, or of a value that is written down
	}
	var at *sight
	switch alias, named := l.aliases[head]; {
	case named && depth < deepest:
		at = l.find(alias, depth+1) // if it is no name, all that it is equal to is used: what is found more does no harm
	case named:
		l.root.all = true
	case head.Equal(ast.InputRootDocument.Value):
		at = l.root.members["input"]
	case head.Equal(ast.DefaultRootDocument.Value):
		if len(r) > 1 && r[1].Value.Compare(ast.String(ownRules)) == 0 {
			return nil
		}
		at = l.root.members["data"]
	}
	for _, part := range r[1:] {
		if at == nil {
			return nil
		}
		at = at.part(part)
	}
	return at
}

func (s *sight) part(t *ast.Term) *sight {
	name, ok := t.Value.(ast.String)
	if !ok {
		if s.each == nil {
			s.each = &sight{}
		}
		return s.each
	}
	if s.members == nil {
		s.members = map[string]*sight{}
	}
	if s.members[string(name)] == nil {
		s.members[string(name)] = &sight{}
	}
	return s.members[string(name)]
}

// narrow reports whether less than all claims are seen.
func (s *sight) narrow() bool { return !s.all && !s.members["input"].all }

// append writes what is seen of a fact, so that what differs has other bytes; false
// if that is too much for a key.
func (s *sight) append(b []byte, fact any) (_ []byte, ok bool) {
	if s.all {
		return appendFact(b, fact)
	}
	switch fact := fact.(type) {
	case map[string]any:
		return s.appendObject(append(b, 'o'), fact)
	case []any:
		if len(s.members) > 0 {
			return appendFact(b, fact) // below data the engine takes a text for an index: data["resource-path"]["0"]
		}
		b = append(b, 'l')
		if s.shape || s.each != nil {
			b = binary.AppendUvarint(b, uint64(len(fact)))
		}
		for _, v := range fact {
			if s.each == nil {
				break
			}
			if b, ok = s.each.append(b, v); !ok {
				return b, false
			}
		}
		return b, len(b) <= longestKey
	}
	if s.shape || s.each != nil || len(s.members) > 0 {
		return appendFact(b, fact)
	}
	return append(b, '+'), true
}

func (s *sight) appendObject(b []byte, fact map[string]any) (_ []byte, ok bool) {
	for _, name := range slices.Sorted(maps.Keys(s.members)) {
		inner, there := fact[name]
		if !there {
			b = append(b, '-')
			continue
		}
		if b, ok = s.members[name].append(append(b, '+'), inner); !ok {
			return b, false
		}
	}
	if !s.shape && s.each == nil {
		return b, true
	}
	b = binary.AppendUvarint(b, uint64(len(fact)))
	for _, name := range slices.Sorted(maps.Keys(fact)) {
		if b = appendText(b, name); len(b) > longestKey {
			return b, false
		}
		if s.each == nil {
			continue
		}
		if b, ok = s.each.append(b, fact[name]); !ok {
			return b, false
		}
	}
	return b, true
}
