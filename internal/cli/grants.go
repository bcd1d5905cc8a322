package cli

import (
	"context"
	"encoding/json"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sallyport-project/sallyport/internal/fault"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

func credentialList(s *shell) *cobra.Command {
	var q sallyport.GrantQuery
	var all bool
	c := &cobra.Command{
		Use: "list [--all]", Short: "List grants", Args: cobra.NoArgs,
		Long:    "List your own grants, or with --all those of everybody, which operators may. Values are never listed.",
		Example: "  sallyport credential list --state active\n  sallyport credential list --all --kind ssh-user-cert",
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := s.client(c.Context())
			if err != nil {
				return err
			}
			defer client.Close()
			if all {
				q.Subject = "all"
			} else if q.Subject != "" {
				if q.Subject, err = subject(c.Context(), client, q.Subject); err != nil {
					return err
				}
			}
			list, err := pages(func(after string) (sallyport.Page[sallyport.Grant], error) {
				q.After = after
				return client.Grants(c.Context(), q)
			}, q.Limit)
			if err != nil {
				return err
			}
			return s.print(list, func() error {
				if len(list) == 0 && q.Subject == "" {
					s.note("these are your own grants; those of everybody: sallyport credential list --all")
				}
				var rows [][]string
				for _, g := range list {
					rows = append(rows, []string{g.ID, g.Kind, g.State, g.Subject, when(g.IssuedAt), when(g.ExpiresAt), strings.Join(g.Tags, " ")})
				}
				return s.rows([]string{"GRANT", "KIND", "STATE", "SUBJECT", "ISSUED", "EXPIRES", "TAGS"}, rows)
			})
		},
	}
	f := c.Flags()
	f.BoolVar(&all, "all", false, "of everybody")
	f.StringVar(&q.Subject, "subject", "", "of this subject, by name or id")
	f.StringVar(&q.Kind, "kind", "", "of this kind")
	f.StringVar(&q.State, "state", "", "intent, active, revoking, revoked, expired, manual or void")
	f.IntVar(&q.Limit, "limit", 0, "at most this many")
	return c
}

func credentialGet(s *shell) *cobra.Command {
	return &cobra.Command{
		Use: "get GRANT", Short: "Show a grant", Args: cobra.ExactArgs(1),
		Long:    "Show a grant: who got it, within which scope, by which policies and plugin, and what became of it. Its value is not kept.",
		Example: "  sallyport credential get 01K0ABCDEFGHJKMNPQRSTVWXYZ",
		RunE: func(c *cobra.Command, args []string) error {
			client, err := s.client(c.Context())
			if err != nil {
				return err
			}
			defer client.Close()
			g, err := client.Grant(c.Context(), args[0])
			if err != nil {
				return err
			}
			return s.print(g, func() error {
				params, err := json.Marshal(g.Params)
				if err != nil {
					return fault.Wrap(err, "encode parameters")
				}
				return s.facts("grant", g.ID, "kind", g.Kind, "state", g.State, "subject", g.Subject, "session", g.Session, "params", string(params),
					"issued", when(g.IssuedAt), "expires", when(g.ExpiresAt), "ended", when(g.EndedAt), "reason", g.Reason,
					"tags", strings.Join(g.Tags, " "), "policy", strings.Join(g.Policy, " "), "plugin", g.Plugin.Name+" "+g.Plugin.Version,
					"revoke by hand at", g.Address)
			})
		},
	}
}

func credentialRevoke(s *shell) *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use: "revoke GRANT", Short: "Take a credential back", Args: cobra.ExactArgs(1),
		Long: `Take a credential back, at its provider if it has a way. If it has none the answer
says where a person can do it.`,
		Example: `  sallyport credential revoke 01K0ABCDEFGHJKMNPQRSTVWXYZ --reason "build finished"`,
		RunE: func(c *cobra.Command, args []string) error {
			client, err := s.client(c.Context())
			if err != nil {
				return err
			}
			defer client.Close()
			m, err := client.RevokeGrant(c.Context(), args[0], reason)
			if err != nil {
				return err
			}
			return s.print(m, func() error { return s.showMatches([]sallyport.Match{m}) })
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why, for the ledger")
	return c
}

func credentialDetect(s *shell) *cobra.Command {
	var file string
	var leak sallyport.Leak
	c := &cobra.Command{
		Use: "detect [--value-file FILE | --fingerprint SHA256]", Short: "Report a leaked credential", Args: cobra.NoArgs,
		Long: `Report a value that was seen where it must not be: all grants that it may concern
are taken back. The value comes from a file or standard input; it is compared by
a fingerprint and not kept. Who may not see the value reports its SHA-256, for
which the role reporter is needed.`,
		Example: `  sallyport credential detect --value-file found.txt --source scanner --location https://example.org/paste/1
  sallyport credential detect --fingerprint 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08`,
		RunE: func(c *cobra.Command, _ []string) error { return s.detect(c.Context(), file, leak) },
	}
	f := c.Flags()
	f.StringVar(&file, "value-file", "", "file with the value (default: standard input)")
	f.StringVar(&leak.Fingerprint, "fingerprint", "", "SHA-256 of the value, hex, in place of the value")
	f.StringVar(&leak.Source, "source", "cli", "who found it")
	f.StringVar(&leak.Location, "location", "", "where it was found")
	f.StringVar(&leak.Reason, "reason", "", "anything else to know")
	return c
}

func (s *shell) detect(ctx context.Context, file string, leak sallyport.Leak) error {
	switch {
	case leak.Fingerprint != "" && file != "":
		return fault.Invalidf("report a value or its fingerprint, not both")
	case leak.Fingerprint == "":
		value, err := s.read(hush{what: "leaked value", file: file})
		if err != nil {
			return err
		}
		defer value.Wipe()
		leak.Value = sallyport.NewSecret(string(value.Reveal()))
	}
	leak.SeenAt = s.Now()
	client, err := s.client(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	r, err := client.ReportLeak(ctx, leak)
	if err != nil {
		return err
	}
	return s.print(r, func() error {
		if err := s.facts("record", r.Record); err != nil {
			return err
		}
		if len(r.Matches) == 0 {
			return s.line("no grant of this server matches; the report is recorded")
		}
		return s.showMatches(r.Matches)
	})
}

// showMatches prints what became of grants. One that is still live stands out.
func (s *shell) showMatches(list []sallyport.Match) error {
	var rows [][]string
	var warnings []string
	for _, m := range list {
		tag := m.Tag
		if m.Repeat {
			tag += " (again)"
		}
		rows = append(rows, []string{m.Grant, m.Kind, m.State, m.Subject, strings.TrimSpace(tag)})
		if m.Failed != "" {
			warnings = append(warnings, m.Grant+" is not revoked yet and is tried again: "+m.Failed)
		}
		if m.Address != "" {
			warnings = append(warnings, m.Grant+" must be revoked by hand: "+m.Address)
		}
	}
	if err := s.rows([]string{"GRANT", "KIND", "STATE", "SUBJECT", "TAG"}, rows); err != nil {
		return err
	}
	for _, w := range warnings {
		if _, err := io.WriteString(s.out, s.paint(s.out, red, visible(w))+"\n"); err != nil {
			return written(err)
		}
	}
	return nil
}
