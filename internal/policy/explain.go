package policy

import (
	"context"
	"errors"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// Explanation says how a decision came about. It shows texts of documents and
// may quote values of the input: it is for operators, not for the caller who was
// refused.
type Explanation struct {
	Verb      string          `json:"verb"`
	Decision  Decision        `json:"decision"`
	Documents []DocumentTrace `json:"documents"`
}

// DocumentTrace is one document's part in a decision.
type DocumentTrace struct {
	Document string      `json:"document"`         // name@version
	Vote     Vote        `json:"vote"`             //
	Answer   any         `json:"answer,omitempty"` // as the document gave it
	Bounds   *Bounds     `json:"bounds,omitempty"` // of an allow
	Error    string      `json:"error,omitempty"`  // of a vote "broken"
	Rules    []RuleTrace `json:"rules"`            // in the order of the text
}

// Vote is what a document's answer counts as.
type Vote string

// The votes. A broken document, and one whose answer is malformed, denies.
const (
	Allows  Vote = "allow"
	Denies  Vote = "deny"
	Silent  Vote = "no opinion"
	Breaks  Vote = "broken"
	ruleMax      = 512 // rules shown of one document
)

// RuleTrace is one rule that was looked at.
type RuleTrace struct {
	Rule       string `json:"rule"`
	Line       int    `json:"line"`
	Succeeded  bool   `json:"succeeded"`
	FailedLine int    `json:"failed_line,omitempty"` // the last condition that did not hold
	Failed     string `json:"failed,omitempty"`      // the text of that line
}

// Explain decides like [Set.Decide], with the same faults and the same result,
// and says for each document how it voted, which of its rules succeeded, and at
// which line the others failed.
func (s *Set) Explain(ctx context.Context, verb string, input map[string]any) (Explanation, error) {
	q, err := s.newQuestion(verb, input)
	if err != nil {
		return Explanation{}, err
	}
	ctx, done := begin(ctx, s.limit, q)
	defer done()
	out := Explanation{Verb: verb}
	t := tally{verb: verb, kind: requestKind(input)}
	for _, p := range s.voters {
		watcher := newWatcher()
		q.tracers = []topdown.QueryTracer{watcher}
		answer, err := p.ask(ctx, verb, q)
		if late := late(ctx); late != nil {
			return Explanation{}, late
		}
		trace := traceOf(p.document, verb, answer, err)
		trace.Rules = watcher.rules(p.document)
		out.Documents = append(out.Documents, trace)
		if err := t.count(p.document, answer, err); err != nil {
			return Explanation{}, err
		}
	}
	out.Decision = t.decision()
	return out, nil
}

func traceOf(d Document, verb string, answer ast.Value, err error) DocumentTrace {
	out := DocumentTrace{Document: d.Label(), Vote: Silent}
	var b *brokenError
	if errors.As(err, &b) {
		out.Vote, out.Error = Breaks, b.Error()
		return out
	}
	if answer == nil {
		return out
	}
	out.Answer, _ = ast.JSON(answer)
	v, err := decodeAnswer(verb, answer)
	switch {
	case err != nil:
		out.Vote, out.Error = Breaks, err.Error()
	case v.allow:
		out.Vote, out.Bounds = Allows, &v.bounds
	default:
		out.Vote = Denies
	}
	return out
}

// watcher notes which rules were entered, left, and where they failed.
type watcher struct {
	order []*seen
	byID  map[uint64]*seen
	known map[*ast.Rule]*seen
}

type seen struct {
	rule      *ast.Rule
	succeeded bool
	failed    *ast.Location
}

var _ topdown.QueryTracer = (*watcher)(nil)

func newWatcher() *watcher {
	return &watcher{byID: map[uint64]*seen{}, known: map[*ast.Rule]*seen{}}
}

// Enabled says that events are wanted.
func (w *watcher) Enabled() bool { return true }

// Config asks for no values of variables.
func (w *watcher) Config() topdown.TraceConfig { return topdown.TraceConfig{} }

// TraceEvent is called by the engine for each step.
func (w *watcher) TraceEvent(e topdown.Event) {
	switch node := e.Node.(type) {
	case *ast.Rule:
		s := w.known[node]
		if s == nil {
			s = &seen{rule: node}
			w.known[node] = s
			w.order = append(w.order, s)
		}
		w.byID[e.QueryID] = s
		if e.Op == topdown.ExitOp {
			s.succeeded = true
		}
	case *ast.Expr:
		if s := w.byID[e.QueryID]; s != nil && e.Op == topdown.FailOp {
			s.failed = e.Location
		}
	}
}

func (w *watcher) rules(d Document) []RuleTrace {
	lines := strings.Split(d.Source, "\n")
	out := make([]RuleTrace, 0, len(w.order))
	for _, s := range w.order {
		if len(out) == ruleMax {
			break
		}
		out = append(out, s.trace(lines))
	}
	return out
}

func (s *seen) trace(lines []string) RuleTrace {
	t := RuleTrace{Rule: s.rule.Head.Ref().String(), Succeeded: s.succeeded}
	if at := s.rule.Loc(); at != nil {
		t.Line = at.Row
	}
	if !s.succeeded && s.failed != nil {
		t.FailedLine = s.failed.Row
		if n := s.failed.Row; n >= 1 && n <= len(lines) {
			t.Failed = strings.TrimSpace(lines[n-1])
		}
	}
	return t
}
