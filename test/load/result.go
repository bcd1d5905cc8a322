package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
)

// result is the one JSON object of a run.
type result struct {
	Scenario   string  `json:"scenario"`
	Driver     string  `json:"driver,omitempty"`
	Conns      int     `json:"conns"`
	DurationS  float64 `json:"duration_s"`
	Requests   int     `json:"requests"`
	PerSecond  float64 `json:"requests_per_s"`
	P50        float64 `json:"p50_ms"`
	P99        float64 `json:"p99_ms"`
	CPU        float64 `json:"cpu_us_per_request"`
	CPUOf      string  `json:"cpu_of"` // whose processor time that is
	Errors     int     `json:"errors"`
	ErrorKinds counts  `json:"error_kinds,omitempty"`
	FirstError string  `json:"first_error,omitempty"`

	Floor          string  `json:"floor"`
	FloorPerSecond float64 `json:"floor_requests_per_s"`
	Ratio          float64 `json:"ratio"`

	Figures map[string]float64 `json:"figures,omitempty"` // of this scenario alone
	Machine machine            `json:"machine"`
	Budgets []verdict          `json:"budgets"`
	OK      bool               `json:"ok"` // every budget is met, and nothing failed
}

type counts map[string]int

// budget bounds one figure of a result: by its JSON name, or a name in Figures.
type budget struct {
	figure string
	least  bool // else most
	bound  float64
}

func atLeast(figure string, bound float64) budget { return budget{figure, true, bound} }
func atMost(figure string, bound float64) budget  { return budget{figure, false, bound} }

// verdict is a judged budget.
type verdict struct {
	Figure string  `json:"figure"`
	Want   string  `json:"want"`
	Got    float64 `json:"got"`
	OK     bool    `json:"ok"`
}

// take puts a sample into the result.
func (r *result) take(s sample) {
	r.Conns, r.DurationS, r.Requests = s.conns, s.took.Seconds(), len(s.times)
	r.PerSecond = s.perSecond()
	r.P50, r.P99 = milliseconds(quantile(s.times, 0.5)), milliseconds(quantile(s.times, 0.99))
	r.Errors, r.ErrorKinds, r.FirstError = s.failed(), s.errors, s.first
	if n := len(s.times); n > 0 {
		r.CPU = float64(s.cpu.Microseconds()) / float64(n)
	}
}

// against sets the floor and the ratio to it.
func (r *result) against(floor string, perSecond float64) {
	r.Floor, r.FloorPerSecond = floor, perSecond
	if perSecond > 0 {
		r.Ratio = r.PerSecond / perSecond
	}
}

func (r *result) figure(name string, value float64) {
	if r.Figures == nil {
		r.Figures = map[string]float64{}
	}
	r.Figures[name] = value
}

// named looks a figure up; a figure that was not measured is NaN, which meets
// no budget.
func (r *result) named(name string) float64 {
	switch name {
	case "requests_per_s":
		return r.PerSecond
	case "p50_ms":
		return r.P50
	case "p99_ms":
		return r.P99
	case "ratio":
		return r.Ratio
	}
	if v, ok := r.Figures[name]; ok {
		return v
	}
	return math.NaN()
}

// judge compares the result with its budgets. A run with errors is never OK.
func (r *result) judge(budgets []budget) {
	r.OK, r.Budgets = r.Errors == 0 && r.Requests > 0, []verdict{}
	for _, b := range budgets {
		got := r.named(b.figure)
		v := verdict{Figure: b.figure, Got: got}
		if b.least {
			v.Want, v.OK = fmt.Sprintf("at least %g", b.bound), got >= b.bound
		} else {
			v.Want, v.OK = fmt.Sprintf("at most %g", b.bound), got <= b.bound
		}
		if math.IsNaN(got) {
			v.Got = 0 // JSON has no NaN
			v.Want += ", was not measured"
		}
		r.OK = r.OK && v.OK
		r.Budgets = append(r.Budgets, v)
	}
}

// missed names what was not met.
func (r *result) missed() []string {
	var out []string
	for _, v := range r.Budgets {
		if !v.OK {
			out = append(out, fmt.Sprintf("%s is %.4g, must be %s", v.Figure, v.Got, v.Want))
		}
	}
	if r.Errors > 0 {
		out = append(out, fmt.Sprintf("%d errors %v", r.Errors, r.ErrorKinds))
	}
	return out
}

func (r *result) print(w io.Writer, asJSON bool) error {
	if asJSON {
		text, err := json.Marshal(r)
		if err != nil {
			return fmt.Errorf("encode result: %w", err)
		}
		_, err = fmt.Fprintln(w, string(text))
		return err //nolint:wrapcheck // the reader has gone
	}
	line := func(name string, format string, args ...any) {
		_, _ = fmt.Fprintf(w, "%-28s %s\n", name, fmt.Sprintf(format, args...))
	}
	line("scenario", "%s %s, %d at a time, %.1f s", r.Scenario, r.Driver, r.Conns, r.DurationS)
	line("requests per second", "%.0f", r.PerSecond)
	line("p50, p99", "%.3f ms, %.3f ms", r.P50, r.P99)
	line("processor per request", "%.1f us (%s)", r.CPU, r.CPUOf)
	line("errors", "%d %v %s", r.Errors, r.ErrorKinds, r.FirstError)
	line("floor", "%.0f per second: %s", r.FloorPerSecond, r.Floor)
	line("ratio", "%.3f", r.Ratio)
	for _, name := range slices.Sorted(maps.Keys(r.Figures)) {
		line(name, "%.4g", r.Figures[name])
	}
	line("machine", "%d cores, Linux %s, %s, fsync p50 %.3f ms, load before %.2f",
		r.Machine.Cores, r.Machine.Kernel, r.Machine.Go, r.Machine.FsyncP50, r.Machine.LoadBefore)
	for _, v := range r.Budgets {
		word := "met"
		if !v.OK {
			word = "MISSED"
		}
		line("budget "+word, "%s %.4g, %s", v.Figure, v.Got, v.Want)
	}
	return nil
}
