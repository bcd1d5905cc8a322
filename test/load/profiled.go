package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/sallyport-project/sallyport/internal/app"
)

// serveCommand makes this program the server, with a CPU profile: the built
// server has no switch for one. It is for finding where time goes, never for
// figures.
const serveCommand = "serve"

// serveHere takes the arguments of `sallyport serve`, and the profile's file after
// them, which may be empty.
func serveHere(args []string, o app.Options) error {
	if len(args) != 5 || args[0] != "--config" || args[2] != "--ready-file" {
		return errors.New("use: serve --config FILE --ready-file FILE PROFILE")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	config, err := app.Load(args[1])
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	a, err := app.New(ctx, config, o)
	if err != nil {
		return fmt.Errorf("open server: %w", err)
	}
	debug.SetGCPercent(400) // as `sallyport serve` does
	end, err := profileInto(args[4])
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	select {
	case err := <-ended:
		return errors.Join(err, end())
	case <-a.Ready():
	}
	text, err := json.Marshal(a.Addresses())
	if err == nil {
		err = os.WriteFile(args[3]+".new", text, 0o600) //nolint:gosec // the user names it
	}
	if err == nil {
		err = os.Rename(args[3]+".new", args[3]) //nolint:gosec // the user names it
	}
	if err != nil {
		stop()
	}
	return errors.Join(err, <-ended, end())
}
