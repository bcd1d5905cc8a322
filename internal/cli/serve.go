package cli

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/sallyport-project/sallyport/internal/app"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// configFile is the configuration's name in the home folder.
const configFile = "sallyport.yaml"

// config reads the configuration at path, or at its usual place.
func (s *shell) config(path string) (app.Config, error) {
	if path == "" {
		home, err := s.home()
		if err != nil {
			return app.Config{}, err
		}
		path = filepath.Join(home, configFile)
	}
	return app.Load(path)
}

func newServe(s *shell) *cobra.Command {
	var config, ready string
	c := &cobra.Command{
		Use: "serve [--config FILE]", Short: "Run the server", Args: cobra.NoArgs,
		Long: `Run the server until it gets an interrupt or SIGTERM. It then refuses new
connections, lets requests in flight end, and exits within ten seconds.

The log goes to standard error. With --ready-file the addresses that were bound
are written to a file as JSON once every listener is open, each under its
listener's name (main, operations, and the names under listen.further): for
scripts, and for port 0.`,
		Example: "  sallyport serve\n  sallyport serve --config /etc/sallyport/sallyport.yaml --ready-file /run/sallyport/ready.json",
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := s.config(config)
			if err != nil {
				return err
			}
			collectSeldom()
			a, err := app.New(c.Context(), cfg, app.Options{Version: s.Version, Output: s.err})
			if err != nil {
				return err
			}
			if ready == "" {
				return a.Run(c.Context())
			}
			return runAndTell(c.Context(), a, ready)
		},
	}
	c.Flags().StringVar(&config, "config", "", "configuration (default $SALLYPORT_HOME/sallyport.yaml)")
	c.Flags().StringVar(&ready, "ready-file", "", "write the bound addresses to this file when ready")
	return c
}

// collectSeldom lets the heap grow to five times of what lives before garbage is
// collected, unless GOGC says otherwise: what lives in a server, or in who verifies
// an export, is some ten MiB, and an eighth of the processor time goes into
// collecting more often (docs/performance.md).
func collectSeldom() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
}

// runAndTell runs a server and writes its addresses once they are bound. If
// they cannot be written it does not go on: whoever asked would wait for ever.
func runAndTell(ctx context.Context, a *app.App, path string) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	select {
	case err := <-ended:
		return err
	case <-a.Ready():
	}
	text, err := json.Marshal(a.Addresses())
	if err == nil {
		err = replace(path, append(text, '\n'), 0o644)
	}
	if err != nil {
		stop(nil)
		return errors.Join(<-ended, fault.Wrap(err, "write ready file"))
	}
	return <-ended
}
