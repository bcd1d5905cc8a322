package plugintest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	own "github.com/sallyport-project/sallyport/api/sallyport/plugin/v1"
	"github.com/sallyport-project/sallyport/sdk/plugin"
)

// Host is a host that does what a plugin asks for and remembers it. What was not
// granted it denies. Its methods are safe for concurrent use, and give copies.
type Host struct {
	cfg Config

	mu      sync.Mutex
	lines   []Line
	events  []Event
	leaks   []plugin.Leak
	vended  []plugin.Scope
	values  map[string]value
	version uint64
	once    map[string]*own.HostAnswer // by the service and its idempotency key
}

// Line is what a plugin wrote to its host's log.
type Line struct {
	Level   plugin.LogLevel
	Message string
	Fields  map[string]string
}

// Event is what a plugin recorded.
type Event struct {
	Type string
	Data map[string]string
}

type value struct {
	data    []byte
	version uint64
}

func newHost(c Config) *Host {
	return &Host{cfg: c, values: map[string]value{}, once: map[string]*own.HostAnswer{}}
}

// Lines are what it wrote to the log, in order.
func (h *Host) Lines() []Line { return read(h, &h.lines) }

// Events are what it recorded, in order.
func (h *Host) Events() []Event { return read(h, &h.events) }

// Leaks are what it reported, in order.
func (h *Host) Leaks() []plugin.Leak { return read(h, &h.leaks) }

// Vended are the credentials that it asked for and was given, in order.
func (h *Host) Vended() []plugin.Scope { return read(h, &h.vended) }

// read copies a list that only grows.
func read[T any](h *Host, list *[]T) []T {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(*list)
}

// Value is what stands under a key, nil if nothing does.
func (h *Host) Value(key string) []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.values[key].data)
}

// Put puts a value under a key, as something that was there before.
func (h *Host) Put(key string, data []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.version++
	h.values[key] = value{slices.Clone(data), h.version}
}

// atOnce is how many calls may be outstanding.
const atOnce = 64

// open welcomes the plugin and answers what it asks for until the stream ends.
func (h *Host) open(stream grpc.BidiStreamingClient[own.HostAnswer, own.HostCall]) error {
	welcome := &own.Welcome{Services: h.cfg.Services, MaxOutstanding: atOnce}
	if err := stream.Send(&own.HostAnswer{Body: &own.HostAnswer_Welcome{Welcome: welcome}}); err != nil {
		return err
	}
	var send sync.Mutex
	go func() {
		for {
			c, err := stream.Recv()
			if err != nil {
				return
			}
			go func() {
				a := h.answer(stream.Context(), c)
				a.Id = c.GetId()
				send.Lock()
				defer send.Unlock()
				_ = stream.Send(a) // the reader learns of the end
			}()
		}
	}()
	return nil
}

func no(code own.Code, format string, args ...any) *own.HostAnswer {
	return &own.HostAnswer{Body: &own.HostAnswer_Refusal{Refusal: &own.Refusal{Code: code, Reason: fmt.Sprintf(format, args...)}}}
}

func done() *own.HostAnswer { return &own.HostAnswer{Body: &own.HostAnswer_Done{Done: &own.Done{}}} }

// service names what a call belongs to.
func service(c *own.HostCall) string {
	switch c.GetBody().(type) {
	case *own.HostCall_Log:
		return "log"
	case *own.HostCall_KvGet, *own.HostCall_KvPut, *own.HostCall_KvDelete, *own.HostCall_KvList:
		return "kv"
	case *own.HostCall_Query, *own.HostCall_Exec:
		return "database"
	case *own.HostCall_Emit:
		return "events"
	case *own.HostCall_Raise:
		return "signals"
	case *own.HostCall_Vend:
		return "vend"
	}
	return ""
}

func (h *Host) answer(ctx context.Context, c *own.HostCall) *own.HostAnswer {
	if name := service(c); !slices.Contains(h.cfg.Services, name) {
		return no(own.Code_CODE_DENIED, "the service %s was not granted", name)
	}
	switch b := c.GetBody().(type) {
	case *own.HostCall_Query, *own.HostCall_Exec:
		return h.database(ctx, c)
	case *own.HostCall_Raise:
		return h.repeated("raise", b.Raise.GetIdempotencyKey(), func() *own.HostAnswer { return h.raise(b.Raise) })
	case *own.HostCall_Vend:
		return h.repeated("vend", b.Vend.GetIdempotencyKey(), func() *own.HostAnswer { return h.vend(b.Vend) })
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	switch b := c.GetBody().(type) {
	case *own.HostCall_Log:
		h.lines = append(h.lines, Line{plugin.LogLevel(b.Log.GetLevel()), b.Log.GetMessage(), maps.Clone(b.Log.GetFields())})
		return done()
	case *own.HostCall_Emit:
		h.events = append(h.events, Event{b.Emit.GetType(), maps.Clone(b.Emit.GetData())})
		return done()
	}
	return h.keep(c)
}

// repeated gives the first answer again under the same key.
func (h *Host) repeated(what, key string, do func() *own.HostAnswer) *own.HostAnswer {
	if key == "" {
		return do()
	}
	h.mu.Lock()
	first := h.once[what+" "+key]
	h.mu.Unlock()
	if first != nil {
		return &own.HostAnswer{Body: first.GetBody()}
	}
	a := do()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.once[what+" "+key] = &own.HostAnswer{Body: a.GetBody()}
	return a
}

func (h *Host) raise(r *own.Raise) *own.HostAnswer {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.leaks = append(h.leaks, plugin.Leak{
		Value: r.GetValue(), SHA256: r.GetSha256(), Source: r.GetSource(), Location: r.GetLocation(), Reason: r.GetReason(), Idempotency: r.GetIdempotencyKey(),
	})
	return &own.HostAnswer{Body: &own.HostAnswer_Raised{Raised: &own.Raised{
		Record: fmt.Sprintf("record-%d", len(h.leaks)), Matches: uint32(max(h.cfg.Matches, 0)),
	}}}
}

func (h *Host) vend(q *own.Vend) *own.HostAnswer {
	scope, err := readScope(&own.Scope{Kind: q.GetKind(), Params: q.GetParams(), TtlSeconds: q.GetTtlSeconds()})
	if err != nil {
		return no(own.Code_CODE_INVALID, "%s", err)
	}
	v := plugin.Vended{Scope: scope, Value: []byte("credential-of-a-test"), ExpiresAt: time.Now().Add(scope.TTL)}
	if h.cfg.Vend != nil {
		if v, err = h.cfg.Vend(scope); err != nil {
			return refusing(err)
		}
	}
	wire, err := wireScope(v.Scope)
	if err != nil {
		return no(own.Code_CODE_INVALID, "%s", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.vended = append(h.vended, scope)
	if v.Grant == "" {
		v.Grant = fmt.Sprintf("grant-%d", len(h.vended))
	}
	return &own.HostAnswer{Body: &own.HostAnswer_Vended{Vended: &own.Vended{
		Grant: v.Grant, Scope: wire, Value: v.Value, PrivateKey: v.PrivateKey, ExpiresAtUnix: v.ExpiresAt.Unix(),
	}}}
}

// refusing is the refusal that an error of package plugin means.
func refusing(err error) *own.HostAnswer {
	code := own.Code_CODE_UNAVAILABLE
	switch {
	case plugin.Denied(err):
		code = own.Code_CODE_DENIED
	case plugin.Exhausted(err):
		code = own.Code_CODE_EXHAUSTED
	case plugin.Conflict(err):
		code = own.Code_CODE_CONFLICT
	}
	return no(code, "%s", err)
}
