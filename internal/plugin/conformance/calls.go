package conformance

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sallyport-project/sallyport/internal/grant"
)

var (
	grants = expectation{
		"calls/request", "it grants what it is asked for rightly",
		"correct the request in conformance.json, or the plugin",
	}
	knowsItsParams = expectation{
		"calls/unknown", "a parameter that nobody knows is refused",
		"describe the parameters of each kind in plugin.json (params), so that the host refuses others; or refuse what you do not know",
	}
	expires = expectation{
		"calls/expiry", "no credential lives longer than its scope",
		"give the provider the life that was granted, and answer with the time at which the credential really ends",
	}
	isPunctual = expectation{
		"calls/deadline", "it answers within the host's deadline",
		"answer within 5 s, also when the provider is slow: honour the call's context",
	}
	isParallel = expectation{
		"calls/parallel", "it answers 64 calls at once",
		"serve calls concurrently",
	}
	isHealthy = expectation{
		"calls/health", "it answers the host's health check",
		"serve grpc.health.v1, or answer Info (agentkms.plugin.v1: Kind) at any time",
	}
)

// unknown is a parameter that no plugin has.
const unknown = "conformance_unknown"

// callChecks call it rightly and wrongly.
func (p *process) callChecks(ctx context.Context) {
	if p.vends() {
		p.requestCheck(ctx)
		p.unknownCheck(ctx)
		p.narrowCheck(ctx)
		p.expiryCheck(ctx)
		p.deadlineCheck(ctx)
		p.parallelCheck(ctx)
	} else {
		for _, e := range []expectation{grants, knowsItsParams, narrowsOnly, expires, isPunctual, isParallel} {
			p.add(e, Skipped, "the package has no role that makes credentials")
		}
	}
	p.roleChecks(ctx)
	limited, cancel := context.WithTimeout(ctx, p.Calls)
	err := p.probe.Check(limited)
	cancel()
	p.judge(isHealthy, said(err), "it is well")
	p.roughChecks(ctx)
}

// said is what an error says, without its wrapping of gRPC.
func said(err error) string {
	if err == nil {
		return ""
	}
	return clip(err.Error())
}

// clip keeps messages readable.
func clip(s string) string {
	const most = 300
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}

// try makes one call within the deadline, and remembers the credential.
func (p *process) try(ctx context.Context, s grant.Scope, b grant.Bounds) (issued, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, p.Calls)
	defer cancel()
	out, ok, err := p.wire.issue(ctx, s, b)
	if len(out.value) > 0 {
		p.seen = append(p.seen, out.value)
	}
	return out, ok, err
}

// requestCheck tries the examples, and keeps those that are granted.
func (p *process) requestCheck(ctx context.Context) {
	problem, hint := "", ""
	for _, x := range p.examples() {
		s := x.scope(now())
		_, _, err := p.try(ctx, s, open(s))
		_, no := errors.AsType[refused](err)
		switch {
		case err == nil:
			p.good = append(p.good, x)
		case no && x.madeUp:
			hint = fmt.Sprintf("%s is %s: give requests that it grants, in conformance.json or with --requests", x.Kind, said(err))
		default:
			problem = fmt.Sprintf("%s: %s", x.Kind, said(err))
		}
	}
	if problem == "" && len(p.good) == 0 {
		p.add(grants, Skipped, hint)
		return
	}
	p.judge(grants, problem, fmt.Sprintf("%d requests", len(p.good)))
}

// unknownCheck asks for something that does not exist, beside what is right.
func (p *process) unknownCheck(ctx context.Context) {
	for _, x := range p.examples() {
		if _, ok := p.m.Params[x.Kind]; ok {
			continue // the host refuses it by the form
		}
		s := x.scope(now())
		s.Params[unknown] = "x"
		if _, _, err := p.try(ctx, s, open(s)); err == nil {
			p.add(knowsItsParams, Fail, "kind "+x.Kind+" is granted with a parameter "+unknown)
			return
		}
	}
	p.add(knowsItsParams, Pass, "by the host where the manifest has a form, by the plugin where it has none")
}

// nothingGranted is why checks are skipped that need a granted request.
const nothingGranted = "no request was granted, see calls/request"

// expiryCheck compares ends.
func (p *process) expiryCheck(ctx context.Context) {
	const slack = 2 * time.Second
	if len(p.good) == 0 {
		p.add(expires, Skipped, nothingGranted)
		return
	}
	for _, x := range p.good {
		s := x.scope(now())
		out, makes, err := p.try(ctx, s, open(s))
		switch {
		case err != nil:
			p.add(expires, Fail, said(err))
			return
		case !makes:
			p.add(expires, Skipped, "the package has no role that makes credentials")
			return
		case out.expires.IsZero():
			p.add(expires, Skipped, "it does not say when credentials end; the host takes the lease")
			return
		case out.expires.After(now().Add(s.TTL + slack)):
			p.add(expires, Fail, fmt.Sprintf("%s is granted for %s and lives until %s", x.Kind, s.TTL, out.expires.UTC().Format(time.RFC3339)))
			return
		}
	}
	p.add(expires, Pass, "")
}

// deadlineCheck calls some times in a row.
func (p *process) deadlineCheck(ctx context.Context) {
	if len(p.good) == 0 {
		p.add(isPunctual, Skipped, nothingGranted)
		return
	}
	var slowest time.Duration
	for range 20 {
		for _, x := range p.good {
			s := x.scope(now())
			begun := time.Now()
			if _, _, err := p.try(ctx, s, open(s)); err != nil {
				p.add(isPunctual, Fail, said(err))
				return
			}
			slowest = max(slowest, time.Since(begun))
		}
	}
	p.judge(isPunctual, late(slowest, p.Calls), "the slowest took "+slowest.Round(10*time.Microsecond).String())
}

// parallelCheck calls at the same time.
func (p *process) parallelCheck(ctx context.Context) {
	if len(p.good) == 0 {
		p.add(isParallel, Skipped, nothingGranted)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, p.Calls)
	defer cancel()
	const calls = 64
	failures := make(chan error, calls)
	var wait sync.WaitGroup
	for n := range calls {
		wait.Go(func() {
			s := p.good[n%len(p.good)].scope(now())
			if _, _, err := p.wire.issue(ctx, s, open(s)); err != nil {
				failures <- err
			}
		})
	}
	wait.Wait()
	close(failures)
	problem := ""
	if n := len(failures); n > 0 {
		problem = fmt.Sprintf("%d of %d failed: %s", n, calls, said(<-failures))
	}
	p.judge(isParallel, problem, "")
}
