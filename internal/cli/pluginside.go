package cli

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// host is where packages are installed, and who decides whom to trust there: a
// server, by its client, or this command line, by its own home.
type host interface {
	truster
	keeper

	Plugins(ctx context.Context) (sallyport.Plugins, error)
	Installations(ctx context.Context) ([]sallyport.Installation, error)
	InstallPlugin(ctx context.Context, pack io.Reader, r sallyport.InstallRequest) (sallyport.InstalledPlugin, error)
	RemovePlugin(ctx context.Context, name string) error
	RollbackPlugin(ctx context.Context, name, version string) (sallyport.InstalledPlugin, error)
}

// truster decides about publishers and lowest versions.
type truster interface {
	Publishers(ctx context.Context) (sallyport.Page[sallyport.Publisher], error)
	TrustPublisher(ctx context.Context, r sallyport.TrustRequest) (sallyport.PublisherKey, error)
	DistrustPublisher(ctx context.Context, keyID string) error
	RetirePublisherKey(ctx context.Context, keyID string) error
	RevokePublisherKey(ctx context.Context, keyID, reason string) error
	SetPublisherThreshold(ctx context.Context, publisher string, threshold int) error
	RotatePublisher(ctx context.Context, statement []byte) (sallyport.PublisherRotation, error)
	PluginFloors(ctx context.Context) (sallyport.Page[sallyport.PluginFloor], error)
	SetPluginFloor(ctx context.Context, name, lowest string, lower bool) (sallyport.PluginFloor, error)
}

// keeper pins repositories, and remembers what was seen of them.
type keeper interface {
	Repositories(ctx context.Context) ([]sallyport.Repository, error)
	AddRepository(ctx context.Context, name, place string, root []byte) (sallyport.Repository, error)
	RemoveRepository(ctx context.Context, name string) error
	DeliverBundle(ctx context.Context, repository string, bundle io.Reader, allowDowngrade bool) (sallyport.Delivery, error)
}

var _ host = (*sallyport.Client)(nil)

// sided gives a command the option that says whose plugins it is about.
func sided(s *shell, c *cobra.Command) *cobra.Command {
	c.Flags().StringVar(&s.side, "for", "", "whose plugins: server (default) or cli, those of this command line")
	_ = c.RegisterFlagCompletionFunc("for", cobra.FixedCompletions([]string{manifest.ForServer, manifest.ForCLI}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

// at runs a command's work where --for says.
func (s *shell) at(ctx context.Context, do func(host) error) error {
	switch s.side {
	case "", manifest.ForServer:
		return s.calling(ctx, func(client *sallyport.Client) error { return do(client) })
	case manifest.ForCLI:
		home, err := s.tools()
		if err != nil {
			return err
		}
		return do(workstation{s, home})
	}
	return fault.Invalidf("--for is %q: use server or cli", s.side)
}

// here is what a command that is named to the user must say besides.
func (s *shell) here() string {
	if s.side == manifest.ForCLI {
		return " --for cli"
	}
	return ""
}

// is reports the kind of an error of either side.
func is(err error, kind fault.Kind) bool { return err != nil && describe(err).Kind == kind.String() }
