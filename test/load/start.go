package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"time"
)

func startBudgets(options) []budget {
	return []budget{atMost("p50_ms", 150), atMost("idle_rss_mb", 60)}
}

const (
	starts   = 7
	idleTime = 5 * time.Second
)

// start measures how long a founded server takes from exec until it says that
// it is ready and answers so, and what it holds when nobody asks anything.
func start(ctx context.Context, o options) (r result, err error) {
	in, err := found(ctx, o, filepath.Join(o.dir, "server"))
	if err != nil {
		return result{}, err
	}
	s := sample{conns: 1, errors: counts{}}
	var floors []time.Duration
	for i := range starts {
		took, rss, cpu, err := once(ctx, in, i == starts-1)
		if err != nil {
			return result{}, err
		}
		s.times, s.took, s.cpu = append(s.times, took), s.took+took, s.cpu+cpu
		if rss > 0 {
			r.figure("idle_rss_mb", float64(rss)/1e6)
		}
		b, err := startBare(ctx, false)
		if err != nil {
			return result{}, err
		}
		floors = append(floors, b.started)
		if err := b.stop(); err != nil {
			return result{}, err
		}
	}
	slices.Sort(s.times)
	slices.Sort(floors)
	r.take(s)
	r.CPUOf = "the server, until it is ready"
	r.against("exec of a bare TLS echo server until it listens", 1/quantile(floors, 0.5).Seconds())
	r.figure("floor_p50_ms", milliseconds(quantile(floors, 0.5)))
	r.figure("starts", starts)
	return r, nil
}

// once starts and stops the server; with rest it looks at its memory after a
// while of idleness.
func once(ctx context.Context, in *installation, rest bool) (took time.Duration, rss int64, cpu time.Duration, err error) {
	s, err := in.start(ctx)
	if err != nil {
		return 0, 0, 0, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	took = s.started
	begin := time.Now()
	if err := ready(ctx, s.operations); err != nil {
		return 0, 0, 0, err
	}
	took += time.Since(begin)
	if cpu, err = s.cpu(); err != nil || !rest {
		return took, 0, cpu, err
	}
	if err := sleep(ctx, idleTime); err != nil {
		return 0, 0, 0, err
	}
	rss, err = resident(s.cmd.Process.Pid)
	return took, rss, cpu, err
}

// ready asks the operations listener.
func ready(ctx context.Context, address string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/readyz", nil)
	if err != nil {
		return fmt.Errorf("ask whether the server is ready: %w", err)
	}
	a, err := (&http.Client{Timeout: 5 * time.Second}).Do(r)
	if err != nil {
		return fmt.Errorf("ask whether the server is ready: %w", err)
	}
	defer func() { _ = a.Body.Close() }()
	text, _ := io.ReadAll(io.LimitReader(a.Body, 1<<10))
	if a.StatusCode != http.StatusOK {
		return fmt.Errorf("the server is not ready: %s", text)
	}
	return nil
}
