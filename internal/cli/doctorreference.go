package cli

import (
	"github.com/spf13/cobra"

	"github.com/sallyport-project/sallyport/internal/app"
)

func doctorReference(s *shell) *cobra.Command {
	var file string
	c := &cobra.Command{
		Use: "reference", Short: "Tell which reference material has expired, or ends soon", Args: cobra.NoArgs,
		Long: `List the endorsements and reference values in the store whose time is over, or is
over within a week: evidence that needs them is refused, or will be. A server that
runs says the same in its status, in its log, and by the metric
sallyport_reference_expires_timestamp_seconds.`,
		Example: "  sallyport doctor reference",
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := s.config(file)
			if err != nil {
				return err
			}
			found, err := app.LookAtReferences(c.Context(), cfg)
			if err != nil {
				return err
			}
			return s.print(found, func() error {
				if len(found) == 0 {
					return s.line("nothing has expired, and nothing does within a week")
				}
				for _, w := range found {
					if err := s.line("%s", w); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	c.Flags().StringVar(&file, "config", "", "configuration (default $SALLYPORT_HOME/sallyport.yaml)")
	return c
}
