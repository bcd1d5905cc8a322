package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sallyport-project/sallyport/internal/plugin"
)

func callBudgets(options) []budget {
	return []budget{atMost("overhead_percent", 10), atMost("c1_overhead_percent", 10)}
}

// slice is how long one side is measured before it is the other's turn.
const slice = 100 * time.Millisecond

// pluginCall measures a unary call of agentkms.plugin.v1 through the host beside
// the same call of the same executable by go-plugin alone, and a call on the
// stream of sallyport.plugin.v1 beside a bare unary call without TLS. The sides
// take turns in short slices, and the median of the pairs counts, so that what
// else the machine does meets all of them.
func pluginCall(ctx context.Context, o options) (r result, err error) {
	var ends []func() error
	defer func() {
		for _, end := range slices.Backward(ends) {
			err = errors.Join(err, end())
		}
	}()
	house := func(pkg, kind string) (*hosted, string, error) {
		p, err := wrap(ctx, o.dir, pkg, kind, 0)
		if err != nil {
			return nil, "", err
		}
		h, err := p.house(o.dir, plugin.Scale{Queue: maxConns})
		if err != nil {
			return nil, "", err
		}
		ends = append(ends, h.end)
		return h, p.binary, h.begin(ctx)
	}
	akms, binary, err := house(akmsPlugin.pkg, akmsPlugin.kind)
	if err != nil {
		return r, err
	}
	idle, _, err := house(idlePlugin.pkg, idlePlugin.kind)
	if err != nil {
		return r, err
	}
	bare := func(c bareContract) (call, error) {
		p, err := c.run(binary)
		if err != nil {
			return nil, err
		}
		ends = append(ends, func() error { p.stop(); return nil })
		return p.validate()
	}
	var sides [4]call
	for n, open := range []func() (call, error){
		akms.vet, func() (call, error) { return bare(bareAgentKMS) },
		idle.issue, func() (call, error) { return bare(bareAgentKMS.plain()) },
	} {
		if sides[n], err = open(); err != nil {
			return r, err
		}
		if err := sides[n](ctx); err != nil { // the first call starts the plugin
			return r, fmt.Errorf("first call: %w", err)
		}
	}
	one := o
	one.conns = 1
	single, err := turns(ctx, one, sides)
	if err != nil {
		return r, err
	}
	many, err := turns(ctx, o, sides)
	if err != nil {
		return r, err
	}
	r.report(single, many)
	return r, nil
}

// report says what the turns with one caller and with many came to.
func (r *result) report(single, many compared) {
	r.take(many.host)
	r.CPUOf = "this process, without the plugin"
	r.against("the same unary call by go-plugin alone, with AutoMTLS", many.floor.perSecond())
	r.figure("overhead_percent", many.overhead)
	r.figure("cpu_overhead_percent", 100*(many.host.cpuEach()/many.floor.cpuEach()-1))
	r.figure("stream_to_unary_ratio", many.stream)
	r.figure("c1_overhead_percent", single.overhead)
	r.figure("c1_stream_to_unary_ratio", single.stream)
	r.figure("c1_p50_us", 1e3*milliseconds(quantile(single.host.times, 0.5)))
	r.figure("c1_floor_p50_us", 1e3*milliseconds(quantile(single.floor.times, 0.5)))
	r.figure("stream_per_s", many.streamed.perSecond())
}

// compared is what turns between the sides gave.
type compared struct {
	host, floor, streamed sample
	overhead              float64 // of a call through the host, in percent of the bare one's time
	stream                float64 // time of a call on the stream, in bare unary calls
}

// turns measures the sides in turns: host, its floor, stream, its floor.
func turns(ctx context.Context, o options, sides [4]call) (compared, error) {
	var out compared
	var unary, stream []float64
	for begin := time.Now(); time.Since(begin) < o.warm+o.duration || len(unary) < 3; {
		var got [4]sample
		idle := false // a side got no time from the machine, so the round compares nothing
		for n, do := range sides {
			s, err := drive{
				conns: o.conns, warm: slice / 10, duration: slice, cpu: ownTime,
				open: func(context.Context, int) (call, error) { return do, nil },
			}.run(ctx)
			if err != nil {
				return out, err
			}
			if s.failed() > 0 {
				return out, fmt.Errorf("a call failed: %s", s.first)
			}
			idle = idle || len(s.times) == 0
			got[n] = s
		}
		if idle || time.Since(begin) < o.warm {
			continue
		}
		out.host.add(got[0])
		out.floor.add(got[1])
		out.streamed.add(got[2])
		unary = append(unary, got[1].perSecond()/got[0].perSecond())
		stream = append(stream, got[3].perSecond()/got[2].perSecond())
	}
	slices.Sort(unary)
	slices.Sort(stream)
	slices.Sort(out.host.times)
	slices.Sort(out.floor.times)
	out.overhead, out.stream = 100*(unary[len(unary)/2]-1), stream[len(stream)/2]
	return out, nil
}

// cpuEach is the processor time of one call.
func (s sample) cpuEach() float64 { return float64(s.cpu) / float64(max(len(s.times), 1)) }

// add joins what was measured in another slice; times are not sorted after it.
func (s *sample) add(other sample) {
	s.conns, s.took, s.cpu = other.conns, s.took+other.took, s.cpu+other.cpu
	s.times = append(s.times, other.times...)
	if s.errors == nil {
		s.errors = counts{}
	}
	for kind, n := range other.errors {
		s.errors[kind] += n
	}
	if s.first == "" {
		s.first = other.first
	}
}
