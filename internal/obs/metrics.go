package obs

import (
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Other is the label value of everything outside a label's bounds.
const Other = "other"

// Metrics is a registry. Make one with [NewMetrics] and hand it to every
// package that counts; each declares its metrics in one file, at start-up.
// Declaring a name twice, or an ill-formed one, panics: that is a defect which
// no request can cause. All methods may be called concurrently.
type Metrics struct{ reg *prometheus.Registry }

// NewMetrics makes a registry that already has the metrics of the Go runtime
// and of the process.
func NewMetrics() *Metrics {
	reg := prometheus.NewRegistry()
	reg.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return &Metrics{reg}
}

// Handler serves the metrics in Prometheus's text form.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.reg, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
}

// Label is one dimension of a metric, with its bounds.
type Label struct {
	name   string
	values []string // those known from the start
	max    int      // how many more are taken as they come
}

// OneOf is a label with a fixed set of values; all others count as [Other].
func OneOf(name string, values ...string) Label { return Label{name: name, values: values} }

// AtMost is a label whose values come from configuration, such as plugin names:
// the first n are taken, all later ones count as [Other].
func AtMost(name string, n int) Label { return Label{name: name, max: n} }

// Counter counts events; it only grows.
type Counter struct {
	vec    *prometheus.CounterVec
	bounds bounds
}

// Counter declares a counter. A counter whose labels are fixed sets begins with
// a zero for each combination of them, so that an alert sees the first event.
func (m *Metrics) Counter(name, help string, labels ...Label) *Counter {
	b := newBounds(labels)
	c := &Counter{prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, b.names()), b}
	m.reg.MustRegister(c.vec)
	for _, values := range b.combinations() {
		c.vec.WithLabelValues(values...)
	}
	return c
}

// Inc counts one event. The values are in the order of the labels; a wrong
// number of them panics.
func (c *Counter) Inc(values ...string) { c.Add(1, values...) }

// Add counts n events; n must not be negative.
func (c *Counter) Add(n float64, values ...string) {
	c.vec.WithLabelValues(c.bounds.clamp(values)...).Add(n)
}

// Bind is Inc for values that are counted often: they are looked up once.
func (c *Counter) Bind(values ...string) func() {
	return c.vec.WithLabelValues(c.bounds.clamp(values)...).Inc
}

// Histogram counts observations by size.
type Histogram struct {
	vec    *prometheus.HistogramVec
	bounds bounds
}

// Histogram declares a histogram. Buckets are upper bounds in the unit that
// the name ends with; none means Prometheus's defaults for seconds.
func (m *Metrics) Histogram(name, help string, buckets []float64, labels ...Label) *Histogram {
	b := newBounds(labels)
	h := &Histogram{prometheus.NewHistogramVec(
		prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, b.names(),
	), b}
	m.reg.MustRegister(h.vec)
	return h
}

// Observe adds an observation.
func (h *Histogram) Observe(v float64, values ...string) {
	h.vec.WithLabelValues(h.bounds.clamp(values)...).Observe(v)
}

// Bind is Observe for values that are observed often: they are looked up once.
func (h *Histogram) Bind(values ...string) func(v float64) {
	return h.vec.WithLabelValues(h.bounds.clamp(values)...).Observe
}

// Since adds the seconds that passed between the two times.
func (h *Histogram) Since(begin, end time.Time, values ...string) {
	h.Observe(end.Sub(begin).Seconds(), values...)
}

// Gauge is a value that goes up and down.
type Gauge struct {
	vec    *prometheus.GaugeVec
	bounds bounds
}

// Gauge declares a gauge.
func (m *Metrics) Gauge(name, help string, labels ...Label) *Gauge {
	b := newBounds(labels)
	g := &Gauge{prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, b.names()), b}
	m.reg.MustRegister(g.vec)
	for _, values := range b.combinations() {
		g.vec.WithLabelValues(values...)
	}
	return g
}

// Set gives the gauge a value.
func (g *Gauge) Set(v float64, values ...string) {
	g.vec.WithLabelValues(g.bounds.clamp(values)...).Set(v)
}

// Add changes the gauge by n, which may be negative.
func (g *Gauge) Add(n float64, values ...string) {
	g.vec.WithLabelValues(g.bounds.clamp(values)...).Add(n)
}

// GaugeFunc declares a gauge whose value is read at each scrape. The function
// must be quick and safe for concurrent use.
func (m *Metrics) GaugeFunc(name, help string, read func() float64) {
	m.reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, read))
}

// Gauges declares gauges with labels whose values are read at each scrape: read
// calls emit for each of them, and values of equal labels are added up. It must be
// quick and safe for concurrent use, and its label values must be bounded by what
// it reads; more than [MaxRead] series are cut off.
func (m *Metrics) Gauges(name, help string, labels []string, read func(emit func(v float64, values ...string))) {
	m.reg.MustRegister(&readGauges{prometheus.NewDesc(name, help, labels, nil), read})
}

// MaxRead is how many series one metric of [Metrics.Gauges] may have.
const MaxRead = 4096

type readGauges struct {
	desc *prometheus.Desc
	read func(emit func(v float64, values ...string))
}

// Describe is for the registry.
func (g *readGauges) Describe(to chan<- *prometheus.Desc) { to <- g.desc }

// Collect is for the registry, at each scrape.
func (g *readGauges) Collect(to chan<- prometheus.Metric) {
	sums, labels := map[string]float64{}, map[string][]string{}
	g.read(func(v float64, values ...string) {
		key := strings.Join(values, "\xff")
		if _, known := labels[key]; !known && len(labels) == MaxRead {
			return
		}
		sums[key], labels[key] = sums[key]+v, values
	})
	for key, v := range sums {
		to <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, v, labels[key]...)
	}
}

// bounds holds the labels of one metric and the values each may take.
type bounds []*bound

type bound struct {
	label Label
	mu    sync.RWMutex
	seen  map[string]bool
}

func newBounds(labels []Label) bounds {
	b := make(bounds, 0, len(labels))
	for _, l := range labels {
		seen := make(map[string]bool, len(l.values)+l.max+1)
		for _, v := range l.values {
			seen[v] = true
		}
		seen[Other] = true
		b = append(b, &bound{label: l, seen: seen})
	}
	return b
}

func (b bounds) names() []string {
	names := make([]string, 0, len(b))
	for _, x := range b {
		names = append(names, x.label.name)
	}
	return names
}

// combinations gives every combination of fixed values, or none when a label
// has no fixed set.
func (b bounds) combinations() [][]string {
	all := [][]string{{}}
	for _, x := range b {
		var next [][]string
		for _, head := range all {
			for _, v := range x.label.values {
				next = append(next, append(head[:len(head):len(head)], v))
			}
		}
		all = next
	}
	return all
}

// clamp replaces values out of bounds by Other.
func (b bounds) clamp(values []string) []string {
	if len(values) != len(b) {
		return values // the registry panics and names the metric
	}
	var out []string // copied only when something changes
	for i, v := range values {
		if b[i].take(v) {
			continue
		}
		if out == nil {
			out = append([]string(nil), values...)
		}
		out[i] = Other
	}
	if out == nil {
		return values
	}
	return out
}

// take reports whether the label may have this value.
func (x *bound) take(v string) bool {
	x.mu.RLock()
	ok := x.seen[v]
	x.mu.RUnlock()
	if ok || x.label.max == 0 {
		return ok
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.seen[v] {
		return true
	}
	if len(x.seen) > len(x.label.values)+x.label.max { // Other is among them
		return false
	}
	x.seen[v] = true
	return true
}
