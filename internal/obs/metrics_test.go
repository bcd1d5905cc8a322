package obs_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/obs"
)

// scrape gives the samples of one metric.
func scrape(t *testing.T, m *obs.Metrics, prefix string) []string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("status %d", w.Code)
	}
	var found []string
	for l := range strings.Lines(w.Body.String()) {
		if strings.HasPrefix(l, prefix) {
			found = append(found, strings.TrimSpace(l))
		}
	}
	return found
}

func has(t *testing.T, lines []string, want string) {
	t.Helper()
	for _, l := range lines {
		if l == want {
			return
		}
	}
	t.Errorf("no %q in\n%s", want, strings.Join(lines, "\n"))
}

func TestCounter_BeginsAtZeroAndCounts(t *testing.T) {
	m := obs.NewMetrics()
	c := m.Counter("vends_total", "Vends.", obs.OneOf("outcome", "allowed", "denied"))
	plain := m.Counter("starts_total", "Starts.")
	c.Inc("allowed")
	c.Add(2, "allowed")
	c.Inc("a value that a caller made up")
	lines := scrape(t, m, "vends_total{")
	has(t, lines, `vends_total{outcome="allowed"} 3`)
	has(t, lines, `vends_total{outcome="denied"} 0`)
	has(t, lines, `vends_total{outcome="other"} 1`)
	if len(lines) != 3 {
		t.Errorf("%d samples, want 3: %v", len(lines), lines)
	}
	has(t, scrape(t, m, "starts_total"), "starts_total 0")
	plain.Inc()
	has(t, scrape(t, m, "starts_total"), "starts_total 1")
}

func TestLabel_StopsGrowingAtItsBound(t *testing.T) {
	m := obs.NewMetrics()
	c := m.Counter("calls_total", "Calls.", obs.AtMost("plugin", 3), obs.OneOf("outcome", "ok"))
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 50 {
				c.Inc(fmt.Sprintf("p%d-%d", g, i), "ok")
			}
		})
	}
	wg.Wait()
	lines := scrape(t, m, "calls_total{")
	if len(lines) != 4 {
		t.Errorf("%d samples, want 3 and other:\n%s", len(lines), strings.Join(lines, "\n"))
	}
	has(t, lines, `calls_total{outcome="ok",plugin="other"} 397`)
}

func TestHistogram_SortsIntoBuckets(t *testing.T) {
	m := obs.NewMetrics()
	h := m.Histogram("wait_seconds", "Waits.", []float64{0.1, 1}, obs.OneOf("door", "kbs"))
	begin := time.Unix(0, 0)
	h.Since(begin, begin.Add(50*time.Millisecond), "kbs")
	h.Observe(0.5, "kbs")
	h.Observe(9, "kbs")
	lines := scrape(t, m, "wait_seconds")
	has(t, lines, `wait_seconds_bucket{door="kbs",le="0.1"} 1`)
	has(t, lines, `wait_seconds_bucket{door="kbs",le="1"} 2`)
	has(t, lines, `wait_seconds_count{door="kbs"} 3`)
}

func TestGauge_GoesUpAndDown(t *testing.T) {
	m := obs.NewMetrics()
	g := m.Gauge("connections", "Open connections.")
	g.Add(3)
	g.Add(-1)
	has(t, scrape(t, m, "connections"), "connections 2")
	info := m.Gauge("build_info", "Build.", obs.AtMost("version", 1))
	info.Set(1, "v1.2.3")
	has(t, scrape(t, m, "build_info{"), `build_info{version="v1.2.3"} 1`)
	m.GaugeFunc("depth", "Depth.", func() float64 { return 7 })
	has(t, scrape(t, m, "depth"), "depth 7")
}

func TestMetrics_RefuseASecondDeclaration(t *testing.T) {
	m := obs.NewMetrics()
	m.Counter("once_total", "Once.")
	defer func() {
		if recover() == nil {
			t.Error("the second declaration did not panic")
		}
	}()
	m.Counter("once_total", "Again.")
}

func TestMetrics_ShowTheRuntime(t *testing.T) {
	if len(scrape(t, obs.NewMetrics(), "go_goroutines ")) != 1 {
		t.Error("no go_goroutines")
	}
}

func TestGauges_AreReadAtEachScrape(t *testing.T) {
	m := obs.NewMetrics()
	states := []string{"ready", "ready", "broken"}
	m.Gauges("processes", "Processes by state.", []string{"state"}, func(emit func(float64, ...string)) {
		for _, s := range states {
			emit(1, s)
		}
	})
	has(t, scrape(t, m, "processes{"), `processes{state="ready"} 2`)
	states = []string{"idle"}
	if got := scrape(t, m, "processes{"); len(got) != 1 || got[0] != `processes{state="idle"} 1` {
		t.Errorf("what is gone is still shown: %q", got)
	}
	m.Gauges("endless", "More than anybody reads.", []string{"n"}, func(emit func(float64, ...string)) {
		for n := range 2 * obs.MaxRead {
			emit(1, fmt.Sprint(n))
		}
	})
	if got := scrape(t, m, "endless{"); len(got) != obs.MaxRead {
		t.Errorf("%d series", len(got))
	}
}
