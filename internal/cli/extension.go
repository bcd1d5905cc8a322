package cli

import (
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/sdk"
)

func newExtension(s *shell) *cobra.Command {
	return group("extension", "List extensions, call their routes",
		`Extensions are plugins that add routes below /api/v1/, react to what happens, and
are asked before decisions. They are installed as every plugin is.`,
		"  sallyport extension list\n  sallyport extension call GET /api/v1/myext/machines/m1/tags",
		extensionList(s), extensionCall(s))
}

func extensionList(s *shell) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the installed extensions with their routes, hooks and gates", Args: cobra.NoArgs,
		Long: "List the installed extensions with their routes, hooks and gates, and why one does not run.", Example: "  sallyport extension list",
		RunE: func(c *cobra.Command, _ []string) error {
			return s.calling(c.Context(), func(client *sallyport.Client) error {
				list, err := client.Extensions(c.Context())
				if err != nil {
					return err
				}
				return s.print(list, func() error {
					var rows [][]string
					for _, e := range list {
						prefix := "none"
						if e.Prefix != "" {
							prefix = "/api/v1/" + e.Prefix
						}
						rows = append(rows, []string{e.Plugin, e.Version, prefix, strings.Join(e.Hooks, " "), strings.Join(e.Gates, " "), e.Reason})
					}
					return s.rows([]string{"NAME", "VERSION", "ROUTES", "HOOKS", "GATES", "REASON"}, rows)
				})
			})
		},
	}
}

func extensionCall(s *shell) *cobra.Command {
	var body, kind string
	c := &cobra.Command{
		Use: "call METHOD PATH", Short: "Call a route of an extension", Args: cobra.ExactArgs(2),
		Long: `Call a route of an extension, as the current context, and print its answer as it
is. Policy decides about it by the rule call. The body comes from a file, or from
standard input with -.`,
		Example: "  sallyport extension call GET /api/v1/myext/machines/m1/tags\n  sallyport extension call POST /api/v1/myext/machines/m1/tags --body tag.json",
		RunE: func(c *cobra.Command, args []string) error {
			call := sallyport.ExtensionCall{Method: strings.ToUpper(args[0]), Path: args[1], Type: kind}
			if !strings.HasPrefix(call.Path, "/api/v1/") {
				return fault.Invalidf("the path of a route begins with /api/v1/ and the extension's prefix; see: sallyport extension list")
			}
			const most = 16 << 20
			var err error
			switch body {
			case "":
			case "-":
				call.Body, err = io.ReadAll(io.LimitReader(s.in, most))
			default:
				call.Body, err = s.readFile(body, most)
			}
			if err != nil {
				return fault.Wrap(err, "read body")
			}
			return s.calling(c.Context(), func(client *sallyport.Client) error {
				a, err := client.CallExtension(c.Context(), call)
				if err != nil {
					return err
				}
				_, err = s.out.Write(a.Body)
				return fault.Wrap(err, "write answer")
			})
		},
	}
	c.Flags().StringVar(&body, "body", "", "file with the body, - for standard input")
	c.Flags().StringVar(&kind, "type", "application/json", "content type of the body")
	return c
}

func pluginPurge(s *shell) *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use: "purge NAME", Short: "Remove what a removed plugin has left", Args: cobra.ExactArgs(1),
		Long: `Remove what a plugin that is not installed any more has left: what it has kept
under keys, and the tables of an extension, for good. Removing a plugin keeps both. Asks
first; where nobody can be asked it takes --yes.`,
		Example: "  sallyport plugin purge tags",
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case yes:
			case !terminal(s.in):
				return fault.Invalidf("nothing was removed: say that you mean it with --yes, or run this on a terminal")
			case !s.agrees("Remove all data of plugin %s for good?", args[0]):
				return fault.Invalidf("nothing was removed: answer yes, or add --yes")
			}
			return s.calling(c.Context(), func(client *sallyport.Client) error {
				if err := client.PurgePlugin(c.Context(), args[0]); err != nil {
					return err
				}
				return s.print(map[string]string{"purged": args[0]}, func() error { return s.line("the data of %s are removed", args[0]) })
			})
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return repeatable(c, "finds the data removed")
}
