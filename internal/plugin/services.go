package plugin

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	own "github.com/sallyport-project/sallyport/api/sallyport/plugin/v1"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/secret"
	signals "github.com/sallyport-project/sallyport/internal/signal"
)

// House is what a plugin can have done for it, by the services that it asked for
// and that its operator agreed to. Every method is safe for concurrent use, and
// what the plugin gave was bounded before. Faults reach the plugin with their kind
// and public text.
type House interface {
	// Emit records an event of the plugin.
	Emit(ctx context.Context, plugin string, e Event) error
	// Raise reports a leaked credential, and returns the record and how many grants
	// matched. The same report under the same key is one report.
	Raise(ctx context.Context, plugin string, s signals.Signal, key string) (record string, matches int, err error)
	// Vend makes a credential for the plugin of a publisher, as policy allows. The same
	// request under the same key has the same answer; an empty key is none.
	Vend(ctx context.Context, plugin, publisher string, s grant.Scope, key string) (Vended, error)
}

// Event is what a plugin records.
type Event struct {
	Type string
	Data map[string]string
}

// The limits of what a plugin may ask of the house.
const (
	mostOutstanding = 64   // calls at a time, of mostWeight together; further ones are refused
	mostQueries     = 4    // whose answers are being made or sent; further ones wait
	mostRefused     = 1024 // refusals of those a second, and as many at once
	lineRate        = 20   // log lines a second, and as many at once
	putRate         = 200  // changes of values, likewise
	mostFields      = 32
	mostEventBytes  = 4 << 10
)

var eventType = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,62}[a-z0-9])?$`)

// services answers the calls of one process to the house.
type services struct {
	name      string
	publisher string
	asked     *manifest.Services
	host      *Host
	house     House // nil: nobody does what it asks for

	stream grpc.BidiStreamingClient[own.HostAnswer, own.HostCall]
	send   sync.Mutex
	work   sync.WaitGroup
	rows   chan struct{} // one for each query

	mu      sync.Mutex
	last    uint64 // the highest id so far: ids grow, so that none comes twice
	calls   int    // that are outstanding
	weight  int    // of these
	refused rate
	lines   rate
	asks    rate // events and reports: each is a record of the ledger
	puts    rate // changes of values: each is a commit
	vends   rate // credentials
}

// rate is so many a second, and as many at once.
type rate struct {
	left    float64
	at      time.Time
	dropped int
}

func (r *rate) take(most float64, now time.Time) bool {
	r.left = min(most, r.left+most*now.Sub(r.at).Seconds())
	r.at = now
	if r.left < 1 {
		r.dropped++
		return false
	}
	r.left--
	return true
}

// serveServices opens the stream of services, if the manifest asks for any, and
// answers until the process ends, or is stopped. A process that breaks the rules of the
// stream goes out of service.
func (h *Host) serveServices(i *instance) error {
	names := i.m.Capabilities.Services.Names()
	if len(names) == 0 {
		return nil
	}
	var ctx context.Context
	ctx, i.closes = context.WithCancel(context.Background())
	stream, err := own.NewPluginClient(i.conn).Services(ctx)
	if err == nil {
		err = stream.Send(&own.HostAnswer{Body: &own.HostAnswer_Welcome{Welcome: &own.Welcome{
			Services: names, VendKinds: i.m.Capabilities.Services.VendKinds(), MaxOutstanding: mostOutstanding,
		}}})
	}
	if err != nil {
		return &reasoned{fault.Unavailablef("plugin %s does not take the services that it asks for", i.m.Name).Because(err), ReasonStart}
	}
	s := &services{
		name: i.m.Name, publisher: i.m.Publisher, asked: i.m.Capabilities.Services, host: h, house: h.cfg.House,
		stream: stream, rows: make(chan struct{}, mostQueries),
	}
	go func() {
		err := s.read(ctx)
		s.work.Wait()
		if ctx.Err() == nil {
			h.cfg.Log.WarnContext(ctx, "plugin breaks the rules of its services", slog.String("plugin", i.m.Name), slog.Any("err", err))
			i.fail()
		}
	}()
	return nil
}

var errServices = errors.New("the plugin asks for what no plugin may, again and again")

// read takes calls until the stream ends. Its error, which it always has, says that
// the plugin broke the rules, or ended the stream while it runs.
func (s *services) read(ctx context.Context) error {
	for {
		var raw own.Batch // not decoded before it is known what that takes
		err := s.stream.RecvMsg(&raw)
		switch {
		case errors.Is(err, io.EOF):
			return errors.New("the plugin has ended the stream")
		case status.Code(err) == codes.Unimplemented:
			return errors.New("the plugin has no services")
		case err != nil:
			return err
		}
		if err := s.take(ctx, raw); err != nil {
			return err
		}
	}
}

// take begins a call, or refuses it.
func (s *services) take(ctx context.Context, raw []byte) error {
	id, err := own.FrameID(raw)
	if err != nil {
		return err
	}
	c := &own.HostCall{}
	weight, err := weigh(raw, c)
	if err != nil {
		return err
	}
	switch room, err := s.enter(id, weight); {
	case err != nil:
		return err
	case !room:
		s.answer(id, refusing(own.Code_CODE_EXHAUSTED, "too many calls are outstanding, or too large ones: 64 of 16 MiB together, decoded"))
		return nil
	}
	if err := proto.Unmarshal(raw, c); err != nil {
		s.leave(weight)
		return err
	}
	s.work.Go(func() {
		defer s.leave(weight)
		s.serve(ctx, c)
	})
	return nil
}

// enter reports whether a call may be outstanding beside the others. Its error says
// that the plugin broke the rules.
func (s *services) enter(id uint64, weight int) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id <= s.last {
		return false, errors.New("the plugin uses a number twice")
	}
	s.last = id
	if s.calls < mostOutstanding && s.weight+weight <= mostWeight {
		s.calls, s.weight = s.calls+1, s.weight+weight
		return true, nil
	}
	if !s.refused.take(mostRefused, s.host.cfg.Now()) {
		return false, errServices
	}
	return false, nil
}

func (s *services) leave(weight int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls, s.weight = s.calls-1, s.weight-weight
}

// serve does a call and answers it. The answers of queries are large, so that there
// are few of them at a time, however many wait and however slowly the plugin reads.
func (s *services) serve(ctx context.Context, c *own.HostCall) {
	if c.GetQuery() != nil {
		select {
		case s.rows <- struct{}{}:
			defer func() { <-s.rows }()
		case <-ctx.Done():
			return
		}
	}
	s.answer(c.GetId(), s.do(ctx, c))
}

func (s *services) answer(id uint64, a *own.HostAnswer) {
	a.Id = id
	if proto.Size(a) > s.host.cfg.MaxMessage {
		a = refusing(own.Code_CODE_EXHAUSTED, "the answer is larger than a message may be; ask for less")
		a.Id = id
	}
	s.send.Lock()
	defer s.send.Unlock()
	_ = s.stream.Send(a) // the reader learns of the end
}

func refusing(code own.Code, reason string) *own.HostAnswer {
	return &own.HostAnswer{Body: &own.HostAnswer_Refusal{Refusal: &own.Refusal{Code: code, Reason: reason}}}
}

// failing turns a fault into an answer: its public text, and nothing of its cause.
func failing(err error) *own.HostAnswer {
	code := own.Code_CODE_UNAVAILABLE
	switch fault.KindOf(err) {
	case fault.Invalid:
		code = own.Code_CODE_INVALID
	case fault.Denied, fault.Unauthenticated:
		code = own.Code_CODE_DENIED
	case fault.Exhausted:
		code = own.Code_CODE_EXHAUSTED
	case fault.Conflict:
		code = own.Code_CODE_CONFLICT
	case fault.NotFound:
		code = own.Code_CODE_NOT_FOUND
	}
	return refusing(code, fault.Public(err))
}

var done = &own.HostAnswer_Done{Done: &own.Done{}}

// serviceWindow bounds one call to the house.
const serviceWindow = 10 * time.Second

// do does one call, if it was granted.
func (s *services) do(ctx context.Context, c *own.HostCall) (a *own.HostAnswer) {
	ctx, cancel := context.WithTimeout(ctx, serviceWindow)
	defer cancel()
	name := serviceOf(c)
	switch {
	case name == "":
		return refusing(own.Code_CODE_UNIMPLEMENTED, "this host does not know this kind of call")
	case !slices.Contains(s.asked.Names(), name):
		return refusing(own.Code_CODE_DENIED, "the service "+name+" was not asked for in the manifest")
	}
	switch b := c.GetBody().(type) {
	case *own.HostCall_Log:
		s.line(ctx, b.Log)
		return &own.HostAnswer{Body: done}
	case *own.HostCall_Vend:
		if s.house != nil {
			return s.vend(ctx, b.Vend)
		}
	case *own.HostCall_Emit:
		if s.house != nil {
			return s.emit(ctx, b.Emit)
		}
	case *own.HostCall_Raise:
		if s.house != nil {
			return s.raise(ctx, b.Raise)
		}
	case *own.HostCall_KvGet, *own.HostCall_KvPut, *own.HostCall_KvDelete, *own.HostCall_KvList:
		if s.host.cfg.Values != nil {
			return s.keep(ctx, c)
		}
	case *own.HostCall_Query:
		rows, err := s.host.query(ctx, s.name, s.publisher, b.Query)
		if err != nil {
			return failing(err)
		}
		return &own.HostAnswer{Body: &own.HostAnswer_Rows{Rows: rows}}
	case *own.HostCall_Exec:
		n, err := s.host.exec(ctx, s.name, s.publisher, b.Exec)
		if err != nil {
			return failing(err)
		}
		return &own.HostAnswer{Body: &own.HostAnswer_Affected{Affected: n}}
	}
	return refusing(own.Code_CODE_UNIMPLEMENTED, "this host does not have the service "+name)
}

// serviceOf names the service that a call belongs to, empty if it is not known.
func serviceOf(c *own.HostCall) string {
	switch c.GetBody().(type) {
	case *own.HostCall_Log:
		return manifest.ServiceLog
	case *own.HostCall_KvGet, *own.HostCall_KvPut, *own.HostCall_KvDelete, *own.HostCall_KvList:
		return manifest.ServiceKV
	case *own.HostCall_Query, *own.HostCall_Exec:
		return manifest.ServiceDatabase
	case *own.HostCall_Emit:
		return manifest.ServiceEvents
	case *own.HostCall_Raise:
		return manifest.ServiceSignals
	case *own.HostCall_Vend:
		return manifest.ServiceVend
	default:
		return ""
	}
}

// line writes to the log, under the plugin's name and within its rate.
func (s *services) line(ctx context.Context, l *own.Log) {
	s.mu.Lock()
	ok, dropped := s.lines.take(lineRate, s.host.cfg.Now()), s.lines.dropped
	if ok {
		s.lines.dropped = 0
	}
	s.mu.Unlock()
	if !ok {
		return
	}
	level := map[own.Log_Level]slog.Level{
		own.Log_LEVEL_DEBUG: slog.LevelDebug, own.Log_LEVEL_WARN: slog.LevelWarn, own.Log_LEVEL_ERROR: slog.LevelError,
	}[l.GetLevel()]
	attrs := []slog.Attr{slog.String("plugin", s.name), slog.String("said", clip(l.GetMessage(), maxReason))}
	if dropped > 0 {
		attrs = append(attrs, slog.Int("dropped", dropped))
	}
	for n, name := range slices.Sorted(maps.Keys(l.GetFields())) {
		if n == mostFields {
			break
		}
		attrs = append(attrs, slog.String("field."+clip(name, 64), clip(l.GetFields()[name], maxReason)))
	}
	s.host.cfg.Log.LogAttrs(ctx, level, "plugin says", attrs...)
}

// records takes from the rate of what is recorded.
func (s *services) records() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asks.take(lineRate, s.host.cfg.Now())
}

var tooMany = "the plugin records more than 20 events and reports a second"

func (s *services) emit(ctx context.Context, e *own.Emit) *own.HostAnswer {
	if !s.records() {
		return refusing(own.Code_CODE_EXHAUSTED, tooMany)
	}
	size := 0
	for name, v := range e.GetData() {
		size += len(name) + len(v)
	}
	if !eventType.MatchString(e.GetType()) || len(e.GetData()) > mostFields || size > mostEventBytes {
		return refusing(own.Code_CODE_INVALID, "an event has a type of lower-case letters, digits, dots and hyphens, and at most 32 entries of 4 KiB together")
	}
	if err := s.house.Emit(ctx, s.name, Event{Type: e.GetType(), Data: e.GetData()}); err != nil {
		return failing(err)
	}
	return &own.HostAnswer{Body: done}
}

func (s *services) raise(ctx context.Context, r *own.Raise) *own.HostAnswer {
	if !s.records() {
		return refusing(own.Code_CODE_EXHAUSTED, tooMany)
	}
	what, err := leakOf(r)
	if err != nil {
		return failing(err)
	}
	record, matches, err := s.house.Raise(ctx, s.name, what, r.GetIdempotencyKey())
	if err != nil {
		return failing(err)
	}
	return &own.HostAnswer{Body: &own.HostAnswer_Raised{Raised: &own.Raised{Record: record, Matches: uint32(min(max(matches, 0), 1<<20))}}}
}

// leakOf reads a report.
func leakOf(r *own.Raise) (signals.Signal, error) {
	s := signals.Signal{Source: r.GetSource(), Location: r.GetLocation(), Reason: r.GetReason()}
	switch what := r.GetWhat().(type) {
	case *own.Raise_Value:
		s.Value = secret.New(what.Value)
	case *own.Raise_Sha256:
		s.Digest = hex.EncodeToString(what.Sha256)
	}
	return s, s.Validate()
}
