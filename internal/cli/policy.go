package cli

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/policy"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

var policyKinds = []string{string(policy.Sallyport), string(policy.KBSResource), string(policy.KBSAttestation)}

func newPolicy(s *shell) *cobra.Command {
	return group("policy", "What is allowed, and within which bounds",
		"Policies are texts in Rego (docs/policy.md). What no policy allows is denied; each change makes a new version and is recorded.",
		"  sallyport policy set ssh ssh.rego\n  sallyport policy explain release --input request.json",
		policySet(s), policyGet(s), policyList(s), policyRemove(s), policyTest(s), policyExplain(s))
}

func policySet(s *shell) *cobra.Command {
	var kind string
	c := &cobra.Command{
		Use: "set NAME FILE", Short: "Put a policy in force", Args: cobra.ExactArgs(2),
		Long: `Put a new version of a policy in force, on every replica. A text that is broken is
refused with document, line and reason, and the old one stays; so is one after
which nobody could change policies any more.`,
		Example: "  sallyport policy set ssh ssh.rego\n  sallyport policy set resource-policy allow.rego --kind kbs-resource",
		RunE: func(c *cobra.Command, args []string) error {
			source, err := s.readFile(args[1], policy.MaxSource)
			if err != nil {
				return err
			}
			client, err := s.client(c.Context())
			if err != nil {
				return err
			}
			defer client.Close()
			p, err := client.SetPolicy(c.Context(), args[0], kind, string(source))
			if err != nil {
				return err
			}
			return s.print(p, func() error { return s.line("%s@%d is in force", p.Name, p.Version) })
		},
	}
	c.Flags().StringVar(&kind, "kind", string(policy.Sallyport), strings.Join(policyKinds, ", "))
	_ = c.RegisterFlagCompletionFunc("kind", cobra.FixedCompletions(policyKinds, cobra.ShellCompDirectiveNoFileComp))
	return repeatable(c, "makes no second version")
}

func policyGet(s *shell) *cobra.Command {
	var version int64
	c := &cobra.Command{
		Use: "get NAME", Short: "Print a policy", Args: cobra.ExactArgs(1),
		Long:    "Print the text of a policy, of the newest version or of another one. The list of versions is in --output json.",
		Example: "  sallyport policy get ssh > ssh.rego\n  sallyport policy get ssh --version 2",
		RunE: func(c *cobra.Command, args []string) error {
			client, err := s.client(c.Context())
			if err != nil {
				return err
			}
			defer client.Close()
			p, err := client.Policy(c.Context(), args[0], version)
			if err != nil {
				return err
			}
			return s.print(p, func() error {
				_, err := io.WriteString(s.out, p.Source)
				return written(err)
			})
		},
	}
	c.Flags().Int64Var(&version, "version", 0, "the version (default: the newest)")
	return c
}

func policyList(s *shell) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the policies in force", Args: cobra.NoArgs,
		Long:    "List the policies in force, with their version and who set them.",
		Example: "  sallyport policy list",
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := s.client(c.Context())
			if err != nil {
				return err
			}
			defer client.Close()
			list, err := client.Policies(c.Context())
			if err != nil {
				return err
			}
			return s.print(list.Items, func() error {
				var rows [][]string
				for _, p := range list.Items {
					rows = append(rows, []string{p.Name, p.Kind, strconv.FormatInt(p.Version, 10), first(p.Author, "system"), when(p.At)})
				}
				return s.rows([]string{"NAME", "KIND", "VERSION", "AUTHOR", "AT"}, rows)
			})
		},
	}
}

func policyRemove(s *shell) *cobra.Command {
	return &cobra.Command{
		Use: "remove NAME", Short: "Take a policy out of force", Args: cobra.ExactArgs(1),
		Long:    "Take a policy out of force. Its versions stay readable. Mind that a veto or a tighter bound goes with it.",
		Example: "  sallyport policy remove freeze",
		RunE: func(c *cobra.Command, args []string) error {
			client, err := s.client(c.Context())
			if err != nil {
				return err
			}
			defer client.Close()
			if err := client.RemovePolicy(c.Context(), args[0]); err != nil {
				return err
			}
			return s.print(map[string]string{"removed": args[0]}, func() error { return s.line("%s is no longer in force", args[0]) })
		},
	}
}

func policyTest(s *shell) *cobra.Command {
	var kind string
	var separate []string
	c := &cobra.Command{
		Use: "test FILE...", Short: "Test policies, offline", Args: cobra.MinimumNArgs(1),
		Long: `Run the rules whose names begin with test_, in the sandbox of the server, without
a server. A file named NAME_test.rego belongs to the policy NAME. The exit code
is 2 if a test fails or none ran.`,
		Example: "  sallyport policy test ssh.rego ssh_test.rego\n  sallyport policy test ssh.rego --tests cases.rego --output json",
		RunE: func(c *cobra.Command, args []string) error {
			k, err := policy.ParseKind(kind)
			if err != nil {
				return err
			}
			return s.testPolicies(c.Context(), args, separate, k)
		},
	}
	c.Flags().StringVar(&kind, "kind", string(policy.Sallyport), strings.Join(policyKinds, ", "))
	c.Flags().StringSliceVar(&separate, "tests", nil, "more files that hold tests, whatever their names")
	return c
}

func (s *shell) testPolicies(ctx context.Context, files, separate []string, kind policy.Kind) error {
	var documents, tests []policy.Document
	for i, path := range append(files, separate...) {
		source, err := s.readFile(path, policy.MaxSource)
		if err != nil {
			return err
		}
		d := policy.Document{
			Name: strings.TrimSuffix(filepath.Base(path), ".rego"), Version: 1, Kind: kind, Source: string(source), State: policy.Active,
		}
		if i >= len(files) || strings.HasSuffix(d.Name, "_test") {
			tests = append(tests, d)
		} else {
			documents = append(documents, d)
		}
	}
	report, err := policy.Test(ctx, documents, tests, policy.TestLimit)
	if err != nil {
		return err
	}
	if err := s.print(report, func() error { return s.showTests(report) }); err != nil {
		return err
	}
	switch {
	case report.OK():
		return nil
	case report.Failed > 0:
		return fault.Invalidf("%d of %d tests failed", report.Failed, len(report.Results))
	}
	return fault.Invalidf("no test ran: name test rules test_...")
}

func (s *shell) showTests(r policy.TestReport) error {
	for _, t := range r.Results {
		c, text := green, fmt.Sprintf("%-8s%s:%d %s", t.Outcome, t.Document, t.Line, t.Name)
		if t.Outcome == policy.Fail {
			c = red
			if t.At > 0 {
				text += fmt.Sprintf("\n        line %d: %s", t.At, visible(t.Detail))
			} else if t.Detail != "" {
				text += "\n        " + visible(t.Detail)
			}
		}
		if _, err := fmt.Fprintln(s.out, s.paint(s.out, c, text)); err != nil {
			return written(err)
		}
	}
	for _, c := range r.Coverage {
		if err := s.line("%s: %.0f %% covered", c.Document, c.Percent); err != nil {
			return err
		}
	}
	return s.line("%d passed, %d failed, %d skipped", r.Passed, r.Failed, r.Skipped)
}

func policyExplain(s *shell) *cobra.Command {
	var file, record string
	c := &cobra.Command{
		Use: "explain VERB --input FILE | --record ID", Short: "Say how a request would be decided, or was, and why", Args: cobra.MaximumNArgs(1),
		Long: `Ask the server how it would decide a verb (` + strings.Join(policy.Verbs(), ", ") + `)
for an input: how each policy votes, which rules held, and at which line the others stopped. Nothing
happens. The members of the input are in docs/policy.md.

With --record: how a decision of the ledger came about. For a workload that is every check that its
evidence went through (docs/evidence.md), the policies, and the reasons.`,
		Example:   "  sallyport policy explain release --input request.json\n  sallyport policy explain --record 01K0ABCDEFGHJKMNPQRSTVWXYZ",
		ValidArgs: policy.Verbs(),
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case record != "" && (file != "" || len(args) > 0):
				return fault.Invalidf("a record says its verb and input itself: give --record alone")
			case record != "":
				return s.explainRecord(c.Context(), record)
			case len(args) == 0:
				return fault.Invalidf("which verb? %s; or --record ID", strings.Join(policy.Verbs(), ", "))
			case file == "":
				return fault.Invalidf("the request to explain comes from a file: --input FILE, or - for standard input")
			}
			return s.explainInput(c.Context(), args[0], file)
		},
	}
	c.Flags().StringVar(&file, "input", "", "file with the input as JSON, - for standard input")
	c.Flags().StringVar(&record, "record", "", "id of a record of the ledger, see: sallyport audit list")
	return c
}

func (s *shell) explainInput(ctx context.Context, verb, file string) error {
	text, err := s.readFile(file, maxSecret)
	if err != nil {
		return err
	}
	var input map[string]any
	if err := canon.Lenient(text, maxSecret, 64, &input); err != nil {
		return fault.Invalidf("%s is no JSON object: %s", file, fault.Public(err)).Because(err)
	}
	client, err := s.client(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	x, err := client.ExplainPolicy(ctx, verb, input)
	if err != nil {
		return err
	}
	return s.print(x, func() error { return s.showExplanation(x) })
}

func (s *shell) showExplanation(x sallyport.Explanation) error {
	word, c := "deny", red
	if x.Decision.Allow {
		word, c = "allow", green
	}
	lines := []string{s.paint(s.out, c, word)}
	for _, r := range x.Decision.Reasons {
		lines = append(lines, "  "+visible(r))
	}
	for _, d := range x.Documents {
		lines = append(lines, s.paint(s.out, bold, visible(d.Document))+": "+visible(d.Vote))
		if d.Error != "" {
			lines = append(lines, "  "+visible(d.Error))
		}
		for _, r := range d.Rules {
			text := fmt.Sprintf("  line %d: %s", r.Line, visible(r.Rule))
			if r.Succeeded {
				text += " holds"
			} else if r.FailedLine > 0 {
				text += fmt.Sprintf(" stops at line %d: %s", r.FailedLine, visible(strings.TrimSpace(r.Failed)))
			}
			lines = append(lines, text)
		}
	}
	_, err := io.WriteString(s.out, strings.Join(lines, "\n")+"\n")
	return written(err)
}
