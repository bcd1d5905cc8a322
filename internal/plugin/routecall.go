package plugin

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	own "github.com/sallyport-project/sallyport/api/sallyport/plugin/v1"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// The limits of a call of a route.
const (
	routeWithin = 100 * time.Second // until it has ended
	firstBody   = 64 << 10          // a request's body of a known length up to this travels with its head
	mostHeaders = 64
	mostHeader  = 8 << 10 // bytes of all headers of an answer
)

// Route implements [Extensions]. A call is never repeated: whether it was done is
// the plugin's to know.
func (h *Host) Route(ctx context.Context, name string, r RouteRequest) (*RouteAnswer, error) {
	if r.Body == nil {
		r.Body, r.Length = http.NoBody, 0
	}
	began := h.cfg.Now()
	ctx, cancel := context.WithTimeout(ctx, routeWithin)
	c := &routeCall{host: h, name: name, ctx: ctx, body: r.Body, free: []func(){cancel}}
	answer, err := c.open(r)
	if err != nil {
		err = c.judge(err) // while ctx still says who ended it
	}
	h.meters.called(name, outcomeOf(ctx, err), h.cfg.Now().Sub(began))
	if err != nil {
		c.close()
	}
	return answer, err
}

// routeCall is one call of a route until its answer is closed.
type routeCall struct {
	host *Host
	name string
	ctx  context.Context
	x    *dialogue
	body io.Closer      // of the request
	pump sync.WaitGroup // what passes it on
	free []func()       // in reverse
	once sync.Once
}

func (c *routeCall) close() {
	c.once.Do(func() {
		if c.x != nil {
			c.x.close()
		}
		_ = c.body.Close() // nobody wants the rest
		c.pump.Wait()
		for n := len(c.free) - 1; n >= 0; n-- {
			c.free[n]()
		}
	})
}

func (c *routeCall) open(r RouteRequest) (*RouteAnswer, error) {
	frame, err := wireRoute(r)
	if err != nil {
		return nil, err
	}
	// The answer must begin in time after the last part of the body.
	head, late := context.WithCancelCause(c.ctx)
	defer late(nil)
	timer := time.AfterFunc(c.host.cfg.RouteTimeout, func() { late(ErrLate) })
	defer timer.Stop()
	find := c.host.extensionNamed(c.name)
	for {
		to, err := find()
		if err != nil {
			return nil, err
		}
		err = c.on(head, to, frame)
		if errors.Is(err, errGone) || errors.Is(err, errUnsent) && head.Err() == nil {
			continue // nothing was sent
		}
		if err != nil {
			return nil, errors.Join(err, context.Cause(head))
		}
		break
	}
	if frame.GetRoute().GetMore() {
		c.pump.Go(func() {
			err := c.x.pump(c.ctx, r.Body, func() { timer.Reset(c.host.cfg.RouteTimeout) })
			if err != nil && !errors.Is(err, io.ErrClosedPipe) {
				c.x.fail(err)
			}
		})
	}
	first, err := c.x.next(head)
	if err != nil {
		return nil, errors.Join(err, context.Cause(head))
	}
	return c.answer(first)
}

// on begins the call at a process.
func (c *routeCall) on(ctx context.Context, to *route, frame *own.HostFrame) error {
	leave, err := to.pool.enterFor(ctx, frame.GetRoute().GetPrincipal().GetId())
	if err != nil {
		return err
	}
	i, release, err := to.pool.acquire(ctx)
	if err != nil {
		leave()
		if errors.Is(err, errGone) {
			return err
		}
		return &downError{err}
	}
	to.called.Add(1)
	x, err := (*dialogue)(nil), errUnsent
	if i.reachable() {
		frame.TimeoutMs = left(c.ctx)
		x, err = i.calls.begin(ctx, frame, len(frame.GetRoute().GetBody()))
	}
	if err != nil {
		if errors.Is(err, errUnsent) {
			settled(ctx, i) // so that the next try meets another process
		}
		release()
		leave()
		return err
	}
	c.x = x
	c.free = append(c.free, leave, release)
	return nil
}

// answer reads the head of an answer.
func (c *routeCall) answer(f *own.PluginFrame) (*RouteAnswer, error) {
	if r := f.GetRefusal(); r != nil {
		c.host.cfg.Log.WarnContext(c.ctx, "an extension failed", slog.String("plugin", c.name), slog.String("reason", clip(r.GetReason(), maxReason)))
		return nil, errors.Join(ErrBroken, errors.New("refused"))
	}
	a := f.GetRoute()
	if a == nil || a.GetStatus() < 200 || a.GetStatus() > 599 || len(a.GetHeaders()) > mostHeaders {
		return nil, errors.Join(ErrBroken, errStrange)
	}
	out := &RouteAnswer{Status: int(a.GetStatus()), Length: len(a.GetBody())}
	if a.GetMore() {
		out.Length = -1
	}
	size := 0
	for _, h := range a.GetHeaders() {
		size += len(h.GetName()) + len(h.GetValue())
		out.Headers = append(out.Headers, Header{h.GetName(), h.GetValue()})
	}
	if size > mostHeader {
		return nil, errors.Join(ErrBroken, errStrange)
	}
	out.Body = &routeBody{call: c, buffer: a.GetBody(), more: a.GetMore()}
	return out, nil
}

// judge says whose fault it was.
func (c *routeCall) judge(err error) error {
	if b, ok := errors.AsType[*bodyError](err); ok {
		return fault.Invalidf("the body of the request cannot be read").Because(b)
	}
	switch {
	case Down(err) || fault.Is(err, fault.Exhausted) || fault.Is(err, fault.Invalid):
		return err
	case errors.Is(c.ctx.Err(), context.Canceled):
		return fault.Unavailablef("the request was given up").Because(err)
	case errors.Is(err, ErrLate) || errors.Is(err, context.DeadlineExceeded):
		return fault.Unavailablef("extension %s did not answer in time", c.name).Because(errors.Join(ErrLate, err))
	}
	return fault.Unavailablef("extension %s broke the call off", c.name).Because(errors.Join(ErrBroken, err))
}

// routeBody is the body of an answer as it comes.
type routeBody struct {
	call   *routeCall
	buffer []byte
	more   bool
	read   int // since credit was given
}

// Read implements io.Reader.
func (b *routeBody) Read(p []byte) (int, error) {
	for len(b.buffer) == 0 {
		if !b.more {
			return 0, io.EOF
		}
		f, err := b.call.x.next(b.call.ctx)
		if err != nil {
			return 0, err
		}
		chunk := f.GetChunk()
		if chunk == nil {
			return 0, ErrBroken
		}
		b.buffer, b.more = chunk.GetData(), chunk.GetMore()
	}
	n := copy(p, b.buffer)
	b.buffer = b.buffer[n:]
	b.read += n
	b.call.x.consumed(b.call.ctx, &b.read)
	return n, nil
}

// Close ends the call.
func (b *routeBody) Close() error {
	b.call.close()
	return nil
}

// wireRoute is the first frame of a call. A short body of a known length travels in
// it: who is slow to send one must not take the plugin's time. Any other follows, part
// by part as it comes.
func wireRoute(r RouteRequest) (*own.HostFrame, error) {
	q := &own.RouteRequest{
		Method: r.Method, Path: r.Path, Query: r.Query, RequestId: r.RequestID,
		Principal: &own.Principal{Id: r.Principal.ID, Kind: r.Principal.Kind, Name: r.Principal.Name, Role: r.Principal.Role},
	}
	for _, h := range r.Headers {
		q.Headers = append(q.Headers, &own.Header{Name: h.Name, Value: h.Value})
	}
	if q.More = r.Length < 0 || r.Length > firstBody; !q.More {
		q.Body = make([]byte, r.Length)
		if _, err := io.ReadFull(r.Body, q.Body); err != nil {
			return nil, &bodyError{err}
		}
	}
	return &own.HostFrame{Body: &own.HostFrame_Route{Route: q}}, nil
}
