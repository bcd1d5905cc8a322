package cli

import (
	"context"
	"crypto/x509"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport-project/sallyport/internal/app"
	"github.com/sallyport-project/sallyport/internal/fault"
)

func newAuth(s *shell) *cobra.Command {
	return group("auth", "Who you are, and with which certificate",
		`Contexts are identities: a server, a certificate and its key, in
$SALLYPORT_HOME/contexts. Certificates renew themselves when you use them after
half of their life.`,
		"  sallyport auth whoami\n  sallyport auth use build-7",
		whoami(s), authRenew(s), contexts(s), use(s), authRecover(s))
}

func whoami(s *shell) *cobra.Command {
	return &cobra.Command{
		Use: "whoami", Short: "Ask the server who you are", Args: cobra.NoArgs,
		Long:    "Ask the server whom it takes you for: the subject, its role and state, and the session if there is one.",
		Example: "  sallyport auth whoami --context build-7",
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := s.client(c.Context())
			if err != nil {
				return err
			}
			defer client.Close()
			me, err := client.Whoami(c.Context())
			if err != nil {
				return err
			}
			return s.print(me, func() error {
				pairs := []string{
					"name", me.Subject.Name, "id", me.Subject.ID, "kind", me.Subject.Kind, "role", me.Subject.Role,
					"team", me.Subject.Team, "state", me.Subject.State,
				}
				if me.Session != nil {
					pairs = append(pairs, "session", me.Session.ID, "expires", when(me.Session.ExpiresAt), "scopes", strings.Join(me.Session.Scopes, " "))
				}
				return s.facts(pairs...)
			})
		},
	}
}

func authRenew(s *shell) *cobra.Command {
	return &cobra.Command{
		Use: "renew", Short: "Renew the certificate now", Args: cobra.NoArgs,
		Long: `Trade the context's certificate for one with a fresh key. This happens by itself
after half of a certificate's life, whenever the context is used.`,
		Example: "  sallyport auth renew",
		RunE: func(c *cobra.Command, _ []string) error {
			id, err := s.identity()
			if err != nil {
				return err
			}
			if id == nil {
				return fault.Unauthenticatedf("no context is chosen; see: sallyport auth contexts")
			}
			cfg, err := s.target(id)
			if err != nil {
				return err
			}
			pair, err := id.pair()
			if err != nil {
				return err
			}
			if err := s.unexpired(id, pair); err != nil {
				return err
			}
			cfg.Certificate = &pair
			done, err := lock(filepath.Join(id.folder, "renew.lock"), s.Now())
			if err != nil {
				return fault.Conflictf("another process renews this context now; wait a minute").Because(err)
			}
			defer done()
			_, fresh, err := s.exchange(c.Context(), id, cfg)
			if err != nil {
				return err
			}
			return s.print(map[string]any{"serial": fresh.Serial, "not_after": fresh.NotAfter}, func() error {
				return s.facts("serial", fresh.Serial, "not after", when(fresh.NotAfter))
			})
		},
	}
}

// contextView is a context as it is printed.
type contextView struct {
	Name     string    `json:"name"`
	Current  bool      `json:"current"`
	URL      string    `json:"url"`
	Kind     string    `json:"kind"`
	Subject  string    `json:"subject"`
	Serial   string    `json:"serial,omitempty"`
	NotAfter time.Time `json:"not_after,omitzero"`
}

func contexts(s *shell) *cobra.Command {
	return &cobra.Command{
		Use: "contexts", Short: "List the contexts on this machine", Args: cobra.NoArgs,
		Long:    "List the contexts on this machine, from their files alone; no server is asked. The star marks the current one.",
		Example: "  sallyport auth contexts",
		RunE: func(*cobra.Command, []string) error {
			all, err := s.sortedContexts()
			if err != nil {
				return err
			}
			chosen := s.context
			if chosen == "" {
				if chosen, err = s.current(); err != nil {
					return err
				}
			}
			views := make([]contextView, 0, len(all))
			var rows [][]string
			for _, c := range all {
				v := contextView{Name: c.Name, Current: c.Name == chosen, URL: c.URL, Kind: c.Kind, Subject: c.Subject}
				if leaf, err := c.leaf(); err == nil {
					v.Serial, v.NotAfter = leaf.SerialNumber.Text(16), leaf.NotAfter
				}
				views = append(views, v)
				mark := " "
				if v.Current {
					mark = "*"
				}
				rows = append(rows, []string{mark, v.Name, v.Kind, v.Subject, v.URL, when(v.NotAfter)})
			}
			return s.print(views, func() error {
				return s.rows([]string{" ", "NAME", "KIND", "SUBJECT", "URL", "CERTIFICATE UNTIL"}, rows)
			})
		},
	}
}

func (c *identity) leaf() (*x509.Certificate, error) {
	pair, err := c.pair()
	return pair.Leaf, err
}

func use(s *shell) *cobra.Command {
	return &cobra.Command{
		Use: "use CONTEXT", Short: "Choose the context for commands without --context", Args: cobra.ExactArgs(1),
		Long:    "Choose the context that commands act with when they are given none.",
		Example: "  sallyport auth use build-7",
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return s.contextNames(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			home, err := s.home()
			if err != nil {
				return err
			}
			if _, err := s.open(home, args[0]); err != nil {
				return err
			}
			if err := choose(home, args[0]); err != nil {
				return err
			}
			return s.print(map[string]string{"current": args[0]}, func() error { return s.line("using %s", args[0]) })
		},
	}
}

func authRecover(s *shell) *cobra.Command {
	var file, name string
	c := &cobra.Command{
		Use: "recover --name OPERATOR", Short: "Make another operator on a server that is stopped", Args: cobra.NoArgs,
		Long: `The way back in when every operator's certificate is lost: on the server's
machine, with the server stopped and its key file at hand, make another
administrator. It is recorded in the ledger.`,
		Example: "  sallyport auth recover --name alice-2",
		RunE: func(c *cobra.Command, _ []string) error {
			return s.recover(c.Context(), file, name)
		},
	}
	c.Flags().StringVar(&file, "config", "", "configuration (default $SALLYPORT_HOME/sallyport.yaml)")
	c.Flags().StringVar(&name, "name", "", "name of the operator, and of the context")
	return c
}

func (s *shell) recover(ctx context.Context, file, name string) error {
	if name == "" {
		return fault.Invalidf("the new operator needs a name: --name OPERATOR")
	}
	home, err := s.home()
	if err != nil {
		return err
	}
	if err := s.free(home, name); err != nil {
		return err
	}
	cfg, err := s.config(file)
	if err != nil {
		return err
	}
	made, err := app.Recover(ctx, cfg, name)
	if err != nil {
		return err
	}
	defer made.Private.Wipe()
	c := identity{Name: name, URL: address(cfg.Listen.Main.Address), Subject: made.Operator, Kind: "operator"}
	if err := s.keep(home, c, []byte(made.Certificate), made.Private.Reveal(), []byte(made.CA)); err != nil {
		return err
	}
	if err := choose(home, name); err != nil {
		return err
	}
	out := founded{
		Directory: home, Config: first(file, filepath.Join(home, configFile)), Context: name, Operator: made.Operator,
		NotAfter: made.NotAfter, CAHash: made.CAHash, LedgerKey: made.LedgerKey, SSHCA: made.SSHCA,
	}
	return s.print(out, func() error {
		return s.facts("operator", name+" ("+made.Operator+")", "certificate until", when(made.NotAfter), "ledger key", made.LedgerKey)
	})
}
