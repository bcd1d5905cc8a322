package cli

import (
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sallyport-project/sallyport/internal/fault"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

func pluginList(s *shell) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List what is installed", Args: cobra.NoArgs,
		Long: "List what is installed. How it does is in: sallyport plugin status", Example: "  sallyport plugin list",
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := s.client(c.Context())
			if err != nil {
				return err
			}
			defer client.Close()
			list, err := client.Plugins(c.Context())
			if err != nil {
				return err
			}
			return s.print(list.Items, func() error {
				var rows [][]string
				for _, p := range list.Items {
					rows = append(rows, []string{p.Name, p.Version, p.Publisher, strings.Join(p.Offer.Kinds, " "), p.State, when(p.At)})
				}
				return s.rows([]string{"NAME", "VERSION", "PUBLISHER", "KINDS", "STATE", "AT"}, rows)
			})
		},
	}
}

func pluginStatus(s *shell) *cobra.Command {
	return &cobra.Command{
		Use: "status [NAME]", Short: "Show how plugins do", Args: cobra.MaximumNArgs(1),
		Long:    "Show how plugins do on the replica that answers: state, the reason for it, restarts and calls.",
		Example: "  sallyport plugin status\n  sallyport plugin status sshcert --output json",
		RunE: func(c *cobra.Command, args []string) error {
			client, err := s.client(c.Context())
			if err != nil {
				return err
			}
			defer client.Close()
			list, err := client.Plugins(c.Context())
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
						strconv.FormatUint(p.Calls, 10), strconv.FormatUint(p.Failures, 10), first(p.Sandbox, "-"), strings.TrimSpace(signedFor(p.SignedFor) + " " + first(p.Detail, interpreted(p))),
					})
				}
				return s.rows([]string{"NAME", "VERSION", "STATE", "REASON", "READY", "STARTS", "CRASHES", "CALLS", "FAILURES", "SANDBOX", "DETAIL"}, rows)
			})
		},
	}
}

// interpreted says what runs an interpreted plugin.
func interpreted(p sallyport.PluginStatus) string {
	i := p.Interpreter
	if i == nil {
		return ""
	}
	return "by " + i.Path + ", sha256:" + i.SHA256[:min(len(i.SHA256), 16)]
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
	return &cobra.Command{
		Use: "remove NAME", Short: "Stop and remove a plugin", Args: cobra.ExactArgs(1),
		Long:    "Stop a plugin and take it out. What it issued goes on until it expires or is revoked.",
		Example: "  sallyport plugin remove sshcert",
		RunE: func(c *cobra.Command, args []string) error {
			client, err := s.client(c.Context())
			if err != nil {
				return err
			}
			defer client.Close()
			if err := client.RemovePlugin(c.Context(), args[0]); err != nil {
				return err
			}
			return s.print(map[string]string{"removed": args[0]}, func() error { return s.line("%s is removed", args[0]) })
		},
	}
}
