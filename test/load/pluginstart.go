package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/sallyport-project/sallyport/internal/plugin"
)

// startSize is how large the plugins are that are started.
const startSize = 19 << 20

func pluginStartBudgets(options) []budget {
	return []budget{
		atMost("p50_ms", 35), atMost("restart_p50_ms", 12), atMost("mtls_first_p50_ms", 50), atMost("mtls_restart_p50_ms", 28),
		// The same in starts by go-plugin alone, which took 4.9 and 19.9 ms on the
		// machine that the times were written for.
		atMost("first_floors", 7.1), atMost("restart_floors", 2.4), atMost("mtls_first_floors", 2.5), atMost("mtls_restart_floors", 1.4),
	}
}

// pluginStart measures the first start of a plugin, from the host being told of it
// to its first answer to a call: signature, digest, copy into sealed memory,
// sandbox, process, handshake, introduction. And a restart from the sealed image,
// from the end of the process being seen until the next one is ready. Each by the
// private channel (sallyport.plugin.v1) and with AutoMTLS (agentkms.plugin.v1).
func pluginStart(ctx context.Context, o options) (r result, err error) {
	r.CPUOf = "this process, without the plugin"
	private, err := wrap(ctx, o.dir, idlePlugin.pkg, idlePlugin.kind, startSize)
	if err != nil {
		return r, err
	}
	mtls, err := wrap(ctx, o.dir, akmsPlugin.pkg, akmsPlugin.kind, startSize)
	if err != nil {
		return r, err
	}
	s := sample{conns: 1, errors: counts{}}
	var restarts, mtlsFirst, mtlsRestarts, floors, mtlsFloors []time.Duration
	cpu, err := ownTime()
	if err != nil {
		return r, err
	}
	for begin := time.Now(); time.Since(begin) < o.duration || len(s.times) < 7; {
		for _, one := range []struct {
			p              packed
			bare           bareContract
			first, restart *[]time.Duration
			floor          *[]time.Duration
		}{
			{private, bareOwn, &s.times, &restarts, &floors},
			{mtls, bareAgentKMS, &mtlsFirst, &mtlsRestarts, &mtlsFloors},
		} {
			first, restart, box, err := one.p.starts(ctx, o.dir)
			if err != nil {
				return r, err
			}
			bare, err := one.bare.starts(ctx, one.p.binary)
			if err != nil {
				return r, err
			}
			*one.first, *one.restart, *one.floor = append(*one.first, first), append(*one.restart, restart), append(*one.floor, bare)
			if box != "off" {
				r.figure("sandboxed", 1)
			}
		}
	}
	for _, list := range [][]time.Duration{s.times, restarts, mtlsFirst, mtlsRestarts, floors, mtlsFloors} {
		slices.Sort(list)
	}
	after, err := ownTime()
	s.cpu = after - cpu
	for _, t := range s.times {
		s.took += t
	}
	r.take(s)
	r.against("start by go-plugin alone until the first answer, no signature, digest or sandbox", 1/quantile(floors, 0.5).Seconds())
	r.figure("restart_p50_ms", milliseconds(quantile(restarts, 0.5)))
	r.figure("mtls_first_p50_ms", milliseconds(quantile(mtlsFirst, 0.5)))
	r.figure("mtls_restart_p50_ms", milliseconds(quantile(mtlsRestarts, 0.5)))
	for name, times := range map[string][2][]time.Duration{
		"first": {s.times, floors}, "restart": {restarts, floors}, "mtls_first": {mtlsFirst, mtlsFloors}, "mtls_restart": {mtlsRestarts, mtlsFloors},
	} {
		r.figure(name+"_floors", float64(quantile(times[0], 0.5))/float64(quantile(times[1], 0.5)))
	}
	r.figure("floor_p50_ms", milliseconds(quantile(floors, 0.5)))
	r.figure("mtls_floor_p50_ms", milliseconds(quantile(mtlsFloors, 0.5)))
	return r, err
}

// starts gives the time of a first start and of one restart, in a fresh host, and
// which sandbox was on.
func (p packed) starts(ctx context.Context, dir string) (first, restart time.Duration, box string, err error) {
	h, err := p.house(dir, plugin.Scale{})
	if err != nil {
		return 0, 0, "", err
	}
	defer func() { err = errors.Join(err, h.end()) }()
	begin := time.Now()
	if err := h.begin(ctx); err != nil {
		return 0, 0, "", err
	}
	do, err := h.issue()
	if err == nil {
		err = do(ctx)
	}
	if err != nil {
		return 0, 0, "", fmt.Errorf("first start: %w", err)
	}
	first = time.Since(begin)
	s := h.Status()[0]
	if err := syscall.Kill(s.PID, syscall.SIGKILL); err != nil {
		return 0, 0, "", fmt.Errorf("kill plugin: %w", err)
	}
	for begin := time.Now(); len(h.events.times(saysReady)) < 2; time.Sleep(200 * time.Microsecond) {
		if time.Since(begin) > startTime {
			return 0, 0, "", errors.New("the plugin did not start again")
		}
	}
	return first, h.events.times(saysReady)[1].Sub(h.events.times(saysDown)[0]), s.Sandbox, nil
}

// starts is the time that go-plugin alone takes to the first answer.
func (c bareContract) starts(ctx context.Context, binary string) (time.Duration, error) {
	begin := time.Now()
	p, err := c.run(binary)
	if err != nil {
		return 0, err
	}
	defer p.stop()
	if err := p.greet(ctx, c); err != nil {
		return 0, fmt.Errorf("ask bare plugin: %w", err)
	}
	return time.Since(begin), nil
}
