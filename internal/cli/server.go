package cli

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sallyport-project/sallyport/internal/app"
	"github.com/sallyport-project/sallyport/internal/fault"
)

func newVersion(s *shell) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		Long:    "Print the version of this program.",
		Example: "  sallyport version --output json",
		RunE: func(*cobra.Command, []string) error {
			return s.print(map[string]string{"version": s.Version}, func() error { return s.line("sallyport %s", s.Version) })
		},
	}
}

func newConfig(s *shell) *cobra.Command {
	var file string
	check := &cobra.Command{
		Use: "check", Short: "Check a configuration", Args: cobra.NoArgs,
		Long:    "Read a configuration as serve does, and say what is wrong with it. Nothing is started.",
		Example: "  sallyport config check --config /etc/sallyport/sallyport.yaml",
		RunE: func(*cobra.Command, []string) error {
			if _, err := s.config(file); err != nil {
				return err
			}
			return s.print(map[string]bool{"ok": true}, func() error { return s.line("the configuration is right") })
		},
	}
	show := &cobra.Command{
		Use: "show", Short: "Print the configuration with all defaults", Args: cobra.NoArgs,
		Long:    "Print the configuration as the server understands it: with defaults, and paths resolved. It holds no secrets.",
		Example: "  sallyport config show --output json",
		RunE: func(*cobra.Command, []string) error {
			cfg, err := s.config(file)
			if err != nil {
				return err
			}
			text, err := members(cfg)
			if err != nil {
				return err
			}
			return s.print(text, func() error {
				out, err := yamlOf(text)
				if err != nil {
					return fault.Wrap(err, "encode configuration")
				}
				_, err = s.out.Write(out)
				return written(err)
			})
		},
	}
	for _, c := range []*cobra.Command{check, show} {
		c.Flags().StringVar(&file, "config", "", "configuration (default $SALLYPORT_HOME/sallyport.yaml)")
	}
	return group("config", "Check and show the server's configuration",
		"Check and show the server's configuration, without starting anything.", "  sallyport config check", check, show, importTrustee(s))
}

func importTrustee(s *shell) *cobra.Command {
	var operator string
	c := &cobra.Command{
		Use: "import-trustee FILE", Short: "Turn a configuration of Trustee's key broker into ours", Args: cobra.ExactArgs(1),
		Long: `Read a configuration of Trustee's key broker (TOML, YAML or JSON, with present or
older keys) and print what can be carried over, in the form of sallyport.yaml. What
cannot, and what wants to be looked at, goes to standard error, a line for each
member: nothing is lost silently. Nothing is changed; docs/kbs.md says how to go on.`,
		Example: "  sallyport config import-trustee kbs-config.toml --as alice > kbs.yaml",
		RunE: func(c *cobra.Command, args []string) error {
			text, err := s.readFile(args[0], app.MaxTrustee)
			if err != nil {
				return err
			}
			got, err := app.ImportTrustee(text, operator)
			if err != nil {
				return err
			}
			return s.print(got, func() error {
				text, err := json.Marshal(got.Config)
				if err != nil {
					return fault.Wrap(err, "encode configuration")
				}
				out, err := yamlOf(text)
				if err != nil {
					return fault.Wrap(err, "encode configuration")
				}
				for _, n := range got.Notes {
					c.PrintErrln("- " + n)
				}
				_, err = s.out.Write(out)
				return written(err)
			})
		},
	}
	c.Flags().StringVar(&operator, "as", "operator", "the operator as whom administrators with tokens act")
	return c
}

// members writes the configuration as JSON under the names of its YAML file.
func members(cfg app.Config) (json.RawMessage, error) {
	var b bytes.Buffer
	if err := member(&b, reflect.ValueOf(cfg)); err != nil {
		return nil, fault.Wrap(err, "encode configuration")
	}
	return b.Bytes(), nil
}

func member(b *bytes.Buffer, v reflect.Value) error {
	switch v.Kind() {
	case reflect.Struct:
		b.WriteByte('{')
		for i := range v.NumField() {
			if i > 0 {
				b.WriteByte(',')
			}
			name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
			b.WriteString(`"` + name + `":`)
			if err := member(b, v.Field(i)); err != nil {
				return err
			}
		}
		b.WriteByte('}')
	case reflect.Slice:
		b.WriteByte('[')
		for i := range v.Len() {
			if i > 0 {
				b.WriteByte(',')
			}
			if err := member(b, v.Index(i)); err != nil {
				return err
			}
		}
		b.WriteByte(']')
	default:
		text, err := json.Marshal(v.Interface())
		if err != nil {
			return err
		}
		b.Write(text)
	}
	return nil
}

func newRestore(s *shell) *cobra.Command {
	var file, reason string
	var declare bool
	c := &cobra.Command{
		Use: "restore --declare --reason TEXT", Short: "Accept a database that was restored from a backup", Args: cobra.NoArgs,
		Long: `A server refuses to start when its ledger is older than what it has seen: that
is what a restored backup looks like, and what an attack looks like. When you
did restore a backup, declare it, with the server stopped. What happened since
the backup is lost, revocations included; the declaration is recorded.`,
		Example: `  sallyport restore --declare --reason "disk lost, backup of Tuesday"`,
		RunE: func(c *cobra.Command, _ []string) error {
			if !declare || reason == "" {
				return fault.Invalidf("a restore is declared in so many words: sallyport restore --declare --reason TEXT")
			}
			cfg, err := s.config(file)
			if err != nil {
				return err
			}
			if err := app.DeclareRestore(c.Context(), cfg, reason); err != nil {
				return err
			}
			return s.print(map[string]bool{"declared": true}, func() error { return s.line("declared and recorded; start the server: sallyport serve") })
		},
	}
	c.Flags().StringVar(&file, "config", "", "configuration (default $SALLYPORT_HOME/sallyport.yaml)")
	c.Flags().BoolVar(&declare, "declare", false, "yes, a backup was restored")
	c.Flags().StringVar(&reason, "reason", "", "why, for the ledger")
	return c
}
