package plugin

import (
	"context"
	"encoding/json"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
)

func jsonOf(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// benchmarkIssue measures one Issue through the host, by as many callers.
func benchmarkIssue(b *testing.B, name string, callers int, declared bool) {
	m := testManifest(name)
	if declared {
		m.Params = map[string]manifest.Fields{m.Kinds[0]: {"p": {Type: manifest.TypeString}}}
	}
	r := newRig(b, nil, m)
	kind := m.Kinds[0]
	p := r.provider(b, kind)
	q := ask(kind, map[string]any{"p": "0123456789012345678901234567890123456789"})
	if _, err := p.Issue(b.Context(), q, limits(kind)); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	if callers == 1 {
		for b.Loop() {
			if _, err := p.Issue(b.Context(), q, limits(kind)); err != nil {
				b.Fatal(err)
			}
		}
		return
	}
	var failed atomic.Int64
	b.SetParallelism(callers / runtime.GOMAXPROCS(0))
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := p.Issue(context.Background(), q, limits(kind)); err != nil {
				failed.Add(1)
			}
		}
	})
	b.StopTimer()
	if failed.Load() > 0 {
		b.Fatalf("%d calls failed", failed.Load())
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
}

func BenchmarkIssue_Stream1(b *testing.B)    { benchmarkIssue(b, "alpha", 1, false) }
func BenchmarkIssue_Stream32(b *testing.B)   { benchmarkIssue(b, "alpha", 32, true) }
func BenchmarkIssue_Stream64(b *testing.B)   { benchmarkIssue(b, "alpha", 64, true) }
func BenchmarkIssue_AgentKMS1(b *testing.B)  { benchmarkIssue(b, "akms", 1, false) }
func BenchmarkIssue_AgentKMS32(b *testing.B) { benchmarkIssue(b, "akms", 32, false) }

// BenchmarkStart measures a start to the first answer from a sealed image.
func BenchmarkStart_SealedImage(b *testing.B) {
	r := newRig(b, nil, testManifest("alpha"))
	e, err := r.store.judge(r.rows[0].Digest, r.publisher.trust)
	if err != nil {
		b.Fatal(err)
	}
	_, free, err := r.images.use(e, r.store)
	if err != nil {
		b.Fatal(err)
	}
	defer free()
	for b.Loop() {
		i, err := r.launch(b.Context(), e)
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		i.stop(false)
		b.StartTimer()
	}
}

// BenchmarkStart_First measures verification, copy, hash, seal and start.
func BenchmarkStart_First(b *testing.B) {
	r := newRig(b, nil, testManifest("alpha"))
	for b.Loop() {
		e, err := r.store.judge(r.rows[0].Digest, r.publisher.trust)
		if err != nil {
			b.Fatal(err)
		}
		i, err := r.launch(b.Context(), e)
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		i.stop(false)
		b.StartTimer()
	}
}
