package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"sync/atomic"

	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// few is how many sessions and resources the smaller installation has.
const few = 10

func flatBudgets(options) []budget {
	return []budget{atMost("resource_growth", 1.25), atMost("handshake_growth", 1.25)}
}

// kbsFlat measures what a request costs in an installation with many live sessions
// of guests and many resources, beside one with ten of each, in turns. Whatever
// session asks, and what for, is drawn at random for each request: memory of what
// was asked last helps the small one alone.
func kbsFlat(ctx context.Context, o options) (r result, err error) {
	// The large one ends last: of two profiles its own remains.
	large, err := fillAndStart(ctx, o, "large", o.sessions, o.resources)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, large.stop()) }()
	small, err := fillAndStart(ctx, o, "small", few, few)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, small.stop()) }()
	for _, s := range []struct {
		at   *filled
		name string
	}{{small, "small"}, {large, "large"}} {
		rss, err := resident(s.at.cmd.Process.Pid)
		if err != nil {
			return r, err
		}
		r.figure("rss_"+s.name+"_before_mb", float64(rss)/1e6)
	}
	if err := alternate(ctx, &r, o, small, large, "handshake", func(f *filled) func(context.Context, int) (call, error) {
		return func(ctx context.Context, _ int) (call, error) { return newVisitor(ctx, f.server, false) }
	}); err != nil {
		return r, err
	}
	if err := alternate(ctx, &r, o, small, large, "resource", func(f *filled) func(context.Context, int) (call, error) { return f.openReader }); err != nil {
		return r, err
	}
	rss, err := resident(large.cmd.Process.Pid)
	r.figure("rss_large_after_mb", float64(rss)/1e6)
	r.figure("sessions", float64(o.sessions))
	r.figure("resources", float64(o.resources))
	r.CPUOf = "the server with many"
	return r, err
}

// flatTurns is how often each installation has its turn.
const flatTurns = 3

// alternate drives both installations in turns, and puts what they reached, and by how
// much more processor time a request took in the large one, into the result.
func alternate(ctx context.Context, r *result, o options, small, large *filled, name string, open func(*filled) func(context.Context, int) (call, error)) error {
	one := func(f *filled) (sample, error) {
		s, err := drive{conns: o.conns, warm: o.warm, duration: o.duration, cpu: f.cpu, open: open(f)}.run(ctx)
		f.closeAll()
		return s, err
	}
	var all [2]sample
	for range flatTurns {
		for i, f := range []*filled{small, large} {
			s, err := one(f)
			if err != nil {
				return err
			}
			all[i].merge(s)
		}
	}
	errs := r.Errors
	r.take(all[1])
	r.Errors += errs + all[0].failed()
	r.against("the same with ten live sessions and ten resources", all[0].perSecond())
	each := func(s sample) float64 { return float64(s.cpu.Microseconds()) / float64(max(len(s.times), 1)) }
	r.figure(name+"_cpu_us_small", each(all[0]))
	r.figure(name+"_cpu_us_large", each(all[1]))
	r.figure(name+"_growth", each(all[1])/each(all[0]))
	r.figure(name+"_per_s_small", all[0].perSecond())
	r.figure(name+"_per_s_large", all[1].perSecond())
	return nil
}

// fillAndStart founds an installation, fills it, and starts it.
func fillAndStart(ctx context.Context, o options, name string, sessions, resources int) (*filled, error) {
	in, err := found(ctx, o, filepath.Join(o.dir, name))
	if err != nil {
		return nil, err
	}
	f := &filled{resources: resources}
	if f.cookies, err = fill(ctx, in.config, sessions, resources); err != nil {
		return nil, err
	}
	if f.server, err = in.start(ctx); err != nil {
		return nil, err
	}
	admin, err := f.admin()
	if err == nil {
		err = func(admin *sallyport.Client) error {
			defer admin.Close()
			return resourceToFetch(ctx)(f.server, admin)
		}(admin)
	}
	if err != nil {
		return nil, errors.Join(err, f.stop())
	}
	return f, nil
}

// filled is a running server whose store was filled before.
type filled struct {
	*server
	cookies   []string // of live sessions
	resources int
	opened    []*connection
	drawn     atomic.Uint64
}

// draw gives numbers below n in an order without pattern: a sequence of Weyl.
func (f *filled) draw(n int) int {
	x := f.drawn.Add(1) * 0x9e3779b97f4a7c15
	return int((x >> 33) % uint64(n)) //nolint:gosec // n is positive, and the rest below it
}

func (f *filled) closeAll() {
	for _, c := range f.opened {
		c.close()
	}
	f.opened = nil
}

// openReader makes a worker that reads some resource by some session.
func (f *filled) openReader(ctx context.Context, _ int) (call, error) {
	line, err := dial(ctx, f.main, &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: f.in.roots(), NextProtos: []string{"http/1.1"}})
	if err != nil {
		return nil, err
	}
	f.opened = append(f.opened, line)
	return func(context.Context) error {
		cookie, n := f.cookies[f.draw(len(f.cookies))], f.draw(f.resources)
		_, err := expectOK(line, request(http.MethodGet, "/kbs/v0/resource/"+filledPath(n), f.main, nil, "Cookie: "+cookie))
		return err
	}, nil
}

// filledPath is the path of a resource by its number; they are written in their order.
func filledPath(n int) string { return fmt.Sprintf("team-%04d/key/%07d", n/1000, n) }
