package flow

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"strconv"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/policy"
	"github.com/sallyport-project/sallyport/internal/subject"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// SetPolicy stores a new version of a document, after the whole set with it in
// place compiles and still lets an administrator change policies. Every replica
// decides by it from the commit on: units decided on older policies miss their
// check. The answer does not repeat the source.
func (g *Gate) SetPolicy(ctx context.Context, c Caller, name string, kind policy.Kind, source string) (policy.Document, error) {
	return g.changePolicy(ctx, c, name, "policy.set", []string{string(kind), source}, func(old policy.Document) (policy.Document, error) {
		next := policy.Document{Name: name, Version: old.Version + 1, Kind: kind, Source: source, State: policy.Active}
		if old.Version > 0 && old.Kind != kind {
			return next, fault.Conflictf("policy %s is of kind %s; choose another name for kind %s", name, old.Kind, kind)
		}
		return next, nil
	})
}

// RemovePolicy takes a document out of force. Its versions stay readable.
func (g *Gate) RemovePolicy(ctx context.Context, c Caller, name string) error {
	_, err := g.changePolicy(ctx, c, name, "policy.removed", nil, func(old policy.Document) (policy.Document, error) {
		if old.Version == 0 || old.State == policy.Removed {
			return old, fault.NotFoundf("there is no policy %s", name)
		}
		old.Version++
		old.State = policy.Removed
		return old, nil
	})
	return err
}

func (g *Gate) changePolicy(
	ctx context.Context, c Caller, name, recordType string, request []string, change func(policy.Document) (policy.Document, error),
) (policy.Document, error) {
	var next policy.Document
	c.keyed(recordType, plainAnswer[policy.Document]{&next, policyRemoved}, append([]string{name}, request...)...)
	err := g.decide(ctx, &c, func() (unit.Unit, error) {
		// The rows are read after the generation they are checked against.
		if err := g.Reload(ctx); err != nil {
			return unit.Unit{}, err
		}
		record := audit.Record{Type: recordType, Actor: c.actor(), Target: name, Data: map[string]string{}}
		d, err := g.administered(ctx, c, "set", record, "policy", name)
		if err != nil {
			return unit.Unit{}, err
		}
		all, err := g.Store.Policies(ctx)
		if err != nil {
			return unit.Unit{}, fault.Wrap(err, "read policies")
		}
		old, rest := split(all, name)
		if next, err = change(old); err != nil {
			return unit.Unit{}, err
		}
		next.Author, next.At = c.Subject.ID, g.Now().UTC()
		if err := next.Validate(); err != nil {
			return unit.Unit{}, err
		}
		set, err := policy.Compile(append(rest, next), g.Now)
		if err != nil {
			return unit.Unit{}, err
		}
		if err := g.someoneAdministers(ctx, c, set, nil); err != nil {
			return unit.Unit{}, err
		}
		sum := sha256.Sum256([]byte(next.Source))
		record.Policy = d.Documents
		record.Data["version"] = strconv.FormatInt(next.Version, 10)
		record.Data["kind"] = string(next.Kind)
		record.Data["sha256"] = hex.EncodeToString(sum[:])
		row := unit.Update(next)
		if next.Version == 1 {
			row = unit.Insert(next)
		}
		writes := append(g.still(c, d.under), row, unit.Insert(policy.Edition{Document: next}),
			unit.Do("generations.bump", 1, "the policies have changed, try again", "policy", d.under.generation))
		next.Source = ""
		return unit.Unit{Record: record, Writes: writes}, nil
	})
	if err != nil {
		return policy.Document{}, err
	}
	return next, g.Reload(ctx)
}

// policyRemoved refuses to say again that a document was put in force which was
// taken out of it since. A newer version does not matter: it says of which version
// it speaks.
func policyRemoved(ctx context.Context, g *Gate, was policy.Document) error {
	if was.State == policy.Removed {
		return nil // it says so
	}
	all, err := g.Store.Policies(ctx)
	if err != nil {
		return fault.Wrap(err, "read policies")
	}
	if now, _ := split(all, was.Name); now.Version == 0 || now.State == policy.Removed {
		return gone("the policy was removed")
	}
	return nil
}

// split takes the named document out of the list.
func split(all []policy.Document, name string) (policy.Document, []policy.Document) {
	var found policy.Document
	rest := make([]policy.Document, 0, len(all)+1)
	for _, d := range all {
		if d.Name == name {
			found = d
			continue
		}
		rest = append(rest, d)
	}
	return found, rest
}

// someoneAdministers refuses a change after which no active operator could
// change policies any more. The replacement, if any, stands for the row of the
// same subject.
func (g *Gate) someoneAdministers(ctx context.Context, c Caller, set *policy.Set, replacement *subject.Subject) error {
	var inputs []map[string]any
	for after := ""; ; {
		page, err := g.Store.Subjects(ctx, subject.Filter{Kind: subject.Operator, After: after, Limit: 256})
		if err != nil {
			return fault.Wrap(err, "read operators")
		}
		for _, s := range page {
			after = s.ID
			if replacement != nil && s.ID == replacement.ID {
				s = *replacement
			}
			if !s.Active() {
				continue
			}
			who := Caller{Subject: s, Via: c.Via, Address: c.Address, Method: c.Method}
			inputs = append(inputs, g.facts(who, input{action: "set", target: target("policy", "any")}))
		}
		if len(page) < 256 {
			return set.CanAdminister(ctx, inputs)
		}
	}
}

// keepAdministrator refuses a change to a subject that would leave nobody who
// can change policies. The write that it returns lets only one such change, or
// one of the policies, commit at a time: two operators who step down together
// would each rely on the other.
func (g *Gate) keepAdministrator(ctx context.Context, c Caller, under loaded, old, next subject.Subject) ([]unit.Write, error) {
	if old.Kind != subject.Operator || next.Active() && next.Role == old.Role && next.Team == old.Team {
		return nil, nil
	}
	err := g.someoneAdministers(ctx, c, under.set, &next)
	if fault.Is(err, fault.Invalid) {
		return nil, fault.Conflictf("this is the last operator who can change policies; appoint another one first").Because(err)
	}
	if err != nil {
		return nil, err
	}
	return []unit.Write{unit.Do("generations.bump", 1, "the operators have changed, try again", "policy", under.generation)}, nil
}

// ExplainPolicy answers how a verb would be decided for an input, by the
// documents in force or by others that the operator tries out.
func (g *Gate) ExplainPolicy(ctx context.Context, c Caller, verb string, in map[string]any) (policy.Explanation, error) {
	record := audit.Record{Type: "policy.explained", Actor: c.actor(), Target: verb}
	d, err := g.inspected(ctx, c, "explain", record, "policy", "")
	if err != nil {
		return policy.Explanation{}, err
	}
	return d.under.set.Explain(ctx, verb, in)
}
