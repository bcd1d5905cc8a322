// Package extension is the door of extensions, /api/v1/<prefix>/: it recognises the
// caller as our own API does, has package flow ask policy about the route, and gives
// the request to the plugin.
//
// The plugin learns who calls and never what the caller has shown: credentials,
// cookies and headers of the connection stay here. Of its answer only headers that
// are listed pass, so that it can set no cookie, open no page of ours to another
// origin and run no script under our name.
package extension

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/api/rest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/obs"
	"github.com/sallyport-project/sallyport/internal/plugin"
)

// Base is what all paths of this door begin with.
const Base = "/api/v1/"

// MaxBody is the largest body of a request, in bytes.
const MaxBody = 16 << 20

// Gate is what the door needs of [flow.Gate].
type Gate interface {
	Authenticate(ctx context.Context, p flow.Presented) (flow.Caller, error)
	FindExtension(prefix string) (plugin.Extension, error)
	CallExtension(ctx context.Context, c flow.Caller, call flow.Call) (*plugin.RouteAnswer, error)
	ListExtensions(ctx context.Context, c flow.Caller) ([]plugin.Extension, error)
}

var _ Gate = (*flow.Gate)(nil)

// Config is what a [Door] is made of; every member is required.
type Config struct {
	Gate    Gate
	Log     *slog.Logger
	Metrics *obs.Metrics
	Now     func() time.Time
}

// Door serves [Base].
type Door struct {
	cfg      Config
	origin   *http.CrossOriginProtection
	requests *obs.Counter
	seconds  *obs.Histogram
}

var _ http.Handler = (*Door)(nil)

// New makes the door. It declares metrics, so it is called once per registry.
func New(c Config) *Door {
	return &Door{
		cfg: c, origin: http.NewCrossOriginProtection(),
		requests: c.Metrics.Counter("sallyport_extension_requests_total", "Requests for routes of extensions.",
			obs.AtMost("prefix", 64), obs.OneOf("status", "2xx", "3xx", "4xx", "5xx")),
		seconds: c.Metrics.Histogram("sallyport_extension_request_seconds", "Time from the request's head to the end of the answer.", nil, obs.AtMost("prefix", 64)),
	}
}

// ServeHTTP serves one request.
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	begin := d.cfg.Now()
	ctx, id := obs.WithRequest(r.Context(), "")
	r = r.WithContext(ctx)
	h := w.Header()
	h.Set("Request-Id", id)
	guard(h)
	x := &exchange{door: d, w: w, r: r, id: id, prefix: obs.Other}
	err := x.serve()
	if err != nil && x.status == 0 {
		x.status = statusOf(err)
		if x.status == http.StatusMethodNotAllowed {
			h.Set("Allow", strings.Join(x.allowed, ", "))
		}
		rest.Refuse(ctx, d.cfg.Log, w, err, x.status)
		err = nil
	}
	d.requests.Inc(x.prefix, strconv.Itoa(x.status/100)+"xx")
	d.seconds.Since(begin, d.cfg.Now(), x.prefix)
	if err != nil {
		panic(http.ErrAbortHandler) // a half-written answer must not look whole
	}
}

// guard sets what every answer has, whatever the plugin says.
func guard(h http.Header) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "sandbox; default-src 'none'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	if h.Get("Cache-Control") == "" {
		h.Set("Cache-Control", "no-store")
	}
}

// exchange is one request on its way.
type exchange struct {
	door    *Door
	w       http.ResponseWriter
	r       *http.Request
	id      string
	prefix  string   // bounded: of an extension that exists
	status  int      // of the answer, once it has begun
	allowed []string // methods, for 405
	body    *upload  // of the request; nil for none
}

var errMethod = errors.New("this path takes other methods")

func (x *exchange) serve() error {
	switch {
	case x.r.TLS == nil:
		return fault.Invalidf("this API is served over TLS alone")
	case x.door.origin.Check(x.r) != nil:
		return fault.Deniedf("a page of another origin may not call this API")
	case rest.Strange(x.r.URL.Path):
		return fault.NotFoundf("there is no such route")
	}
	ctx := x.r.Context()
	shown, err := rest.Presented(x.r)
	if err != nil {
		return err
	}
	caller, err := x.door.cfg.Gate.Authenticate(ctx, shown)
	if err != nil {
		return err
	}
	prefix, path, _ := strings.Cut(strings.TrimPrefix(x.r.URL.EscapedPath(), Base), "/")
	if prefix == "extensions" && path == "" {
		return x.list(caller)
	}
	found, err := x.door.cfg.Gate.FindExtension(prefix)
	if err != nil {
		return err
	}
	x.prefix = prefix
	segments, err := decode(path)
	if err != nil {
		return err
	}
	route, methods, ok := found.Find(x.r.Method, segments)
	if !ok && len(methods) > 0 {
		x.allowed = methods
		return fault.Invalidf("this path takes other methods").Because(errMethod)
	}
	if !ok {
		return fault.NotFoundf("extension %s has no such route", found.Plugin)
	}
	if x.r.ContentLength > MaxBody {
		return tooLarge(&http.MaxBytesError{Limit: MaxBody})
	}
	answer, err := x.door.cfg.Gate.CallExtension(ctx, caller, flow.Call{Extension: found, Route: route, Segments: segments, Request: x.request("/" + path)})
	if err != nil {
		return tooLarge(err)
	}
	defer func() { _ = answer.Body.Close() }()
	return x.answer(answer)
}

// decode cuts a path into its segments, each decoded by itself. A slash within one
// is refused: a plugin that decodes the path as a whole, as ASGI applications do,
// would find another route there than the one that policy was asked about.
func decode(path string) ([]string, error) {
	segments := strings.Split(path, "/")
	for n, s := range segments {
		plain, err := url.PathUnescape(s)
		if err != nil || plain == "." || plain == ".." || strings.ContainsFunc(plain, func(r rune) bool { return r == '/' || r == '\\' || r < ' ' || r == 0x7f || r == '\ufffd' }) {
			return nil, fault.Invalidf("the path is malformed")
		}
		segments[n] = plain
	}
	return segments, nil
}

// tooLarge names a body that was over the limit.
func tooLarge(err error) error {
	if large, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return fault.Invalidf("the body must have at most %d bytes", MaxBody).Because(large)
	}
	return err
}

// statusOf is the status of a call that failed.
func statusOf(err error) int {
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return http.StatusRequestEntityTooLarge
	}
	switch {
	case errors.Is(err, errMethod):
		return http.StatusMethodNotAllowed
	case errors.Is(err, plugin.ErrLate):
		return http.StatusGatewayTimeout
	case errors.Is(err, plugin.ErrBroken):
		return http.StatusBadGateway
	}
	return rest.StatusOf(fault.KindOf(err))
}

func (x *exchange) request(path string) plugin.RouteRequest {
	q := plugin.RouteRequest{Method: x.r.Method, Path: path, Query: x.r.URL.RawQuery, Headers: forwarded(x.r.Header), RequestID: x.id}
	if x.r.Body != nil && x.r.ContentLength != 0 {
		x.body = newUpload(x.w, x.r.Body)
		q.Body, q.Length = x.body, x.r.ContentLength
	}
	return q
}

// answer passes an answer on: what is whole at once, what still comes as it comes.
func (x *exchange) answer(a *plugin.RouteAnswer) error {
	h := x.w.Header()
	returned(h, a.Headers, Base+x.prefix)
	guard(h)
	if x.body != nil && x.r.ProtoMajor == 1 {
		x.body.beside(h)
	}
	x.status = a.Status
	if a.Length >= 0 && a.Status != http.StatusNoContent && a.Status != http.StatusNotModified && x.r.Method != http.MethodHead {
		h.Set("Content-Length", strconv.Itoa(a.Length))
	}
	x.w.WriteHeader(a.Status)
	control := http.NewResponseController(x.w)
	buffer := make([]byte, 32<<10)
	for {
		if a.Length < 0 {
			_ = control.Flush() // who does not support it gets the end of the body with the rest
		}
		n, err := a.Body.Read(buffer)
		if n > 0 && x.r.Method != http.MethodHead {
			if _, gone := x.w.Write(buffer[:n]); gone != nil {
				return nil //nolint:nilerr // the caller has left; nobody is to be told
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			x.door.cfg.Log.WarnContext(x.r.Context(), "an answer of an extension broke off", slog.String("prefix", x.prefix), obs.Err(err))
			return err
		}
	}
}

// list answers what is installed: a list, or with ?shape=map what the attestation
// platform answers.
func (x *exchange) list(c flow.Caller) error {
	if !slices.Contains([]string{http.MethodGet, http.MethodHead}, x.r.Method) {
		x.allowed = []string{http.MethodGet}
		return fault.Invalidf("this path takes other methods").Because(errMethod)
	}
	all, err := x.door.cfg.Gate.ListExtensions(x.r.Context(), c)
	if err != nil {
		return err
	}
	data, err := json.Marshal(listed(all, x.r.URL.Query().Get("shape") == "map"))
	if err != nil {
		return fault.Wrap(err, "encode extensions")
	}
	x.status = http.StatusOK
	x.w.Header().Set("Content-Type", "application/json")
	_, _ = x.w.Write(append(data, '\n')) // the peer may have left
	return nil
}
