package cli

import (
	"context"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport-project/sallyport/internal/fault"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

func newAgent(s *shell) *cobra.Command {
	return group("agent", "Identities of agents: invite, enrol, list, revoke",
		`An agent is somebody who is handed credentials: a build, a service, an AI
assistant. An operator invites it with a join token, which works once; the agent
trades it for a certificate whose key never leaves its machine.`,
		"  sallyport agent token --role deployer --name build-7 > token\n  sallyport agent enrol --token-file token",
		agentToken(s), agentEnrol(s), agentList(s), agentShow(s), agentRevoke(s),
		agentLock(s), agentUnlock(s), agentSetRole(s))
}

func agentToken(s *shell) *cobra.Command {
	var r sallyport.InviteRequest
	c := &cobra.Command{
		Use: "token --role ROLE", Short: "Make a join token", Args: cobra.NoArgs,
		Long: `Make a join token: the server's address, the hash of its authority's key, and a
secret that works once. Only the token goes to standard output, so that it can
be piped; hand it over by a channel that you trust. The address is the one by which
you reach the server (--url, or the context's); if that is on this machine alone,
the server says its own (docs/operating.md, Others on the network).

A script that may have lost the token to a broken connection repeats the command
with the same --idempotency-key: it gets the same token, and no second one exists.

With --kind operator the newcomer is an operator (roles: administrator, auditor,
reporter, or one that your policies know).`,
		Example: `  sallyport agent token --role deployer --team web --name build-7 --ttl 10m
  sallyport agent token --kind operator --role auditor --name carol
  sallyport agent token --role deployer --idempotency-key "$BUILD_ID-join" > token`,
		RunE: func(c *cobra.Command, _ []string) error {
			if r.Role == "" {
				return fault.Invalidf("the newcomer needs a role: --role ROLE")
			}
			client, err := s.client(c.Context())
			if err != nil {
				return err
			}
			defer client.Close()
			if r.Address, err = s.reached(c.Context()); err != nil {
				return err
			}
			made, err := client.Invite(c.Context(), r)
			if err != nil {
				return err
			}
			out := struct {
				ID        string    `json:"id"`
				Token     string    `json:"token"`
				ExpiresAt time.Time `json:"expires_at"`
				CAHash    string    `json:"ca_hash"`
			}{made.ID, made.Token.Reveal(), made.ExpiresAt, made.CAHash}
			return s.print(out, func() error {
				s.note("join token %s for role %s, good once until %s; use it with: sallyport agent enrol", made.ID, r.Role, when(made.ExpiresAt))
				return s.line("%s", made.Token.Reveal())
			})
		},
	}
	f := c.Flags()
	f.StringVar(&r.Kind, "kind", "agent", "agent or operator")
	f.StringVar(&r.Role, "role", "", "role of the newcomer, which policies decide by")
	f.StringVar(&r.Team, "team", "", "team of the newcomer")
	f.StringVar(&r.Name, "name", "", "name of the newcomer; without it the newcomer chooses")
	f.DurationVar(&r.TTL, "ttl", time.Hour, "how long the token may be used, one minute to a day")
	return repeatable(c, "gives the same token, until it is used")
}

func agentEnrol(s *shell) *cobra.Command {
	var file, name, as string
	c := &cobra.Command{
		Use: "enrol [--token-file FILE] [--name NAME] [--as CONTEXT] [TOKEN]", Short: "Trade a join token for an identity", Args: cobra.MaximumNArgs(1),
		Aliases: []string{"enroll"},
		Long: `Make a key, trade a join token for a certificate, and keep both as a context. The
token comes from --token-file, from SALLYPORT_JOIN_TOKEN, or from standard input.
Its secret is sent only to a server whose authority is the one that the token
names, and the key never leaves this machine.`,
		Example: "  sallyport agent enrol --token-file token --as build-7\n  ssh host sallyport agent token --role deployer | sallyport agent enrol --name build-7",
		RunE: func(c *cobra.Command, args []string) error {
			argument := ""
			if len(args) > 0 {
				argument = args[0]
			}
			return s.enrol(c.Context(), hush{what: "join token", file: file, variable: "SALLYPORT_JOIN_TOKEN", argument: argument}, name, as)
		},
	}
	c.Flags().StringVar(&file, "token-file", "", "file with the join token, - for standard input")
	c.Flags().StringVar(&name, "name", "", "the name to ask for; one that the token fixes wins")
	c.Flags().StringVar(&as, "as", "", "name of the context (default: the name)")
	return c
}

func (s *shell) enrol(ctx context.Context, from hush, name, as string) error {
	home, err := s.home()
	if err != nil {
		return err
	}
	if wanted := first(as, name); wanted != "" { // before the token is used up
		if err := s.free(home, wanted); err != nil {
			return err
		}
	}
	token, err := s.read(from)
	if err != nil {
		return err
	}
	defer token.Wipe()
	made, err := sallyport.Enrol(ctx, string(token.Reveal()), name)
	if err != nil {
		return err
	}
	c := identity{Name: first(as, name, made.Subject.Name), URL: made.URL, Subject: made.Subject.ID, Kind: made.Subject.Kind}
	if !contextName.MatchString(c.Name) || s.free(home, c.Name) != nil {
		c.Name = made.Subject.ID // the token is used up: keep what came of it
	}
	if err := s.keep(home, c, []byte(made.CertificatePEM), []byte(made.KeyPEM.Reveal()), []byte(made.RootPEM)); err != nil {
		return err
	}
	out := struct {
		Context  string            `json:"context"`
		Subject  sallyport.Subject `json:"subject"`
		Serial   string            `json:"serial"`
		NotAfter time.Time         `json:"not_after"`
	}{c.Name, made.Subject, made.Serial, made.NotAfter}
	return s.print(out, func() error {
		return s.facts("context", c.Name, "name", made.Subject.Name, "id", made.Subject.ID, "kind", made.Subject.Kind, "role", made.Subject.Role,
			"state", made.Subject.State, "serial", made.Serial, "not after", when(made.NotAfter))
	})
}

func agentList(s *shell) *cobra.Command {
	var q sallyport.SubjectQuery
	c := &cobra.Command{
		Use: "list", Short: "List subjects", Args: cobra.NoArgs,
		Long:    "List the agents, or with --kind operator the operators, with --kind all everybody.",
		Example: "  sallyport agent list --state registered\n  sallyport agent list --kind all --output json",
		RunE: func(c *cobra.Command, _ []string) error {
			if q.Kind == "all" {
				q.Kind = ""
			}
			all, err := subjects(c.Context(), s, q)
			if err != nil {
				return err
			}
			return s.print(all, func() error {
				var rows [][]string
				for _, x := range all {
					rows = append(rows, []string{x.Name, x.ID, x.Kind, x.Role, x.Team, x.State, when(x.ChangedAt)})
				}
				return s.rows([]string{"NAME", "ID", "KIND", "ROLE", "TEAM", "STATE", "CHANGED"}, rows)
			})
		},
	}
	c.Flags().StringVar(&q.Kind, "kind", "agent", "agent, operator, machine, workload, plugin or all")
	c.Flags().StringVar(&q.State, "state", "", "pending, registered, attested, locked, rejected or revoked")
	return c
}

// subjects reads all pages.
func subjects(ctx context.Context, s *shell, q sallyport.SubjectQuery) ([]sallyport.Subject, error) {
	client, err := s.client(ctx)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	return pages(func(after string) (sallyport.Page[sallyport.Subject], error) {
		q.After = after
		return client.Subjects(ctx, q)
	}, 0)
}

// pages reads pages until the last one, or until there are limit items.
func pages[T any](read func(after string) (sallyport.Page[T], error), limit int) ([]T, error) {
	all := []T{}
	for after := ""; ; {
		p, err := read(after)
		if err != nil {
			return nil, err
		}
		all = append(all, p.Items...)
		if limit > 0 && len(all) >= limit {
			return all[:limit], nil
		}
		if p.Next == "" || p.Next == after {
			return all, nil
		}
		after = p.Next
	}
}

var idForm = regexp.MustCompile(`^[0-9A-HJKMNP-TV-Z]{26}$`)

// subject finds a subject by id, or by name.
func subject(ctx context.Context, client *sallyport.Client, nameOrID string) (string, error) {
	if idForm.MatchString(nameOrID) {
		return nameOrID, nil
	}
	all, err := pages(func(after string) (sallyport.Page[sallyport.Subject], error) {
		return client.Subjects(ctx, sallyport.SubjectQuery{After: after})
	}, 0)
	if err != nil {
		return "", err
	}
	var found, ended []string
	for _, x := range all {
		switch {
		case x.Name != nameOrID:
		case x.State == "revoked" || x.State == "rejected":
			ended = append(ended, x.ID)
		default:
			found = append(found, x.ID)
		}
	}
	if len(found) == 0 {
		found = ended
	}
	switch len(found) {
	case 0:
		return "", fault.NotFoundf("there is no subject %q; see: sallyport agent list --kind all", nameOrID)
	case 1:
		return found[0], nil
	}
	return "", fault.Conflictf("several subjects have the name %q; say which: %s", nameOrID, strings.Join(found, ", "))
}

func agentShow(s *shell) *cobra.Command {
	return &cobra.Command{
		Use: "show NAME|ID", Short: "Show a subject with its certificates, sessions and credentials", Args: cobra.ExactArgs(1),
		Long: `Show a subject with its certificates (until they expire, revoked ones too), its
live sessions, and the credentials that may still work.`,
		Example: "  sallyport agent show build-7\n  sallyport agent show build-7 --output json",
		RunE: func(c *cobra.Command, args []string) error {
			client, err := s.client(c.Context())
			if err != nil {
				return err
			}
			defer client.Close()
			id, err := subject(c.Context(), client, args[0])
			if err != nil {
				return err
			}
			d, err := client.Subject(c.Context(), id)
			if err != nil {
				return err
			}
			return s.print(d, func() error { return s.showSubject(d) })
		},
	}
}

func (s *shell) showSubject(d sallyport.SubjectDetail) error {
	x := d.Subject
	if err := s.facts("name", x.Name, "id", x.ID, "kind", x.Kind, "role", x.Role, "team", x.Team, "state", x.State, "reason", x.Reason,
		"created", when(x.CreatedAt), "changed", when(x.ChangedAt), "credentials", credentials(d)); err != nil {
		return err
	}
	var rows [][]string
	for _, c := range d.Certificates {
		about := "serial " + c.Serial
		if c.Issuer != "" {
			about += " of " + c.Issuer
		}
		rows = append(rows, []string{"certificate", c.Fingerprint, when(c.NotAfter), when(c.RevokedAt), first(c.Reason, about)})
	}
	for _, x := range d.Sessions {
		about := "with certificate " + x.Bound[:min(len(x.Bound), 16)]
		if x.Delegated {
			about = "delegated from " + x.Parent
		}
		rows = append(rows, []string{"session", x.ID, when(x.ExpiresAt), when(x.RevokedAt), first(x.Reason, about)})
	}
	for _, g := range d.Live {
		rows = append(rows, []string{"credential", g.ID, when(g.ExpiresAt), "", g.Kind + ", " + g.State})
	}
	if len(rows) == 0 {
		return nil
	}
	if err := s.line(""); err != nil {
		return err
	}
	return s.rows([]string{"WHAT", "ID", "UNTIL", "REVOKED", "ABOUT"}, rows)
}

// credentials counts what a subject was given, by state.
func credentials(d sallyport.SubjectDetail) string {
	var parts []string
	for _, state := range slices.Sorted(maps.Keys(d.Grants)) {
		parts = append(parts, strconv.Itoa(d.Grants[state])+" "+state)
	}
	if d.Subject.Recalling {
		parts = append(parts, "being revoked")
	}
	return strings.Join(parts, ", ")
}
