package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	akms "github.com/sallyport-project/sallyport/api/agentkms/plugin/v1"
	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	own "github.com/sallyport-project/sallyport/api/sallyport/plugin/v1"
)

var (
	survivesCancel = expectation{
		"calls/cancel", "calls that are given up leave no trace",
		"end the work of a call when its context ends, and nothing else",
	}
	survivesGarbage = expectation{
		"calls/garbage", "bytes that are no call do no harm",
		"let gRPC close such a connection, answer unknown frames with a refusal, and go on",
	}
	survivesSize = expectation{
		"calls/oversize", "a message over 4 MiB is refused, and does no harm",
		"set the limit of received messages to 4 MiB",
	}
)

// roughChecks do to it what a broken or hostile peer does.
func (p *process) roughChecks(ctx context.Context) {
	p.rough(ctx, survivesCancel, p.abandon, "50 calls were given up")
	p.rough(ctx, survivesGarbage, p.garbage, "noise on the socket and on the wire, frames that mean nothing")
	p.rough(ctx, survivesSize, p.oversize, "")
}

// rough does something, and judges whether the plugin lives on and answers.
func (p *process) rough(ctx context.Context, e expectation, do func(context.Context) string, seen string) {
	limited, cancel := context.WithTimeout(ctx, 4*p.Calls)
	problem := do(limited)
	cancel()
	p.judge(e, first(problem, p.stillGood(ctx)), seen)
}

// stillGood asks once more what was granted before; a process that ended is
// replaced, so that further checks can be made.
func (p *process) stillGood(ctx context.Context) string {
	problem := ""
	limited, cancel := context.WithTimeout(ctx, p.Calls)
	defer cancel()
	if len(p.good) > 0 {
		s := p.good[0].scope(now())
		if _, _, err := p.try(limited, s, open(s)); err != nil {
			problem = "the next call fails: " + said(err)
		}
	} else if err := p.probe.Check(limited); err != nil {
		problem = "the next health check fails: " + said(err)
	}
	select {
	case <-p.probe.Gone():
		problem = "it ended; it wrote: " + p.log.said(3)
	case <-time.After(50 * time.Millisecond):
		if problem == "" {
			return ""
		}
	}
	p.probe.Stop()
	if err := p.start(ctx); err != nil {
		problem += "; and it does not start again"
	}
	return problem
}

// abandon gives calls up right after they began.
func (p *process) abandon(ctx context.Context) string {
	for n := range 50 {
		if !p.vends() {
			short, cancel := context.WithTimeout(ctx, time.Duration(n%5)*time.Millisecond)
			_, _ = own.NewPluginClient(p.probe.Conn()).Info(short, &own.InfoRequest{})
			cancel()
			continue
		}
		x := p.examples()[n%len(p.examples())]
		s := x.scope(now())
		short, cancel := context.WithTimeout(ctx, time.Duration(n%5)*time.Millisecond)
		_, _, _ = p.wire.issue(short, s, open(s))
		cancel()
	}
	return ""
}

// garbage sends what is no call.
func (p *process) garbage(ctx context.Context) string {
	for _, noise := range []string{"GET / HTTP/1.1\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff", "\x00"} {
		conn, err := p.probe.Dial(ctx)
		if err != nil {
			return "a further connection cannot be made: " + said(err)
		}
		_ = conn.SetDeadline(time.Now().Add(200 * time.Millisecond))
		_, _ = io.WriteString(conn, noise)
		_, _ = io.Copy(io.Discard, conn)
		_ = conn.Close()
	}
	for _, method := range p.methods() {
		var answer []byte
		err := p.probe.Conn().Invoke(ctx, method, []byte("\xff\xff\xff\xff no message"), &answer, grpc.ForceCodecV2(plain{}))
		if err == nil {
			return method + " answers to a message that cannot be read"
		}
		if status.Code(err) == codes.DeadlineExceeded {
			return method + " never answers to a message that cannot be read"
		}
	}
	if p.m.Contract == manifest.ContractSallyport && (p.vends() || p.m.Has(manifest.RoleExtension)) {
		return p.strangeFrames(ctx)
	}
	return ""
}

// methods are the unary calls of the contract that the package must have.
func (p *process) methods() []string {
	if p.m.Contract != manifest.ContractAgentKMS {
		return []string{own.Plugin_Info_FullMethodName}
	}
	var out []string
	for role, method := range map[string]string{
		manifest.RoleValidator:  akms.ScopeValidatorService_Validate_FullMethodName,
		manifest.RoleAnalyzer:   akms.ScopeAnalyzerService_Analyze_FullMethodName,
		manifest.RoleSerializer: akms.ScopeSerializerService_Serialize_FullMethodName,
		manifest.RoleVender:     akms.CredentialVenderService_Vend_FullMethodName,
	} {
		if p.m.Has(role) {
			out = append(out, method)
		}
	}
	return out
}

// strangeFrames sends frames that no host sends, on a stream of its own, and a
// right one after them.
func (p *process) strangeFrames(ctx context.Context) string {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := own.NewPluginClient(p.probe.Conn()).Calls(ctx)
	if err != nil {
		return "no stream can be opened: " + said(err)
	}
	scope := &own.Scope{Kind: "conformance-unknown", Params: []byte("[no json"), TtlSeconds: -1}
	for _, frames := range [][]*own.HostFrame{
		{},
		{{Id: 900, Body: &own.HostFrame_Cancel{Cancel: &own.Cancel{}}}, {Id: 901}}, // of a call that never was; of no kind
		{{Id: 902, Body: &own.HostFrame_Issue{Issue: &own.IssueRequest{}}}},
		{
			{Id: 902, Body: &own.HostFrame_Issue{Issue: &own.IssueRequest{Requested: scope}}}, // the same id again
			{Id: 903, Body: &own.HostFrame_Vet{Vet: &own.VetRequest{Scope: scope}}},
		},
	} {
		if err := stream.Send(&own.HostFrames{Frames: frames}); err != nil {
			return "the stream broke: " + said(err)
		}
	}
	for answers := 0; answers < 4; { // one for each but the cancellation
		batch, err := stream.Recv()
		if err != nil {
			return "the stream broke: " + said(err)
		}
		answers += len(batch.GetFrames())
	}
	return ""
}

// oversize sends more than any host does.
func (p *process) oversize(ctx context.Context) string {
	large := bytes.Repeat([]byte{0}, own.MaxMessageBytes+1<<16)
	for _, method := range p.methods() {
		var answer []byte
		err := p.probe.Conn().Invoke(ctx, method, large, &answer, grpc.ForceCodecV2(plain{}), grpc.MaxCallSendMsgSize(2*len(large)))
		if err == nil || errors.Is(err, context.DeadlineExceeded) {
			return method + " takes a message of more than 4 MiB"
		}
	}
	return ""
}

// plain is a codec for bytes as they are.
type plain struct{}

// Name is that of the codec whose place it takes.
func (plain) Name() string { return "proto" }

// Marshal gives the bytes.
func (plain) Marshal(v any) (mem.BufferSlice, error) {
	b, ok := v.([]byte)
	if !ok {
		return nil, fmt.Errorf("a plain message is bytes")
	}
	return mem.BufferSlice{mem.SliceBuffer(b)}, nil
}

// Unmarshal takes the bytes.
func (plain) Unmarshal(data mem.BufferSlice, v any) error {
	b, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("a plain message is bytes")
	}
	*b = data.Materialize()
	return nil
}
