package conformance

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	kbsplugin "github.com/sallyport-project/sallyport/api/kbs/plugin/v1"
	"github.com/sallyport-project/sallyport/internal/plugin/external"
)

var (
	kbsAnswers = expectation{
		"kbs/calls", "it answers the three calls, also for a path that it does not know",
		"answer an unknown path with a status such as 404, not with an error of gRPC",
	}
	kbsSteady = expectation{
		"kbs/steady", "it says the same of the same request, each time",
		"decide ValidateAuth and NeedsEncryption by the request alone: brokers ask in separate calls",
	}
	kbsBody = expectation{
		"kbs/body", "it takes a body of 2 MiB",
		"leave the limit of received messages at 4 MiB or above",
	}
	kbsParallel = expectation{"kbs/parallel", "it answers 64 calls at once", "serve calls concurrently"}
	kbsCancel   = expectation{
		"kbs/cancel", "after 50 calls that were given up it goes on",
		"end the work of a call when its context ends, and nothing else",
	}
	kbsHealth = expectation{
		"kbs/health", "its health service, if it has one, says that it serves",
		"set the status of " + kbsplugin.Service + " to SERVING once it serves",
	}
)

// RunAddress makes the checks of kbs.plugin.v1 against a plugin that runs
// elsewhere. They are real calls, GET of a path that no plugin should know. Its
// error says that the address cannot be used (Invalid).
func RunAddress(ctx context.Context, a external.Address, calls time.Duration) (Report, error) {
	if calls <= 0 {
		calls = 5 * time.Second
	}
	wire, end, err := external.Connect(a)
	if err != nil {
		return Report{}, err
	}
	defer end()
	r := &run{Config: Config{Calls: calls}, report: Report{Plugin: a.Endpoint, Sandbox: "off"}}
	r.kbsChecks(ctx, wire)
	r.report.OK = r.report.Failed == 0
	return r.report, nil
}

// unknownRequest is one that no plugin should know.
var unknownRequest = external.Request{Method: "GET", Path: []string{"sallyport-conformance"}, Query: map[string]string{"conformance": "1"}}

// kbsChecks are those of a plugin of the key broker, wherever it runs.
func (r *run) kbsChecks(ctx context.Context, w external.Wire) {
	r.judge(kbsAnswers, r.kbsThree(ctx, w), "")
	r.judge(kbsSteady, r.kbsSame(ctx, w), "")
	large := unknownRequest
	large.Method, large.Body = "PUT", make([]byte, external.MaxBody)
	_, err := inTime(ctx, r.Calls, func(ctx context.Context) (bool, error) { return w.ValidateAuth(ctx, large) })
	r.judge(kbsBody, said(err), "")
	r.judge(kbsParallel, r.kbsAtOnce(ctx, w), "")
	for n := range 50 {
		short, cancel := context.WithTimeout(ctx, time.Duration(n%5)*time.Millisecond)
		_, _ = w.ValidateAuth(short, unknownRequest)
		cancel()
	}
	_, err = inTime(ctx, r.Calls, func(ctx context.Context) (bool, error) { return w.ValidateAuth(ctx, unknownRequest) })
	r.judge(kbsCancel, said(err), "")
	r.kbsHealthCheck(ctx, w)
}

func (r *run) kbsThree(ctx context.Context, w external.Wire) string {
	if _, err := inTime(ctx, r.Calls, func(ctx context.Context) (bool, error) { return w.ValidateAuth(ctx, unknownRequest) }); err != nil {
		return "ValidateAuth: " + said(err)
	}
	a, err := inTime(ctx, r.Calls, func(ctx context.Context) (external.Response, error) { return w.Handle(ctx, unknownRequest) })
	if err != nil {
		return "Handle: " + said(err)
	}
	if a.Status != 0 && (a.Status < 100 || a.Status > 599) {
		return fmt.Sprintf("Handle answers with status %d, which is none", a.Status)
	}
	if _, err := inTime(ctx, r.Calls, func(ctx context.Context) (bool, error) { return w.NeedsEncryption(ctx, unknownRequest) }); err != nil {
		return "NeedsEncryption: " + said(err)
	}
	return ""
}

func (r *run) kbsSame(ctx context.Context, w external.Wire) string {
	for name, call := range map[string]func(context.Context, external.Request) (bool, error){"ValidateAuth": w.ValidateAuth, "NeedsEncryption": w.NeedsEncryption} {
		for _, method := range []string{"GET", "POST", "PUT", "DELETE"} {
			q := unknownRequest
			q.Method = method
			var first bool
			for n := range 5 {
				yes, err := inTime(ctx, r.Calls, func(ctx context.Context) (bool, error) { return call(ctx, q) })
				switch {
				case err != nil:
					return name + ": " + said(err)
				case n == 0:
					first = yes
				case yes != first:
					return name + " of " + method + " changes its mind"
				}
			}
		}
	}
	return ""
}

func (r *run) kbsAtOnce(ctx context.Context, w external.Wire) string {
	const calls = 64
	failures := make(chan error, calls)
	var wait sync.WaitGroup
	for range calls {
		wait.Go(func() {
			if _, err := inTime(ctx, r.Calls, func(ctx context.Context) (bool, error) { return w.ValidateAuth(ctx, unknownRequest) }); err != nil {
				failures <- err
			}
		})
	}
	wait.Wait()
	close(failures)
	if n := len(failures); n > 0 {
		return fmt.Sprintf("%d of %d failed: %s", n, calls, said(<-failures))
	}
	return ""
}

func (r *run) kbsHealthCheck(ctx context.Context, w external.Wire) {
	a, err := inTime(ctx, r.Calls, func(ctx context.Context) (*grpc_health_v1.HealthCheckResponse, error) {
		return grpc_health_v1.NewHealthClient(w).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: kbsplugin.Service})
	})
	switch code := status.Code(err); {
	case code == codes.Unimplemented || code == codes.NotFound:
		r.add(kbsHealth, Skipped, "it has no health service for itself, and no broker needs one")
	case err != nil:
		r.add(kbsHealth, Fail, said(err))
	case a.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING:
		r.add(kbsHealth, Fail, "it says "+a.GetStatus().String())
	default:
		r.add(kbsHealth, Pass, "")
	}
}

// inTime makes one call within a limit.
func inTime[T any](ctx context.Context, limit time.Duration, call func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return call(ctx)
}
