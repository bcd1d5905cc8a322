package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	own "github.com/sallyport-project/sallyport/api/sallyport/plugin/v1"
)

// server answers sallyport.plugin.v1 for a Vender.
type server struct {
	own.UnimplementedPluginServer
	own.UnimplementedVenderServer
	v Vender
}

// atOnce is how many calls of one stream run at the same time; further ones wait
// in the transport, where flow control holds the host back.
const atOnce = 1024

func newServer(v Vender) *server { return &server{v: v} }

func (s *server) register(g *grpc.Server) {
	own.RegisterPluginServer(g, s)
	own.RegisterVenderServer(g, s)
}

// Info says who the plugin is.
func (s *server) Info(context.Context, *own.InfoRequest) (*own.InfoResponse, error) {
	return &own.InfoResponse{Name: s.v.Name, Version: s.v.Version, Kinds: s.v.Kinds}, nil
}

// Configure hands the configuration on.
func (s *server) Configure(ctx context.Context, q *own.ConfigureRequest) (*own.ConfigureResponse, error) {
	if s.v.Configure == nil {
		return &own.ConfigureResponse{Error: "this plugin takes no configuration"}, nil
	}
	if err := s.v.Configure(ctx, q.GetConfig()); err != nil {
		r, known := refusalOf(err)
		if !known {
			logger().ErrorContext(ctx, "configuration failed", slog.Any("err", err))
		}
		return &own.ConfigureResponse{Error: r.GetReason()}, nil
	}
	return &own.ConfigureResponse{}, nil
}

// calls is one stream: what runs on it, so that it can be cancelled.
type calls struct {
	s       *server
	stream  grpc.BidiStreamingServer[own.HostFrame, own.PluginFrame]
	work    chan job
	workers int // counted by the one reader of the stream
	send    sync.Mutex
	mu      sync.Mutex
	cancel  map[uint64]context.CancelFunc
	wait    sync.WaitGroup
}

// job is one call.
type job struct {
	ctx   context.Context
	frame *own.HostFrame
}

// Calls answers one stream of calls until the host closes it.
func (s *server) Calls(stream grpc.BidiStreamingServer[own.HostFrame, own.PluginFrame]) error {
	c := &calls{s: s, stream: stream, work: make(chan job), cancel: map[uint64]context.CancelFunc{}}
	defer c.wait.Wait()
	defer close(c.work)
	for {
		f, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if f.GetCancel() != nil {
			c.end(f.GetId())
			continue
		}
		if err := c.run(job{c.begin(f), f}); err != nil {
			return err
		}
	}
}

// run gives a call to an idle worker, else to a new one. Workers stay for the
// life of the stream: a goroutine that is new for each call spends much of it
// on growing its stack.
func (c *calls) run(j job) error {
	select {
	case c.work <- j:
		return nil
	default:
	}
	if c.workers < atOnce {
		c.workers++
		c.wait.Go(c.worker)
	}
	select {
	case c.work <- j:
		return nil
	case <-c.stream.Context().Done():
		return c.stream.Context().Err()
	}
}

func (c *calls) worker() {
	for j := range c.work {
		c.answer(j.ctx, j.frame)
		c.end(j.frame.GetId())
	}
}

// noLimit stands for a host that waits for as long as it takes; the end of the
// stream still ends the call.
const noLimit = 24 * time.Hour

func (c *calls) begin(f *own.HostFrame) context.Context {
	limit := time.Duration(f.GetTimeoutMs()) * time.Millisecond
	if limit == 0 {
		limit = noLimit
	}
	ctx, cancel := context.WithTimeout(c.stream.Context(), limit)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cancel[f.GetId()] = cancel
	return ctx
}

func (c *calls) end(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if cancel := c.cancel[id]; cancel != nil {
		cancel()
		delete(c.cancel, id)
	}
}

// answer runs one call and sends its one answer.
func (c *calls) answer(ctx context.Context, f *own.HostFrame) {
	out := &own.PluginFrame{Id: f.GetId()}
	if err := c.s.dispatch(ctx, f, out); err != nil {
		r, known := refusalOf(err)
		if !known {
			logger().ErrorContext(ctx, "call failed", slog.Any("err", err))
		}
		out.Body = &own.PluginFrame_Refusal{Refusal: r}
	}
	c.send.Lock()
	defer c.send.Unlock()
	if err := c.stream.Send(out); err != nil && c.stream.Context().Err() == nil {
		logger().WarnContext(ctx, "answer could not be sent", slog.Any("err", err))
	}
}

func (s *server) dispatch(ctx context.Context, f *own.HostFrame, out *own.PluginFrame) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	switch b := f.GetBody().(type) {
	case *own.HostFrame_Vet:
		if err := s.vet(ctx, b.Vet); err != nil {
			return err
		}
		out.Body = &own.PluginFrame_Vet{Vet: &own.VetResponse{}}
	case *own.HostFrame_Issue:
		r, err := s.issue(ctx, b.Issue)
		if err != nil {
			return err
		}
		out.Body = &own.PluginFrame_Issue{Issue: r}
	default:
		return &refusal{own.Code_CODE_UNIMPLEMENTED, "this plugin does not know this kind of call"}
	}
	return nil
}

func (s *server) vet(ctx context.Context, q *own.VetRequest) error {
	if s.v.Vet == nil {
		return nil
	}
	scope, _, err := readScope(q.GetScope())
	if err != nil {
		return err
	}
	return s.v.Vet(ctx, scope)
}

func (s *server) issue(ctx context.Context, q *own.IssueRequest) (*own.IssueResponse, error) {
	scope, host, err := readScope(q.GetRequested())
	if err != nil {
		return nil, err
	}
	limits, err := readParams(q.GetBounds().GetMaxParams())
	if err != nil {
		return nil, err
	}
	bounds := Bounds{Kind: q.GetBounds().GetKind(), MaxParams: limits, MaxTTL: time.Duration(q.GetBounds().GetMaxTtlSeconds()) * time.Second}
	issued, err := s.v.Issue(ctx, Request{Scope: scope, Bounds: bounds, Host: host})
	if err != nil {
		return nil, err
	}
	params, err := own.EncodeParams(issued.Scope.Params)
	if err != nil {
		return nil, fmt.Errorf("encode granted parameters: %w", err)
	}
	r := &own.IssueResponse{
		Scope:  &own.Scope{Kind: issued.Scope.Kind, Params: params, TtlSeconds: int64(issued.Scope.TTL / time.Second)},
		Value:  issued.Value,
		Handle: issued.Handle,
	}
	if !issued.ExpiresAt.IsZero() {
		r.ExpiresAtUnix = issued.ExpiresAt.Unix()
	}
	for _, a := range issued.Anomalies {
		r.Anomalies = append(r.Anomalies, &own.Anomaly{Level: own.Level(a.Level), Code: a.Code, Message: a.Message})
	}
	return r, nil
}

// readScope parts the caller's parameters from the host's.
func readScope(s *own.Scope) (Scope, map[string]string, error) {
	all, err := readParams(s.GetParams())
	if err != nil {
		return Scope{}, nil, err
	}
	host := map[string]string{}
	for name, v := range all {
		if short, ok := strings.CutPrefix(name, own.HostPrefix); ok {
			text, isText := v.(string)
			if !isText {
				return Scope{}, nil, Invalidf("the host's parameter %s must be a string", short)
			}
			host[short] = text
			delete(all, name)
		}
	}
	return Scope{Kind: s.GetKind(), Params: all, TTL: time.Duration(s.GetTtlSeconds()) * time.Second}, host, nil
}

func readParams(b []byte) (map[string]any, error) {
	params, err := own.DecodeParams(b)
	if err != nil {
		return nil, Invalidf("the parameters are no JSON object")
	}
	return params, nil
}

// logger writes to what standard error is now: go-plugin replaces it when it
// begins to serve.
func logger() *slog.Logger { return slog.New(slog.NewTextHandler(os.Stderr, nil)) }
