package policy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// Set is a number of compiled documents that decide together. It is made by
// [Compile], never decides otherwise, and is safe for concurrent use: to reload, compile a
// new one and swap the pointer.
type Set struct {
	now        func() time.Time
	limit      time.Duration // Limit; longer in tests on busy machines
	documents  []Document
	voters     []*program        // of kind sallyport, by name
	reads      map[string]*reads // by entry point, of all documents that have it together
	resources  []*program        // of kind kbs-resource, the longest scope first
	appraisals map[string]*program
	tokens     *tokens // what the resource policy reads of them
	memory     memory[Decision]
	judged     memory[appraised]
	released   memory[Decision] // of resources
}

// Documents are the active documents, ordered by name.
func (s *Set) Documents() []Document { return append([]Document(nil), s.documents...) }

// Decision is the answer to one request.
type Decision struct {
	Allow     bool     `json:"allow"`
	Bounds    Bounds   `json:"bounds"`    // only of an allow
	Reasons   []string `json:"reasons"`   // of those who allowed, or of those who denied; never empty when denied
	Documents []string `json:"documents"` // name@version of those that voted, ordered by name
}

// Decide asks all documents whether a verb may happen. The input is described by
// api/schema/policy-<verb>.json; its context.time is the time that documents
// see.
//
// Deny wins; otherwise the bounds of all who allow are narrowed to what lies
// within each; if nobody allows, the answer is deny (docs/policy.md). A denial
// is a Decision, not an error. A document that breaks or answers nonsense counts
// as deny. Faults: Invalid for an unknown verb and for an input that is no JSON
// or has no time; Unavailable when [Limit] has passed or the caller went away.
func (s *Set) Decide(ctx context.Context, verb string, input map[string]any) (Decision, error) {
	at, err := askable(verb, input)
	if err != nil {
		return Decision{}, err
	}
	key, keep := s.reads[verb].key(verb, input)
	if keep {
		if d, ok := s.memory.recall(key); ok {
			return d.clone(), nil
		}
	}
	d, err := s.decide(ctx, verb, input, at)
	if err == nil && keep {
		s.memory.remember(key, d.clone())
	}
	return d, err
}

// decide asks the documents.
func (s *Set) decide(ctx context.Context, verb string, input map[string]any, at time.Time) (Decision, error) {
	in, err := s.reads[verb].term(input)
	if err != nil {
		return Decision{}, err
	}
	q := &question{input: in, at: at}
	ctx, done := begin(ctx, s.limit, q)
	defer done()
	t := tally{verb: verb, kind: requestKind(input)}
	for _, p := range s.voters {
		answer, err := p.ask(ctx, verb, q)
		if err := late(ctx); err != nil {
			return Decision{}, err
		}
		if err := t.count(p.document, answer, err); err != nil {
			return Decision{}, err
		}
	}
	return t.decision(), nil
}

func (s *Set) newQuestion(verb string, input map[string]any) (*question, error) {
	at, err := askable(verb, input)
	if err != nil {
		return nil, err
	}
	in, err := s.reads[verb].term(input)
	if err != nil {
		return nil, err
	}
	return &question{input: in, at: at}, nil
}

// askable demands a known verb and a time, which it returns.
func askable(verb string, input map[string]any) (time.Time, error) {
	if !knownVerb(verb) {
		return time.Time{}, fault.Invalidf("there is no verb %q; the verbs are %v", cut(verb), verbs)
	}
	return requestTime(input)
}

// requestTime demands a time in the input: with it a decision can be repeated
// from its input alone, years later.
func requestTime(input map[string]any) (time.Time, error) {
	facts, _ := input["context"].(map[string]any)
	text, _ := facts["time"].(string)
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, fault.Invalidf("the input for the policy needs context.time in the form of RFC 3339")
	}
	return at, nil
}

func requestKind(input map[string]any) string {
	request, _ := input["request"].(map[string]any)
	kind, _ := request["kind"].(string)
	return kind
}

// tally combines the votes of documents, in their order.
type tally struct {
	verb    string
	kind    string // asked for
	voted   []string
	bounds  Bounds
	allowed bool
	denied  bool
	whyYes  []string
	whyNo   []string
}

// count takes one document's answer. The returned error is one that no vote can
// express: the request fails.
func (t *tally) count(d Document, answer ast.Value, err error) error {
	var b *brokenError
	switch {
	case errors.As(err, &b):
		t.deny(d, b.reason())
		return nil
	case err != nil:
		return err
	case answer == nil:
		return nil // no opinion
	}
	v, err := decodeAnswer(t.verb, answer)
	switch {
	case err != nil:
		t.deny(d, fmt.Sprintf("the policy %s answers nonsense: %s", d.Label(), err))
	case !v.allow:
		t.deny(d, v.reasons...)
	default:
		t.accept(d, v)
	}
	return nil
}

// reason is what a record and a caller may know: the engine's own text can quote
// the input and is left to explain.
func (e *brokenError) reason() string {
	return fmt.Sprintf("the policy %s breaks on this request at line %d", e.document.Label(), e.line)
}

func (t *tally) deny(d Document, reasons ...string) {
	t.denied = true
	t.voted = append(t.voted, d.Label())
	if len(reasons) == 0 {
		reasons = []string{"denied by the policy " + d.Label()}
	}
	t.whyNo = append(t.whyNo, reasons...)
}

func (t *tally) accept(d Document, v vote) {
	t.voted = append(t.voted, d.Label())
	t.whyYes = append(t.whyYes, v.reasons...)
	if !t.allowed {
		t.allowed, t.bounds = true, v.bounds
		return
	}
	within, err := narrow(t.bounds, v.bounds)
	if err != nil {
		t.denied = true
		t.whyNo = append(t.whyNo, err.Error())
		return
	}
	t.bounds = within
}

func (t *tally) decision() Decision {
	out := Decision{Documents: t.voted}
	switch {
	case t.denied:
		out.Reasons = t.whyNo
	case !t.allowed:
		out.Reasons = []string{"no policy allows this"}
	case t.verb == "release" && t.bounds.Kind != t.kind:
		out.Reasons = []string{"the policies allow another kind of credential"}
	default:
		out.Allow, out.Bounds, out.Reasons = true, t.bounds, t.whyYes
	}
	return out
}

// CanAdminister refuses a set under which nobody could change policies any more:
// one of the inputs, each an operator's request to administer a policy
// (target.kind "policy"), must be allowed. The fault is Invalid, or Unavailable if
// a question was not answered in time and no other was allowed.
func (s *Set) CanAdminister(ctx context.Context, inputs []map[string]any) error {
	var late error // nobody said no: a question was not answered in time
	for _, input := range inputs {
		target, _ := input["target"].(map[string]any)
		if target["kind"] != "policy" {
			return fault.Invalidf("the question who can administer is asked about policies")
		}
		d, err := s.Decide(ctx, "administer", input)
		switch {
		case fault.Is(err, fault.Unavailable):
			late = err
		case err != nil:
			return err
		case d.Allow:
			return nil
		}
	}
	if late != nil {
		return late
	}
	return fault.Invalidf("under these policies no operator could change a policy any more; keep a document that allows an administrator to administer policies")
}
