package cli

import (
	"context"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sallyport-project/sallyport/internal/fault"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

func pluginTrust(s *shell) *cobra.Command {
	return group("trust", "Whose packages a server runs",
		"The publishers whose signatures a server accepts. Taking a key away stops what only it signed.",
		"  sallyport plugin trust add acme acme.pub --names 'acme-*'",
		trustAdd(s), trustList(s), trustRemove(s))
}

func trustAdd(s *shell) *cobra.Command {
	var names []string
	c := &cobra.Command{
		Use: "add PUBLISHER PUBLIC-KEY-FILE", Short: "Trust a publisher's key", Args: cobra.ExactArgs(2),
		Long:    "Let a key sign packages in the name of a publisher, all of them or those whose names match.",
		Example: "  sallyport plugin trust add acme acme.pub\n  sallyport plugin trust add acme acme.pub --names acme-ssh,acme-db",
		RunE: func(c *cobra.Command, args []string) error {
			key, err := s.readFile(args[1], maxSecret)
			if err != nil {
				return err
			}
			client, err := s.client(c.Context())
			if err != nil {
				return err
			}
			defer client.Close()
			p, err := client.TrustPublisher(c.Context(), args[0], string(key), names)
			if err != nil {
				return err
			}
			return s.print(p, func() error {
				return s.facts("publisher", p.Publisher, "key id", p.KeyID, "packages", first(strings.Join(p.Names, " "), "all"))
			})
		},
	}
	c.Flags().StringSliceVar(&names, "names", nil, "patterns of package names (default: all)")
	return repeatable(c, "finds the key trusted")
}

func trustList(s *shell) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the trusted keys", Args: cobra.NoArgs,
		Long: "List the trusted keys.", Example: "  sallyport plugin trust list",
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := s.client(c.Context())
			if err != nil {
				return err
			}
			defer client.Close()
			list, err := client.Publishers(c.Context())
			if err != nil {
				return err
			}
			return s.print(list.Items, func() error {
				var rows [][]string
				for _, p := range list.Items {
					rows = append(rows, []string{p.Publisher, p.KeyID, strings.Join(p.Names, " "), p.State, p.Author, when(p.At)})
				}
				return s.rows([]string{"PUBLISHER", "KEY ID", "PACKAGES", "STATE", "AUTHOR", "AT"}, rows)
			})
		},
	}
}

func trustRemove(s *shell) *cobra.Command {
	return &cobra.Command{
		Use: "remove KEY-ID", Short: "Trust a key no longer", Args: cobra.ExactArgs(1),
		Long:    "Trust a key no longer. Plugins that only this key signed are stopped.",
		Example: "  sallyport plugin trust remove 3f1c...",
		RunE: func(c *cobra.Command, args []string) error {
			client, err := s.client(c.Context())
			if err != nil {
				return err
			}
			defer client.Close()
			if err := client.DistrustPublisher(c.Context(), args[0]); err != nil {
				return err
			}
			return s.print(map[string]string{"removed": args[0]}, func() error { return s.line("%s is trusted no longer", args[0]) })
		},
	}
}

func pluginInstall(s *shell) *cobra.Command {
	var bundle, from string
	c := &cobra.Command{
		Use: "install FILE | NAME[@VERSION] | --bundle FILE", Short: "Install a package at the server", Args: cobra.MaximumNArgs(1),
		Long: `Send a package to the server, which verifies it and runs it from now on: a file, a
package of a pinned repository, or those in a bundle. A package of the same name is
replaced.`,
		Example: "  sallyport plugin install my.spk\n  sallyport plugin install sshcert@1.2.0\n  sallyport plugin install --bundle plugins.bundle",
		RunE: func(c *cobra.Command, args []string) error {
			if (bundle == "") != (len(args) == 1) {
				return fault.Invalidf("say what to install: a file, NAME or NAME@VERSION, or --bundle FILE")
			}
			return s.calling(c.Context(), func(client *sallyport.Client) error {
				if bundle != "" {
					return s.installBundle(c.Context(), client, bundle, from)
				}
				if name, version, ok := named(args[0]); ok && !isFile(args[0]) {
					return s.installNamed(c.Context(), client, from, name, version)
				}
				return s.installFile(c.Context(), client, args[0])
			})
		},
	}
	c.Flags().StringVar(&bundle, "bundle", "", "install the packages in this bundle")
	c.Flags().StringVar(&from, "repository", "", "the repository, if there are several")
	return repeatable(c, "finds the package installed")
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && !info.IsDir()
}

func (s *shell) installFile(ctx context.Context, client *sallyport.Client, file string) error {
	f, err := os.Open(file) //nolint:gosec // the user names it
	if err != nil {
		return fileFault(file, err)
	}
	defer func() { _ = f.Close() }()
	stop := s.busy("installing " + file)
	p, err := client.InstallPlugin(ctx, f)
	stop()
	if err != nil {
		return err
	}
	return s.print(p, func() error {
		return s.facts("installed", p.Name+" "+p.Version, "publisher", p.Publisher, "digest", p.Digest,
			"kinds", strings.Join(p.Offer.Kinds, " "))
	})
}

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
						strconv.FormatUint(p.Calls, 10), strconv.FormatUint(p.Failures, 10), first(p.Sandbox, "-"), p.Detail,
					})
				}
				return s.rows([]string{"NAME", "VERSION", "STATE", "REASON", "READY", "STARTS", "CRASHES", "CALLS", "FAILURES", "SANDBOX", "DETAIL"}, rows)
			})
		},
	}
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
