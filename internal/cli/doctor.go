package cli

import (
	"bufio"
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport-project/sallyport/internal/app"
	"github.com/sallyport-project/sallyport/internal/fault"
)

func newDoctor(s *shell) *cobra.Command {
	return group("doctor", "Find out what is wrong",
		"Find out what keeps a server or a plugin from working, and mend what only an operator may decide on.",
		"  sallyport doctor plugins\n  sallyport doctor clock", doctorClock(s), doctorPlugins(s), doctorReference(s))
}

func doctorClock(s *shell) *cobra.Command {
	var file, reason string
	var accept, yes bool
	c := &cobra.Command{
		Use: "clock [--accept --reason TEXT [--yes]]", Short: "Compare the clock with the latest time seen; accept it", Args: cobra.NoArgs,
		Long: `A server remembers the latest time that it has seen. While its clock stands more
than two minutes behind it, nothing is issued (CLOCK_ROLLBACK): a clock that was
set back would bring expired things back to life.

When the clock once stood ahead by mistake and is right now, say so with
--accept, with the server stopped, on PostgreSQL with all of them stopped. It
shows both times and asks, or takes --yes. The ledger gets a record with both.

Look at what was issued while the clock stood ahead: it counts from that time on,
and may live until long after it (sallyport audit list, credential list).`,
		Example: `  sallyport doctor clock
  sallyport doctor clock --accept --reason "the clock stood in 2031, time service repaired"`,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := s.config(file)
			if err != nil {
				return err
			}
			if !accept {
				if yes || reason != "" {
					return fault.Invalidf("--yes and --reason belong to --accept")
				}
				found, err := app.LookAtClock(c.Context(), cfg)
				if err != nil {
					return err
				}
				return s.showClock(found, false)
			}
			return s.acceptClock(c.Context(), cfg, reason, yes)
		},
	}
	c.Flags().StringVar(&file, "config", "", "configuration (default $SALLYPORT_HOME/sallyport.yaml)")
	c.Flags().BoolVar(&accept, "accept", false, "take the clock as it is for right")
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	c.Flags().StringVar(&reason, "reason", "", "why, for the ledger")
	return c
}

func (s *shell) acceptClock(ctx context.Context, cfg app.Config, reason string, yes bool) error {
	if reason == "" || len(reason) > 512 {
		return fault.Invalidf("say in at most 512 bytes why the clock stood ahead: --reason TEXT")
	}
	asked, agreed := false, false
	found, err := app.AcceptClock(ctx, cfg, reason, func(c app.Clock) bool {
		if !c.Blocked {
			return false
		}
		asked = true
		agreed = yes || s.agrees("the latest time seen is %s; this clock says %s, %s before it. Is this clock right?",
			when(c.Seen), when(c.Now), c.Behind.Round(time.Second))
		return agreed
	})
	switch {
	case err != nil:
		return err
	case !asked:
		return fault.Conflictf("the clock is not held against anything: there is nothing to accept")
	case !agreed:
		return fault.Invalidf("nothing was changed: answer yes, or add --yes")
	}
	return s.showClock(found, true)
}

func (s *shell) showClock(c app.Clock, accepted bool) error {
	out := struct {
		Seen     time.Time `json:"seen"`
		Now      time.Time `json:"now"`
		Behind   int64     `json:"behind_seconds"`
		Blocked  bool      `json:"blocked"`
		Accepted bool      `json:"accepted"`
	}{c.Seen, c.Now, int64(c.Behind / time.Second), c.Blocked, accepted}
	return s.print(out, func() error {
		state := "right, things are issued"
		switch {
		case accepted:
			state = "accepted and recorded; start the server: sallyport serve"
		case c.Blocked:
			state = "behind, nothing is issued (CLOCK_ROLLBACK)"
		}
		return s.facts("latest time seen", when(c.Seen), "clock now", when(c.Now), "behind", behind(c.Behind), "clock is", state)
	})
}

func behind(d time.Duration) string {
	if d <= 0 {
		return ""
	}
	return d.Round(time.Second).String()
}

// agrees asks a question and takes yes alone for a yes.
func (s *shell) agrees(format string, args ...any) bool {
	s.note(format+" Type yes:", args...)
	line, _ := bufio.NewReader(s.in).ReadString('\n')
	return strings.TrimSpace(line) == "yes"
}
