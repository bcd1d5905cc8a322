package rest

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/obs"
)

// requestHeader carries the id of the request back. None is taken from
// outside: it names what stands in our log.
const requestHeader = "Request-Id"

// ServeHTTP guards every request: headers, recovery from panics, counting, and
// refusal of what is not an operation of the API.
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	begin := d.cfg.Now()
	ctx, id := obs.WithRequest(r.Context(), "")
	r = r.WithContext(ctx)
	out := &writer{ResponseWriter: w}
	h := out.Header()
	h.Set(requestHeader, id)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "no-referrer")

	var handler http.Handler = d.mux
	template := d.templateOf(r)
	if template == "" {
		handler, template = d.unknown(r), obs.Other
	}
	defer func() {
		broken, begun := recover(), out.status != 0
		if broken != nil && broken != http.ErrAbortHandler { //nolint:errorlint // compared as net/http does
			d.cfg.Log.ErrorContext(ctx, "request panicked", slog.String("route", template), slog.String("panic", kindOfPanic(broken)))
			if !begun {
				d.refuse(ctx, out, fault.Internalf("the request panicked"))
			}
		}
		d.metrics.count(template, out.status, begin, d.cfg.Now())
		d.cfg.Log.DebugContext(ctx, "request served", slog.String("route", template), slog.Int("status", out.status),
			slog.Duration("took", d.cfg.Now().Sub(begin)))
		if broken != nil && (begun || broken == http.ErrAbortHandler) { //nolint:errorlint // as above
			panic(http.ErrAbortHandler) // a half-written answer must not look whole
		}
	}()
	switch {
	case r.TLS == nil:
		d.refuse(ctx, out, fault.Invalidf("this API is served over TLS alone"))
	case d.origin.Check(r) != nil:
		d.refuse(ctx, out, fault.Deniedf("a page of another origin may not call this API"))
	default:
		handler.ServeHTTP(out, r)
	}
}

// kindOfPanic names a panic without its value, which may hold anything.
func kindOfPanic(v any) string {
	if err, ok := v.(error); ok {
		return fmt.Sprintf("%T: %v", v, fault.KindOf(err))
	}
	return fmt.Sprintf("%T", v)
}

// templateOf finds the operation of a request, empty if there is none. What the
// mux would redirect is none.
func (d *Door) templateOf(r *http.Request) string {
	handler, template := d.mux.Handler(r)
	if _, ours := handler.(http.HandlerFunc); !ours || Strange(r.URL.Path) {
		return ""
	}
	return template
}

// Strange reports paths that say one thing in two ways. The mux would redirect
// them; a client that sends them is mistaken or tries something.
func Strange(path string) bool {
	return strings.Contains(path, "//") || strings.Contains(path, "/./") || strings.Contains(path, "/../") ||
		strings.HasSuffix(path, "/.") || strings.HasSuffix(path, "/..") || strings.ContainsRune(path, 0)
}

// unknown answers what is no operation: 404, or 405 if only the method is
// wrong.
func (d *Door) unknown(r *http.Request) http.Handler {
	var allowed []string
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete} {
		probe := r.Clone(r.Context())
		probe.Method = method
		if d.templateOf(probe) != "" {
			allowed = append(allowed, method)
		}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if Strange(r.URL.Path) {
			d.refuse(r.Context(), w, fault.NotFoundf("there is no such operation: a part of its path is empty, or dots, which no name is made of"))
			return
		}
		if len(allowed) == 0 {
			d.refuse(r.Context(), w, fault.NotFoundf("there is no such operation; see /openapi.json"))
			return
		}
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		d.refuseAs(r.Context(), w, fault.Invalidf("this path takes other methods"), http.StatusMethodNotAllowed)
	})
}

// serve is one route from recognition to answer.
func (d *Door) serve(r route) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		ctx := req.Context()
		x := &exchange{w: w, r: req}
		if err := d.through(ctx, r, x); err != nil {
			d.refuse(ctx, w, err)
		}
	}
}

// through recognises the caller before it reads anything of the body.
func (d *Door) through(ctx context.Context, r route, x *exchange) error {
	var err error
	if r.keyed {
		if x.key, err = idempotencyKey(x.r.Header); err != nil {
			return err
		}
	}
	if r.open {
		if err := d.limits.take(address(x.r)); err != nil {
			return err
		}
	} else {
		p, err := Presented(x.r)
		if err != nil {
			return err
		}
		p.Key, p.Refreshing = x.key, r.refreshes
		done, err := d.recognise(ctx, r, x, p)
		if err != nil {
			return err
		}
		defer done()
	}
	if x.query, err = readQuery(x.r, r.query); err != nil {
		return err
	}
	return r.handle(ctx, x)
}

// recognise finds out who calls. The returned function ends what was taken for
// the request.
func (d *Door) recognise(ctx context.Context, r route, x *exchange, p flow.Presented) (done func(), err error) {
	done = func() {}
	if r.uploads && p.Token != "" && p.Proof == "" {
		if token, value, ok := d.cfg.ReadUploadToken(p.Token); ok {
			x.caller, done, err = d.uploader(ctx, token, value, p)
			return done, err
		}
	}
	x.caller, err = d.cfg.Gate.Authenticate(ctx, p)
	return done, err
}

// writer remembers what was answered.
type writer struct {
	http.ResponseWriter
	status int
}

// WriteHeader notes the status.
func (w *writer) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write notes the status that comes by itself.
func (w *writer) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(p) //nolint:wrapcheck // a pass-through
}

// Unwrap lets http.ResponseController reach the connection.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// metrics of the door.
type metrics struct {
	requests *obs.Counter
	seconds  *obs.Histogram
}

func newMetrics(m *obs.Metrics, templates []string) metrics {
	route := obs.OneOf("route", templates...)
	return metrics{
		requests: m.Counter("sallyport_rest_requests_total", "Requests of the REST door.", route, obs.OneOf("status", "2xx", "3xx", "4xx", "5xx")),
		seconds:  m.Histogram("sallyport_rest_request_seconds", "Time from the request's head to the end of the answer.", nil, route),
	}
}

func (m metrics) count(template string, status int, begin, end time.Time) {
	class := obs.Other
	if status >= 200 && status < 600 {
		class = string(rune('0'+status/100)) + "xx"
	}
	m.requests.Inc(template, class)
	m.seconds.Since(begin, end, template)
}
