package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	own "github.com/sallyport-project/sallyport/api/sallyport/plugin/v1"
)

// atOnce is how many calls of one stream run at the same time; further ones wait
// in the transport, where flow control holds the host back.
const atOnce = 1024

// calls is one stream: what runs on it, so that it can be cancelled.
type calls struct {
	s       *server
	ctx     context.Context
	out     *sender
	work    chan *callContext
	workers int // counted by the one reader of the stream
	mu      sync.Mutex
	running map[uint64]*callContext
	wait    sync.WaitGroup
}

// Calls answers one stream of calls until the host closes it.
func (s *server) Calls(stream grpc.BidiStreamingServer[own.HostFrames, own.PluginFrames]) error {
	c := &calls{
		s: s, ctx: context.WithValue(stream.Context(), hostKey{}, s.host), out: newSender(stream),
		work: make(chan *callContext), running: map[uint64]*callContext{},
	}
	err := c.read(stream)
	if err != nil {
		c.endAll() // nobody waits
	}
	close(c.work)
	c.wait.Wait()
	c.out.close()
	return err
}

func (c *calls) read(stream grpc.ServerStream) error {
	for {
		var batch own.Batch
		err := stream.RecvMsg(&batch)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for {
			encoded, err := batch.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			frame := &own.HostFrame{}
			if err == nil {
				err = proto.Unmarshal(encoded, frame)
			}
			if err == nil {
				err = c.take(frame)
			}
			if err != nil {
				return err
			}
		}
	}
}

// take begins a call, or ends one.
func (c *calls) take(f *own.HostFrame) error {
	if f.GetCancel() != nil {
		c.end(f.GetId())
		return nil
	}
	if f.GetChunk() != nil || f.GetCredit() != nil {
		c.mu.Lock()
		call := c.running[f.GetId()]
		c.mu.Unlock()
		if call != nil && call.parts != nil {
			call.parts.take(f)
		}
		return nil
	}
	return c.run(c.begin(f))
}

// run gives a call to an idle worker, else to a new one. Workers stay for the
// life of the stream: a goroutine that is new for each call spends much of it
// on growing its stack.
func (c *calls) run(call *callContext) error {
	select {
	case c.work <- call:
		return nil
	default:
	}
	if c.workers < atOnce {
		c.workers++
		c.wait.Go(c.worker)
	}
	select {
	case c.work <- call:
		return nil
	case <-c.ctx.Done():
		return c.ctx.Err()
	}
}

func (c *calls) worker() {
	for call := range c.work {
		c.answer(call)
		c.done(call)
	}
}

func (c *calls) begin(f *own.HostFrame) *callContext {
	call := newCallContext(c.ctx, f)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running[f.GetId()] = call
	return call
}

// end cancels a call.
func (c *calls) end(id uint64) {
	c.mu.Lock()
	call := c.running[id]
	c.mu.Unlock()
	if call != nil {
		call.end(context.Canceled)
	}
}

func (c *calls) endAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, call := range c.running {
		call.end(context.Canceled)
	}
}

// done forgets a call. A host that uses an id twice gets both answers.
func (c *calls) done(call *callContext) {
	call.end(context.Canceled)
	c.mu.Lock()
	defer c.mu.Unlock()
	if id := call.frame.GetId(); c.running[id] == call {
		delete(c.running, id)
	}
}

// answer runs one call and sends its one answer.
func (c *calls) answer(call *callContext) {
	if q := call.frame.GetRoute(); q != nil && c.s.extension != nil && c.s.extension.Routes != nil {
		c.route(call, q)
		return
	}
	out := &own.PluginFrame{Id: call.frame.GetId()}
	if err := c.s.dispatch(call, call.frame, out); err != nil {
		out.Body = &own.PluginFrame_Refusal{Refusal: refused(call, err)}
	}
	if err := c.out.add(out); err != nil && c.ctx.Err() == nil {
		logger().WarnContext(call, "answer could not be sent", slog.Any("err", err))
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
		if s.vender == nil {
			return errUnknown
		}
		if err := s.vender.vet(ctx, b.Vet); err != nil {
			return err
		}
		out.Body = &own.PluginFrame_Vet{Vet: &own.VetResponse{}}
	case *own.HostFrame_Issue:
		if s.vender == nil {
			return errUnknown
		}
		r, err := s.vender.issue(ctx, b.Issue)
		if err != nil {
			return err
		}
		out.Body = &own.PluginFrame_Issue{Issue: r}
	case *own.HostFrame_Hook:
		if s.extension == nil {
			return errUnknown
		}
		if err := s.extension.hook(ctx, b.Hook); err != nil {
			return err
		}
		out.Body = &own.PluginFrame_Hook{Hook: &own.HookResponse{}}
	case *own.HostFrame_Gate:
		if s.extension == nil {
			return errUnknown
		}
		r, err := s.extension.gate(ctx, b.Gate)
		if err != nil {
			return err
		}
		out.Body = &own.PluginFrame_Gate{Gate: r}
	default:
		return errUnknown
	}
	return nil
}

var errUnknown = &refusal{own.Code_CODE_UNIMPLEMENTED, "this plugin does not know this kind of call"}

// callContext is the context of one call. Its timer and channel are made when
// somebody asks for them: most calls are over before.
type callContext struct {
	context.Context // of the stream: its values
	frame           *own.HostFrame
	parts           *parts // of a route
	deadline        time.Time

	mu    sync.Mutex
	ended chan struct{}
	timer *time.Timer
	err   error
}

// noLimit stands for a host that waits for as long as it takes; the end of the
// stream still ends the call.
const noLimit = 24 * time.Hour

func newCallContext(stream context.Context, f *own.HostFrame) *callContext {
	limit := time.Duration(f.GetTimeoutMs()) * time.Millisecond
	if limit == 0 {
		limit = noLimit
	}
	call := &callContext{Context: stream, frame: f, deadline: time.Now().Add(limit)}
	if q := f.GetRoute(); q != nil {
		call.parts = newParts(q)
	}
	return call
}

// Deadline implements context.Context.
func (c *callContext) Deadline() (time.Time, bool) { return c.deadline, true }

// Done implements context.Context.
func (c *callContext) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended == nil {
		c.ended = make(chan struct{})
		if c.err != nil {
			close(c.ended)
		} else {
			c.timer = time.AfterFunc(time.Until(c.deadline), func() { c.end(context.DeadlineExceeded) })
		}
	}
	return c.ended
}

// Err implements context.Context.
func (c *callContext) Err() error {
	c.mu.Lock()
	err := c.err
	c.mu.Unlock()
	if err == nil && !time.Now().Before(c.deadline) {
		c.end(context.DeadlineExceeded)
		return c.Err()
	}
	return err
}

// end ends the call for a reason; the first one counts.
func (c *callContext) end(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = why
	if c.timer != nil {
		c.timer.Stop()
	}
	if c.ended != nil {
		close(c.ended)
	}
}
