package main

import (
	"bytes"
	"encoding/json"
	"testing"
)

// The scenarios of plugins run, find nothing that fails, and measure all that they
// are judged by. What they measure says nothing here: the machine is busy.
func TestPlugins_AreMeasured(t *testing.T) {
	for name, figures := range map[string][]string{
		"plugin-call":    {"c1_overhead_percent", "stream_to_unary_ratio"},
		"plugin-stream":  {"both_cpu_us", "floor_both_cpu_us"},
		"plugin-start":   {"restart_p50_ms", "mtls_first_p50_ms", "mtls_restart_p50_ms", "floor_p50_ms"},
		"plugin-crash":   {"noticed_p99_ms", "idle20_anonymous_mb", "idle20_sealed_images"},
		"plugin-upgrade": {"upgrades"},
		"route":          {"lowest_ratio", "floor_cpu_us_per_request"},
	} {
		t.Run(name, func(t *testing.T) {
			var out, log bytes.Buffer
			args := []string{name, "--duration", "1s", "--warm", "50ms", "--json", "--dir", t.TempDir()}
			if code := program(t.Context(), args, &out, &log); code != 0 {
				t.Fatalf("exit %d: %s", code, log.String())
			}
			var r result
			if err := json.Unmarshal(out.Bytes(), &r); err != nil {
				t.Fatalf("%v: %s", err, out.String())
			}
			if r.Scenario != name || r.Requests == 0 || r.Errors != 0 || r.FloorPerSecond <= 0 || r.P50 <= 0 || r.P99 < r.P50 {
				t.Errorf("the result is %s", out.String())
			}
			for _, f := range figures {
				if _, ok := r.Figures[f]; !ok {
					t.Errorf("%s was not measured: %v", f, r.Figures)
				}
			}
			if name == "plugin-crash" && r.Figures["idle20_sealed_images"] != 1 {
				t.Errorf("%v sealed images of one package", r.Figures["idle20_sealed_images"])
			}
			if name == "plugin-upgrade" && r.Figures["failed"] != 0 {
				t.Errorf("%v calls failed under upgrades", r.Figures["failed"])
			}
		})
	}
}
