package flow

import (
	"context"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/id"
	"github.com/sallyport-project/sallyport/internal/policy"
)

// input is what a verb asks policy about, besides who asks
// (api/schema/policy-<verb>.json).
type input struct {
	action  string
	target  map[string]any // kind and id of the thing concerned
	request map[string]any // kind, params, ttl_seconds of what is asked for
	claims  map[string]any // of the attestation result, for guests
	// evidence says how the subject has shown who it is: kind join-token,
	// certificate or tee, and whether the host has verified it.
	evidence map[string]any
}

func target(kind, id string) map[string]any {
	t := map[string]any{"kind": kind}
	if id != "" {
		t["id"] = id
	}
	return t
}

// facts is the whole input document for policy.
func (g *Gate) facts(c Caller, in input) map[string]any {
	attributes := map[string]any{}
	for k, v := range c.Subject.Attributes {
		attributes[k] = v
	}
	out := map[string]any{
		"action": in.action,
		"subject": map[string]any{
			"id": c.Subject.ID, "kind": string(c.Subject.Kind), "state": string(c.Subject.State),
			"role": c.Subject.Role, "name": c.Subject.Name, "team": c.Subject.Team, "attributes": attributes,
		},
		"session": map[string]any{
			"id": c.Session.ID, "delegated": c.Session.Delegated(), "scopes": list(c.Session.Scopes.Strings()),
		},
		"context": map[string]any{
			"time": g.Now().UTC().Format(time.RFC3339), "door": c.Via, "address": c.Address, "method": c.Method,
		},
	}
	if in.target != nil {
		out["target"] = in.target
	}
	if in.request != nil {
		out["request"] = in.request
	}
	if in.evidence != nil {
		out["evidence"] = in.evidence
	}
	if in.claims != nil {
		out["claims"] = in.claims
	} else if c.claims != nil {
		out["claims"] = c.claims
	}
	return out
}

func list(items []string) []any {
	out := make([]any, 0, len(items))
	for _, item := range items {
		out = append(out, item)
	}
	return out
}

// decided is an allowing decision and the policies it was made under.
type decided struct {
	policy.Decision
	under loaded
}

// allowed asks policy whether the caller may do what the input says. A denial
// is recorded on the given record and returned as a fault of kind Denied; a
// missing answer is Unavailable. The caller learns the number of the record,
// not the reasons, which are the operator's. Who is allowed a call that was
// answered before gets to that answer here, by a [repeatedError].
func (g *Gate) allowed(ctx context.Context, c Caller, verb string, r audit.Record, in input) (decided, error) {
	if err := g.within(ctx, c, verb, r, in); err != nil {
		return decided{}, err
	}
	for {
		under, err := g.policies.now()
		if err != nil {
			return decided{}, err
		}
		d, err := patiently(ctx, func() (policy.Decision, error) { return under.set.Decide(ctx, verb, g.facts(c, in)) })
		if err != nil {
			return decided{}, fault.Wrap(err, "decide %s", verb)
		}
		if d.Allow {
			if err := g.gated(ctx, c, verb, r, in); err != nil {
				return decided{}, err
			}
			yes := decided{Decision: d, under: under}
			return yes, g.firstAnswer(ctx, c, yes)
		}
		// A unit finds out that it was allowed by old policies; a denial has to
		// ask.
		if err := g.Reload(ctx); err != nil {
			return decided{}, err
		}
		if now, err := g.policies.now(); err != nil || now.generation == under.generation {
			r.Reasons, r.Policy = d.Reasons, d.Documents
			return decided{}, g.refuse(ctx, r, "policy does not allow this to role "+c.Subject.Role)
		}
	}
}

// patiently asks policy once more when it ran out of its time: evaluating takes
// microseconds, so what is late is a machine that stood still. A second delay is
// an answer of its own.
func patiently[T any](ctx context.Context, ask func() (T, error)) (T, error) {
	answer, err := ask()
	if fault.Is(err, fault.Unavailable) && ctx.Err() == nil {
		return ask()
	}
	return answer, err
}

// within demands that a narrowed session covers what it is used for, whatever
// policy says: scopes only ever take away. Admission is not among what they
// name: refreshing keeps the scopes and delegating narrows them, the certificate
// alone could do either, and a delegate can do neither.
func (g *Gate) within(ctx context.Context, c Caller, verb string, r audit.Record, in input) error {
	if c.Session.ID == "" || verb == "admit" || c.Session.Allows(verb, object(in)) {
		return nil
	}
	return g.refuse(ctx, r, "the session's scopes do not cover this")
}

// object is what a session scope names: the kind of a credential, else the
// kind and id of the target.
func object(in input) string {
	if kind, ok := in.request["kind"].(string); ok && kind != "" {
		return kind
	}
	kind, _ := in.target["kind"].(string)
	if name, ok := in.target["id"].(string); ok && name != "" {
		return kind + "/" + name
	}
	return kind
}

func newID() string { return id.New() }
