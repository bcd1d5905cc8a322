package cli

import (
	"github.com/spf13/cobra"

	"github.com/sallyport-project/sallyport/internal/plugin"
)

func pluginLock(s *shell) *cobra.Command {
	return sided(s, &cobra.Command{
		Use: "lock", Short: "Write down exactly what is installed", Args: cobra.NoArgs,
		Long: `Print a lock file: name, version, digest and signing keys of every installed
plugin. A server whose configuration names it (plugins.lock) runs nothing else: it
does not start where a plugin is installed that is not locked, or a locked one is
missing or another, and installs nothing that is not locked. With --for cli, the
file $SALLYPORT_HOME/cli/plugins.lock does the same for this command line.`,
		Example: "  sallyport plugin lock > plugins.lock\n  sallyport plugin lock --for cli > ~/.sallyport/cli/plugins.lock",
		RunE: func(c *cobra.Command, _ []string) error {
			return s.at(c.Context(), func(client host) error {
				list, err := client.Plugins(c.Context())
				if err != nil {
					return err
				}
				var rows []plugin.Installed
				for _, p := range list.Items {
					rows = append(rows, plugin.Installed{
						Name: p.Name, Package: p.Version, Digest: p.Digest, KeyIDs: p.KeyIDs, State: plugin.RowState(p.State),
					})
				}
				text, err := plugin.LockOf(rows).Bytes()
				if err != nil {
					return err
				}
				_, err = s.out.Write(text)
				return written(err)
			})
		},
	})
}
