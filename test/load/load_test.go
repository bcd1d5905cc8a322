package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

// The test binary is started again as the bare server.
func TestMain(m *testing.M) {
	if inner, err := part(os.Args[1:]); inner {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("database/sql.(*DB).connectionOpener"))
}

func TestQuantile_IsNearestRank(t *testing.T) {
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(i + 1)
	}
	for _, c := range []struct {
		times []time.Duration
		q     float64
		want  time.Duration
	}{
		{nil, 0.5, 0},
		{hundred[:1], 0.5, 1},
		{hundred[:1], 0.99, 1},
		{hundred[:2], 0.5, 1},
		{hundred[:3], 0.5, 2},
		{hundred, 0.5, 50},
		{hundred, 0.99, 99},
		{hundred, 1, 100},
		{hundred, 0, 1},
	} {
		if got := quantile(c.times, c.q); got != c.want {
			t.Errorf("quantile %v of %d times is %d, want %d", c.q, len(c.times), got, c.want)
		}
	}
}

func TestDrive_CountsWhatItMeasures(t *testing.T) {
	cpu := time.Duration(0)
	s, err := drive{
		conns: 3, warm: 30 * time.Millisecond, duration: 100 * time.Millisecond,
		cpu: func() (time.Duration, error) { cpu += time.Second; return cpu, nil },
		open: func(_ context.Context, worker int) (call, error) {
			n := 0
			return func(context.Context) error {
				time.Sleep(time.Millisecond)
				if n++; worker == 0 && n <= 2 {
					return refused(503, []byte("later"))
				}
				return nil
			}, nil
		},
	}.run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if want := (counts{"status 503": 2}); !cmp.Equal(s.errors, want) || s.failed() != 2 || s.first != "status 503: later" {
		t.Errorf("errors are %v, the first %q, want %v", s.errors, s.first, want)
	}
	// Three workers of at least a millisecond each, in 100 ms; warming up is not counted.
	if n := len(s.times); n < 20 || n > 3*110 {
		t.Errorf("%d requests were measured", n)
	}
	if s.cpu != time.Second || s.took < 100*time.Millisecond {
		t.Errorf("processor time %s, took %s", s.cpu, s.took)
	}
	if quantile(s.times, 0) < time.Millisecond {
		t.Error("a request was faster than it can be")
	}
}

func TestDrive_EndsWhenEverythingFails(t *testing.T) {
	broken := errors.New("broken")
	s, err := drive{conns: 2, duration: 50 * time.Millisecond, open: func(context.Context, int) (call, error) {
		return func(context.Context) error { return broken }, nil
	}}.run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if n := s.failed(); n < mostErrors || n > mostErrors+2 || s.errors["broken"] != n || len(s.times) != 0 {
		t.Errorf("%d errors and %d requests, want about %d and none", n, len(s.times), mostErrors)
	}
	if _, err := (drive{conns: 1, open: func(context.Context, int) (call, error) { return nil, broken }}).run(t.Context()); !errors.Is(err, broken) {
		t.Errorf("a worker that cannot be opened gives %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (drive{conns: 1, duration: time.Hour, open: func(context.Context, int) (call, error) {
		return func(context.Context) error { return nil }, nil
	}}).run(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("an ended context gives %v", err)
	}
}

func TestStat_IsReadWhateverTheNameHolds(t *testing.T) {
	const rest = " S 42 7 7 0 -1 4194560 100 200 3 4 150 25 7 1 20 0 9 0 12345 1000 200 18446744073709551615 1 1"
	for name, program := range map[string]string{"plain": "sallyport", "spaces": "a b c", "brackets": "x) R 1 (y", "empty": ""} {
		t.Run(name, func(t *testing.T) {
			got, err := parseStat("99 (" + program + ")" + rest + "\n")
			if err != nil {
				t.Fatal(err)
			}
			if want := (stat{pid: 99, parent: 42, cpu: (150 + 25 + 7 + 1) * tick}); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
	for _, bad := range []string{
		"", "99", "99 (x", "99 (x)", "x (x)" + rest, "99 (x) S 42 7", ")99(" + rest,
		"99 (x) S p 7 7 0 -1 4194560 100 200 3 4 150 25 7 1 20", "99 (x) S 42 7 7 0 -1 4194560 100 200 3 4 150 -25 7 1 20",
	} {
		if got, err := parseStat(bad); err == nil {
			t.Errorf("%q was read as %+v", bad, got)
		}
	}
}

func FuzzStat(f *testing.F) {
	f.Add("99 (x) S 42 7 7 0 -1 4194560 100 200 3 4 150 25 7 1 20")
	f.Add("1 ()) R 0 0")
	f.Fuzz(func(t *testing.T, text string) {
		if s, err := parseStat(text); err == nil && s.cpu < 0 {
			t.Errorf("negative time %s", s.cpu)
		}
	})
}

func TestFamily_HasAllDescendants(t *testing.T) {
	all := map[int]stat{1: {pid: 1}, 2: {pid: 2, parent: 1}, 3: {pid: 3, parent: 2}, 4: {pid: 4, parent: 3}, 5: {pid: 5, parent: 1}}
	if got := family(all, 2); !cmp.Equal(got, []int{2, 3, 4}) {
		t.Errorf("got %v", got)
	}
}

func TestProcessTime_SeesWorkOfThisProcess(t *testing.T) {
	before, err := processTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	begin, sum := time.Now(), 0.0
	for time.Since(begin) < 150*time.Millisecond {
		for i := range 1000 {
			sum += math.Sqrt(float64(i))
		}
	}
	after, err := processTime(os.Getpid())
	if err != nil || sum == 0 {
		t.Fatal(err)
	}
	if used := after - before; used < 3*tick {
		t.Errorf("150 ms of work are seen as %s", used)
	}
	if _, err := processTime(1 << 30); err == nil {
		t.Error("a process that is not there has a time")
	}
	if rss, err := resident(os.Getpid()); err != nil || rss < 1<<20 {
		t.Errorf("this process has %d bytes, %v", rss, err)
	}
	if _, err := parseResident("Name:\tx\nVmRSS:\tmany kB\n"); err == nil {
		t.Error("a memory that is no number was read")
	}
	if n, err := parseResident("Name:\tx\nVmRSS:\t   60000 kB\n"); err != nil || n != 60000<<10 {
		t.Errorf("memory is %d, %v", n, err)
	}
}

func TestResult_IsJudged(t *testing.T) {
	r := result{PerSecond: 500, Requests: 10, P99: 3}
	r.against("floor", 1000)
	r.judge([]budget{atLeast("ratio", 0.5), atMost("p99_ms", 3)})
	if !r.OK || len(r.missed()) != 0 {
		t.Errorf("a result at its bounds is missed: %v", r.missed())
	}
	for name, b := range map[string]budget{"low": atLeast("ratio", 0.51), "high": atMost("p99_ms", 2.9), "unmeasured": atMost("idle_rss_mb", 60)} {
		if r.judge([]budget{b}); r.OK || len(r.missed()) != 1 {
			t.Errorf("%s: a missed budget is met", name)
		}
		if _, err := json.Marshal(r); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	r.Errors = 1
	if r.judge(nil); r.OK {
		t.Error("a run with errors is good")
	}
	if r.Errors, r.Requests = 0, 0; true {
		if r.judge(nil); r.OK {
			t.Error("a run without requests is good")
		}
	}
}

func TestProgram_RefusesWrongUse(t *testing.T) {
	for _, args := range [][]string{
		{},
		{"nothing"},
		{"ledger", "more"},
		{"ledger", "--conns", "-1"},
		{"ledger", "--conns", "100000"},
		{"ledger", "--duration", "0s"},
		{"ledger", "--duration", "24h"},
		{"ledger", "--driver", "paper"},
		{"ledger", "--unknown"},
	} {
		var out, log bytes.Buffer
		if code := program(t.Context(), args, &out, &log); code != 2 || log.Len() == 0 || out.Len() != 0 {
			t.Errorf("%q: exit %d, says %q", args, code, log.String())
		}
	}
}

func TestLedger_RunsAndIsChecked(t *testing.T) {
	args := []string{"ledger", "--conns", "8", "--duration", "300ms", "--warm", "50ms", "--json", "--dir", t.TempDir()}
	var out, log bytes.Buffer
	code := program(t.Context(), append(args[:len(args):len(args)], "--min-ratio", "1e9", "--check"), &out, &log)
	if code != 1 || !strings.Contains(log.String(), "ratio") {
		t.Fatalf("a ratio that nobody reaches: exit %d, %s", code, log.String())
	}
	var r result
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	if r.Scenario != "ledger" || r.Requests == 0 || r.PerSecond <= 0 || r.P50 <= 0 || r.P99 < r.P50 || r.CPU <= 0 || r.Errors != 0 ||
		r.FloorPerSecond <= 0 || r.Ratio <= 0 || r.Machine.Cores < 1 || r.OK {
		t.Errorf("the result is %s", out.String())
	}
	if size := r.Figures["ledger_size"]; int(size) < r.Requests {
		t.Errorf("%v records have a place, of %d at least", size, r.Requests)
	}
}

func TestBare_AnswersOverMutualTLS(t *testing.T) {
	b, err := startBare(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := b.stop(); err != nil {
			t.Error(err)
		}
	}()
	d := b.drive(5000)
	d.conns, d.warm, d.duration = 2, 10*time.Millisecond, 100*time.Millisecond
	s, err := d.run(t.Context())
	if err != nil || len(s.times) == 0 || s.failed() != 0 {
		t.Fatalf("%d requests, errors %v, %v", len(s.times), s.errors, err)
	}
	stranger := b.client.Clone()
	stranger.Certificates = nil
	c, err := dial(t.Context(), b.address, stranger)
	if err == nil { // TLS 1.3: the refusal comes with the first answer
		defer c.close()
		_, _, err = c.exchange(request("GET", "/", b.address, nil))
	}
	if err == nil {
		t.Error("a client without a certificate was answered")
	}
}
