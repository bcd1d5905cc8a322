// Command load measures what Sallyport does per second on this machine, beside
// a floor that does nothing but the unavoidable, and compares the two.
//
//	go run ./test/load SCENARIO [--conns N] [--duration D] [--json] [--check]
//
// It starts what it needs on loopback and in a temporary directory, warms up,
// measures for the duration, and takes everything down again. Ratios are the
// criterion: generator, server and floor share the machine, so an absolute
// figure says as much about the machine as about the program. What is measured
// in which scenario, and the figures, are in docs/performance.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/sallyport-project/sallyport/internal/app"
)

// options are the command line.
type options struct {
	scenario string
	conns    int
	warm     time.Duration
	duration time.Duration
	driver   string
	dir      string // a fresh directory, removed at the end
	server   string // a built binary, built if empty
	minRatio float64
	json     bool
	check    bool
	profile  string
	dsn      string // of a PostgreSQL that was started; empty for SQLite
	// Of kbs-flat.
	sessions, resources int
}

// scenario is one thing to measure.
type scenario struct {
	about   string
	conns   int  // default
	serves  bool // starts a server
	run     func(context.Context, options) (result, error)
	budgets func(options) []budget
}

var scenarios = map[string]scenario{
	"ledger": {"units (audit row and state row) committed per second, in process", 64, false, ledger, ledgerBudgets},
	"vend": {
		"credentials per second: mTLS, session, policy, one plugin call, durable record", 32, true, vend, vendBudgets,
	},
	"vend-agentkms": {
		"credentials per second by the six calls of agentkms.plugin.v1", 32, true, vendAgentKMS, agentkmsBudgets,
	},
	"kbs-resource": {
		"sealed resources per second for attested guests: token, policy, JWE, durable record", 32, true, kbsResource, resourceBudgets,
	},
	"kbs-handshake": {
		"guests per second: challenge, evidence and one secret on kept connections", 32, true, kbsHandshake, handshakeBudgets,
	},
	"kbs-handshake-new": {
		"guests per second, each with a TLS connection of its own", 32, true, kbsHandshakeNew, newHandshakeBudgets,
	},
	"route": {"requests of an extension's route, beside the same handler in the server", 32, true, routed, routeBudgets},
	"kbs-flat": {
		"what a guest's requests cost among 100,000 live sessions and 1,000,000 resources, beside ten", 32, true, kbsFlat, flatBudgets,
	},
	"plugin-call":    {"one call of a plugin through the host, beside the same call by go-plugin alone", 16, false, pluginCall, callBudgets},
	"plugin-stream":  {"the smallest call on a plugin's stream, beside a bare stream that echoes", 64, false, pluginStream, streamBudgets},
	"plugin-start":   {"time of a plugin's first start, and of a restart from its sealed image", 1, false, pluginStart, pluginStartBudgets},
	"plugin-crash":   {"time from a plugin's death to the next good call; memory of idle plugins", 1, false, pluginCrash, crashBudgets},
	"plugin-upgrade": {"credentials at a steady rate while their plugin is upgraded again and again", 16, true, pluginUpgrade, upgradeBudgets},
	"start":          {"time until a founded server is ready, and its memory when idle", 1, true, start, startBudgets},
	"snp-verify":     {"verifications of SNP evidence per second, in process", 1, false, judging(snpEvidence), judgeBudgets(1000)},
	"tdx-verify":     {"verifications of TDX evidence per second, in process", 1, false, judging(tdxEvidence), judgeBudgets(1500)},
	"tpm-verify":     {"verifications of a TPM's quote with a log of 38 kB per second, in process", 1, false, judging(tpmEvidence), judgeBudgets(1000)},
	"verify":         {"records verified per second in an export, in process", 1, false, verify, verifyBudgets},
}

const (
	maxConns    = 1024
	maxDuration = 10 * time.Minute
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if inner, err := part(os.Args[1:]); inner {
		if err != nil {
			_, _ = fmt.Fprintln(os.Stderr, "load:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(program(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// part runs this program as one of its own parts, if the command line says so.
func part(args []string) (inner bool, err error) {
	switch {
	case len(args) == 1 && args[0] == echoCommand:
		return true, echoServer(os.Stdin, os.Stdout)
	case len(args) == 2 && args[0] == echoStreamCommand:
		return true, echoStreamServer(args[1], os.Stdin, os.Stdout)
	case len(args) > 1 && args[0] == serveCommand:
		return true, serveHere(args[1:], app.Options{Version: "0.0.0-profiled"})
	case len(args) > 1 && args[0] == floorCommand:
		return true, serveHere(append(args[1:], ""), app.Options{Version: "0.0.0-floor", Extensions: answersInside})
	}
	return false, nil
}

// program is main without the process: 0 done, 1 failed or below a budget with
// --check, 2 wrong use.
func program(ctx context.Context, args []string, out, log io.Writer) int {
	o, err := parse(args, log)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		_, _ = fmt.Fprintln(log, "load:", err)
		return 2
	}
	r, err := measure(ctx, o)
	if err != nil {
		_, _ = fmt.Fprintln(log, "load:", err)
		return 1
	}
	if err := r.print(out, o.json); err != nil {
		_, _ = fmt.Fprintln(log, "load:", err)
		return 1
	}
	if o.check && !r.OK {
		_, _ = fmt.Fprintln(log, "load: below budget:", strings.Join(r.missed(), ", "))
		return 1
	}
	return 0
}

// measure runs one scenario in a directory of its own and judges the result.
func measure(ctx context.Context, o options) (r result, err error) {
	made, err := os.MkdirTemp(o.dir, "sallyport-load-")
	if err != nil {
		return result{}, fmt.Errorf("make directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(made)) }()
	o.dir = made
	m, err := describeMachine(made)
	if err != nil {
		return result{}, err
	}
	s := scenarios[o.scenario]
	own := o.profile
	if s.serves {
		own = "" // the server writes it
	}
	end, err := profileInto(own)
	if err != nil {
		return result{}, err
	}
	if r, err = s.run(ctx, o); err != nil {
		return result{}, errors.Join(err, end())
	}
	r.Scenario, r.Machine = o.scenario, m
	budgets := s.budgets(o)
	if o.minRatio >= 0 {
		budgets = append(slices.DeleteFunc(budgets, func(b budget) bool { return b.figure == "ratio" }), atLeast("ratio", o.minRatio))
	}
	r.judge(budgets)
	return r, end()
}

func parse(args []string, log io.Writer) (options, error) {
	o := options{minRatio: -1}
	f := flag.NewFlagSet("load", flag.ContinueOnError)
	f.SetOutput(log)
	f.Usage = func() {
		_, _ = fmt.Fprintln(log, "go run ./test/load SCENARIO [flags]")
		for _, name := range slices.Sorted(maps.Keys(scenarios)) {
			_, _ = fmt.Fprintf(log, "  %-14s %s\n", name, scenarios[name].about)
		}
		f.PrintDefaults()
	}
	f.IntVar(&o.conns, "conns", 0, "`number` of connections, or callers; the scenario's own if 0")
	f.DurationVar(&o.duration, "duration", 5*time.Second, "how long to measure")
	f.DurationVar(&o.warm, "warm", 2*time.Second, "how long to warm up")
	f.StringVar(&o.driver, "driver", "sqlite", "storage: sqlite or postgres")
	f.StringVar(&o.dir, "dir", "", "where to make the temporary `directory`; measure on the disk that counts")
	f.StringVar(&o.server, "server", "", "a built sallyport `binary`; built if empty")
	f.Float64Var(&o.minRatio, "min-ratio", -1, "least ratio to the floor, in place of the scenario's own")
	f.BoolVar(&o.json, "json", false, "print one JSON object")
	f.BoolVar(&o.check, "check", false, "exit with 1 when a budget is missed")
	f.StringVar(&o.profile, "profile", "", "write a CPU profile into a `file`; a server then runs inside this program, so take no figures from it")
	f.IntVar(&o.sessions, "sessions", 100_000, "`number` of live sessions, for kbs-flat")
	f.IntVar(&o.resources, "resources", 1_000_000, "`number` of resources, for kbs-flat")
	name := ""
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		name, args = args[0], args[1:]
	}
	if err := f.Parse(args); err != nil {
		return o, err //nolint:wrapcheck // printed as it is
	}
	rest := f.Args()
	if name == "" && len(rest) > 0 {
		name, rest = rest[0], rest[1:]
	}
	s, known := scenarios[name]
	o.scenario = name
	if o.conns == 0 {
		o.conns = s.conns
	}
	switch {
	case !known:
		return o, fmt.Errorf("%q is no scenario: use one of %s", name, strings.Join(slices.Sorted(maps.Keys(scenarios)), ", "))
	case len(rest) > 0:
		return o, fmt.Errorf("%q is too much", rest[0])
	case o.conns < 1 || o.conns > maxConns:
		return o, fmt.Errorf("--conns must be 1 to %d", maxConns)
	case o.duration <= 0 || o.duration > maxDuration || o.warm < 0 || o.warm > maxDuration:
		return o, fmt.Errorf("--duration and --warm must be at most %s", maxDuration)
	case o.sessions < 1 || o.sessions > 1_000_000 || o.resources < 1 || o.resources > 10_000_000:
		return o, fmt.Errorf("--sessions must be 1 to 1,000,000 and --resources 1 to 10,000,000")
	case o.driver != "sqlite" && o.driver != "postgres":
		return o, fmt.Errorf("--driver must be sqlite or postgres")
	}
	return o, nil
}
