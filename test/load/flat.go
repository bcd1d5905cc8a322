package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"sync/atomic"

	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// few is how many sessions and resources the smaller installation has, and outgrown
// how many the middle one: each of its draws comes back later than the server, or
// SQLite, remembers anything.
const (
	few      = 10
	outgrown = 10_000
)

// grows reports whether the large installation is larger than the middle one.
func grows(o options) bool { return o.sessions > outgrown && o.resources > outgrown }

func flatBudgets(o options) []budget {
	list := []budget{atMost("handshake_growth", 1.25), atMost("current_growth", 1.25)}
	if grows(o) {
		list = append(list, atMost("grown_ratio", 1.25))
	}
	return list
}

// kbsFlat measures what a request costs in an installation with many live sessions
// of guests and many resources, beside one with ten of each, in turns: what guests
// do when they come up, and what those that came up lately do ("current").
//
// Then whatever session asks, and what for, is drawn at random for each request:
// memory of what was asked last helps the small one alone ("resource_growth", which
// has no budget). So these reads are made from one more, which has just outgrown all
// memory: what they cost more in the large one than there is what tables cost that
// grow ("grown_ratio").
func kbsFlat(ctx context.Context, o options) (r result, err error) {
	var all []*filled
	defer func() {
		for _, f := range all {
			err = errors.Join(err, f.stop())
		}
	}()
	sizes := []struct {
		name                string
		sessions, resources int
	}{{"large", o.sessions, o.resources}, {"outgrown", outgrown, outgrown}, {"small", few, few}}
	if !grows(o) {
		sizes = slices.Delete(sizes, 1, 2)
	}
	// The large one ends last: of all profiles its own remains.
	for _, s := range sizes {
		f, err := fillAndStart(ctx, o, s.name, s.sessions, s.resources)
		if err != nil {
			return r, err
		}
		all = slices.Insert(all, 0, f)
		rss, err := resident(f.cmd.Process.Pid)
		if err != nil {
			return r, err
		}
		r.figure("rss_"+s.name+"_before_mb", float64(rss)/1e6)
	}
	small, large := all[0], all[len(all)-1]
	each, err := alternate(ctx, &r, o, "handshake", func(f *filled) func(context.Context, int) (call, error) {
		return func(ctx context.Context, _ int) (call, error) { return newVisitor(ctx, f.server, false) }
	}, small, large)
	if err != nil {
		return r, err
	}
	r.figure("handshake_growth", each[1]/each[0])
	if each, err = alternate(ctx, &r, o, "current", func(f *filled) func(context.Context, int) (call, error) { return f.openGuest(&f.opened) }, small, large); err != nil {
		return r, err
	}
	r.figure("current_growth", each[1]/each[0])
	if each, err = alternate(ctx, &r, o, "resource", func(f *filled) func(context.Context, int) (call, error) { return f.openReader }, all...); err != nil {
		return r, err
	}
	r.figure("resource_growth", each[len(each)-1]/each[0])
	if grows(o) {
		r.figure("resource_cpu_us_outgrown", each[1])
		r.figure("grown_ratio", each[2]/each[1])
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

// alternate drives installations in turns, the smallest first and the largest last,
// and puts what both reached into the result. It gives the processor time of a
// request in each, in microseconds.
func alternate(
	ctx context.Context, r *result, o options, name string, open func(*filled) func(context.Context, int) (call, error), driven ...*filled,
) ([]float64, error) {
	one := func(f *filled) (sample, error) {
		s, err := drive{conns: o.conns, warm: o.warm, duration: o.duration, cpu: f.cpu, open: open(f)}.run(ctx)
		f.opened.close()
		return s, err
	}
	all := make([]sample, len(driven))
	for range flatTurns {
		for i, f := range driven {
			s, err := one(f)
			if err != nil {
				return nil, err
			}
			all[i].merge(s)
		}
	}
	errs, each := r.Errors, make([]float64, len(driven))
	small, large := all[0], all[len(all)-1]
	r.take(large)
	r.Errors = errs
	for i, s := range all {
		r.Errors += s.failed()
		each[i] = float64(s.cpu.Microseconds()) / float64(max(len(s.times), 1))
	}
	r.against("the same with ten live sessions and ten resources", small.perSecond())
	r.figure(name+"_cpu_us_small", each[0])
	r.figure(name+"_cpu_us_large", each[len(each)-1])
	r.figure(name+"_per_s_small", small.perSecond())
	r.figure(name+"_per_s_large", large.perSecond())
	return each, nil
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
	opened    connections
	drawn     atomic.Uint64
}

// draw gives numbers below n in an order without pattern: a sequence of Weyl. None
// comes back before about half of them were drawn.
func (f *filled) draw(n int) int {
	x := f.drawn.Add(1) * 0x9e3779b97f4a7c15
	return int(x >> 32 * uint64(n) >> 32) //nolint:gosec // n is positive, and the rest below it
}

// openReader makes a worker that reads some resource by some session.
func (f *filled) openReader(ctx context.Context, _ int) (call, error) {
	line, err := dial(ctx, f.main, &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: f.in.roots(), NextProtos: []string{"http/1.1"}})
	if err != nil {
		return nil, err
	}
	f.opened.add(line)
	return func(context.Context) error {
		cookie, n := f.cookies[f.draw(len(f.cookies))], f.draw(f.resources)
		_, err := expectOK(line, request(http.MethodGet, "/kbs/v0/resource/"+filledPath(n), f.main, nil, "Cookie: "+cookie))
		return err
	}, nil
}

// filledPath is the path of a resource by its number; they are written in their order.
func filledPath(n int) string { return fmt.Sprintf("team-%04d/key/%07d", n/1000, n) }
