package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sallyport-project/sallyport/internal/plugin"
)

func crashBudgets(options) []budget {
	// 50 ms are ten starts by go-plugin alone on the machine that they were written for.
	return []budget{atMost("p99_ms", 50), atMost("p99_floors", 10), atMost("noticed_p99_ms", 5), atMost("idle20_anonymous_mb", 60), atMost("idle20_sealed_images", 1)}
}

// idlers are how many idle processes the memory is measured of.
const idlers = 20

// pluginCrash kills a plugin again and again: how long until the host has noticed,
// and until a call that begins after the kill has a good answer. And it looks at
// what many idle processes hold.
func pluginCrash(ctx context.Context, o options) (r result, err error) {
	r.CPUOf = "this process, without the plugin"
	p, err := wrap(ctx, o.dir, idlePlugin.pkg, idlePlugin.kind, startSize)
	if err != nil {
		return r, err
	}
	h, err := p.house(o.dir, plugin.Scale{})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, h.end()) }()
	if err := h.begin(ctx); err != nil {
		return r, err
	}
	s := sample{conns: 1, errors: counts{}}
	var noticed, floors []time.Duration
	cpu, err := ownTime()
	if err != nil {
		return r, err
	}
	for begin := time.Now(); time.Since(begin) < o.duration || len(s.times) < 20; {
		took, saw, err := h.crash(ctx, len(s.times))
		if err != nil {
			return r, err
		}
		s.times, noticed, s.took = append(s.times, took), append(noticed, saw), s.took+took
		if len(s.times)%5 == 0 {
			bare, err := bareOwn.starts(ctx, p.binary)
			if err != nil {
				return r, err
			}
			floors = append(floors, bare)
		}
	}
	after, err := ownTime()
	if err != nil {
		return r, err
	}
	s.cpu = after - cpu
	for _, list := range [][]time.Duration{s.times, noticed, floors} {
		slices.Sort(list)
	}
	r.take(s)
	r.against("start by go-plugin alone until the first answer", 1/quantile(floors, 0.5).Seconds())
	r.figure("p99_floors", r.P99/milliseconds(quantile(floors, 0.5)))
	r.figure("floor_p50_ms", milliseconds(quantile(floors, 0.5)))
	r.figure("noticed_p50_ms", milliseconds(quantile(noticed, 0.5)))
	r.figure("noticed_p99_ms", milliseconds(quantile(noticed, 0.99)))
	return r, p.idle(ctx, o.dir, &r)
}

// crash kills the process and gives the time until the next good call was
// answered, and until the host had seen the end.
func (h *hosted) crash(ctx context.Context, before int) (took, noticed time.Duration, err error) {
	do, err := h.issue()
	if err == nil {
		err = do(ctx)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("call before the crash: %w", err)
	}
	pid := h.Status()[0].PID
	begin := time.Now()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return 0, 0, fmt.Errorf("kill plugin: %w", err)
	}
	if err := do(ctx); err != nil {
		return 0, 0, fmt.Errorf("call after the crash: %w", err)
	}
	took = time.Since(begin)
	down := h.events.times(saysDown)
	if len(down) != before+1 { // the call was answered by the process that was killed
		return 0, 0, fmt.Errorf("%d ends were seen, of %d; the last:\n%s", len(down), before+1, h.events.ends())
	}
	return took, down[before].Sub(begin), nil
}

// idle starts many processes of one package and adds up what memory is theirs
// alone.
func (p packed) idle(ctx context.Context, dir string, r *result) (err error) {
	h, err := p.house(dir, plugin.Scale{Instances: idlers})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.end()) }()
	if err := h.begin(ctx); err != nil {
		return err
	}
	do, err := h.issue()
	if err == nil {
		err = do(ctx)
	}
	if err != nil {
		return fmt.Errorf("call an idle plugin: %w", err)
	}
	for begin := time.Now(); h.serving() < idlers; time.Sleep(10 * time.Millisecond) {
		if time.Since(begin) > startTime {
			return fmt.Errorf("only %d of %d processes are ready", h.serving(), idlers)
		}
	}
	if err := sleep(ctx, time.Second); err != nil {
		return err
	}
	anonymous, images := int64(0), 0
	for _, i := range h.Status()[0].Instances {
		n, err := anonymousOf(i.PID)
		if err != nil {
			return err
		}
		anonymous += n
	}
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("list descriptors: %w", err)
	}
	for _, fd := range all {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(to, "/memfd:plugin:") {
			images++
		}
	}
	r.figure("idle20_anonymous_mb", float64(anonymous)/1e6)
	r.figure("idle20_sealed_images", float64(images-1)) // one is of the host whose plugin was killed
	return nil
}

// serving is how many processes of the plugin are ready.
func (h *hosted) serving() int {
	n := 0
	for _, i := range h.Status()[0].Instances {
		if i.State == plugin.Ready {
			n++
		}
	}
	return n
}

// anonymousOf is the anonymous memory of a process in bytes.
func anonymousOf(pid int) (int64, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/smaps_rollup")
	if err != nil {
		return 0, fmt.Errorf("read memory of a plugin: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "Anonymous:"); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("read memory of a plugin: %w", err)
			}
			return n << 10, nil
		}
	}
	return 0, errors.New("the kernel does not say what memory is anonymous")
}
