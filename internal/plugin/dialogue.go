package plugin

import (
	"context"
	"errors"
	"io"
	"sync"

	"google.golang.org/protobuf/proto"

	own "github.com/sallyport-project/sallyport/api/sallyport/plugin/v1"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// A call of a route may have bodies of any length, in both directions. They travel
// as chunks among the frames of other calls; credit keeps a slow reader's chunks
// from filling memory or holding up others.

const (
	credit     = 256 << 10 // that a body may be ahead of its reader
	chunkBytes = 32 << 10  // of a chunk that we send
	fewChunks  = 64        // chunks of one byte may be that many beyond their credit
	framing    = 128 << 10 // bytes that frames may have beyond those of bodies
)

// received is a frame and its length, encoded.
type received struct {
	frame *own.PluginFrame
	size  int
}

// dialogue is one call of a route on a lane.
type dialogue struct {
	lane *lane
	id   uint64

	mu      sync.Mutex
	frames  []received    // that came and nobody has taken
	held    int           // bytes of these
	ahead   int           // bytes of body among what came, less the credit that we gave
	ended   bool          // the last frame came
	err     error         // of the call
	allowed int           // bytes of the request's body that may still be sent
	arrived chan struct{} // something of the above has changed; capacity 1
	more    chan struct{} // allowed has grown, or the call is over; capacity 1
}

// begin opens a call and sends its first frame, which waits no longer than ctx. The
// caller must close it.
func (s *stream) begin(ctx context.Context, frame *own.HostFrame, sent int) (*dialogue, error) {
	l, err := s.lane(ctx)
	if err != nil {
		return nil, errors.Join(errUnsent, err)
	}
	x := &dialogue{lane: l, allowed: credit - sent, arrived: make(chan struct{}, 1), more: make(chan struct{}, 1)}
	l.mu.Lock()
	l.next++
	x.id = l.next
	l.open[x.id] = x
	l.mu.Unlock()
	frame.Id = x.id
	if err := x.send(ctx, frame); err != nil {
		x.forget()
		return nil, err
	}
	return x, nil
}

// send gives a frame to the writer of the lane.
func (x *dialogue) send(ctx context.Context, frame *own.HostFrame) error {
	data, err := proto.Marshal(frame)
	if err != nil {
		return fault.Invalidf("the request has text that is not UTF-8").Because(err)
	}
	select {
	case x.lane.out <- &pending{frame: data}:
		return nil
	case <-x.lane.broken:
		return x.lane.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// take takes what the plugin has sent, and reports whether the call was still waiting
// for it; it never waits. Whoever reads the answer may be slow: what comes when
// nothing more may come is not kept.
func (x *dialogue) take(data []byte) bool {
	f := &own.PluginFrame{}
	err := decode(data, f)
	x.mu.Lock()
	defer x.mu.Unlock()
	if c := f.GetCredit(); c != nil && err == nil {
		x.allowed = min(x.allowed+int(min(c.GetBytes(), credit)), credit)
		signal(x.more)
		return true
	}
	if x.ended {
		return false
	}
	switch b := f.GetBody().(type) {
	case *own.PluginFrame_Route:
		x.ahead += len(b.Route.GetBody())
		x.ended = !b.Route.GetMore()
	case *own.PluginFrame_Chunk:
		x.ahead += len(b.Chunk.GetData())
		x.ended = !b.Chunk.GetMore()
	case *own.PluginFrame_Refusal:
		x.ended = true
	default:
		err = errors.Join(err, errStrange)
	}
	x.held += len(data)
	if most := credit + own.MaxMessageBytes; x.ahead > most || x.held > most+framing || len(x.frames) > credit/fewChunks {
		err = errors.New("the plugin sends more than it may")
	}
	if err != nil {
		x.ended, x.frames = true, nil
		if x.err == nil {
			x.err = err
		}
	} else {
		x.frames = append(x.frames, received{f, len(data)})
	}
	signal(x.arrived)
	if x.ended {
		signal(x.more) // nothing more needs to be sent
	}
	return true
}

// fail ends the call from our side.
func (x *dialogue) fail(err error) {
	x.mu.Lock()
	if x.err == nil {
		x.err = err
	}
	x.mu.Unlock()
	signal(x.arrived)
}

var errStrange = errors.New("the plugin gives an answer that does not belong to the question")

// next waits for the next frame.
func (x *dialogue) next(ctx context.Context) (*own.PluginFrame, error) {
	for {
		x.mu.Lock()
		if x.err != nil {
			defer x.mu.Unlock()
			return nil, x.err
		}
		if len(x.frames) > 0 {
			f := x.frames[0]
			x.frames = x.frames[1:]
			x.held -= f.size
			x.mu.Unlock()
			return f.frame, nil
		}
		x.mu.Unlock()
		select {
		case <-x.arrived:
		case <-x.lane.broken:
			x.mu.Lock()
			if len(x.frames) == 0 && x.err == nil { // what came first still counts
				x.err = x.lane.err
			}
			x.mu.Unlock()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// consumed gives credit for what was read, in large steps.
func (x *dialogue) consumed(ctx context.Context, n *int) {
	if *n < credit/4 {
		return
	}
	grant := *n
	*n = 0
	x.mu.Lock()
	x.ahead -= grant
	over := x.ended
	x.mu.Unlock()
	if !over {
		_ = x.send(ctx, &own.HostFrame{Id: x.id, Body: &own.HostFrame_Credit{Credit: &own.Credit{Bytes: uint32(grant)}}}) //nolint:gosec // at most the credit
	}
}

// pump sends a request's body as it comes, and says after each part that it goes
// on. An error of the body is a [bodyError].
func (x *dialogue) pump(ctx context.Context, body io.Reader, goesOn func()) error {
	buffer := make([]byte, chunkBytes)
	for {
		n, err := body.Read(buffer)
		last := errors.Is(err, io.EOF)
		if err != nil && !last {
			return &bodyError{err}
		}
		if n == 0 && !last {
			continue
		}
		goesOn()
		if err := x.room(ctx, n); err != nil {
			return err
		}
		chunk := &own.BodyChunk{Data: append([]byte(nil), buffer[:n]...), More: !last}
		if err := x.send(ctx, &own.HostFrame{Id: x.id, Body: &own.HostFrame_Chunk{Chunk: chunk}}); err != nil || last {
			return err
		}
	}
}

// bodyError is an error of the body of a request: it is the caller's.
type bodyError struct{ cause error }

// Error is the cause's text.
func (e *bodyError) Error() string { return e.cause.Error() }

// Unwrap gives the cause.
func (e *bodyError) Unwrap() error { return e.cause }

// room waits until so many bytes may be sent.
func (x *dialogue) room(ctx context.Context, n int) error {
	for {
		x.mu.Lock()
		ok, over := x.allowed >= n, x.ended
		if ok {
			x.allowed -= n
		}
		x.mu.Unlock()
		if ok {
			return nil
		}
		if over { // it has answered without reading all
			return io.ErrClosedPipe
		}
		select {
		case <-x.more:
		case <-x.lane.broken:
			return x.lane.err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (x *dialogue) forget() {
	x.lane.mu.Lock()
	delete(x.lane.open, x.id)
	x.lane.mu.Unlock()
}

// close ends the call; a plugin that has not finished learns that nobody waits.
func (x *dialogue) close() {
	x.forget()
	x.mu.Lock()
	over := x.ended
	x.ended = true
	x.mu.Unlock()
	signal(x.more)
	if over {
		return
	}
	cancel, err := proto.Marshal(&own.HostFrame{Id: x.id, Body: &own.HostFrame_Cancel{Cancel: &own.Cancel{}}})
	if err != nil {
		return
	}
	select {
	case x.lane.out <- &pending{frame: cancel}:
	default: // a plugin that reads nothing does not read this either
	}
}
