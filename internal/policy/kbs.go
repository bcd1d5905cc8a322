package policy

import (
	"context"
	"errors"
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"
)

// resourceEntry is the rule of a document of kind [KBSResource].
const resourceEntry = "allow"

// ResourceAllowed asks Trustee's question (kbs.md 3.8): data.policy.allow, where
// data has plugin, resource-path and query, and input is the claims of the
// token. Only true allows; undefined, any other value and the absence of a
// document of kind [KBSResource] deny. Bounds stay empty.
//
// The fault is Unavailable when [Limit] has passed or the caller went away, and
// Invalid when the claims are no JSON.
func (s *Set) ResourceAllowed(ctx context.Context, plugin string, path []string, query map[string]string, claims Claims) (Decision, error) {
	if s.resource == nil {
		return Decision{Reasons: []string{"no resource policy is set"}}, nil
	}
	q, err := s.resourceQuestion(plugin, path, query, claims)
	if err != nil {
		return Decision{}, err
	}
	ctx, done := begin(ctx, s.limit, q)
	defer done()
	answer, err := s.resource.ask(ctx, resourceEntry, q)
	if late := late(ctx); late != nil {
		return Decision{}, late
	}
	label := s.resource.document.Label()
	out := Decision{Documents: []string{label}}
	var b *brokenError
	switch {
	case errors.As(err, &b):
		out.Reasons = []string{b.reason()}
	case err != nil:
		return Decision{}, err
	case answer == nil:
		out.Reasons = []string{fmt.Sprintf("the policy %s does not allow this", label)}
	default:
		allow, ok := answer.(ast.Boolean)
		out.Allow = ok && bool(allow)
		if !out.Allow {
			out.Reasons = []string{fmt.Sprintf("the policy %s does not allow this", label)}
		}
	}
	return out, nil
}

// resourceQuestion puts the facts of the request beside the document's own
// rules, below data, where policies written for Trustee look for them.
func (s *Set) resourceQuestion(plugin string, path []string, query map[string]string, claims Claims) (*question, error) {
	in, err := s.tokens.term(claims, s.reads[resourceEntry])
	if err != nil {
		return nil, err
	}
	segments := make([]*ast.Term, len(path))
	for i, p := range path {
		segments[i] = ast.StringTerm(p)
	}
	arguments := ast.NewObject()
	for k, v := range query {
		arguments.Insert(ast.StringTerm(k), ast.StringTerm(v))
	}
	root := ast.NewObject(
		ast.Item(ast.StringTerm("plugin"), ast.StringTerm(plugin)),
		ast.Item(ast.StringTerm("resource-path"), ast.ArrayTerm(segments...)),
		ast.Item(ast.StringTerm("query"), ast.NewTerm(arguments)),
	)
	return &question{input: in, data: facts{root: root}, at: s.now()}, nil
}
