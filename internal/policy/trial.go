package policy

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/cover"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// TestReport is the outcome of [Test].
type TestReport struct {
	Results  []TestResult `json:"results"`
	Passed   int          `json:"passed"`
	Failed   int          `json:"failed"` // those that broke included
	Skipped  int          `json:"skipped"`
	Coverage []Coverage   `json:"coverage"`
}

// OK reports whether nothing failed and anything ran at all.
func (r TestReport) OK() bool { return r.Failed == 0 && r.Passed > 0 }

// TestResult is the outcome of one rule whose name begins with test_.
type TestResult struct {
	Document string      `json:"document"` // where the rule is written
	Name     string      `json:"name"`
	Line     int         `json:"line"`
	Outcome  TestOutcome `json:"outcome"`
	At       int         `json:"at,omitempty"`     // line of the condition that did not hold
	Detail   string      `json:"detail,omitempty"` // its text, or what broke
}

// TestOutcome says how a test ended.
type TestOutcome string

// The outcomes. A rule whose name begins with todo_test_ is skipped.
const (
	Pass TestOutcome = "pass"
	Fail TestOutcome = "fail"
	Skip TestOutcome = "skipped"
)

// Coverage says how much of a document its tests ran through.
type Coverage struct {
	Document   string  `json:"document"`
	Percent    float64 `json:"percent"`
	NotCovered []int   `json:"not_covered,omitempty"` // lines
}

// Test runs the rules whose names begin with test_, in the documents themselves
// and in separate texts of tests. A text of tests named NAME_test belongs to the
// document NAME; with one document alone every text belongs to it. Its package
// is that of the document, or the same with _test at the end. Versions and kinds
// of the texts of tests do not matter.
//
// Tests run in the sandbox of the document's kind, and time.now_ns is 1970 unless
// a test sets it (with time.now_ns as ...). The whole run ends after timeout,
// which is at most [TestLimit] and is that if zero: the fault is then
// Unavailable. A broken text is Invalid like in [Compile].
func Test(ctx context.Context, documents, tests []Document, timeout time.Duration) (TestReport, error) {
	if timeout <= 0 || timeout > TestLimit {
		timeout = TestLimit
	}
	q := &question{input: ast.NewTerm(ast.NewObject()), at: time.Unix(0, 0)}
	ctx, done := begin(ctx, timeout, q)
	defer done()
	groups, err := match(documents, tests)
	if err != nil {
		return TestReport{}, err
	}
	var report TestReport
	for _, g := range groups {
		if err := g.run(ctx, q, &report); err != nil {
			return TestReport{}, err
		}
	}
	return report, nil
}

// trial is a document with the texts that test it.
type trial struct {
	document Document
	texts    []Document
}

func match(documents, tests []Document) ([]*trial, error) {
	var out []*trial
	byName := map[string]*trial{}
	for _, d := range sorted(documents) {
		d.Version = max(d.Version, 1)
		if err := d.Validate(); err != nil {
			return nil, err
		}
		if byName[d.Name] != nil {
			return nil, fault.Invalidf("policy %s is there twice", d.Name)
		}
		t := &trial{document: d}
		byName[d.Name] = t
		out = append(out, t)
	}
	for _, text := range sorted(tests) {
		t := byName[strings.TrimSuffix(text.Name, "_test")]
		if t == nil && len(out) == 1 {
			t = out[0]
		}
		if t == nil {
			return nil, fault.Invalidf("the tests %s belong to no policy; name them NAME_test after the policy NAME", cut(text.Name))
		}
		text.Version, text.Kind = max(text.Version, 1), t.document.Kind
		if err := text.Validate(); err != nil {
			return nil, err
		}
		if text.Name == t.document.Name {
			return nil, fault.Invalidf("the tests of policy %s need a name of their own, for example %s_test", text.Name, text.Name)
		}
		t.texts = append(t.texts, text)
	}
	return out, nil
}

// program compiles the document together with its tests.
func (t *trial) program() (p *program, modules map[string]*ast.Module, err error) {
	defer func() {
		if r := recover(); r != nil {
			p, err = nil, problems{{Document: t.document.Name, Reason: "the compiler cannot handle this text"}}.fault()
		}
	}()
	alone, err := compile(t.document)
	var found problems
	if errors.As(err, &found) {
		return nil, nil, found.fault()
	} else if err != nil {
		return nil, nil, err
	}
	modules = map[string]*ast.Module{}
	for _, d := range append([]Document{t.document}, t.texts...) {
		m, err := parse(d)
		if errors.As(err, &found) {
			return nil, nil, found.fault()
		} else if err != nil {
			return nil, nil, err
		}
		if got, want := m.Package.Path.String(), "data."+packageOf(t.document.Kind); got != want && got != want+"_test" {
			return nil, nil, problems{problemAt(d, m.Package.Loc(), "the package of these tests is %s or %s_test", want[5:], want[5:])}.fault()
		}
		if found := deep(d, m); found != nil {
			return nil, nil, found.fault()
		}
		modules[d.Name] = m
	}
	c := ast.NewCompiler().WithCapabilities(vocabulary(t.document.Kind)).WithDefaultRegoVersion(ast.RegoV1)
	c.Compile(modules)
	if c.Failed() {
		return nil, nil, t.problems(c.Errors).fault()
	}
	return &program{document: alone.document, compiler: c, queries: map[string]ast.Body{}}, modules, nil
}

// problems assigns what the compiler says to the text where it is.
func (t *trial) problems(errs ast.Errors) problems {
	var out problems
	for _, e := range errs {
		at := t.document
		if e.Location != nil {
			at.Name = e.Location.File
		}
		out = append(out, problemsOf(at, ast.Errors{e})...)
	}
	return out
}

func (t *trial) run(ctx context.Context, q *question, report *TestReport) error {
	p, modules, err := t.program()
	if err != nil {
		return err
	}
	covered := cover.New()
	for _, rule := range testRules(modules) {
		result, err := t.one(ctx, q, p, rule, covered)
		if err != nil {
			return err
		}
		switch result.Outcome {
		case Pass:
			report.Passed++
		case Skip:
			report.Skipped++
		default:
			report.Failed++
		}
		report.Results = append(report.Results, result)
	}
	report.Coverage = append(report.Coverage, coverage(t.document, modules, covered))
	return nil
}

// one runs one test. The error is one of the run, not of the test.
func (t *trial) one(ctx context.Context, q *question, p *program, rule *ast.Rule, covered *cover.Cover) (TestResult, error) {
	name := string(rule.Head.Ref()[0].Value.(ast.Var))
	out := TestResult{Document: rule.Loc().File, Name: name, Line: rule.Loc().Row, Outcome: Pass}
	if strings.HasPrefix(name, "todo_") {
		out.Outcome = Skip
		return out, nil
	}
	ref := rule.Module.Package.Path.Append(ast.StringTerm(name))
	if err := p.prepare(ref.String(), ref); err != nil {
		return out, err
	}
	w := newWatcher()
	q.tracers = []topdown.QueryTracer{covered, w}
	answer, err := p.ask(ctx, ref.String(), q)
	if late := late(ctx); late != nil {
		return out, fault.Unavailablef("the tests took longer than allowed, the last was %s", name).Because(late)
	}
	var b *brokenError
	switch {
	case errors.As(err, &b):
		out.Outcome, out.At, out.Detail = Fail, b.line, b.detail
	case err != nil:
		return out, err
	case answer == nil || answer.Compare(ast.Boolean(true)) != 0:
		out.Outcome = Fail
		out.At, out.Detail = t.failure(w, name)
	}
	return out, nil
}

// failure is the condition at which a test stopped.
func (t *trial) failure(w *watcher, name string) (line int, text string) {
	for _, s := range w.order {
		if s.rule.Head.Ref()[0].Value.Compare(ast.Var(name)) != 0 || s.failed == nil {
			continue
		}
		for _, d := range append([]Document{t.document}, t.texts...) {
			if d.Name == s.failed.File {
				r := s.trace(strings.Split(d.Source, "\n"))
				return r.FailedLine, r.Failed
			}
		}
	}
	return 0, "the rule is not true"
}

// testRules finds the tests, one rule for each name, in a stable order.
func testRules(modules map[string]*ast.Module) []*ast.Rule {
	var out []*ast.Rule
	known := map[string]bool{}
	for _, m := range modules {
		for _, r := range m.Rules {
			name, ok := r.Head.Ref()[0].Value.(ast.Var)
			if !ok || len(r.Head.Ref()) != 1 || len(r.Head.Args) > 0 ||
				!strings.HasPrefix(strings.TrimPrefix(string(name), "todo_"), "test_") {
				continue
			}
			key := fmt.Sprintf("%s.%s", m.Package.Path, name)
			if !known[key] {
				known[key] = true
				out = append(out, r)
			}
		}
	}
	sort.SliceStable(out, func(i, j int) bool {
		a, b := out[i].Loc(), out[j].Loc()
		if a.File != b.File {
			return a.File < b.File
		}
		return a.Row < b.Row
	})
	return out
}

func coverage(d Document, modules map[string]*ast.Module, c *cover.Cover) Coverage {
	out := Coverage{Document: d.Name}
	file := c.Report(modules).Files[d.Name]
	if file == nil {
		return out
	}
	out.Percent = file.Coverage
	for _, r := range file.NotCovered {
		for line := r.Start.Row; line <= r.End.Row; line++ {
			out.NotCovered = append(out.NotCovered, line)
		}
	}
	return out
}
