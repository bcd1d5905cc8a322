package policy

import (
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// shownProblems is how many problems the text of a fault names.
const shownProblems = 10

// Compile makes a set of all active documents, or none: if one document is
// broken the fault is Invalid, its public text names document, line, column and
// reason of each problem, and [Problems] gives them singly. Removed documents
// are left out.
//
// Each document is compiled by itself, so that no document can see or redefine
// a rule of another. The clock now is what time.now_ns answers in policies of
// the Key Broker Service, whose input has no time; it must not be nil.
func Compile(documents []Document, now func() time.Time) (*Set, error) {
	if now == nil {
		return nil, fault.Internalf("policies need a clock")
	}
	s := &Set{now: now, limit: Limit, reads: map[string]*reads{}, appraisals: map[string]*program{}, tokens: &tokens{}}
	for _, entry := range append(Verbs(), resourceEntry) {
		s.reads[entry] = &reads{}
	}
	var broken problems
	names := map[string]bool{}
	for _, d := range sorted(documents) {
		if err := d.Validate(); err != nil {
			return nil, err
		}
		if names[d.Name] {
			return nil, fault.Invalidf("policy %s is there twice", d.Name)
		}
		names[d.Name] = true
		if d.state() == Removed {
			continue
		}
		p, err := compile(d)
		var found problems
		switch {
		case errors.As(err, &found):
			broken = append(broken, found...)
			continue
		case err != nil:
			return nil, err
		}
		if err := s.add(p); err != nil {
			return nil, err
		}
	}
	if len(broken) > 0 {
		return nil, broken.fault()
	}
	return s, nil
}

// add sorts a compiled document into the set.
func (s *Set) add(p *program) error {
	if len(s.documents) == MaxDocuments {
		return fault.Invalidf("at most %d policies can be active", MaxDocuments)
	}
	s.documents = append(s.documents, p.document)
	switch p.document.Kind {
	case KBSAttestation:
		p.reads = &reads{}
		for _, m := range p.compiler.Modules {
			p.reads.note(m)
		}
		s.appraisals[p.document.Name] = p
		return nil
	case KBSResource:
		for _, m := range p.compiler.Modules { // it has one
			p.sight = look(m)
		}
		if err := s.addResource(p); err != nil {
			return err
		}
	default:
		s.voters = append(s.voters, p)
	}
	for entry := range p.queries {
		for _, m := range p.compiler.Modules {
			s.reads[entry].note(m)
		}
	}
	return nil
}

func sorted(documents []Document) []Document {
	out := append([]Document(nil), documents...)
	sort.SliceStable(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}

// compile turns one document into a program. A broken text is problems.
func compile(d Document) (p *program, err error) {
	defer func() {
		// The text is foreign, the compiler is large: a panic there is the
		// text's fault and must not end the server.
		if r := recover(); r != nil {
			p, err = nil, problems{{Document: d.Name, Reason: "the compiler cannot handle this text"}}
		}
	}()
	module, err := parse(d)
	if err != nil {
		return nil, err
	}
	if found := inspect(d, module); len(found) > 0 {
		return nil, found
	}
	var scope []string
	if d.Kind == KBSResource {
		var found problems
		if scope, found = scopeOf(d, module); found != nil {
			return nil, found
		}
	}
	c := ast.NewCompiler().WithCapabilities(vocabulary(d.Kind)).WithStrict(false).WithDefaultRegoVersion(ast.RegoV1)
	c.Compile(map[string]*ast.Module{d.Name: module})
	if c.Failed() {
		return nil, problemsOf(d, c.Errors)
	}
	p = &program{document: d, compiler: c, queries: map[string]ast.Body{}, scope: scope}
	for entry, ref := range entries(d.Kind) {
		if len(c.GetRulesExact(ref)) == 0 {
			continue
		}
		if found := typed(d, c, entry, ref); len(found) > 0 {
			return nil, found
		}
		if err := p.prepare(entry, ref); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func parse(d Document) (*ast.Module, error) {
	module, err := ast.ParseModuleWithOpts(d.Name, d.Source, ast.ParserOptions{
		RegoVersion:  ast.RegoV1,
		Capabilities: vocabulary(d.Kind),
	})
	var found ast.Errors
	var one *ast.Error
	switch {
	case errors.As(err, &found):
		return nil, problemsOf(d, found)
	case errors.As(err, &one):
		return nil, problemsOf(d, ast.Errors{one})
	case err != nil:
		return nil, problems{{Document: d.Name, Reason: "the text cannot be parsed"}}
	case module == nil:
		return nil, problems{{Document: d.Name, Reason: "the text is empty"}}
	}
	return module, nil
}

// packageOf is the package that documents of a kind must declare.
func packageOf(k Kind) string {
	if k == Sallyport {
		return "sallyport"
	}
	return "policy"
}

// entries are the rules that are asked, by name.
func entries(k Kind) map[string]ast.Ref {
	var rules []string
	switch k {
	case Sallyport:
		rules = verbs[:]
	case KBSResource:
		rules = []string{resourceEntry}
	case KBSAttestation:
		rules = []string{"trust_claims", "extensions"}
	}
	out := make(map[string]ast.Ref, len(rules))
	for _, r := range rules {
		out[r] = ast.Ref{ast.DefaultRootDocument, ast.StringTerm(packageOf(k)), ast.StringTerm(r)}
	}
	return out
}

// problems is everything that is wrong in some documents.
type problems []Problem

func (p problems) Error() string { return fmt.Sprintf("problems in the text of policies: %d", len(p)) }

func (p problems) text() string {
	lines := make([]string, len(p))
	for i, one := range p {
		lines[i] = one.String()
	}
	return strings.Join(lines, "\n")
}

// fault shows the problems: they are about the operator's own text.
func (p problems) fault() error {
	shown, more := p, ""
	if len(p) > shownProblems {
		shown, more = p[:shownProblems], fmt.Sprintf("\nand %d more", len(p)-shownProblems)
	}
	return fault.Invalidf("%s%s", shown.text(), more).Because(p)
}

// Problems are what a fault of [Compile] or [Test] says about the texts, nil if
// it says nothing.
func Problems(err error) []Problem {
	var p problems
	if errors.As(err, &p) {
		return p
	}
	return nil
}

func problemsOf(d Document, errs ast.Errors) problems {
	out := make(problems, 0, len(errs))
	for _, e := range errs {
		reason := e.Message
		// The details of a type error say what was expected; those of a syntax
		// error repeat the line, which the operator has.
		if e.Code == ast.TypeErr && e.Details != nil {
			reason += " (" + strings.Join(e.Details.Lines(), ", ") + ")"
		}
		one := Problem{Document: d.Name, Reason: reason}
		if e.Location != nil {
			one.Line, one.Column = e.Location.Row, e.Location.Col
		}
		out = append(out, one)
	}
	return out
}

func problemAt(d Document, at *ast.Location, format string, args ...any) Problem {
	p := Problem{Document: d.Name, Reason: fmt.Sprintf(format, args...)}
	if at != nil {
		p.Line, p.Column = at.Row, at.Col
	}
	return p
}
