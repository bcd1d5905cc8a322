package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/sallyport-project/sallyport/internal/fault"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

func agentRevoke(s *shell) *cobra.Command {
	var reason, certificate, session string
	c := &cobra.Command{
		Use: "revoke NAME|ID | --certificate SERIAL | --session ID", Short: "Revoke a subject, a certificate or a session, for good",
		Args: cobra.MaximumNArgs(1),
		Long: `Revoke a subject for good: its certificates and sessions are refused from the
next request on, and its name cannot come back. With --certificate or --session
only that one is revoked. To stop somebody for a while, see: sallyport agent lock`,
		Example: `  sallyport agent revoke build-7 --reason "laptop stolen"
  sallyport agent revoke --certificate 5f3a...
  sallyport agent revoke --session 01K0...`,
		RunE: func(c *cobra.Command, args []string) error {
			given := len(args)
			for _, x := range []string{certificate, session} {
				if x != "" {
					given++
				}
			}
			if given != 1 {
				return fault.Invalidf("say what to revoke, and one thing only: a subject, --certificate SERIAL or --session ID")
			}
			if len(args) == 1 {
				return s.act(c.Context(), args[0], sallyport.SubjectChange{Act: "revoke", Reason: reason})
			}
			return s.revokeItem(c.Context(), certificate, session, reason)
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why, for the ledger")
	c.Flags().StringVar(&certificate, "certificate", "", "serial of a certificate")
	c.Flags().StringVar(&session, "session", "", "id of a session, or current")
	return c
}

func (s *shell) revokeItem(ctx context.Context, certificate, session, reason string) error {
	client, err := s.client(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	what := "certificate " + certificate
	if session != "" {
		what = "session " + session
		err = client.EndSession(ctx, session, reason)
	} else {
		err = client.RevokeCertificate(ctx, certificate, reason)
	}
	if err != nil {
		return err
	}
	return s.print(map[string]string{"revoked": first(session, certificate)}, func() error { return s.line("revoked %s", what) })
}

// act takes a subject through one step of its life.
func (s *shell) act(ctx context.Context, nameOrID string, change sallyport.SubjectChange) error {
	client, err := s.client(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	id, err := subject(ctx, client, nameOrID)
	if err != nil {
		return err
	}
	x, err := client.ChangeSubject(ctx, id, change)
	if err != nil {
		return err
	}
	return s.print(x, func() error {
		return s.facts("name", x.Name, "id", x.ID, "role", x.Role, "team", x.Team, "state", x.State, "reason", x.Reason)
	})
}

func agentAct(s *shell, act, short, long string) *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use: act + " NAME|ID", Short: short, Args: cobra.ExactArgs(1),
		Long:    short + ": " + long + ". It acts on the next request.",
		Example: "  sallyport agent " + act + ` build-7 --reason "looked into"`,
		RunE: func(c *cobra.Command, args []string) error {
			return s.act(c.Context(), args[0], sallyport.SubjectChange{Act: act, Reason: reason})
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why, for the ledger")
	return c
}

func agentSetRole(s *shell) *cobra.Command {
	change := sallyport.SubjectChange{Act: "change"}
	c := &cobra.Command{
		Use: "set-role NAME|ID ROLE", Short: "Change a subject's role", Args: cobra.ExactArgs(2),
		Long:    "Change a subject's role, and with --team its team. The certificate stays: the role is in the server's row.",
		Example: "  sallyport agent set-role build-7 reviewer --team platform",
		RunE: func(c *cobra.Command, args []string) error {
			change.Role = args[1]
			return s.act(c.Context(), args[0], change)
		},
	}
	c.Flags().StringVar(&change.Team, "team", "", "the team from now on")
	c.Flags().StringVar(&change.Reason, "reason", "", "why, for the ledger")
	return c
}
