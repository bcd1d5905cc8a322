package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"google.golang.org/grpc"

	own "github.com/sallyport-project/sallyport/api/sallyport/plugin/v1"
)

// Host is what the host does for the plugin: the services that the manifest asks
// for under capabilities.services and that the operator has agreed to. All else is
// refused with [Denied]. A call waits until the host has opened the services, no
// longer than its context. Safe for concurrent use.
type Host struct {
	opened chan struct{} // closed with the first welcome
	once   sync.Once

	mu      sync.Mutex
	link    *link
	welcome *own.Welcome
}

type hostKey struct{}

// HostFrom gives the host of a call's context. It stays the same, and may be kept,
// for as long as the process lives. Outside of a plugin's call it is a host that
// never answers.
func HostFrom(ctx context.Context) *Host {
	if h, ok := ctx.Value(hostKey{}).(*Host); ok {
		return h
	}
	return newHost()
}

func newHost() *Host { return &Host{opened: make(chan struct{})} }

// Grants reports whether a service was granted: log, kv, database, events, signals
// or vend. It waits until the host has said so.
func (h *Host) Grants(ctx context.Context, service string) (bool, error) {
	select {
	case <-h.opened:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Contains(h.welcome.GetServices(), service), nil
}

// link is one open stream of services.
type link struct {
	send    sync.Mutex
	stream  grpc.BidiStreamingServer[own.HostAnswer, own.HostCall]
	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan *own.HostAnswer
	broken  chan struct{}
}

// Services is the host's stream.
func (s *server) Services(stream grpc.BidiStreamingServer[own.HostAnswer, own.HostCall]) error {
	if !s.serving.CompareAndSwap(false, true) {
		return errors.New("the services are open already")
	}
	defer s.serving.Store(false)
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if first.GetWelcome() == nil {
		return errors.New("the first message must be a welcome")
	}
	l := &link{stream: stream, waiting: map[uint64]chan *own.HostAnswer{}, broken: make(chan struct{})}
	defer close(l.broken)
	s.host.open(l, first.GetWelcome())
	for {
		a, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		l.mu.Lock()
		c := l.waiting[a.GetId()]
		delete(l.waiting, a.GetId())
		l.mu.Unlock()
		if c != nil {
			c <- a
		}
	}
}

func (h *Host) open(l *link, w *own.Welcome) {
	h.mu.Lock()
	h.link, h.welcome = l, w
	h.mu.Unlock()
	h.once.Do(func() { close(h.opened) })
}

// errUnknownOutcome says that the stream broke before an answer came.
var errUnknownOutcome = errors.New("the host's services ended; whether the call was done is not known")

// call makes one call and waits for its answer.
func (h *Host) call(ctx context.Context, c *own.HostCall) (*own.HostAnswer, error) {
	select {
	case <-h.opened:
	case <-ctx.Done():
		return nil, fmt.Errorf("the host has not opened its services: %w", ctx.Err())
	}
	h.mu.Lock()
	l := h.link
	h.mu.Unlock()
	answer := make(chan *own.HostAnswer, 1)
	l.mu.Lock()
	l.next++
	c.Id = l.next
	l.waiting[c.Id] = answer
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		delete(l.waiting, c.Id)
		l.mu.Unlock()
	}()
	l.send.Lock()
	err := l.stream.Send(c)
	l.send.Unlock()
	if err != nil {
		return nil, fmt.Errorf("the host's services have ended: %w", err)
	}
	select {
	case a := <-answer:
		if r := a.GetRefusal(); r != nil {
			return nil, &refusal{r.GetCode(), r.GetReason()}
		}
		return a, nil
	case <-l.broken:
		return nil, errUnknownOutcome
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
