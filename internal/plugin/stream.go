package plugin

import (
	"context"
	"errors"
	"io"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	own "github.com/sallyport-project/sallyport/api/sallyport/plugin/v1"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// errLost says that the stream broke before an answer came: whether the call
// was done is not known.
var errLost = errors.New("the plugin's stream broke")

// stream carries calls of sallyport.plugin.v1 over one long-lived bidirectional
// stream. It opens with the first call, and again after an answer that was too
// large; any other end of it is the end of the process's service. Safe for
// concurrent use.
type stream struct {
	client own.PluginClient
	fail   func()    // takes the process out of service
	idle   sync.Pool // of *pending that nobody holds

	opening chan struct{} // held by who opens a lane; capacity 1
	mu      sync.Mutex    // never held while somebody waits
	live    *lane
	closed  bool
}

func newStream(client own.PluginClient, fail func()) *stream {
	return &stream{client: client, fail: fail, opening: make(chan struct{}, 1)}
}

// lane is one opened stream.
type lane struct {
	calls  grpc.ClientStream
	cancel context.CancelFunc
	fail   func()
	out    chan *pending
	broken chan struct{}

	mu       sync.Mutex
	next     uint64
	strays   uint64 // answers that nobody waited for
	waiting  map[uint64]*pending
	watcher  *time.Timer // runs watch while watching
	watching bool
	open     map[uint64]*dialogue // calls of routes
	err      error                // set before broken is closed
	ended    sync.Once
	threads  sync.WaitGroup
}

// pending is a frame on its way, and the place for its answer. Both are encoded.
type pending struct {
	frame    []byte
	deadline time.Time   // zero if the caller sees to it
	answer   chan []byte // nil: the time is over
	state    atomic.Int32
}

// The states of a pending frame.
const (
	isWaiting int32 = iota
	isTaken
	isCopied // into a message: the writer does not hold it any more
)

// take decides, once, who has the frame: the writer, who then sends it, or its
// caller, who then knows that it never will be sent.
func (p *pending) take() bool { return p.state.CompareAndSwap(isWaiting, isTaken) }

// queued is how many frames may wait to be written.
const queued = 64

// call sends one frame and waits for its answer, no longer than ctx, of which
// the plugin learns the time left, and the cancellation.
func (s *stream) call(ctx context.Context, frame *own.HostFrame) (*own.PluginFrame, error) {
	l, err := s.lane(ctx)
	if err != nil {
		return nil, errors.Join(errUnsent, err)
	}
	frame.TimeoutMs = left(ctx)
	done, deadline := waker(ctx)
	p, ok := s.idle.Get().(*pending)
	if !ok {
		p = &pending{answer: make(chan []byte, 1)}
	}
	p.deadline = deadline
	frame.Id = l.register(p)
	if p.frame, err = (proto.MarshalOptions{}).MarshalAppend(p.frame[:0], frame); err != nil {
		l.forget(frame.Id)
		return nil, fault.Invalidf("the question to the plugin has text that is not UTF-8").Because(err)
	}
	select {
	case l.out <- p:
	default:
		select {
		case l.out <- p:
		case <-l.broken:
			l.forget(frame.Id)
			return nil, errors.Join(errUnsent, l.err)
		case <-ctx.Done():
			l.forget(frame.Id)
			return nil, ctx.Err()
		}
	}
	answer, err := l.await(ctx, done, frame.Id, p)
	if err != nil {
		l.forget(frame.Id)
		return nil, err
	}
	if p.state.CompareAndSwap(isCopied, isWaiting) { // else the plugin has answered before it was asked
		s.idle.Put(p)
	}
	a := &own.PluginFrame{}
	if err := decode(answer, a); err != nil {
		l.end(err)
		return nil, l.err
	}
	return a, nil
}

// left is the time that a context leaves a plugin, in milliseconds, 0 for as long as it
// takes.
func left(ctx context.Context) uint32 {
	deadline, ok := ctx.Deadline()
	if !ok {
		return 0
	}
	return uint32(min(max(time.Until(deadline).Milliseconds(), 1), math.MaxUint32))
}

// await waits for the answer to a frame that was given to the writer, until done: the
// end of ctx but for a deadline that watch sees.
func (l *lane) await(ctx context.Context, done <-chan struct{}, id uint64, p *pending) ([]byte, error) {
	select {
	case a := <-p.answer:
		if a != nil {
			return a, nil
		}
	case <-l.broken:
		select { // the answer may have come first
		case a := <-p.answer:
			if a != nil {
				return a, nil
			}
		default:
		}
		if p.take() {
			return nil, errors.Join(errUnsent, l.err)
		}
		return nil, l.err
	case <-done:
	}
	err := ctx.Err()
	if err == nil { // the watch may be ahead of the clock that ctx reads
		err = context.DeadlineExceeded
	}
	if !p.take() {
		l.cancelled(id)
	}
	return nil, err
}

// cancelled tells the plugin that nobody waits for an answer.
func (l *lane) cancelled(id uint64) {
	cancel, err := proto.Marshal(&own.HostFrame{Id: id, Body: &own.HostFrame_Cancel{Cancel: &own.Cancel{}}})
	if err != nil {
		return
	}
	select {
	case l.out <- &pending{frame: cancel}:
	default: // a plugin that reads nothing does not read this either
	}
}

// watchEvery is how late the end of a call's time may be noticed.
const watchEvery = 10 * time.Millisecond

// watch ends the calls whose time is over, for as long as calls wait. One timer for all
// of them costs less than one for each.
func (l *lane) watch() {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	timed := false
	for id, p := range l.waiting {
		switch {
		case p.deadline.IsZero():
		case now.Before(p.deadline):
			timed = true
		default:
			delete(l.waiting, id)
			p.answer <- nil
		}
	}
	if l.watching = timed; timed {
		l.watcher.Reset(watchEvery)
	}
}

// lane returns the open stream and opens one if there is none. A plugin decides how
// long that takes: its caller waits no longer than ctx, nor do those who come meanwhile.
func (s *stream) lane(ctx context.Context) (*lane, error) {
	if l, err := s.opened(); l != nil || err != nil {
		return l, err
	}
	select {
	case s.opening <- struct{}{}:
		defer func() { <-s.opening }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if l, err := s.opened(); l != nil || err != nil {
		return l, err
	}
	l, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.live = l
	closed := s.closed
	s.mu.Unlock()
	if closed {
		l.cancel()
		l.threads.Wait()
		return nil, errLost
	}
	return l, nil
}

// opened is the lane that can be used, nil for none.
func (s *stream) opened() (*lane, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errLost
	}
	if s.live == nil {
		return nil, nil //nolint:nilnil // none is no fault
	}
	select {
	case <-s.live.broken:
		s.live.cancel()
		return nil, nil //nolint:nilnil // as above
	default:
		return s.live, nil
	}
}

// open opens a lane.
func (s *stream) open(caller context.Context) (*lane, error) {
	ctx, cancel := context.WithCancel(context.Background())
	abandon := context.AfterFunc(caller, cancel)
	calls, err := s.client.Calls(ctx)
	if !abandon() && err == nil {
		err = caller.Err()
	}
	if err != nil {
		cancel()
		return nil, err
	}
	l := &lane{
		calls: calls, cancel: cancel, fail: s.fail, out: make(chan *pending, queued),
		broken: make(chan struct{}), waiting: map[uint64]*pending{}, open: map[uint64]*dialogue{},
	}
	l.watcher = time.AfterFunc(watchEvery, l.watch)
	l.threads.Add(2)
	go l.write(ctx)
	go l.read()
	return l, nil
}

func (l *lane) register(p *pending) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next++
	l.waiting[l.next] = p
	if !l.watching && !p.deadline.IsZero() {
		l.watching = true
		l.watcher.Reset(watchEvery)
	}
	return l.next
}

func (l *lane) forget(id uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.waiting, id)
}

// write is the one writer of the stream; callers never wait for a plugin that
// does not read longer than their own deadline.
func (l *lane) write(ctx context.Context) {
	defer l.threads.Done()
	for {
		select {
		case p := <-l.out:
			runtime.Gosched() // who is about to ask too travels in the same message
			if batch := l.batch(p); len(batch) > 0 {
				if err := l.calls.SendMsg(batch); err != nil {
					return // the reader learns why
				}
			}
		case <-l.broken:
			return
		case <-ctx.Done():
			return
		}
	}
}

// batch is a message of the first frame and of what else waits to be sent.
func (l *lane) batch(p *pending) own.Batch {
	b := make(own.Batch, 0, 2*len(p.frame)+512)
	for {
		if p.take() {
			b = b.Append(p.frame)
			p.state.Store(isCopied)
		}
		if len(b) >= own.BatchBytes {
			return b
		}
		select {
		case p = <-l.out:
		default:
			return b
		}
	}
}

// mostStrays is how many more answers than questions nobody may have waited for.
const mostStrays = 1024

var errStrays = errors.New("the plugin sends answers that nobody asked for")

// read hands answers to those who wait; one that nobody waits for, because it is
// late, repeated or invented, is dropped. A process that sends more of them than
// any mistake explains goes out of service.
func (l *lane) read() {
	defer l.threads.Done()
	for {
		var batch own.Batch
		if err := l.calls.RecvMsg(&batch); err != nil {
			l.end(err)
			return
		}
		for {
			frame, err := batch.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err == nil {
				err = l.hand(frame)
			}
			if err != nil {
				l.end(err)
				return
			}
		}
	}
}

// hand gives one answer to who waits for it.
func (l *lane) hand(frame []byte) error {
	id, err := own.FrameID(frame)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if p := l.waiting[id]; p != nil {
		delete(l.waiting, id)
		p.answer <- frame
		return nil
	}
	if x := l.open[id]; x != nil && x.take(frame) {
		return nil
	}
	if l.strays++; l.strays > l.next+mostStrays {
		return errStrays
	}
	return nil
}

// end tells who waits why the stream broke. The process goes out of service
// first, so that no call is repeated where it was lost.
func (l *lane) end(err error) {
	l.ended.Do(func() {
		switch status.Code(err) {
		case codes.ResourceExhausted:
			l.err = errTooLarge
		case codes.Unimplemented:
			l.err = err
		default:
			l.err = errors.Join(errLost, err)
			l.fail()
		}
		close(l.broken)
		l.cancel()
	})
}

// errTooLarge says that some answer on the stream was over the limit. Which call
// it belonged to cannot be known, so it breaks all that are in flight.
var errTooLarge = errors.New("an answer of the plugin is larger than the message limit")

// close ends the stream; calls in flight fail.
func (s *stream) close() {
	s.mu.Lock()
	s.closed = true
	l := s.live
	s.mu.Unlock()
	if l != nil {
		l.cancel()
		l.threads.Wait()
	}
}
