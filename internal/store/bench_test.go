package store_test

import (
	"context"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport-project/sallyport/internal/store"
	"github.com/sallyport-project/sallyport/internal/store/storetest"
)

// callers is how many goroutines commit at the same time.
const callers = 64

// BenchmarkCommit is the budget of the ledger: one unit is a record and a new
// grant, 64 callers for 64 subjects, the integrator running.
func BenchmarkCommit(b *testing.B) {
	b.Run("sqlite", func(b *testing.B) { commits(b, store.Config{Dir: b.TempDir()}) })
	b.Run("sqlite-savepoints", func(b *testing.B) { commits(b, store.Config{Dir: b.TempDir(), Savepoints: true}) })
	b.Run("postgres", func(b *testing.B) { commits(b, postgres(b).Config(b)) })
	b.Run("postgres-savepoints", func(b *testing.B) {
		cfg := postgres(b).Config(b)
		cfg.Savepoints = true
		commits(b, cfg)
	})
	b.Run("postgres-two-writers", func(b *testing.B) {
		cfg := postgres(b).Config(b)
		cfg.Writers = 2
		commits(b, cfg)
	})
}

func commits(b *testing.B, cfg store.Config) {
	ctx := context.Background()
	s := storetest.Open(b, cfg)
	stop := storetest.Running(b, s)
	subjects := make([]string, callers)
	for i := range subjects {
		subjects[i] = storetest.Subject("x").ID
	}
	runtime.GC()
	before, spent := written(b), spent(b)
	var next atomic.Int64
	times := make([][]time.Duration, callers)
	b.ResetTimer()
	start := time.Now()
	var tasks sync.WaitGroup
	for c := range callers {
		tasks.Go(func() {
			for next.Add(1) <= int64(b.N) {
				u := storetest.Issue(storetest.Grant(subjects[c]))
				at := time.Now()
				if err := s.Commit(ctx, u); err != nil {
					b.Error(err)
					return
				}
				times[c] = append(times[c], time.Since(at))
			}
		})
	}
	tasks.Wait()
	took := time.Since(start)
	b.StopTimer()
	stop()
	b.ReportMetric(float64(written(b)-before)/float64(b.N), "B-written/unit")
	b.ReportMetric(float64(spent().Microseconds())/float64(b.N), "cpu-us/unit") // callers and load included
	all := slices.Concat(times...)
	slices.Sort(all)
	if len(all) > 0 {
		b.ReportMetric(float64(len(all))/took.Seconds(), "units/s")
		b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1000, "p99-ms")
		b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, "p50-ms")
	}
}

// written is how many bytes this process has handed to write calls.
func written(b *testing.B) int64 {
	data, err := os.ReadFile("/proc/self/io")
	if err != nil {
		b.Skip(err)
	}
	_, rest, _ := strings.Cut(string(data), "wchar: ")
	digits, _, _ := strings.Cut(rest, "\n")
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return n
}

// spent returns a clock of the processor time of this process from now on.
func spent(b *testing.B) func() time.Duration {
	read := func() time.Duration {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	begun := read()
	return func() time.Duration { return read() - begun }
}
