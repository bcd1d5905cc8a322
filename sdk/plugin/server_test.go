package plugin

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	akms "github.com/sallyport-project/sallyport/api/agentkms/plugin/v1"
	own "github.com/sallyport-project/sallyport/api/sallyport/plugin/v1"
)

// dial serves what register adds, as a plugin process does, and connects.
func dial(t *testing.T, register func(*grpc.Server)) *grpc.ClientConn {
	t.Helper()
	l := bufconn.Listen(1 << 20)
	g := newGRPC(nil)
	register(g)
	go func() { _ = g.Serve(l) }()
	conn, err := grpc.NewClient("passthrough:///plugin", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		g.Stop()
	})
	return conn
}

// calling is an opened stream of calls.
func calling(t *testing.T, v Vender) *caller {
	t.Helper()
	s, err := newServer(About{Name: "x", Version: "1.0.0", Kinds: []string{"k"}}, v)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := own.NewPluginClient(dial(t, s.register)).Calls(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return &caller{stream: stream}
}

// caller sends and receives frames one by one.
type caller struct {
	stream grpc.BidiStreamingClient[own.HostFrames, own.PluginFrames]
	rest   []*own.PluginFrame
}

func (c *caller) Send(f *own.HostFrame) error {
	return c.stream.Send(&own.HostFrames{Frames: []*own.HostFrame{f}})
}

func (c *caller) Recv() (*own.PluginFrame, error) {
	for len(c.rest) == 0 {
		batch, err := c.stream.Recv()
		if err != nil {
			return nil, err
		}
		c.rest = batch.GetFrames()
	}
	first := c.rest[0]
	c.rest = c.rest[1:]
	return first, nil
}

func issueFrame(id uint64, params string) *own.HostFrame {
	return &own.HostFrame{Id: id, Body: &own.HostFrame_Issue{Issue: &own.IssueRequest{
		Requested: &own.Scope{Kind: "k", Params: []byte(params), TtlSeconds: 60},
		Bounds:    &own.Bounds{Kind: "k", MaxTtlSeconds: 30},
	}}}
}

func exchange(t *testing.T, s *caller, f *own.HostFrame) *own.PluginFrame {
	t.Helper()
	if err := s.Send(f); err != nil {
		t.Fatal(err)
	}
	a, err := s.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if a.GetId() != f.GetId() {
		t.Fatalf("answer to %d, asked %d", a.GetId(), f.GetId())
	}
	return a
}

func TestCalls_AnswersEachFrame(t *testing.T) {
	s := calling(t, Vender{Issue: func(_ context.Context, r Request) (Issued, error) {
		switch r.Scope.Params["do"] {
		case "deny":
			return Issued{}, Deniedf("no")
		case "fail":
			return Issued{}, errors.New("secret detail")
		case "panic":
			panic("secret detail")
		}
		if r.Host["serial"] != "7" || len(r.Scope.Params) != 1 || r.Bounds.MaxTTL != 30*time.Second {
			return Issued{}, Invalidf("%+v", r)
		}
		return Issued{Scope: r.Scope, Value: []byte("v"), Anomalies: []Anomaly{{Level: Warn, Code: "c"}}}, nil
	}})
	a := exchange(t, s, issueFrame(1, `{"do":"it","host.serial":"7"}`)).GetIssue()
	if string(a.GetValue()) != "v" || string(a.GetScope().GetParams()) != `{"do":"it"}` || a.GetAnomalies()[0].GetLevel() != own.Level_LEVEL_WARN {
		t.Fatalf("%v", a)
	}
	for id, c := range []struct {
		frame *own.HostFrame
		code  own.Code
	}{
		{issueFrame(2, `{"do":"deny"}`), own.Code_CODE_DENIED},
		{issueFrame(3, `{"do":"fail"}`), own.Code_CODE_UNAVAILABLE},
		{issueFrame(4, `{"do":"panic"}`), own.Code_CODE_UNAVAILABLE},
		{issueFrame(5, `[]`), own.Code_CODE_INVALID},
		{issueFrame(6, `{"host.serial":7}`), own.Code_CODE_INVALID},
		{&own.HostFrame{Id: 7}, own.Code_CODE_UNIMPLEMENTED},
	} {
		r := exchange(t, s, c.frame).GetRefusal()
		if r.GetCode() != c.code || strings.Contains(r.GetReason(), "secret") {
			t.Errorf("case %d: %v", id, r)
		}
	}
}

func TestCalls_EndWithCancelAndDeadline(t *testing.T) {
	ended := make(chan error, 2)
	s := calling(t, Vender{Issue: func(ctx context.Context, _ Request) (Issued, error) {
		<-ctx.Done()
		ended <- ctx.Err()
		return Issued{}, ctx.Err()
	}})
	if err := s.Send(issueFrame(1, "{}")); err != nil {
		t.Fatal(err)
	}
	if err := s.Send(&own.HostFrame{Id: 1, Body: &own.HostFrame_Cancel{Cancel: &own.Cancel{}}}); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	f := issueFrame(2, "{}")
	f.TimeoutMs = 20
	if err := s.Send(f); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
}

func TestCalls_RunTogether(t *testing.T) {
	slow := make(chan struct{})
	s := calling(t, Vender{Issue: func(_ context.Context, r Request) (Issued, error) {
		if r.Scope.Params["slow"] == true {
			<-slow
		}
		return Issued{Scope: r.Scope, Value: []byte("v")}, nil
	}})
	if err := s.Send(issueFrame(1, `{"slow":true}`)); err != nil {
		t.Fatal(err)
	}
	if a := exchange(t, s, issueFrame(2, `{}`)); a.GetIssue() == nil {
		t.Fatalf("%v", a)
	}
	close(slow)
	if a, err := s.Recv(); err != nil || a.GetId() != 1 {
		t.Fatalf("%v, %v", a, err)
	}
}

// A host that asks without end gets so many calls at a time and no more; each gets
// its answer.
func TestCalls_AreBounded(t *testing.T) {
	var running, most atomic.Int64
	open := make(chan struct{})
	s := calling(t, Vender{Issue: func(_ context.Context, r Request) (Issued, error) {
		most.Store(max(most.Load(), running.Add(1))) // exact once all that may run do
		defer running.Add(-1)
		<-open
		return Issued{Scope: r.Scope, Value: []byte("v")}, nil
	}})
	const more = 50
	for id := range uint64(atOnce + more) {
		if err := s.Send(issueFrame(id+1, `{}`)); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(30 * time.Second); running.Load() < atOnce; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d calls run", running.Load())
		}
	}
	time.Sleep(20 * time.Millisecond) // for one too many to begin
	close(open)
	seen := map[uint64]bool{}
	for range atOnce + more {
		a, err := s.Recv()
		if err != nil || a.GetIssue() == nil {
			t.Fatalf("%v, %v", a, err)
		}
		seen[a.GetId()] = true
	}
	if len(seen) != atOnce+more || most.Load() > atOnce {
		t.Fatalf("%d answers, %d at a time", len(seen), most.Load())
	}
}

func TestAgentKMS_KeepsErrorsApart(t *testing.T) {
	a := AgentKMS{Kind: "k", Validate: func(_ context.Context, s Scope) error {
		switch s.Kind {
		case "refuse":
			return Invalidf("no")
		case "fail":
			return errors.New("secret detail")
		case "panic":
			panic("secret detail")
		}
		return nil
	}}
	c := akms.NewScopeValidatorServiceClient(dial(t, func(g *grpc.Server) {
		akms.RegisterScopeValidatorServiceServer(g, validator{a: a})
	}))
	for kind, want := range map[string]struct {
		text string
		code codes.Code
	}{
		"good": {"", codes.OK}, "refuse": {"no", codes.OK}, "fail": {"", codes.Internal}, "panic": {"", codes.Internal},
	} {
		r, err := c.Validate(t.Context(), &akms.ValidateRequest{Scope: &akms.Scope{Kind: kind}})
		if r.GetError() != want.text || status.Code(err) != want.code || err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v, %v", kind, r, err)
		}
	}
}

func TestSDK_LimitsMessages(t *testing.T) {
	s := calling(t, Vender{Issue: func(_ context.Context, r Request) (Issued, error) {
		return Issued{Scope: r.Scope, Value: []byte("v")}, nil
	}})
	_ = s.Send(&own.HostFrame{Id: 1, Body: &own.HostFrame_Issue{Issue: &own.IssueRequest{
		Requested: &own.Scope{Params: bytes.Repeat([]byte(" "), own.MaxMessageBytes+1)},
	}}})
	if _, err := s.Recv(); status.Code(err) != codes.ResourceExhausted {
		t.Fatalf("got %v", err)
	}
}
