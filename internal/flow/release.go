package flow

import (
	"context"
	"errors"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/secret"
	"github.com/sallyport-project/sallyport/internal/signal"
	"github.com/sallyport-project/sallyport/internal/subject"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// VendRequest asks for a credential.
type VendRequest struct {
	Kind   string
	Params map[string]any // JSON values
	TTL    time.Duration  // wanted; policy may shorten it
}

// Vended is a credential that was handed out.
type Vended struct {
	Grant     string
	Kind      string
	Value     secret.Bytes
	Private   secret.Bytes // of a key pair that was made for it, else empty
	Params    map[string]any
	IssuedAt  time.Time
	ExpiresAt time.Time
	Source    grant.Source
	Anomalies []grant.Anomaly
}

// Vend releases a credential: validate, ask policy, narrow, validate, analyse,
// serialise, make, check, record, hand out, in this order. The provider does
// the stages that only it understands (grant.Provider); everything that it
// answers is checked here against the request and the bounds.
//
// Nothing leaves before the grant is durable. For a provider without outside
// effects a lost commit loses nothing: the credential exists nowhere. For one
// with effects an intent is durable before it is called.
func (g *Gate) Vend(ctx context.Context, c Caller, r VendRequest) (Vended, error) {
	if err := r.validate(); err != nil {
		return Vended{}, err
	}
	if err := needSession(c); err != nil {
		return Vended{}, err
	}
	if err := g.Clock.CheckClock(ctx); err != nil {
		return Vended{}, err
	}
	provider, err := g.Providers.Provider(r.Kind)
	if err != nil {
		return Vended{}, err
	}
	requested := grant.Scope{Kind: r.Kind, Params: r.Params, TTL: r.TTL}
	hash := requested.Hash()
	forwarded := requested
	if signer, signs := g.Signers[r.Kind]; signs {
		forwarded = signer.Forward(requested)
	}
	if err := provider.Vet(ctx, forwarded); err != nil {
		return Vended{}, g.refusedBy(ctx, audit.Record{
			Type: "grant.issued", Actor: c.actor(), Subject: c.Subject.ID,
			Data: map[string]string{"kind": r.Kind, "plugin": provider.Source().Plugin, "requested": hash},
		}, err)
	}
	call := vending{gate: g, caller: c, request: r, requested: requested, hash: hash, provider: provider}
	call.caller.keyed("grant.issued", vendedAnswer{&call.out}, call.hash)
	if call.caller.call != nil {
		// Where making has no effect it is made first, and the first answer looked up
		// when the key turns out to be taken: nearly every request is the first of its
		// key.
		call.caller.call.late = provider.Source().Effects == grant.EffectsNone
	}
	err = g.decide(ctx, &call.caller, func() (unit.Unit, error) {
		call.submitted = false
		u, err := call.attempt(ctx)
		call.submitted = err == nil
		return u, err
	})
	if err != nil {
		call.abandon(ctx, err)
		return Vended{}, err
	}
	return call.out, nil
}

// refusedBy records that a provider denied a request, as policy's denials are
// recorded. Other faults of a provider pass: a request that is not well-formed
// was decided by nobody, and a broken provider has its own status.
func (g *Gate) refusedBy(ctx context.Context, r audit.Record, err error) error {
	if !fault.Is(err, fault.Denied) {
		return err
	}
	r.Reasons = []string{fault.Public(err)}
	return g.refuse(ctx, r, fault.Public(err))
}

func (r VendRequest) validate() error {
	switch {
	case r.Kind == "" || len(r.Kind) > 64:
		return fault.Invalidf("name the kind of credential, for example ssh-user-cert")
	case r.TTL < time.Second:
		return fault.Invalidf("ask for a lifetime of at least one second")
	case r.TTL > 365*24*time.Hour:
		return fault.Invalidf("ask for a lifetime of at most a year")
	}
	for name := range r.Params {
		if strings.HasPrefix(name, grant.HostPrefix) {
			return fault.Invalidf("parameters that begin with host. are set by the host alone")
		}
	}
	return nil
}

// vending is one call of Vend on its way.
type vending struct {
	gate      *Gate
	caller    Caller
	request   VendRequest
	requested grant.Scope
	hash      string // of what was requested
	provider  grant.Provider

	intent    *grant.Grant // committed, for a provider with outside effects
	refused   bool         // the provider said that it made nothing
	submitted bool         // the unit that releases was handed to the ledger
	out       Vended
}

// attempt decides once on what is true now. The returned unit makes the grant
// active; its commit is what releases the credential.
func (v *vending) attempt(ctx context.Context) (unit.Unit, error) {
	g, c := v.gate, v.caller
	v.out = Vended{}
	v.end(ctx, "decided anew")
	source := v.provider.Source()
	record := audit.Record{
		Type: "grant.issued", Actor: c.actor(), Subject: c.Subject.ID,
		Data: map[string]string{
			"kind": v.request.Kind, "plugin": source.Plugin, "plugin_version": source.Version, "plugin_digest": source.Digest,
			"requested": v.hash,
		},
	}
	d, err := g.allowed(ctx, c, "release", record, input{action: "vend", request: v.facts()})
	if err == nil {
		err = c.asked.under(ctx, d.under)
	}
	if err != nil {
		return unit.Unit{}, err
	}
	bounds := grant.Bounds{Kind: d.Bounds.Kind, MaxParams: d.Bounds.MaxParams, MaxTTL: d.Bounds.MaxTTL}
	now := g.Now().UTC().Truncate(time.Microsecond)
	made := grant.Grant{
		ID: newID(), Version: 1, State: grant.Active, Subject: c.Subject.ID, Session: c.Session.ID, Kind: v.request.Kind,
		Scope: v.requested, Source: source, Policy: d.Documents, IssuedAt: now, ExpiresAt: now.Add(min(v.request.TTL, bounds.MaxTTL)),
	}
	if source.Effects == grant.EffectsRemote {
		if err := v.commitIntent(ctx, d, made); err != nil {
			return unit.Unit{}, err
		}
		made = *v.intent
	}
	issued, err := v.issue(ctx, &made, bounds)
	if o, ok := errors.AsType[*overstepError](err); ok {
		return unit.Unit{}, v.overstepped(ctx, record, made, d, o)
	}
	if err != nil {
		record.Policy = d.Documents
		return unit.Unit{}, g.refusedBy(ctx, record, err)
	}
	return v.activate(d, made, issued, record)
}

// issue lets the provider make the credential and checks what it made.
func (v *vending) issue(ctx context.Context, made *grant.Grant, bounds grant.Bounds) (grant.Issued, error) {
	g := v.gate
	asked := v.requested
	asked.TTL = min(asked.TTL, bounds.MaxTTL)
	signer, signs := g.Signers[v.request.Kind]
	var prepared grant.Prepared
	var err error
	if signs {
		holder := grant.Holder{Grant: made.ID, Subject: v.caller.Subject.ID, Name: v.caller.Subject.Name, Now: made.IssuedAt}
		if prepared, err = signer.Prepare(asked, holder); err != nil {
			return grant.Issued{}, err
		}
	} else {
		prepared.Scope = asked
	}
	if v.intent != nil && made.Source.Revocable {
		prepared.Scope = named(prepared.Scope, made.ID)
	}
	issued, err := v.provider.Issue(ctx, prepared.Scope, bounds)
	if err != nil {
		v.refused = fault.Is(err, fault.Invalid) || fault.Is(err, fault.Denied)
		return grant.Issued{}, err
	}
	if err := v.remember(issued); err != nil {
		return grant.Issued{}, err
	}
	if err := grant.Within(issued.Scope, prepared.Scope, bounds); err != nil {
		return grant.Issued{}, &overstepError{"answered with more than was allowed", err}
	}
	made.Scope, made.Handle = issued.Scope.WithoutHost(), issued.Handle
	made.ExpiresAt = made.IssuedAt.Add(issued.Scope.TTL)
	if signs {
		signed, err := signer.Finish(prepared, issued.Scope, issued.Value)
		if err != nil {
			return grant.Issued{}, &overstepError{"proposed another credential than was decided", err}
		}
		issued.Value, issued.ExpiresAt, made.Handle = signed.Value, signed.ExpiresAt, prepared.Handle
		v.out.Private = prepared.Private
	}
	// An opaque value may die earlier than the lease, never later by our word.
	if !issued.ExpiresAt.IsZero() && issued.ExpiresAt.Before(made.ExpiresAt) {
		made.ExpiresAt = issued.ExpiresAt
	}
	if !made.ExpiresAt.After(made.IssuedAt) {
		return grant.Issued{}, &overstepError{"issued a credential that has expired already", nil}
	}
	// What could not be recognised again when it leaks is not handed out.
	if n := len(signal.Trim(issued.Value.Reveal())); n == 0 || issued.Value.Len() > signal.MaxValue {
		return grant.Issued{}, &overstepError{"issued a credential without a value, or too long a one", nil}
	}
	made.Scope.IssuedAt, made.Scope.ExpiresAt = made.IssuedAt, made.ExpiresAt
	made.DueAt = made.ExpiresAt
	return issued, nil
}

// activate is the unit by which the grant becomes real.
func (v *vending) activate(d decided, made grant.Grant, issued grant.Issued, record audit.Record) (unit.Unit, error) {
	g := v.gate
	v.out = Vended{
		Grant: made.ID, Kind: made.Kind, Value: issued.Value, Private: v.out.Private, Params: made.Scope.Params,
		IssuedAt: made.IssuedAt, ExpiresAt: made.ExpiresAt, Source: made.Source, Anomalies: issued.Anomalies,
	}
	if made.Source.KeepValue {
		sealed, err := g.Envelope.Seal("grant-values", made.ID, 1, issued.Value)
		if err != nil {
			return unit.Unit{}, fault.Wrap(err, "seal value of grant")
		}
		made.Sealed = sealed
	}
	writes := g.still(v.caller, d.under)
	prints, err := g.fingerprints(issued.Value, v.out.Private)
	if err != nil {
		return unit.Unit{}, err
	}
	made.Fingerprints = prints
	if v.intent != nil {
		active, err := v.intent.To(grant.Active, "", g.Now())
		if err != nil {
			return unit.Unit{}, err
		}
		made.Version, made.State = active.Version, active.State
		writes = append(writes, unit.Update(made))
	} else {
		writes = append(writes, unit.Insert(made))
	}
	record.Grant, record.Policy, record.Reasons = made.ID, d.Documents, anomalies(issued.Anomalies)
	record.Data["scope"] = made.Scope.Hash()
	record.Data["expires_at"] = made.ExpiresAt.UTC().Format(time.RFC3339Nano)
	record.Data["handle"] = made.Handle
	if params, err := canon.AppendValue(nil, made.Scope.Params); err == nil && len(params) <= 8<<10 {
		record.Data["params"] = string(params)
	}
	return unit.Unit{Writes: writes, Record: record}, nil
}

// fingerprints are what secrets are recognised by when they leak.
func (g *Gate) fingerprints(values ...secret.Bytes) ([]string, error) {
	var prints []string
	for _, value := range values {
		if value.Len() > 0 {
			sum := signal.Signal{Value: value}
			digest, err := sum.Sum()
			if err != nil {
				return nil, fault.Wrap(err, "fingerprint credential")
			}
			prints = append(prints, g.Pepper.Fingerprint(digest))
		}
	}
	return prints, nil
}

// named adds the grant's id to what a provider with outside effects is asked
// for: it is by that name that a credential is taken back whose making was not
// heard of.
func named(s grant.Scope, id string) grant.Scope {
	params := make(map[string]any, len(s.Params)+1)
	maps.Copy(params, s.Params)
	params[grant.HostPrefix+"grant"] = id
	s.Params = params
	return s
}

// overstepError is a provider's answer that the host does not hand out.
type overstepError struct {
	how   string
	cause error
}

func (e *overstepError) Error() string { return e.how }
func (e *overstepError) Unwrap() error { return e.cause }

// overstepped records that a provider answered with something else than was
// decided. Nothing was issued.
func (v *vending) overstepped(ctx context.Context, r audit.Record, made grant.Grant, d decided, o *overstepError) error {
	r.Type, r.Outcome, r.Policy, r.Reasons = "plugin.overstepped", audit.Failed, d.Documents, []string{o.how}
	r.Target = made.Source.Plugin
	if o.cause != nil {
		r.Reasons = append(r.Reasons, fault.Public(o.cause))
	}
	if err := v.gate.commit(ctx, unit.Unit{Record: r}); err != nil {
		return fault.Unavailablef("the answer of the plugin for %s was refused, and that could not be recorded", v.request.Kind).Because(err)
	}
	return fault.Unavailablef("the plugin for %s %s; nothing was issued", v.request.Kind, o.how).Because(o.cause)
}

func anomalies(found []grant.Anomaly) []string {
	var out []string
	for _, a := range found {
		out = append(out, "anomaly "+strconv.Itoa(int(a.Level))+" "+a.Code+": "+a.Message)
	}
	return out
}

// facts is the request as policy sees it.
func (v *vending) facts() map[string]any {
	params := v.request.Params
	if params == nil {
		params = map[string]any{}
	}
	return map[string]any{"kind": v.request.Kind, "params": params, "ttl_seconds": float64(v.request.TTL / time.Second)}
}

// needSession demands a session of agents: a certificate alone opens sessions
// and nothing else. Operators act with their certificate, workloads with what was
// found out about them, plugins by the process that the host has started.
func needSession(c Caller) error {
	if c.Session.ID == "" && c.Subject.Kind != subject.Operator && c.Subject.Kind != subject.Plugin && c.claims == nil {
		return fault.Unauthenticatedf("open a session with this certificate and send its token along")
	}
	return nil
}
