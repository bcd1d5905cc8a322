package policy

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// program is one compiled document. It never changes; every evaluation may use
// it at the same time.
type program struct {
	document Document
	compiler *ast.Compiler
	queries  map[string]ast.Body // by entry point, for example release
	scope    []string            // of kind KBSResource: plugin and leading segments it is for; empty for all
	reads    *reads              // of kind KBSAttestation: of other kinds documents are asked together
	sight    *sight              // of kind KBSResource
}

const answerVar = ast.Var("answer")

// prepare compiles the question for one entry point.
func (p *program) prepare(entry string, ref ast.Ref) error {
	body := ast.NewBody(ast.Equality.Expr(ast.NewTerm(answerVar), ast.NewTerm(ref)))
	compiled, err := p.compiler.QueryCompiler().Compile(body)
	if err != nil {
		return fault.Wrap(err, "prepare %s of %s", entry, p.document.Name)
	}
	p.queries[entry] = compiled
	return nil
}

// question is what is the same for all documents asked in one request.
type question struct {
	input    *ast.Term
	data     facts
	at       time.Time // what time.now_ns answers
	cancel   topdown.Cancel
	builtins map[string]*topdown.Builtin
	tracers  []topdown.QueryTracer // none but when explaining or testing
}

// ask evaluates one entry point. Undefined is nil without an error. The error is
// a brokenError if the document is to blame and the same input would break it
// again; the caller judges the context itself.
func (p *program) ask(ctx context.Context, entry string, q *question) (answer ast.Value, err error) {
	body, ok := p.queries[entry]
	if !ok {
		return nil, nil
	}
	defer func() {
		// A defect of the engine must not take the server down with it.
		if r := recover(); r != nil {
			answer, err = nil, fault.Unavailablef("the policy could not be evaluated").Because(fmt.Errorf("panic in %s: %v", p.document.Label(), r))
		}
	}()
	query := topdown.NewQuery(body).
		WithCompiler(p.compiler).
		WithStore(q.data).
		WithTransaction(transaction{}).
		WithInput(q.input).
		WithTime(q.at).
		WithCancel(q.cancel).
		WithBuiltins(q.builtins).
		WithMetrics(metrics.NoOp()).
		WithStrictBuiltinErrors(true)
	for _, t := range q.tracers {
		// Without the index also the rules that it would skip are seen.
		query = query.WithQueryTracer(t).WithIndexing(false)
	}
	results := 0
	err = query.Iter(ctx, func(r topdown.QueryResult) error {
		results++
		if t := r[answerVar]; t != nil {
			answer = t.Value
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, broken(p.document, err)
	case results > 1:
		return nil, &brokenError{document: p.document, detail: "more than one answer"}
	}
	return answer, nil
}

// brokenError says that a document breaks on this input: two rules that
// contradict each other, or a builtin that was called with nonsense.
type brokenError struct {
	document Document
	line     int
	detail   string // the engine's text; may quote values of the input
	timeout  bool
}

func (e *brokenError) Error() string {
	return fmt.Sprintf("%s, line %d: %s", e.document.Label(), e.line, e.detail)
}

func broken(d Document, err error) error {
	b := &brokenError{document: d, detail: err.Error(), timeout: topdown.IsCancel(err)}
	var e *topdown.Error
	if errors.As(err, &e) {
		b.detail = e.Message
		if e.Location != nil {
			b.line = e.Location.Row
		}
	}
	return b
}

// begin bounds an evaluation in time. Both results of the returned context and
// the cancel of the question end together; the caller must call done.
func begin(ctx context.Context, limit time.Duration, q *question) (bounded context.Context, done func()) {
	bounded, end := context.WithTimeout(ctx, limit)
	q.cancel = topdown.NewCancel()
	stop := context.AfterFunc(bounded, q.cancel.Cancel)
	return bounded, func() {
		stop()
		end()
	}
}

// late is the fault of an evaluation that did not end in time, or whose caller
// went away.
func late(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	return fault.Unavailablef("the policy took too long to decide, try again").Because(context.Cause(ctx))
}

// term turns plain facts into the engine's form.
func term(facts any) (*ast.Term, error) {
	v, err := ast.InterfaceToValue(facts)
	if err != nil {
		return nil, fault.Invalidf("the facts for the policy are not plain JSON values").Because(err)
	}
	return ast.NewTerm(v), nil
}

// facts is the read-only base document of one evaluation: what a document reads
// below data beside its own rules. It stands in for a store, so that nothing is
// shared between requests and no document can find what another request left.
type facts struct {
	storage.TriggersNotSupported
	storage.PolicyNotSupported
	storage.WritesNotSupported
	root ast.Object // nil is empty
}

type transaction struct{}

func (transaction) ID() uint64 { return 0 }

var _ storage.Store = facts{}

func (f facts) NewTransaction(context.Context, ...storage.TransactionParams) (storage.Transaction, error) {
	return transaction{}, nil
}

func (f facts) Read(_ context.Context, _ storage.Transaction, path storage.Path) (any, error) {
	var v ast.Value = ast.NewObject()
	if f.root != nil {
		v = f.root
	}
	for _, step := range path {
		var t *ast.Term
		switch v := v.(type) {
		case ast.Object:
			t = v.Get(ast.StringTerm(step))
		case *ast.Array: // data["resource-path"][0]: the engine asks with the index as text
			if i, err := strconv.Atoi(step); err == nil && i >= 0 && i < v.Len() {
				t = v.Elem(i)
			}
		}
		if t == nil {
			return nil, &storage.Error{Code: storage.NotFoundErr, Message: "no such fact"}
		}
		v = t.Value
	}
	return v, nil
}

func (f facts) Commit(context.Context, storage.Transaction) error { return nil }

func (f facts) Abort(context.Context, storage.Transaction) {}

func (f facts) Truncate(context.Context, storage.Transaction, storage.TransactionParams, storage.Iterator) error {
	return &storage.Error{Code: storage.WritesNotSupportedErr, Message: "the facts of a request cannot be written"}
}
