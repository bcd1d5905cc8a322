package plugintest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"

	own "github.com/sallyport-project/sallyport/api/sallyport/plugin/v1"
	"github.com/sallyport-project/sallyport/sdk/plugin"
)

// calls is the host's side of a stream of calls.
type calls struct {
	send   sync.Mutex
	stream grpc.BidiStreamingClient[own.HostFrames, own.PluginFrames]

	mu      sync.Mutex
	last    uint64
	waiting map[uint64]chan *own.PluginFrame
	ended   chan struct{}
	err     error // why it has ended
}

func newCalls(stream grpc.BidiStreamingClient[own.HostFrames, own.PluginFrames]) *calls {
	c := &calls{stream: stream, waiting: map[uint64]chan *own.PluginFrame{}, ended: make(chan struct{})}
	go c.read()
	return c
}

func (c *calls) read() {
	defer close(c.ended)
	for {
		batch, err := c.stream.Recv()
		if err != nil {
			c.err = err
			return
		}
		for _, f := range batch.GetFrames() {
			c.mu.Lock()
			to := c.waiting[f.GetId()]
			c.mu.Unlock()
			if to != nil {
				to <- f
			}
		}
	}
}

// write sends one frame.
func (c *calls) write(f *own.HostFrame) error {
	c.send.Lock()
	defer c.send.Unlock()
	return c.stream.Send(&own.HostFrames{Frames: []*own.HostFrame{f}})
}

// exchange is one call under way.
type exchange struct {
	c       *calls
	id      uint64
	answers chan *own.PluginFrame
}

// partsAhead is how many frames of one answer may wait to be read: more than the
// credit of a body makes.
const partsAhead = 64

// begin sends the first frame of a call. end must be called.
func (c *calls) begin(ctx context.Context, f *own.HostFrame) (*exchange, error) {
	c.mu.Lock()
	c.last++
	x := &exchange{c: c, id: c.last, answers: make(chan *own.PluginFrame, partsAhead)}
	c.waiting[x.id] = x.answers
	c.mu.Unlock()
	f.Id = x.id
	if deadline, ok := ctx.Deadline(); ok {
		f.TimeoutMs = uint32(max(min(time.Until(deadline).Milliseconds(), 1<<30), 1))
	}
	return x, c.write(f)
}

// next waits for the next frame of the answer. When the context ends the call is
// cancelled at the plugin.
func (x *exchange) next(ctx context.Context) (*own.PluginFrame, error) {
	select {
	case f := <-x.answers:
		if r := f.GetRefusal(); r != nil {
			return nil, refused(r)
		}
		return f, nil
	case <-x.c.ended:
		return nil, fmt.Errorf("the plugin has ended the stream: %w", x.c.err)
	case <-ctx.Done():
		_ = x.c.write(&own.HostFrame{Id: x.id, Body: &own.HostFrame_Cancel{Cancel: &own.Cancel{}}}) // nobody waits
		return nil, ctx.Err()
	}
}

func (x *exchange) end() {
	x.c.mu.Lock()
	defer x.c.mu.Unlock()
	delete(x.c.waiting, x.id)
}

// call makes a call that has one answer.
func (c *calls) call(ctx context.Context, f *own.HostFrame) (*own.PluginFrame, error) {
	x, err := c.begin(ctx, f)
	if err != nil {
		return nil, err
	}
	defer x.end()
	return x.next(ctx)
}

// refused is the error that a refusal was made of; nil for none.
func refused(r *own.Refusal) error {
	switch r.GetCode() {
	case own.Code_CODE_INVALID:
		return plugin.Invalidf("%s", r.GetReason())
	case own.Code_CODE_DENIED:
		return plugin.Deniedf("%s", r.GetReason())
	case own.Code_CODE_EXHAUSTED:
		return plugin.Exhaustedf("%s", r.GetReason())
	case own.Code_CODE_UNIMPLEMENTED:
		return plugin.Unimplementedf("%s", r.GetReason())
	default:
		return plugin.Unavailablef("%s", r.GetReason())
	}
}

// wrong is an answer to another question.
func wrong(want string) error {
	return fmt.Errorf("the plugin answers something else than %s", want)
}
