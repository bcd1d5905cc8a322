package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// record is how many bytes one unit of the disk floors has.
const record = 512

// appends appends records to a file, each with its own fsync, and gives the
// sorted times.
func appends(dir string, d time.Duration) ([]time.Duration, error) {
	f, err := os.CreateTemp(dir, "append-")
	if err != nil {
		return nil, fmt.Errorf("make file: %w", err)
	}
	defer func() { _ = f.Close(); _ = os.Remove(f.Name()) }()
	var times []time.Duration
	buffer := make([]byte, record)
	for end := time.Now().Add(d); time.Now().Before(end); {
		begin := time.Now()
		if _, err := f.Write(buffer); err != nil {
			return nil, fmt.Errorf("append: %w", err)
		}
		if err := f.Sync(); err != nil {
			return nil, fmt.Errorf("append: %w", err)
		}
		times = append(times, time.Since(begin))
	}
	slices.Sort(times)
	return times, nil
}

// group is the least that a durable log does for many callers: one writer
// appends whatever waits to a chain of SHA-256, syncs once, and tells them all. The
// budgets were written beside the same thing.
func group(ctx context.Context, dir string, callers int, d time.Duration) (sample, error) {
	f, err := os.Create(filepath.Join(dir, "group")) //nolint:gosec // ours
	if err != nil {
		return sample{}, fmt.Errorf("make file: %w", err)
	}
	defer func() { _ = f.Close(); _ = os.Remove(f.Name()) }()
	type job struct {
		text []byte
		done chan error
	}
	jobs := make(chan job, callers)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		var batch []job
		var buffer []byte
		var chain [sha256.Size]byte
		for first := range jobs {
			batch, buffer = append(batch[:0], first), buffer[:0]
			for n := len(jobs); n > 0; n-- {
				batch = append(batch, <-jobs)
			}
			for _, j := range batch {
				copy(j.text, chain[:])
				chain = sha256.Sum256(j.text)
				buffer = append(buffer, j.text...)
			}
			_, err := f.Write(buffer)
			if err == nil {
				err = f.Sync()
			}
			for _, j := range batch {
				j.done <- err
			}
		}
	}()
	s, err := drive{conns: callers, warm: d / 4, duration: d, open: func(context.Context, int) (call, error) {
		j := job{text: make([]byte, record), done: make(chan error, 1)}
		return func(context.Context) error { jobs <- j; return <-j.done }, nil
	}}.run(ctx)
	close(jobs)
	<-ended
	return s, err
}
