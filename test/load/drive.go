package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// call is one request of one worker, to its whole answer.
type call func(ctx context.Context) error

// drive is a closed loop: every worker sends its next request when it has the
// answer to the last one.
type drive struct {
	conns          int
	warm, duration time.Duration
	// open makes a worker's call; it may connect and log in. Workers are opened
	// one after the other, before the clock runs.
	open func(ctx context.Context, worker int) (call, error)
	// cpu is the processor time used so far by what is measured; may be nil.
	cpu func() (time.Duration, error)
}

// sample is what a drive has measured, the time of warming up excluded.
type sample struct {
	conns  int
	took   time.Duration
	times  []time.Duration // of successful requests, sorted
	errors counts          // by kind
	first  string          // the first error, as a whole
	cpu    time.Duration
}

// merge adds a later sample of the same.
func (s *sample) merge(other sample) {
	s.conns, s.took, s.cpu = other.conns, s.took+other.took, s.cpu+other.cpu
	s.times = append(s.times, other.times...)
	slices.Sort(s.times)
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

func (s sample) failed() int {
	n := 0
	for _, k := range s.errors {
		n += k
	}
	return n
}

func (s sample) perSecond() float64 {
	if s.took <= 0 {
		return 0
	}
	return float64(len(s.times)) / s.took.Seconds()
}

// mostErrors ends a drive early: it measures nothing any more.
const mostErrors = 1000

// kinded errors name what they are counted as.
type kinded interface{ errorKind() string }

func kindOf(err error) string {
	var k kinded
	if errors.As(err, &k) {
		return k.errorKind()
	}
	return fmt.Sprintf("%.120s", err)
}

// phases of a drive.
const (
	warming = iota
	measuring
	ended
)

// run drives and measures. It fails when a worker cannot be opened or the
// context ends; failed requests are counted, not returned.
func (d drive) run(ctx context.Context) (sample, error) {
	calls := make([]call, d.conns)
	for i := range calls {
		var err error
		if calls[i], err = d.open(ctx, i); err != nil {
			return sample{}, fmt.Errorf("open connection %d: %w", i, err)
		}
	}
	w := &work{kinds: make([]counts, d.conns), times: make([][]time.Duration, d.conns)}
	var workers sync.WaitGroup
	for i, c := range calls {
		workers.Go(func() { w.loop(ctx, i, c) })
	}
	defer func() { w.phase.Store(ended); workers.Wait() }()
	if err := sleep(ctx, d.warm); err != nil {
		return sample{}, err
	}
	before, err := d.used()
	if err != nil {
		return sample{}, err
	}
	begin := time.Now()
	w.phase.Store(measuring)
	if err := sleep(ctx, d.duration); err != nil {
		return sample{}, err
	}
	w.phase.Store(ended)
	took := time.Since(begin)
	after, err := d.used()
	if err != nil {
		return sample{}, err
	}
	workers.Wait()
	return w.sample(d.conns, took, after-before), nil
}

func (d drive) used() (time.Duration, error) {
	if d.cpu == nil {
		return 0, nil
	}
	return d.cpu()
}

// work is what the workers share.
type work struct {
	phase  atomic.Int32
	broken atomic.Int64
	first  atomic.Pointer[string]
	times  [][]time.Duration // by worker
	kinds  []counts          // by worker
}

// loop is one worker. A request counts if it began and ended while measuring;
// an error counts in every phase.
func (w *work) loop(ctx context.Context, i int, do call) {
	times, kinds := make([]time.Duration, 0, 1<<16), counts{}
	defer func() { w.times[i], w.kinds[i] = times, kinds }()
	for ctx.Err() == nil && w.broken.Load() < mostErrors {
		phase := w.phase.Load()
		if phase == ended {
			return
		}
		begin := time.Now()
		err := do(ctx)
		took := time.Since(begin)
		switch {
		case err != nil:
			kinds[kindOf(err)]++
			text := err.Error()
			w.first.CompareAndSwap(nil, &text)
			w.broken.Add(1)
		case phase == measuring && w.phase.Load() == measuring:
			times = append(times, took)
		}
	}
}

func (w *work) sample(conns int, took, cpu time.Duration) sample {
	s := sample{conns: conns, took: took, cpu: cpu, times: slices.Concat(w.times...), errors: counts{}}
	slices.Sort(s.times)
	if text := w.first.Load(); text != nil {
		s.first = *text
	}
	for _, kinds := range w.kinds {
		for kind, n := range kinds {
			s.errors[kind] += n
		}
	}
	return s
}

// quantile is the nearest-rank quantile of sorted times, 0 of none.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(q*float64(len(sorted)) + 0.999999)
	return sorted[min(max(rank, 1), len(sorted))-1]
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return fmt.Errorf("measuring was interrupted: %w", ctx.Err())
	case <-timer.C:
		return nil
	}
}
