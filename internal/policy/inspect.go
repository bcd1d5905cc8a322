package policy

import (
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/types"
)

// inspect finds what compiles as Rego and yet cannot be a document of its kind.
// What it catches would otherwise be a refusal in the middle of the night.
func inspect(d Document, m *ast.Module) problems {
	if found := deep(d, m); found != nil {
		return found
	}
	want := packageOf(d.Kind)
	if got := m.Package.Path; len(got) != 2 || !got[1].Equal(ast.StringTerm(want)) {
		return problems{problemAt(d, m.Package.Loc(), "a document of kind %s begins with: package %s", d.Kind, want)}
	}
	if d.Kind != Sallyport {
		return inspectForeign(d, m)
	}
	var found problems
	asked := false
	for _, r := range m.Rules {
		verb, ok := verbOf(r)
		if !ok {
			continue
		}
		asked = true
		found = append(found, inspectRule(d, verb, r)...)
	}
	if !asked {
		found = append(found, problemAt(d, m.Package.Loc(), "no rule answers a verb; define at least one of %v", verbs))
	}
	return found
}

// inspectForeign demands the entry point of Trustee's policies.
func inspectForeign(d Document, m *ast.Module) problems {
	entry := resourceEntry
	if d.Kind == KBSAttestation {
		entry = "trust_claims"
	}
	for _, r := range m.Rules {
		if head, ok := r.Head.Ref()[0].Value.(ast.Var); ok && string(head) == entry {
			return nil
		}
	}
	return problems{problemAt(d, m.Package.Loc(), "a document of kind %s defines the rule %s", d.Kind, entry)}
}

func verbOf(r *ast.Rule) (string, bool) {
	head, ok := r.Head.Ref()[0].Value.(ast.Var)
	if !ok || !knownVerb(string(head)) {
		return "", false
	}
	return string(head), true
}

// inspectRule checks one rule of a verb and its else branches.
func inspectRule(d Document, verb string, r *ast.Rule) problems {
	at := r.Loc()
	switch {
	case r.Default:
		return problems{problemAt(d, at, "a default for %s would make this document vote on every request: a default that denies vetoes all "+
			"other documents, one that allows opens everything. Leave it out: undefined means no opinion, and what no document allows is denied", verb)}
	case len(r.Head.Args) > 0:
		return problems{problemAt(d, at, "%s is a rule, not a function", verb)}
	case len(r.Head.Ref()) != 1 || r.Head.Key != nil:
		return problems{problemAt(d, at, "%s is one answer: write %s := {\"allow\": ..., ...} if {...}, not its members one by one and not a set", verb, verb)}
	}
	var found problems
	for ; r != nil; r = r.Else {
		if r.Head.Value == nil {
			found = append(found, problemAt(d, at, "%s must answer an object with the member allow", verb))
			continue
		}
		found = append(found, inspectAnswer(d, verb, r)...)
	}
	return found
}

// inspectAnswer checks an answer as far as it is written down literally.
func inspectAnswer(d Document, verb string, r *ast.Rule) problems {
	t := r.Head.Value
	switch v := t.Value.(type) {
	case ast.Object:
		var found problems
		found = append(found, inspectMembers(d, t.Loc(), verb, v, answerMembers)...)
		if v.Get(ast.StringTerm("allow")) == nil && literalKeys(v) {
			found = append(found, problemAt(d, t.Loc(), "%s must answer with the member allow", verb))
		}
		if b := v.Get(ast.StringTerm("bounds")); b != nil {
			if o, ok := b.Value.(ast.Object); ok {
				found = append(found, inspectMembers(d, b.Loc(), verb+".bounds", o, boundsMembers)...)
			}
		}
		if len(found) == 0 && ast.IsConstant(v) {
			if _, err := decodeAnswer(verb, v); err != nil {
				found = append(found, problemAt(d, t.Loc(), "%s: %s", verb, err))
			}
		}
		return found
	case ast.Null, ast.Boolean, ast.Number, ast.String, *ast.Array, ast.Set:
		return problems{problemAt(d, r.Loc(), "%s must answer an object with the member allow", verb)}
	}
	return nil // a variable, a reference or a call: judged by its type, and again when it answers
}

func inspectMembers(d Document, at *ast.Location, where string, o ast.Object, known map[string]check) problems {
	var found problems
	o.Foreach(func(k, v *ast.Term) {
		key, ok := k.Value.(ast.String)
		if !ok {
			if ast.IsConstant(k.Value) {
				found = append(found, problemAt(d, at, "%s: names of members are strings", where))
			}
			return
		}
		c, ok := known[string(key)]
		switch {
		case !ok:
			found = append(found, problemAt(d, k.Loc(), "%s has no member %s", where, key))
		case ast.IsConstant(v.Value):
			if why := c(v.Value); why != "" {
				found = append(found, problemAt(d, v.Loc(), "%s.%s %s", where, string(key), why))
			}
		}
	})
	return found
}

func literalKeys(o ast.Object) bool {
	return !o.Until(func(k, _ *ast.Term) bool { return !ast.IsConstant(k.Value) })
}

// typed refuses an entry point whose type can never be an answer, as far as the
// compiler can infer it.
func typed(d Document, c *ast.Compiler, entry string, ref ast.Ref) problems {
	t := c.TypeEnv.GetByRef(ref)
	if t == nil {
		return nil
	}
	at := c.GetRulesExact(ref)[0].Loc()
	switch entry {
	case "allow":
		if !mayBe[types.Boolean](t) {
			return problems{problemAt(d, at, "allow must be a boolean")}
		}
	case "extensions":
		return nil // a list or a set; decoded when it answers
	default:
		if !mayBe[*types.Object](t) {
			return problems{problemAt(d, at, "%s must answer an object", entry)}
		}
	}
	return nil
}

// mayBe reports whether a value of type t can be a T.
func mayBe[T types.Type](t types.Type) bool {
	switch v := t.(type) {
	case types.Any:
		if len(v) == 0 {
			return true
		}
		for _, one := range v {
			if mayBe[T](one) {
				return true
			}
		}
		return false
	case T:
		return true
	}
	return false
}

// Limits of the shape of a text: how deep it may nest, else branches included,
// and how many conditions one body may have. The compiler's time grows with the
// square of each, and it cannot be interrupted.
const (
	maxDepth = 512
	maxBody  = 1024
)

// deep finds where a text goes beyond these limits, nil if it does not.
func deep(d Document, m *ast.Module) problems {
	depth := 0
	var found problems
	ast.NewBeforeAfterVisitor(func(x any) bool {
		depth++
		body, _ := x.(ast.Body)
		if found == nil && (depth > maxDepth || len(body) > maxBody) {
			var at *ast.Location
			if n, ok := x.(ast.Node); ok {
				at = n.Loc()
			}
			found = problems{problemAt(d, at, "the text nests too deep, or has too many conditions in one place; split it into rules")}
		}
		return found != nil
	}, func(any) { depth-- }).Walk(m)
	return found
}
