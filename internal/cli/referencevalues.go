package cli

import (
	"context"
	"encoding/json"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/reference"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

func referenceSet(s *shell) *cobra.Command {
	var file, expires string
	c := &cobra.Command{
		Use: "set NAME JSON | set --file FILE", Short: "Set what evidence is compared with", Args: cobra.MaximumNArgs(2),
		Long: `Set one reference value, or all values of a JSON object from names to values. Each
replaces what its name had. A value counts for a year, or for as long as --for says.`,
		Example: `  sallyport reference set snp_launch_measurement '["7e3f..."]'
  sallyport reference set snp_smt_enabled true --for 720h
  sallyport reference set --file values.json`,
		RunE: func(c *cobra.Command, args []string) error {
			end, err := s.until(expires)
			if err != nil {
				return err
			}
			var list []reference.Setting
			switch {
			case file != "" && len(args) == 0:
				text, err := s.readFile(file, reference.MaxMessage)
				if err != nil {
					return err
				}
				if list, err = reference.ParseValues(text); err != nil {
					return err
				}
			case file == "" && len(args) == 2:
				if !json.Valid([]byte(args[1])) {
					return fault.Invalidf("the value is JSON: a text stands in quotes, a list in brackets")
				}
				list = []reference.Setting{{Name: args[0], JSON: json.RawMessage(args[1])}}
			default:
				return fault.Invalidf("give NAME and JSON, or --file alone")
			}
			return s.setValues(c.Context(), list, end, "set")
		},
	}
	c.Flags().StringVar(&file, "file", "", "file with a JSON object from names to values; - is standard input")
	c.Flags().StringVar(&expires, "for", "", "how long the values count, for example 720h (default: a year)")
	return repeatable(c, "makes no second version")
}

func (s *shell) until(life string) (time.Time, error) {
	if life == "" {
		return time.Time{}, nil
	}
	d, err := time.ParseDuration(life)
	if err != nil || d <= 0 {
		return time.Time{}, fault.Invalidf("--for is a time like 720h")
	}
	return s.Now().Add(d).UTC(), nil
}

func (s *shell) setValues(ctx context.Context, list []reference.Setting, end time.Time, source string) error {
	client, err := s.client(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	values := make([]sallyport.ReferenceSetting, 0, len(list))
	for _, l := range list {
		values = append(values, sallyport.ReferenceSetting{Name: l.Name, Value: l.JSON, Expires: end})
	}
	out, err := client.SetReferenceValues(ctx, values, source)
	if err != nil {
		return err
	}
	return s.print(out, func() error {
		for _, v := range out {
			if err := s.line("%s is %s, version %d, until %s", v.Name, middle(string(v.Value)), v.Version, when(v.Expires)); err != nil {
				return err
			}
		}
		return nil
	})
}

// observed are where the claims come from that are compared with reference values.
type observed struct {
	evidenceOptions
	record string
}

func (o *observed) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.kind, "kind", "", "kind of evidence (default: told by its members)")
	f.StringVar(&o.at, "at", "", "judge the file as of this time, RFC 3339 (default: now)")
	f.StringVar(&o.reportData, "report-data", "", "what the file must be bound to, in hex")
	f.StringVar(&o.signer, "signer", "", "FILE is a raw SNP report; this file has the certificate of its signer (DER)")
	f.StringArrayVar(&o.reference, "reference", nil, "file or folder with endorsements to judge the file by; may be given several times")
	f.StringVar(&o.record, "record", "", "instead of a file: the record of a guest's admission, while its result lives")
}

// observe gives the claims of evidence that is genuine.
func (s *shell) observe(ctx context.Context, client *sallyport.Client, args []string, o observed) ([]sallyport.RecordedDevice, error) {
	switch {
	case (len(args) == 1) == (o.record != ""):
		return nil, fault.Invalidf("give a file with evidence, or --record ID")
	case o.record != "":
		return client.RecordedClaims(ctx, o.record)
	}
	j, refused, err := s.judge(ctx, args[0], o.evidenceOptions)
	if err != nil {
		return nil, err
	}
	if refused != nil {
		return nil, fault.Deniedf("%s; see: sallyport evidence verify", fault.Public(refused)).Because(refused)
	}
	return []sallyport.RecordedDevice{{TEE: string(j.Kind), Claims: j.Claims}}, nil
}

// compare puts the claims of genuine evidence beside the server's values.
func (s *shell) compare(ctx context.Context, args []string, o observed) ([]reference.Comparison, error) {
	client, err := s.client(ctx)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	devices, err := s.observe(ctx, client, args, o)
	if err != nil {
		return nil, err
	}
	p, err := client.ReferenceValues(ctx)
	if err != nil {
		return nil, err
	}
	stored := func(name string) json.RawMessage {
		for _, v := range p.Items {
			if v.Name == name && s.Now().Before(v.Expires) {
				return v.Value
			}
		}
		return nil
	}
	out := []reference.Comparison{}
	for _, d := range devices {
		list, err := reference.Compare(evidence.TEE(d.TEE), d.Claims, stored)
		if err != nil {
			return nil, err
		}
		out = append(out, list...)
	}
	return out, nil
}

func referenceRecord(s *shell) *cobra.Command {
	var o observed
	var expires string
	var replace, yes bool
	c := &cobra.Command{
		Use: "record FILE|--record ID [--replace] [--yes]", Short: "Take what evidence says for what is expected", Args: cobra.MaximumNArgs(1),
		Long: `Make reference values of evidence of a machine that you know to be good: the values
with which the policy default_cpu compares evidence of its kind then accept it. The
file is verified first; what does not verify records nothing. Lists get one member
more, or with --replace have it alone. It shows what changes and asks, or takes --yes.`,
		Example: "  sallyport reference record evidence.json --at 2026-01-02T15:04:05Z\n  sallyport reference record --record 01K0... --yes",
		RunE: func(c *cobra.Command, args []string) error {
			end, err := s.until(expires)
			if err != nil {
				return err
			}
			list, err := s.compare(c.Context(), args, o)
			if err != nil {
				return err
			}
			settings, err := reference.Record(list, replace)
			if err != nil {
				return err
			}
			if len(settings) == 0 {
				return s.print([]string{}, func() error { return s.line("nothing changes: every value accepts this evidence") })
			}
			if !yes {
				for _, x := range settings {
					s.note("%s becomes %s", x.Name, middle(string(x.JSON)))
				}
				if !s.agrees("%d values are set.", len(settings)) {
					return fault.Invalidf("nothing was changed: answer yes, or add --yes")
				}
			}
			return s.setValues(c.Context(), settings, end, "record")
		},
	}
	o.flags(c)
	c.Flags().StringVar(&expires, "for", "", "how long the values count, for example 720h (default: a year)")
	c.Flags().BoolVar(&replace, "replace", false, "leave nothing else in lists")
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return repeatable(c, "makes no second version")
}

func referenceDiff(s *shell) *cobra.Command {
	var o observed
	c := &cobra.Command{
		Use: "diff FILE|--record ID", Short: "Compare evidence with the reference values", Args: cobra.MaximumNArgs(1),
		Long: `Show, for evidence that verifies, each claim that the policy default_cpu compares,
beside the reference value. The exit code is 4 when a value does not accept its
claim, or is not there.`,
		Example: "  sallyport reference diff evidence.json --at 2026-01-02T15:04:05Z",
		RunE: func(c *cobra.Command, args []string) error {
			list, err := s.compare(c.Context(), args, o)
			if err != nil {
				return err
			}
			differ := 0
			err = s.print(list, func() error {
				var rows [][]string
				for _, x := range list {
					rows = append(rows, []string{map[bool]string{true: "match", false: "differs"}[x.Match], x.Name, x.Claim, middle(string(x.Seen)), middle(string(x.Stored))})
				}
				return s.rows([]string{"RESULT", "VALUE", "CLAIM", "SEEN", "STORED"}, rows)
			})
			for _, x := range list {
				if !x.Match {
					differ++
				}
			}
			if err == nil && differ > 0 {
				err = fault.Deniedf("%s of %d reference values do not accept this evidence", strconv.Itoa(differ), len(list))
			}
			return err
		},
	}
	o.flags(c)
	return c
}
