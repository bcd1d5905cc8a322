package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"time"
)

// machine is on what was measured.
type machine struct {
	Cores      int     `json:"cores"`
	Kernel     string  `json:"kernel"`
	Go         string  `json:"go"`
	FsyncP50   float64 `json:"fsync_p50_ms"` // of 512 bytes appended, in the directory that was used
	FsyncP99   float64 `json:"fsync_p99_ms"`
	LoadBefore float64 `json:"load_before"` // one-minute average; below 1 the figures are worth something
}

func describeMachine(dir string) (machine, error) {
	m := machine{Cores: runtime.NumCPU(), Go: runtime.Version()}
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return m, fmt.Errorf("read load: %w", err)
	}
	first, _, _ := strings.Cut(string(load), " ")
	if m.LoadBefore, err = strconv.ParseFloat(first, 64); err != nil {
		return m, fmt.Errorf("read load: %w", err)
	}
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return m, fmt.Errorf("read kernel: %w", err)
	}
	m.Kernel = strings.TrimSpace(string(kernel))
	times, err := appends(dir, 200*time.Millisecond)
	m.FsyncP50, m.FsyncP99 = milliseconds(quantile(times, 0.5)), milliseconds(quantile(times, 0.99))
	return m, err
}

// profileInto begins a CPU profile of this process, which is where ledger and
// verify run; the returned function ends it.
func profileInto(path string) (func() error, error) {
	if path == "" {
		return func() error { return nil }, nil
	}
	f, err := os.Create(path) //nolint:gosec // the user names it
	if err != nil {
		return nil, fmt.Errorf("make profile: %w", err)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, fmt.Errorf("make profile: %w", err)
	}
	return func() error { pprof.StopCPUProfile(); return f.Close() }, nil
}
