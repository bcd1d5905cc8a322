package cli

import (
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

func pluginList(s *shell) *cobra.Command {
	return sided(s, &cobra.Command{
		Use: "list", Short: "List what is installed", Args: cobra.NoArgs,
		Long: "List what is installed. How it does is in: sallyport plugin status", Example: "  sallyport plugin list",
		RunE: func(c *cobra.Command, _ []string) error {
			var list sallyport.Plugins
			err := s.at(c.Context(), func(client host) (err error) {
				list, err = client.Plugins(c.Context())
				return err
			})
			if err != nil {
				return err
			}
			return s.print(list.Items, func() error {
				var rows [][]string
				for _, p := range list.Items {
					rows = append(rows, []string{p.Name, p.Version, p.Publisher, s.offered(p), p.State, when(p.At)})
				}
				what := "KINDS"
				if s.side == manifest.ForCLI {
					what = "COMMANDS"
				}
				return s.rows([]string{"NAME", "VERSION", "PUBLISHER", what, "STATE", "AT"}, rows)
			})
		},
	})
}

// offered is what a plugin is there for: kinds of credentials, or commands.
func (s *shell) offered(p sallyport.InstalledPlugin) string {
	list := p.Offer.Kinds
	if s.side == manifest.ForCLI {
		list = nil
		for _, ask := range p.Accepted {
			if name, ok := strings.CutPrefix(ask, "command "); ok {
				list = append(list, name)
			}
		}
	}
	return strings.Join(list, " ")
}

func pluginStatus(s *shell) *cobra.Command {
	return sided(s, &cobra.Command{
		Use: "status [NAME]", Short: "Show how plugins do", Args: cobra.MaximumNArgs(1),
		Long: `Show how plugins do on the replica that answers: state, the reason for it, restarts and
calls. With --for cli each is verified as before a start, and not started.`,
		Example: "  sallyport plugin status\n  sallyport plugin status sshcert --output json",
		RunE: func(c *cobra.Command, args []string) error {
			var list sallyport.Plugins
			err := s.at(c.Context(), func(client host) (err error) {
				list, err = client.Plugins(c.Context())
				return err
			})
			if err != nil {
				return err
			}
			picked, err := statuses(list, strings.Join(args, ""))
			if err != nil {
				return err
			}
			return s.print(picked, func() error {
				var rows [][]string
				for _, p := range picked {
					rows = append(rows, []string{
						p.Name, p.Version, p.State, counted(p), processes(p), strconv.Itoa(p.Starts), strconv.Itoa(p.Crashes),
						strconv.FormatUint(p.Calls, 10), strconv.FormatUint(p.Failures, 10), first(p.Sandbox, "-"), strings.TrimSpace(signedFor(p.SignedFor) + " " + first(p.Detail, strings.TrimSpace(interpreted(p)+" "+announced(p)))),
					})
				}
				return s.rows([]string{"NAME", "VERSION", "STATE", "REASON", "READY", "STARTS", "CRASHES", "CALLS", "FAILURES", "SANDBOX", "DETAIL"}, rows)
			})
		},
	})
}

// interpreted says what runs an interpreted plugin.
func interpreted(p sallyport.PluginStatus) string {
	i := p.Interpreter
	if i == nil {
		return ""
	}
	return "by " + i.Path + ", sha256:" + i.SHA256[:min(len(i.SHA256), 16)]
}

// announced says what a plugin says that it can do.
func announced(p sallyport.PluginStatus) string {
	if p.Announced == nil || len(p.Announced.Capabilities) == 0 {
		return ""
	}
	return "can " + strings.Join(p.Announced.Capabilities, ", ")
}

// counted is the reason as people read it: a crash says how many there were.
func counted(p sallyport.PluginStatus) string {
	if p.Reason == "CRASHED" {
		return p.Reason + "(" + strconv.Itoa(p.Crashes) + ")"
	}
	return p.Reason
}

// processes is how many of a plugin's processes serve, of all.
func processes(p sallyport.PluginStatus) string {
	ready := 0
	for _, i := range p.Instances {
		if i.State == "ready" {
			ready++
		}
	}
	return strconv.Itoa(ready) + "/" + strconv.Itoa(len(p.Instances))
}

// statuses picks the named plugin, or all.
func statuses(list sallyport.Plugins, name string) ([]sallyport.PluginStatus, error) {
	picked := []sallyport.PluginStatus{}
	for _, p := range list.Status {
		if name == "" || p.Name == name {
			picked = append(picked, p)
		}
	}
	if name != "" && len(picked) == 0 {
		return nil, fault.NotFoundf("no plugin %q is installed; see: sallyport plugin list", name)
	}
	return picked, nil
}

func pluginRemove(s *shell) *cobra.Command {
	return sided(s, &cobra.Command{
		Use: "remove NAME", Short: "Stop and remove a plugin", Args: cobra.ExactArgs(1),
		Long:    "Stop a plugin and take it out. What it issued goes on until it expires or is revoked.",
		Example: "  sallyport plugin remove sshcert",
		RunE: func(c *cobra.Command, args []string) error {
			err := s.at(c.Context(), func(client host) error { return client.RemovePlugin(c.Context(), args[0]) })
			if err != nil {
				return err
			}
			return s.print(map[string]string{"removed": args[0]}, func() error { return s.line("%s is removed", args[0]) })
		},
	})
}
