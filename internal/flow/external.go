package flow

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin/external"
	"github.com/sallyport-project/sallyport/internal/policy"
	"github.com/sallyport-project/sallyport/internal/seal"
	"github.com/sallyport-project/sallyport/internal/secret"
	"github.com/sallyport-project/sallyport/internal/token"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// Backends finds what answers below /kbs/v0/external.
type Backends interface {
	// Open reports whether anything answers at all.
	Open() bool
	// Find gives what answers below a name, NotFound if nothing does.
	Find(name string) (external.Backend, error)
}

// ExternalCall is a request for an external plugin, and who can vouch for it. The
// door knows how its callers are recognised; a fault of either function is the
// answer.
type ExternalCall struct {
	Name     string // of the backend
	Request  external.Request
	Operator func(context.Context) (Caller, error)
	Guest    func(context.Context) (Caller, token.Attested, error)
}

// ExternalAnswer is what the caller gets: a sealed answer, or the response as the
// plugin gave it.
type ExternalAnswer struct {
	Sealed   *seal.JWE
	Response external.Response // without body if it was sealed
	Rich     bool              // status and content type are the caller's to see
	Judged   bool              // the resource policy has allowed it
}

// Step is a part of an external call in which it can fail.
type Step int

// The steps of an external call.
const (
	StepFind     Step = iota // nothing answers below the name
	StepOperator             // no administrator, or one who may not
	StepGuest                // no attested guest
	StepPolicy               // the resource policy
	StepPlugin               // the plugin, or the way to it
	StepSeal                 // the guest's key
)

// StepError says in which step an external call failed.
type StepError struct {
	Step Step
	Rich bool // the cause is the caller's to see
	Err  error
}

func (e *StepError) Error() string { return e.Err.Error() }
func (e *StepError) Unwrap() error { return e.Err }

// External lets a request pass to an external plugin and returns its answer:
//
//   - the floors of manifest and configuration, then ValidateAuth, then what that
//     adds. With nothing declared, ValidateAuth alone decides between an
//     administrator and an attested guest, for every method, as in existing
//     brokers; nobody was recognised before it is asked.
//   - the decision is recorded before Handle, and the answer after it, each in a
//     unit that demands that caller and policies are still what they were. A
//     request of nobody (floor public) is counted and not recorded.
//   - a guest's answer is sealed unless the plugin says that it need not be.
//   - floors and answer are of one package: where it is replaced by another before
//     it was asked to handle the request, all begins again by the rules of that.
//
// Every fault is a [*StepError].
func (g *Gate) External(ctx context.Context, c ExternalCall) (ExternalAnswer, error) {
	if g.Backends == nil || !g.Backends.Open() {
		return ExternalAnswer{}, &StepError{Step: StepFind, Err: fault.NotFoundf("no external plugin is configured or installed")}
	}
	x := &externalCall{gate: g, call: c}
	var out ExternalAnswer
	var err error
	for range tries { // once more, by the new rules, if the package was replaced before it was asked
		if x.backend, err = g.Backends.Find(c.Name); err != nil {
			return ExternalAnswer{}, &StepError{Step: StepPlugin, Err: err}
		}
		x.about = x.backend.About()
		if out, err = x.run(ctx); !errors.Is(err, external.ErrReplaced) {
			break
		}
	}
	if err != nil {
		step := &StepError{Step: StepPlugin, Err: err}
		if known, ok := errors.AsType[*StepError](err); ok {
			*step = *known
		}
		step.Rich = x.about.Rules.Rich
		return ExternalAnswer{}, step
	}
	out.Rich = x.about.Rules.Rich
	return out, nil
}

// externalCall is one call of External on its way.
type externalCall struct {
	gate     *Gate
	call     ExternalCall
	backend  external.Backend
	about    external.About
	operator *Caller
	guest    *Caller
	attested token.Attested
}

func (x *externalCall) run(ctx context.Context) (ExternalAnswer, error) {
	r, rules := x.call.Request, x.about.Rules
	needs, silent := rules.Floor(r.Method, r.Path)
	if err := x.recognise(ctx, needs); err != nil {
		return ExternalAnswer{}, err
	}
	admin, err := x.backend.ValidateAuth(ctx, r)
	if err != nil {
		return ExternalAnswer{}, err
	}
	needs = needs.Raise(silent, admin)
	if err := x.recognise(ctx, needs); err != nil {
		return ExternalAnswer{}, err
	}
	if err := x.permit(ctx, "external.called", nil); err != nil {
		return ExternalAnswer{}, err
	}
	answer, err := x.handle(ctx, r)
	if errors.Is(err, external.ErrReplaced) {
		return ExternalAnswer{}, err
	}
	if err == nil && !answer.Success() && !(rules.Rich && answer.Refusal()) {
		err = fault.Unavailablef("the plugin did not serve the request")
	}
	if err != nil {
		return ExternalAnswer{}, x.failed(ctx, answer, err)
	}
	out, err := x.dress(ctx, needs, answer)
	if err != nil {
		return ExternalAnswer{}, x.failed(ctx, answer, err)
	}
	out.Judged = needs.Guest
	return out, x.permit(ctx, "external.answered", map[string]string{
		"status": strconv.Itoa(answer.Status), "sealed": strconv.FormatBool(out.Sealed != nil),
	})
}

// handle has the plugin answer, and tells it who calls if it is to know.
func (x *externalCall) handle(ctx context.Context, r external.Request) (answer external.Response, err error) {
	if r.Context, err = x.context(); err != nil {
		return external.Response{}, err
	}
	return x.backend.Handle(ctx, r)
}

// recognise finds out who calls, as far as that is needed and not known yet.
func (x *externalCall) recognise(ctx context.Context, n external.Needs) error {
	if n.Admin && x.operator == nil {
		c, err := x.call.Operator(ctx)
		if err != nil {
			return &StepError{Step: StepOperator, Err: err}
		}
		x.operator = &c
	}
	if n.Guest && x.guest == nil {
		c, attested, err := x.call.Guest(ctx)
		if err != nil {
			return &StepError{Step: StepGuest, Err: err}
		}
		x.guest, x.attested = &c, attested
	}
	return nil
}

// permit decides on what is true now, and records that this happens to whoever
// was let pass. It is asked before the plugin handles the request, and again
// before its answer leaves.
func (x *externalCall) permit(ctx context.Context, what string, data map[string]string) error {
	if x.operator != nil {
		if err := x.permitOperator(ctx, x.record(what, x.operator, data)); err != nil {
			return &StepError{Step: StepOperator, Err: err}
		}
		x.operator.Session.Proof = token.Proof{} // used up: a second unit must not use it again
	}
	if x.guest != nil {
		r := x.record(what, x.guest, data)
		r.Subject, r.Data["token"] = x.guest.Subject.ID, x.attested.ID
		if err := x.permitGuest(ctx, r); err != nil {
			return &StepError{Step: StepPolicy, Err: err}
		}
	}
	return nil
}

// maxTarget bounds how much of a path is recorded.
const maxTarget = 512

// record names the backend and the path. Neither query nor body is in it: they
// may hold secrets.
func (x *externalCall) record(what string, c *Caller, data map[string]string) audit.Record {
	target := strings.Join(append([]string{x.about.Name}, x.call.Request.Path...), "/")
	if len(target) > maxTarget {
		target = strings.ToValidUTF8(target[:maxTarget], "")
	}
	all := map[string]string{"method": x.call.Request.Method, "source": x.about.Source}
	for k, v := range data {
		all[k] = v
	}
	return audit.Record{Type: what, Actor: c.actor(), Target: target, Data: all}
}

func (x *externalCall) permitOperator(ctx context.Context, record audit.Record) error {
	g := x.gate
	return g.decide(ctx, x.operator, func() (unit.Unit, error) {
		d, err := g.administered(ctx, *x.operator, "call", record, "external", x.about.Name)
		if err != nil {
			return unit.Unit{}, err
		}
		record.Policy = d.Documents
		return unit.Unit{Record: record, Writes: g.still(*x.operator, d.under)}, nil
	})
}

func (x *externalCall) permitGuest(ctx context.Context, record audit.Record) error {
	g := x.gate
	if err := g.Clock.CheckClock(ctx); err != nil {
		return err
	}
	path := append([]string{x.about.Name}, x.call.Request.Path...)
	return g.decide(ctx, nil, func() (unit.Unit, error) {
		under, err := g.policies.now()
		if err != nil {
			return unit.Unit{}, err
		}
		holder, err := g.Store.Subject(ctx, x.guest.Subject.ID)
		if err != nil {
			return unit.Unit{}, unknown(err, "read workload")
		}
		if x.guest.Subject = holder; !holder.Active() {
			return unit.Unit{}, fault.Unauthenticatedf("the workload is %s", holder.State)
		}
		d, err := patiently(ctx, func() (policy.Decision, error) {
			return under.set.ResourceAllowed(ctx, policy.ResourceRequest{
				Plugin: "external", Path: path, Query: x.call.Request.Query, Method: x.call.Request.Method,
			}, policy.Claims{Token: x.attested.ID, Members: x.attested.Claims})
		})
		if err != nil {
			return unit.Unit{}, fault.Wrap(err, "decide external call")
		}
		record.Policy, record.Reasons = d.Documents, d.Reasons
		if !d.Allow {
			record.Reasons = appraised(d, x.attested)
			return unit.Unit{}, g.refuse(ctx, record, "policy does not allow this workload to call the plugin")
		}
		if err := g.gatedFor(ctx, *x.guest, x.attested, record, "external", x.about.Name, x.call.Request.Path); err != nil {
			return unit.Unit{}, err
		}
		return unit.Unit{Record: record, Writes: g.still(*x.guest, under)}, nil
	})
}

// dress seals what must be sealed.
func (x *externalCall) dress(ctx context.Context, needs external.Needs, answer external.Response) (ExternalAnswer, error) {
	sealed := needs.Guest && x.about.Rules.AlwaysSealed()
	if needs.Guest && !sealed {
		var err error
		sealed, err = x.backend.NeedsEncryption(ctx, x.call.Request)
		if errors.Is(err, external.ErrReplaced) { // it has answered and can be asked no more: sealing harms nobody
			sealed, err = true, nil
		}
		if err != nil {
			return ExternalAnswer{}, err
		}
	}
	if !sealed {
		return ExternalAnswer{Response: answer}, nil
	}
	plain := secret.New(answer.Body)
	defer plain.Wipe()
	jwe, err := x.gate.sealTo(x.attested.Key, plain)
	if err != nil {
		return ExternalAnswer{}, &StepError{Step: StepSeal, Err: err}
	}
	answer.Body = nil
	return ExternalAnswer{Sealed: &jwe, Response: answer}, nil
}

// failed records that a call which was let pass came to nothing, and returns the
// cause. The record is written even if the caller is gone.
func (x *externalCall) failed(ctx context.Context, answer external.Response, cause error) error {
	data := map[string]string{"status": strconv.Itoa(answer.Status)}
	for _, c := range []*Caller{x.operator, x.guest} {
		if c == nil {
			continue
		}
		r := x.record("external.answered", c, data)
		r.Outcome, r.Reasons = audit.Failed, []string{fault.Public(cause)}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), failedWithin)
		err := x.gate.commit(ctx, unit.Unit{Record: r})
		cancel()
		if err != nil {
			return fault.Unavailablef("the outcome of this request could not be recorded").Because(errors.Join(err, cause))
		}
	}
	return cause
}

const failedWithin = 5 * time.Second
