package plugintest

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"time"

	own "github.com/sallyport-project/sallyport/api/sallyport/plugin/v1"
	"github.com/sallyport-project/sallyport/sdk/plugin"
)

// Vet asks a Vender whether a scope is well-formed.
func (p *Plugin) Vet(ctx context.Context, s plugin.Scope) error {
	scope, err := wireScope(s)
	if err != nil {
		return err
	}
	a, err := p.stream.call(ctx, &own.HostFrame{Body: &own.HostFrame_Vet{Vet: &own.VetRequest{Scope: scope}}})
	if err == nil && a.GetVet() == nil {
		err = wrong("Vet")
	}
	return err
}

// Issue asks a Vender for a credential. Bounds without a kind and a time are those of
// the request: policy takes nothing away.
func (p *Plugin) Issue(ctx context.Context, r plugin.Request) (plugin.Issued, error) {
	s := r.Scope
	s.Params = maps.Clone(s.Params)
	for name, v := range r.Host {
		if s.Params == nil {
			s.Params = map[string]any{}
		}
		s.Params[own.HostPrefix+name] = v
	}
	scope, err := wireScope(s)
	if err != nil {
		return plugin.Issued{}, err
	}
	limits, err := own.EncodeParams(r.Bounds.MaxParams)
	if err != nil {
		return plugin.Issued{}, fmt.Errorf("encode bounds: %w", err)
	}
	b := &own.Bounds{Kind: r.Bounds.Kind, MaxParams: limits, MaxTtlSeconds: int64(r.Bounds.MaxTTL / time.Second)}
	if b.GetKind() == "" && b.GetMaxTtlSeconds() == 0 {
		b.Kind, b.MaxTtlSeconds = scope.GetKind(), scope.GetTtlSeconds()
	}
	a, err := p.stream.call(ctx, &own.HostFrame{Body: &own.HostFrame_Issue{Issue: &own.IssueRequest{Requested: scope, Bounds: b}}})
	if err != nil {
		return plugin.Issued{}, err
	}
	i := a.GetIssue()
	if i == nil {
		return plugin.Issued{}, wrong("Issue")
	}
	out := plugin.Issued{Value: i.GetValue(), Handle: i.GetHandle()}
	if out.Scope, err = readScope(i.GetScope()); err != nil {
		return plugin.Issued{}, err
	}
	if t := i.GetExpiresAtUnix(); t > 0 {
		out.ExpiresAt = time.Unix(t, 0).UTC()
	}
	for _, x := range i.GetAnomalies() {
		out.Anomalies = append(out.Anomalies, plugin.Anomaly{Level: plugin.Level(x.GetLevel()), Code: x.GetCode(), Message: x.GetMessage()})
	}
	return out, nil
}

// Supports asks a Revoker whether it can take credentials of a kind back at all.
func (p *Plugin) Supports(ctx context.Context, kind string) (bool, error) {
	a, err := own.NewRevokerClient(p.conn).SupportsRevocation(ctx, &own.SupportsRevocationRequest{Kind: kind})
	return a.GetSupported(), err
}

// Revoke asks a Revoker to take one credential back.
func (p *Plugin) Revoke(ctx context.Context, r plugin.Revocation) error {
	a, err := own.NewRevokerClient(p.conn).Revoke(ctx, &own.RevokeRequest{
		Kind: r.Kind, Handle: r.Handle, Value: r.Value, Reason: r.Reason, IdempotencyId: r.Idempotency,
	})
	if err == nil && a.GetRefusal() != nil {
		err = refused(a.GetRefusal())
	}
	return err
}

// Notify tells a Notifier of an event.
func (p *Plugin) Notify(ctx context.Context, n plugin.Notification) error {
	a, err := own.NewNotifierClient(p.conn).Notify(ctx, &own.NotifyRequest{
		EventId: n.ID, Kind: n.Kind, Urgency: own.Urgency(n.Urgency), Title: n.Title, Text: n.Text, Fields: n.Fields, AtUnixMs: n.At.UnixMilli(),
	})
	if err == nil && a.GetRefusal() != nil {
		err = refused(a.GetRefusal())
	}
	return err
}

// Judge gives a Verifier a piece of evidence. The checks come also with an error.
func (p *Plugin) Judge(ctx context.Context, e plugin.Evidence) (plugin.Judgement, error) {
	a, err := own.NewVerifierClient(p.conn).Judge(ctx, &own.JudgeRequest{
		Name: e.Name, Evidence: e.Body, ReportData: e.ReportData, InitData: e.InitData, Unbound: e.Unbound, AtUnixMs: e.At.UnixMilli(),
	})
	if err != nil {
		return plugin.Judgement{}, err
	}
	j := plugin.Judgement{Class: plugin.Class(a.GetDeviceClass()), ReportData: a.GetReportData(), InitData: a.GetInitData()}
	for _, k := range a.GetChecks() {
		j.Checks = append(j.Checks, plugin.Check{
			Name: k.GetName(), Expected: k.GetExpected(), Seen: k.GetSeen(), Result: plugin.Result(k.GetResult()), Reason: k.GetReason(), Section: k.GetSection(),
		})
	}
	if a.GetRefusal() != nil {
		return j, refused(a.GetRefusal())
	}
	return j, json.Unmarshal(a.GetClaims(), &j.Claims)
}

// Hook tells an Extension of an event, as a host does: at least once.
func (p *Plugin) Hook(ctx context.Context, e plugin.Event) error {
	if e.Facts == nil {
		e.Facts = map[string]string{}
	}
	data, err := json.Marshal(e.Facts)
	if err != nil {
		return fmt.Errorf("encode facts: %w", err)
	}
	a, err := p.stream.call(ctx, &own.HostFrame{Body: &own.HostFrame_Hook{Hook: &own.HookRequest{
		Id: e.ID, Position: e.Position, Type: e.Type, Subject: e.Subject, AtUnixMs: e.At.UnixMilli(), Data: data,
	}}})
	if err == nil && a.GetHook() == nil {
		err = wrong("Hook")
	}
	return err
}

// Gate asks an Extension before a decision.
func (p *Plugin) Gate(ctx context.Context, gate string, q plugin.Question) (plugin.Verdict, error) {
	question, err := json.Marshal(q)
	if err != nil {
		return plugin.Verdict{}, fmt.Errorf("encode question: %w", err)
	}
	a, err := p.stream.call(ctx, &own.HostFrame{Body: &own.HostFrame_Gate{Gate: &own.GateRequest{Gate: gate, Question: question}}})
	if err == nil && a.GetGate() == nil {
		err = wrong("Gate")
	}
	return plugin.Verdict{Allow: a.GetGate().GetAllow(), Reason: a.GetGate().GetReason()}, err
}

func wireScope(s plugin.Scope) (*own.Scope, error) {
	params, err := own.EncodeParams(s.Params)
	if err != nil {
		return nil, fmt.Errorf("encode parameters: %w", err)
	}
	return &own.Scope{Kind: s.Kind, Params: params, TtlSeconds: int64(s.TTL / time.Second)}, nil
}

func readScope(s *own.Scope) (plugin.Scope, error) {
	params, err := own.DecodeParams(s.GetParams())
	if err != nil {
		return plugin.Scope{}, fmt.Errorf("the plugin's parameters are no JSON object: %w", err)
	}
	return plugin.Scope{Kind: s.GetKind(), Params: params, TTL: time.Duration(s.GetTtlSeconds()) * time.Second}, nil
}
