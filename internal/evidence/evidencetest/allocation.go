package evidencetest

import (
	"math"
	"runtime/metrics"
	"testing"
)

// AtMost fails if something allocates more than so many bytes at once. It counts
// whole size classes of the runtime, the largest of which ends at 32 kB, and all of
// the process: the test must not be parallel, and what others allocate meanwhile is
// left out by taking the best of three. The runtime counts a class when it needs a
// new span for it, so that each is done often enough for that.
func AtMost(t *testing.T, bytes int, do func()) {
	t.Helper()
	const often = 64
	do() // fills caches
	least := math.Inf(1)
	for range 3 {
		before := bySize()
		for range often {
			do()
		}
		least = min(least, largest(before, bySize()))
	}
	if least > float64(bytes) {
		t.Errorf("an allocation of more than %.0f bytes, at most %d are allowed", least, bytes)
	}
}

func bySize() *metrics.Float64Histogram {
	s := []metrics.Sample{{Name: "/gc/heap/allocs-by-size:bytes"}}
	metrics.Read(s)
	return s[0].Value.Float64Histogram()
}

// largest is the lower end of the largest size class in which something was
// allocated.
func largest(before, after *metrics.Float64Histogram) float64 {
	for i := len(after.Counts) - 1; i >= 0; i-- {
		if after.Counts[i] > before.Counts[i] {
			return after.Buckets[i]
		}
	}
	return 0
}
