package policy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// resourceEntry is the rule of a document of kind [KBSResource].
const resourceEntry = "allow"

// scopeRule is the rule by which a document of kind [KBSResource] says which
// paths it is for; without it the document is for all others.
const scopeRule = "applies_to"

// ResourceRequest is what a guest asks for.
type ResourceRequest struct {
	Plugin string   // resource, or the name of another plugin
	Path   []string // below it
	Query  map[string]string
	Method string
}

// ResourceAllowed asks Trustee's question (kbs.md 3.8): data.policy.allow, where
// data has plugin, resource-path, query and, beyond Trustee, method; and input is
// the claims of the token. Only true allows; undefined, any other value and the
// absence of a document of kind [KBSResource] deny. Bounds stay empty.
//
// One document decides: that whose applies_to is the longest prefix of the path,
// in whole segments; where there is none, the document without applies_to.
//
// The fault is Unavailable when [Limit] has passed or the caller went away, and
// Invalid when the claims are no JSON.
func (s *Set) ResourceAllowed(ctx context.Context, r ResourceRequest, claims Claims) (Decision, error) {
	p := s.resourcePolicy(r)
	if p == nil {
		return Decision{Reasons: []string{"no resource policy is set for this path"}}, nil
	}
	key, keep := s.resourceKey(p, r, claims)
	if keep {
		if d, ok := s.released.recall(key); ok {
			return d.clone(), nil
		}
	}
	d, broken, err := s.resourceAllowed(ctx, p, r, claims)
	if err == nil && !broken && keep {
		s.released.remember(key, d.clone())
	}
	return d, err
}

// resourceKey names what a decision depends on: the document, and what it can tell
// apart in the claims and the request. Where that is too much, the token stands for
// the claims, whose name always means the same. There is no key if a document asks
// the clock.
func (s *Set) resourceKey(p *program, r ResourceRequest, claims Claims) (string, bool) {
	if s.reads[resourceEntry].clock {
		return "", false
	}
	b := appendText(make([]byte, 0, 256), p.document.Name)
	if p.sight.narrow() && decoded(claims.Members) {
		key, ok := p.sight.append(append(b, 's'), map[string]any{"input": claims.Members, "data": r.facts()})
		if ok && len(key) <= longestKey {
			return string(key), true
		}
	}
	if claims.Token == "" {
		return "", false
	}
	b, ok := appendFact(appendText(append(b, 't'), claims.Token), r.facts())
	return string(b), ok && len(b) <= longestKey
}

// facts are what a document finds below data, beside its rules.
func (r ResourceRequest) facts() map[string]any {
	path, query := make([]any, len(r.Path)), make(map[string]any, len(r.Query))
	for i, segment := range r.Path {
		path[i] = segment
	}
	for name, v := range r.Query {
		query[name] = v
	}
	return map[string]any{"plugin": r.Plugin, "resource-path": path, "query": query, "method": r.Method}
}

// resourceAllowed asks the document that decides, and reports whether it broke.
func (s *Set) resourceAllowed(ctx context.Context, p *program, r ResourceRequest, claims Claims) (d Decision, broke bool, err error) {
	q, err := s.resourceQuestion(r, claims)
	if err != nil {
		return Decision{}, false, err
	}
	ctx, done := begin(ctx, s.limit, q)
	defer done()
	answer, err := p.ask(ctx, resourceEntry, q)
	if late := late(ctx); late != nil {
		return Decision{}, false, late
	}
	label := p.document.Label()
	out := Decision{Documents: []string{label}}
	var b *brokenError
	switch {
	case errors.As(err, &b):
		out.Reasons = []string{b.reason()}
	case err != nil:
		return Decision{}, false, err
	case answer == nil:
		out.Reasons = []string{fmt.Sprintf("the policy %s does not allow this", label)}
	default:
		allow, ok := answer.(ast.Boolean)
		out.Allow = ok && bool(allow)
		if !out.Allow {
			out.Reasons = []string{fmt.Sprintf("the policy %s does not allow this", label)}
		}
	}
	return out, b != nil, nil
}

// resourcePolicy finds the document that decides; nil if there is none.
func (s *Set) resourcePolicy(r ResourceRequest) *program {
	for _, one := range s.resources { // the longest scope first
		n := len(one.scope)
		if n == 0 || one.scope[0] == r.Plugin && len(r.Path) >= n-1 && slices.Equal(one.scope[1:], r.Path[:n-1]) {
			return one
		}
	}
	return nil
}

// addResource sorts a document in by the length of its scope. Two documents for
// the same paths are Invalid: which of them decides would depend on their names.
func (s *Set) addResource(p *program) error {
	at := len(s.resources)
	for i, other := range s.resources {
		if slices.Equal(other.scope, p.scope) {
			paths := "all paths"
			if len(p.scope) > 0 {
				paths = strings.Join(p.scope, "/")
			}
			return fault.Invalidf("policy %s: %s is active already for %s, and there can be one policy of kind %s for them; "+
				"remove that one first, or give one of them the rule %s", p.document.Name, other.document.Name, paths, KBSResource, scopeRule)
		}
		if at == len(s.resources) && len(other.scope) < len(p.scope) {
			at = i
		}
	}
	s.resources = slices.Insert(s.resources, at, p)
	return nil
}

// scopeOf reads the rule applies_to, which must be written down literally: which
// document decides is not itself a decision.
func scopeOf(d Document, m *ast.Module) ([]string, problems) {
	var scope []string
	for _, r := range m.Rules {
		if head, ok := r.Head.Ref()[0].Value.(ast.Var); !ok || string(head) != scopeRule {
			continue
		}
		wrong := problems{problemAt(d, r.Loc(), "%s is one literal text, for example %s := \"resource/team-a\": a plugin, and segments of a path below it",
			scopeRule, scopeRule)}
		text, ok := literal(r)
		if !ok || scope != nil {
			return nil, wrong
		}
		scope = strings.Split(text, "/")
		if len(scope) > 16 || slices.Contains(scope, "") {
			return nil, wrong
		}
	}
	return scope, nil
}

// literal is the text that a rule without conditions answers.
func literal(r *ast.Rule) (string, bool) {
	if r.Default || r.Head.Value == nil || len(r.Head.Args) > 0 || r.Head.Key != nil || len(r.Head.Ref()) != 1 || r.Else != nil ||
		!r.Body.Equal(ast.NewBody(ast.NewExpr(ast.BooleanTerm(true)))) {
		return "", false
	}
	text, ok := r.Head.Value.Value.(ast.String)
	return string(text), ok && len(text) <= maxText
}

// resourceQuestion puts the facts of the request beside the document's own
// rules, below data, where policies written for Trustee look for them.
func (s *Set) resourceQuestion(r ResourceRequest, claims Claims) (*question, error) {
	in, err := s.tokens.term(claims, s.reads[resourceEntry])
	if err != nil {
		return nil, err
	}
	segments := make([]*ast.Term, len(r.Path))
	for i, p := range r.Path {
		segments[i] = ast.StringTerm(p)
	}
	arguments := ast.NewObject()
	for k, v := range r.Query {
		arguments.Insert(ast.StringTerm(k), ast.StringTerm(v))
	}
	root := ast.NewObject(
		ast.Item(ast.StringTerm("plugin"), ast.StringTerm(r.Plugin)),
		ast.Item(ast.StringTerm("resource-path"), ast.ArrayTerm(segments...)),
		ast.Item(ast.StringTerm("query"), ast.NewTerm(arguments)),
		ast.Item(ast.StringTerm("method"), ast.StringTerm(r.Method)),
	)
	return &question{input: in, data: facts{root: root}, at: s.now()}, nil
}
