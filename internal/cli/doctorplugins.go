package cli

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/plugin/sandbox"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// finding is something that an operator, or a user, should look at.
type finding struct {
	Where  string `json:"where"` // cli or server
	What   string `json:"what"`
	Reason string `json:"reason"`
	Detail string `json:"detail"`
}

// The reasons of findings that are no plugin's.
const (
	findWeak      = "WEAKENED" // by configuration
	findReduced   = "REDUCED"  // by what this system has
	findUnreached = "NOT_SEEN"
)

func doctorPlugins(s *shell) *cobra.Command {
	return &cobra.Command{
		Use: "plugins", Short: "Show what is wrong with plugins, and what weakens them", Args: cobra.NoArgs,
		Long: `Show what is wrong with the plugins of this command line and of the server of the
context: those that do not run and why, trust that is damaged, keys of development,
configuration that weakens (plugins.development, plugins.sandbox), and what this
system cannot confine. The exit code is 0 whatever is found.`,
		Example: "  sallyport doctor plugins\n  sallyport doctor plugins --output json",
		RunE: func(c *cobra.Command, _ []string) error {
			found := s.localFindings(c.Context())
			err := s.calling(c.Context(), func(client *sallyport.Client) error {
				more, err := serverFindings(c.Context(), client)
				found = append(found, more...)
				return err
			})
			if err != nil {
				found = append(found, finding{"server", "its plugins", findUnreached, describe(err).Detail})
			}
			return s.print(found, func() error {
				var rows [][]string
				for _, f := range found {
					rows = append(rows, []string{f.Where, f.What, f.Reason, f.Detail})
				}
				return s.rows([]string{"WHERE", "WHAT", "REASON", "DETAIL"}, rows)
			})
		},
	}
}

// localFindings are those of this command line.
func (s *shell) localFindings(ctx context.Context) []finding {
	out := []finding{}
	if weak := sandbox.ToolWeakness(); weak != "" {
		out = append(out, finding{"cli", "confinement", findReduced, weak})
	}
	home, err := s.tools()
	if err != nil {
		return out
	}
	w := workstation{s, home}
	list, err := w.Plugins(ctx)
	if err != nil {
		return append(out, finding{"cli", "trust", string(plugin.ReasonOf(err)), fault.Public(err)})
	}
	out = append(out, refusedPlugins("cli", list)...)
	keys, err := w.Publishers(ctx)
	if err == nil {
		out = append(out, developers("cli", keys)...)
	}
	return out
}

// serverFindings are those of a server.
func serverFindings(ctx context.Context, client *sallyport.Client) ([]finding, error) {
	var out []finding
	status, err := client.Status(ctx)
	if err != nil {
		return nil, err
	}
	for _, w := range status.Weak {
		out = append(out, finding{"server", "configuration", findWeak, w})
	}
	if n := status.BrokenRows; n > 0 {
		out = append(out, finding{"server", strconv.FormatInt(n, 10) + " rows of the database", "DAMAGED", "they were altered by something else than the server; its log names them"})
	}
	list, err := client.Plugins(ctx)
	if err != nil {
		return out, err
	}
	out = append(out, refusedPlugins("server", list)...)
	keys, err := client.Publishers(ctx)
	return append(out, developers("server", keys)...), err
}

func refusedPlugins(where string, list sallyport.Plugins) []finding {
	var out []finding
	for _, p := range list.Status {
		if p.Reason != string(plugin.ReasonOK) {
			out = append(out, finding{where, "plugin " + p.Name + " " + p.Version, p.Reason, p.Detail})
		} else if p.SignedFor == string(plugin.UseDevelopment) {
			out = append(out, finding{where, "plugin " + p.Name + " " + p.Version, findWeak, "it is signed by a developer's own key alone"})
		}
	}
	return out
}

func developers(where string, keys sallyport.Page[sallyport.Publisher]) []finding {
	var out []finding
	for _, p := range keys.Items {
		for _, k := range p.Keys {
			if k.Use == string(plugin.UseDevelopment) && k.State == string(plugin.Active) {
				out = append(out, finding{where, "key " + k.KeyID, findWeak, "it is trusted for packages of development"})
			}
		}
	}
	return out
}
