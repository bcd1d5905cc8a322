package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/plugin"
	sallyport "github.com/sallyport-project/sallyport/sdk"
	"github.com/sallyport-project/sallyport/test/load/answers"
)

const (
	routePlugin   = "test/load/route"
	routeAnswer   = `{"accept":"application/json","id":"7"}`
	routeDocument = `package sallyport

admit := {"allow": true, "reasons": ["loaders are known"]} if {
	input.subject.kind == "agent"
	input.subject.role == "loader"
	input.evidence.verified == true
}

call := {"allow": true, "reasons": ["loaders may read"]} if {
	input.action == "read"
	input.target.kind == "extension"
	input.target.id == "load"
	input.target.path[0] == "items"
	input.subject.kind == "agent"
	input.subject.role == "loader"
}
`
)

func routeBudgets(options) []budget { return []budget{atLeast("ratio", 0.6)} }

// routed measures a route of an extension beside the same handler in the server: two
// servers that differ in nothing but who is asked when the call was authorised. They
// take turns, and the median of the pairs counts.
func routed(ctx context.Context, o options) (r result, err error) {
	var sides [2]routeSide
	prepare := func(at int) func(*server, *sallyport.Client) error {
		return func(s *server, admin *sallyport.Client) error { return sides[at].prepare(ctx, o, s, admin) }
	}
	err = runningAs(ctx, o, "server", "", prepare(0), func(s *server) error {
		o := o
		o.server, o.profile = s.in.binary, ""
		return runningAs(ctx, o, "floor", floorCommand, prepare(1), func(*server) error {
			defer func() { sides[0].opened.close(); sides[1].opened.close() }()
			return r.compare(ctx, o, &sides)
		})
	})
	return r, err
}

// compare lets the sides take turns.
func (r *result) compare(ctx context.Context, o options, sides *[2]routeSide) error {
	var got [2]sample
	var ratios []float64
	for begin := time.Now(); time.Since(begin) < o.warm+2*o.duration || len(ratios) < 3; {
		var pair [2]sample
		for n := range sides {
			var err error
			if pair[n], err = sides[n].drive(ctx, o, 5*slice); err != nil {
				return err
			}
			if pair[n].failed() > 0 {
				return fmt.Errorf("a request of side %d failed: %s; the server says: %s", n, pair[n].first, sides[n].server.log)
			}
		}
		if time.Since(begin) < o.warm || len(pair[0].times) == 0 || len(pair[1].times) == 0 {
			continue
		}
		got[0].add(pair[0])
		got[1].add(pair[1])
		ratios = append(ratios, pair[0].perSecond()/pair[1].perSecond())
	}
	slices.Sort(ratios)
	slices.Sort(got[0].times)
	slices.Sort(got[1].times)
	r.take(got[0])
	r.CPUOf = "the server and its plugin"
	r.against("the same handler in the same server", got[1].perSecond())
	r.Ratio = ratios[len(ratios)/2]
	r.figure("lowest_ratio", ratios[0])
	r.figure("highest_ratio", ratios[len(ratios)-1])
	r.figure("cpu_ratio", got[1].cpuEach()/max(got[0].cpuEach(), 1))
	r.figure("pairs", float64(len(ratios)))
	r.figure("floor_p50_ms", milliseconds(quantile(got[1].times, 0.5)))
	r.figure("floor_p99_ms", milliseconds(quantile(got[1].times, 0.99)))
	r.figure("floor_cpu_us_per_request", got[1].cpuEach()/1e3)
	return nil
}

// routeSide is one of the two servers, with connections to it.
type routeSide struct {
	server *server
	agents []agent
	calls  []call // made when they are first wanted: a server closes connections that ask nothing
	opened connections
}

func (s *routeSide) prepare(ctx context.Context, o options, at *server, admin *sallyport.Client) error {
	s.server = at
	if err := install(ctx, admin, at.in.dir, routePlugin); err != nil {
		return err
	}
	if _, err := admin.SetPolicy(ctx, "load", "sallyport", routeDocument); err != nil {
		return fmt.Errorf("set policy: %w", err)
	}
	var err error
	s.agents, err = enrol(ctx, admin, at.in.roots(), min(o.conns, mostAgents))
	return err
}

// open gives one connection's call.
func (s *routeSide) open(ctx context.Context, n int) (call, error) {
	if n < len(s.calls) {
		return s.calls[n], nil
	}
	a := s.agents[n%len(s.agents)]
	c, err := dial(ctx, s.server.main, a.tls)
	if err != nil {
		return nil, err
	}
	s.opened.add(c)
	text := request(http.MethodGet, "/api/v1/load/items/7", s.server.main, nil, "Authorization: Bearer "+a.token, "Accept: application/json")
	s.calls = append(s.calls, func(context.Context) error {
		status, answer, err := c.exchange(text)
		if err == nil && (status != http.StatusOK || strings.TrimSpace(string(answer)) != routeAnswer) {
			err = refused(status, answer)
		}
		return err
	})
	return s.calls[n], nil
}

func (s *routeSide) drive(ctx context.Context, o options, d time.Duration) (sample, error) {
	return drive{conns: o.conns, warm: slice, duration: d, cpu: s.server.cpu, open: s.open}.run(ctx)
}

// floorCommand makes this program a server that answers routes itself.
const floorCommand = "serve-floor"

// host is the plugin host, without the method of that name.
type host = interface{ plugin.Extensions }

// inside answers routes of every extension by the handler that the extension has.
type inside struct {
	host
	handler http.Handler
}

func answersInside(h plugin.Extensions) plugin.Extensions { return inside{h, answers.Handler()} }

// Route implements [plugin.Extensions].
func (x inside) Route(ctx context.Context, _ string, q plugin.RouteRequest) (*plugin.RouteAnswer, error) {
	if q.Body != nil {
		return nil, errors.New("the handler takes no body")
	}
	path, err := url.PathUnescape(q.Path)
	if err != nil {
		return nil, fmt.Errorf("read path: %w", err)
	}
	r := (&http.Request{
		Method: q.Method, URL: &url.URL{Path: path, RawPath: q.Path, RawQuery: q.Query}, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{}, Body: http.NoBody,
	}).WithContext(ctx)
	for _, h := range q.Headers {
		r.Header.Add(h.Name, h.Value)
	}
	w := &answer{header: http.Header{}, status: http.StatusOK}
	x.handler.ServeHTTP(w, r)
	out := &plugin.RouteAnswer{Status: w.status, Length: w.body.Len(), Body: io.NopCloser(&w.body)}
	for name, values := range w.header {
		for _, v := range values {
			out.Headers = append(out.Headers, plugin.Header{Name: strings.ToLower(name), Value: v})
		}
	}
	return out, nil
}

// answer is a http.ResponseWriter that keeps what is written.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header implements http.ResponseWriter.
func (a *answer) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) { a.status = status }

// Write implements http.ResponseWriter.
func (a *answer) Write(p []byte) (int, error) { return a.body.Write(p) }
