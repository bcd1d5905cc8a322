package policy

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// ReferenceValues is where attestation policies find what evidence is compared
// with. A missing value is false and no error. It is called within [Limit], at
// most once per id and appraisal.
type ReferenceValues interface {
	ReferenceValue(ctx context.Context, id string) (value any, found bool, err error)
}

// Appraisal is what an attestation policy makes of evidence: the
// trustworthiness claims of EAR by name, each from -128 to 127, and what else
// the policy adds to the token.
type Appraisal struct {
	Claims     map[string]int
	Extensions []Extension
	Document   string // name@version
}

// Extension is a member that a policy adds to a submod of the token.
type Extension struct {
	Name  string
	Key   int64 // for the CBOR form; zero if the policy names none
	Value any   // JSON value
}

// maxExtensions bounds what one policy adds to a token.
const maxExtensions = 64

// trustClaims are the names of the trustworthiness vector (kbs.md 3.7).
var trustClaims = []string{
	"instance-identity", "configuration", "executables", "file-system",
	"hardware", "runtime-opaque", "storage-opaque", "sourced-data",
}

// Appraise evaluates the attestation policy with this name, for example
// default_cpu, on the claims of one piece of evidence (kbs.md 3.7). Within it
// query_reference_value(id) answers from refs, null when there is none.
//
// The fault is NotFound if no such document is active; Denied if the document
// breaks or its answer is no trust vector, so that no token is made of it;
// Unavailable when [Limit] has passed, the caller went away, or refs failed;
// Invalid when the input is no JSON.
func (s *Set) Appraise(ctx context.Context, documentID string, input map[string]any, refs ReferenceValues) (Appraisal, error) {
	p, ok := s.appraisals[documentID]
	if !ok {
		return Appraisal{}, fault.NotFoundf("there is no attestation policy %s", cut(documentID))
	}
	key, keep := p.reads.keyed(input, documentID)
	if keep {
		if known, ok := s.judged.recall(key); ok && known.stands(ctx, refs) {
			return known.clone().Appraisal, nil
		}
	}
	library := newLibrary(ctx, refs)
	out, err := s.appraise(ctx, p, input, library)
	if err != nil {
		return Appraisal{}, err
	}
	if answers, ok := library.kept(); ok && keep {
		s.judged.remember(key, appraised{out, answers}.clone())
	}
	return out, nil
}

// appraise evaluates the document.
func (s *Set) appraise(ctx context.Context, p *program, input map[string]any, library *library) (Appraisal, error) {
	in, err := p.reads.term(input)
	if err != nil {
		return Appraisal{}, err
	}
	q := &question{input: in, at: s.now()}
	ctx, done := begin(ctx, s.limit, q)
	defer done()
	q.builtins = library.builtins()

	vector, err := p.ask(ctx, "trust_claims", q)
	var extensions ast.Value
	if err == nil {
		extensions, err = p.ask(ctx, "extensions", q)
	}
	if late := late(ctx); late != nil {
		return Appraisal{}, late
	}
	if library.failed != nil {
		return Appraisal{}, fault.Unavailablef("the reference values cannot be read").Because(library.failed)
	}
	var b *brokenError
	switch {
	case errors.As(err, &b):
		return Appraisal{}, fault.Deniedf("%s", b.reason()).Because(err)
	case err != nil:
		return Appraisal{}, err
	}
	out, err := decodeAppraisal(vector, extensions)
	if err != nil {
		return Appraisal{}, fault.Deniedf("the policy %s answers nonsense: %s", p.document.Label(), err)
	}
	out.Document = p.document.Label()
	return out, nil
}

func decodeAppraisal(vector, extensions ast.Value) (Appraisal, error) {
	o, ok := vector.(ast.Object)
	if !ok || o.Len() == 0 {
		return Appraisal{}, errors.New("trust_claims is not an object with at least one claim")
	}
	out := Appraisal{Claims: make(map[string]int, o.Len())}
	err := o.Iter(func(k, v *ast.Term) error {
		name, ok := k.Value.(ast.String)
		if !ok || !slices.Contains(trustClaims, string(name)) {
			return fmt.Errorf("trust_claims has an unknown claim")
		}
		n, ok := v.Value.(ast.Number)
		if !ok {
			return fmt.Errorf("%s is not a number", string(name))
		}
		i, whole := n.Int()
		if !whole || i < -128 || i > 127 {
			return fmt.Errorf("%s is not a whole number from -128 to 127", string(name))
		}
		out.Claims[string(name)] = i
		return nil
	})
	if err != nil {
		return Appraisal{}, err
	}
	out.Extensions, err = decodeExtensions(extensions)
	return out, err
}

func decodeExtensions(v ast.Value) ([]Extension, error) {
	if v == nil {
		return nil, nil
	}
	var out []Extension
	var err error
	add := func(t *ast.Term) {
		e, one := decodeExtension(t.Value)
		if one != nil {
			err = one
		}
		out = append(out, e)
	}
	switch v := v.(type) {
	case *ast.Array:
		v.Foreach(add)
	case ast.Set:
		v.Foreach(add)
	default:
		return nil, errors.New("extensions is not a list")
	}
	if len(out) > maxExtensions {
		return nil, fmt.Errorf("extensions has more than %d entries", maxExtensions)
	}
	return out, err
}

func decodeExtension(v ast.Value) (Extension, error) {
	o, ok := v.(ast.Object)
	if !ok {
		return Extension{}, errors.New("an extension is not an object")
	}
	var out Extension
	valued := false
	err := o.Iter(func(k, v *ast.Term) error {
		key, _ := k.Value.(ast.String)
		switch key {
		case "name":
			s, ok := v.Value.(ast.String)
			if !ok || s == "" || len(s) > maxText {
				return errors.New("the name of an extension is not a string")
			}
			out.Name = string(s)
		case "key":
			n, ok := v.Value.(ast.Number)
			if out.Key, ok = wholeNumber(n, ok); !ok {
				return errors.New("the key of an extension is not a whole number")
			}
		case "value":
			var err error
			if out.Value, err = ast.JSON(v.Value); err != nil {
				return errors.New("the value of an extension is not JSON")
			}
			valued = true
		default:
			return errors.New("an extension has an unknown member")
		}
		return nil
	})
	if err == nil && (out.Name == "" || !valued) {
		err = errors.New("an extension needs name and value")
	}
	return out, err
}

func wholeNumber(n ast.Number, ok bool) (int64, bool) {
	if !ok {
		return 0, false
	}
	return n.Int64()
}
