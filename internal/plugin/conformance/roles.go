package conformance

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	own "github.com/sallyport-project/sallyport/api/sallyport/plugin/v1"
	"github.com/sallyport-project/sallyport/internal/id"
)

// The checks of the roles beside a vender, each for packages that have the role.
var (
	takesBack = expectation{
		"revoker/calls", "it answers for each of its kinds, and to a credential that does not exist",
		"answer within 5 s: with a refusal where something is wrong, not with an error of gRPC",
	}
	takesBackAgain = expectation{
		"revoker/again", "what it has revoked is revoked, also when it is asked again",
		"answer without a refusal for a credential that is gone already",
	}
	tellsPeople = expectation{
		"notifier/calls", "it answers to a notification, and to its repetition",
		"answer within 5 s: with a refusal where something is wrong, not with an error of gRPC",
	}
	judges = expectation{
		"verifier/calls", "it answers to whatever is shown as evidence",
		"answer within 5 s: with a refusal where something is wrong, not with an error of gRPC",
	}
	refusesNoEvidence = expectation{
		"verifier/refuses", "what is no evidence, is refused",
		"answer with a refusal, or with a check that has failed, unless every check has passed",
	}
)

// vends reports whether a package makes credentials, or has a part in that.
func (r *run) vends() bool {
	return r.m.Contract != manifest.ContractSallyport || r.m.Has(manifest.RoleVender)
}

// roleChecks call the roles beside a vender. The calls are real ones: of a
// credential that does not exist, and with a message that says that it is a test.
func (p *process) roleChecks(ctx context.Context) {
	if p.m.Has(manifest.RoleRevoker) {
		p.revokerChecks(ctx)
	}
	if p.m.Has(manifest.RoleNotifier) {
		p.judge(tellsPeople, p.notify(ctx), "")
	}
	if p.m.Has(manifest.RoleVerifier) {
		p.verifierChecks(ctx)
	}
}

func (p *process) revokerChecks(ctx context.Context) {
	client := own.NewRevokerClient(p.probe.Conn())
	problem, again := "", ""
	for _, kind := range p.m.Kinds {
		if _, err := inTime(ctx, p.Calls, func(ctx context.Context) (*own.SupportsRevocationResponse, error) {
			return client.SupportsRevocation(ctx, &own.SupportsRevocationRequest{Kind: kind})
		}); err != nil {
			problem = first(problem, "SupportsRevocation of "+kind+": "+said(err))
		}
		q := &own.RevokeRequest{Kind: kind, Handle: unknown, Reason: "conformance", IdempotencyId: id.New()}
		if p.m.Revocation.Needs == manifest.NeedsValue {
			q.Value = []byte(unknown)
		}
		revoked := false
		for range 2 {
			a, err := inTime(ctx, p.Calls, func(ctx context.Context) (*own.RevokeResponse, error) { return client.Revoke(ctx, q) })
			switch {
			case err != nil:
				problem = first(problem, "Revoke of "+kind+": "+said(err))
			case a.GetRefusal() != nil && revoked:
				again = first(again, "Revoke of "+kind+" is refused the second time: "+clip(a.GetRefusal().GetReason()))
			case a.GetRefusal() == nil:
				revoked = true
			}
		}
	}
	p.judge(takesBack, problem, fmt.Sprintf("%d kinds", len(p.m.Kinds)))
	p.judge(takesBackAgain, again, "")
}

// notify tells of an event that did not happen, twice under one id.
func (p *process) notify(ctx context.Context) string {
	q := &own.NotifyRequest{
		EventId: id.New(), Kind: "conformance.test", Urgency: own.Urgency_URGENCY_LOW, Title: "A test of this plugin: nothing has happened",
		Text: "A test of this plugin: nothing has happened", AtUnixMs: now().UnixMilli(),
	}
	for range 2 {
		_, err := inTime(ctx, p.Calls, func(ctx context.Context) (*own.NotifyResponse, error) {
			return own.NewNotifierClient(p.probe.Conn()).Notify(ctx, q)
		})
		if err != nil {
			return "Notify: " + said(err)
		}
	}
	return ""
}

// verifierChecks show what no device has made.
func (p *process) verifierChecks(ctx context.Context) {
	problem, taken, shown := "", "", 0
	for _, name := range p.m.Evidence {
		for _, body := range []string{`{}`, `null`, `[]`, `"` + unknown + `"`, `{"` + unknown + `": 1}`, `no JSON`, ``, `"` + strings.Repeat("x", 1<<20) + `"`} {
			shown++
			a, err := inTime(ctx, p.Calls, func(ctx context.Context) (*own.JudgeResponse, error) {
				return own.NewVerifierClient(p.probe.Conn()).Judge(ctx, &own.JudgeRequest{
					Name: name, Evidence: []byte(body), ReportData: []byte(strings.Repeat("r", 48)), AtUnixMs: now().Add(-time.Second).UnixMilli(),
				})
			})
			switch {
			case err != nil:
				problem = first(problem, "Judge of "+name+": "+said(err))
			case accepted(a):
				taken = first(taken, name+": "+clip(body)+" is taken for genuine")
			}
		}
	}
	p.judge(judges, problem, fmt.Sprintf("%d times", shown))
	p.judge(refusesNoEvidence, taken, "")
}

// accepted reports whether a host would take an answer for: this is genuine.
func accepted(a *own.JudgeResponse) bool {
	if a.GetRefusal() != nil || len(a.GetChecks()) == 0 {
		return false
	}
	for _, k := range a.GetChecks() {
		if k.GetResult() != own.Result_RESULT_PASS && k.GetResult() != own.Result_RESULT_SKIP {
			return false
		}
	}
	return true
}
