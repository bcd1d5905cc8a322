package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// The demo tells a true story: it starts the real server in a folder of its
// own, and does with it what people do, by the doors that people have. Each
// step checks what it claims and shows what happened; docs/demo.md says which.

const (
	demoLimit     = 3 * time.Minute  // for the whole story
	demoStepLimit = 45 * time.Second // for one step
)

// demoTask is one step to be taken. It runs only if the steps that it needs
// have ended well.
type demoTask struct {
	name, what string
	needs      []string
	run        func(ctx context.Context, n *demoNotes) error
}

// demoStep is what became of a step.
type demoStep struct {
	Name       string   `json:"name"`
	What       string   `json:"what"`
	Evidence   []string `json:"evidence"`
	OK         bool     `json:"ok"`
	Skipped    string   `json:"skipped,omitempty"` // why it was not taken
	Failure    string   `json:"failure,omitempty"`
	DurationMS int64    `json:"duration_ms"`
}

// demoReport is the whole story for machines.
type demoReport struct {
	OK         bool       `json:"ok"`
	Steps      []demoStep `json:"steps"`
	Passed     int        `json:"passed"`
	Failed     int        `json:"failed"`
	Skipped    int        `json:"skipped"`
	DurationMS int64      `json:"duration_ms"`
	Kept       *demoKept  `json:"kept,omitempty"`
}

// demoSkip is the error of a step whose part is not on this machine.
type demoSkip string

func (s demoSkip) Error() string { return "needs " + string(s) }

func newDemo(s *shell) *cobra.Command {
	d := &demo{s: s}
	c := &cobra.Command{
		Use: "demo", Short: "See the whole story happen, with real parts, in twenty seconds", Args: cobra.NoArgs,
		Long: `Start a real server in a temporary folder and tell the story of Sallyport with
it: an enclave gets a secret that only its key opens, a signed plugin vends a
credential to an agent and is killed unnoticed, a real sshd takes the credential,
which leaks and dies, and the ledger is verified offline. Each step shows what really happened, and the
exit code is not 0 if one of them is not as it must be.

The step about the plugin needs the executable of sshcert, with plugin.json beside
it: by default in plugins/sshcert beside this program, where make demo puts it, as
honeytoken, bait and hello, which are looked for beside sshcert. A
step whose part is not on this machine is skipped and counted; with CI=true that
is a failure. Nothing outside of the temporary folder is changed.`,
		Example: "  sallyport demo\n  sallyport demo --keep\n  sallyport demo --output json",
		RunE:    func(c *cobra.Command, _ []string) error { return d.tell(c.Context()) },
	}
	c.Flags().BoolVar(&d.keeping, "keep", false, "leave the server running, and say what to try next")
	c.Flags().StringVar(&d.pluginFile, "plugin-file", "", "executable of the plugin sshcert, or its folder, which has plugin.json")
	return c
}

// story is the order of events.
func (d *demo) story() []demoTask {
	all := []demoTask{
		{"found", "An installation is founded, and its server started", nil, d.foundStep},
		{"seal", "A confidential workload proves itself and gets a secret that only its key opens", []string{"found"}, d.sealStep},
		{"guest", "A plugin of the key broker answers a confidential workload, sealed to its key", []string{"seal"}, d.guestStep},
		{"plugin", "A plugin is built, signed and installed; a tampered copy is refused", []string{"found"}, d.pluginStep},
		{"vend", "An agent enrols and gets a short-lived SSH certificate, as far as policy goes", []string{"plugin"}, d.vendStep},
		{"crash", "The plugin is killed while it is in use, and nobody notices", []string{"vend"}, d.crashStep},
		{"python", "A plugin in Python judges what a plugin in Go makes", []string{"vend"}, d.pythonStep},
		{"login", "A real sshd accepts the certificate", []string{"vend"}, d.loginStep},
		{"leak", "The certificate is reported leaked, and revoked", []string{"vend"}, d.leakStep},
		{"refuse", "The same sshd refuses it", []string{"login", "leak"}, d.refuseStep},
		{"notify", "The owner is told; a second report changes nothing", []string{"leak"}, d.notifyStep},
		{"ledger", "The ledger is verified offline, and one flipped byte is caught", []string{"found"}, d.ledgerStep},
	}
	if !d.keeping {
		all = append(all, demoTask{"stop", "SIGTERM: the server ends what it has begun, and exits", []string{"found"}, d.stopStep})
	}
	return all
}

// tell takes all steps, cleans up, and gives an error if the story is not true.
func (d *demo) tell(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, demoLimit)
	defer cancel()
	begun := time.Now()
	if err := d.open(); err != nil {
		return err
	}
	kept := false
	defer func() { d.close(kept) }()
	d.heading()
	tasks := d.story()
	var r demoReport
	for i, t := range tasks {
		step := d.take(ctx, t, r.Steps, func() { d.announce(i+1, len(tasks), t.what) })
		r.Steps = append(r.Steps, step)
		d.result(step)
		if ctx.Err() != nil {
			return fault.Unavailablef("the demo was interrupted; what it started is stopped, and its folder removed").Because(ctx.Err())
		}
	}
	r.count(d.s.Getenv("CI") == "true")
	r.DurationMS = time.Since(begun).Milliseconds()
	if d.keeping && d.server != nil {
		if r.Kept, kept = d.kept(), true; r.Kept == nil {
			kept = false
		}
	}
	if err := d.conclude(r); err != nil {
		return err
	}
	return r.verdict()
}

// take takes one step, unless one that it needs did not end well.
func (d *demo) take(ctx context.Context, t demoTask, before []demoStep, announce func()) demoStep {
	announce()
	out := demoStep{Name: t.name, What: t.what, Evidence: []string{}}
	for _, s := range before {
		if slices.Contains(t.needs, s.Name) && !s.OK {
			out.Skipped = "needs step " + s.Name
			if s.Skipped != "" {
				out.Skipped = s.Skipped
			}
			return out
		}
	}
	ctx, cancel := context.WithTimeout(ctx, demoStepLimit)
	defer cancel()
	begun := time.Now()
	n := &demoNotes{live: d.evidence}
	err := t.run(ctx, n)
	out.DurationMS = time.Since(begun).Milliseconds()
	out.Evidence = append(out.Evidence, n.lines...)
	if skip, ok := errors.AsType[demoSkip](err); ok {
		out.Skipped = skip.Error()
		return out
	}
	if err != nil {
		out.Failure = describe(err).Detail
	}
	out.OK = err == nil
	return out
}

// count sums up. Where everything is supposed to be there, a skip is a failure.
func (r *demoReport) count(complete bool) {
	for _, s := range r.Steps {
		switch {
		case s.OK:
			r.Passed++
		case s.Skipped != "":
			r.Skipped++
		default:
			r.Failed++
		}
	}
	r.OK = r.Failed == 0 && (r.Skipped == 0 || !complete)
}

func (r *demoReport) verdict() error {
	switch {
	case r.OK:
		return nil
	case r.Failed > 0:
		return fault.Internalf("%s of the demo's %d steps: not as it must be", strconv.Itoa(r.Failed), len(r.Steps))
	}
	return fault.Internalf("%d of the demo's %d steps were skipped, and CI=true allows none", r.Skipped, len(r.Steps))
}

// demoNotes collects the evidence of a step.
type demoNotes struct {
	lines []string
	live  func(line string)
}

func (n *demoNotes) say(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	n.lines = append(n.lines, line)
	n.live(line)
}

// demoMust turns an unmet condition into the failure of a step.
func demoMust(met bool, format string, args ...any) error {
	if met {
		return nil
	}
	return fault.Internalf(format, args...)
}

// demoRefused demands that something was refused, for one of the kinds, and
// gives the reason.
func demoRefused(err error, what string, kinds ...fault.Kind) (string, error) {
	if err == nil {
		return "", fault.Internalf("%s was not refused", what)
	}
	f := describe(err)
	for _, k := range kinds {
		if f.Kind == k.String() {
			return f.Detail, nil
		}
	}
	return "", fault.Wrap(err, "%s was to be refused, but for another reason", what)
}
