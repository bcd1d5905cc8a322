package plugin

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"

	"google.golang.org/grpc"

	own "github.com/sallyport-project/sallyport/api/sallyport/plugin/v1"
)

// server answers sallyport.plugin.v1 for the roles of a plugin.
type server struct {
	own.UnimplementedPluginServer
	about     About
	roles     []string // by the manifest's names
	vender    *Vender
	revoker   *Revoker
	notifier  *Notifier
	verifier  *Verifier
	extension *Extension
	host      *Host
	serving   atomic.Bool // a stream of services: there is one at a time
}

func errTwice(role string) error { return fmt.Errorf("a plugin has one %s", role) }

func newServer(about About, roles ...Role) (*server, error) {
	s := &server{about: about, host: newHost()}
	if about.Name == "" || about.Version == "" || len(roles) == 0 {
		return nil, fmt.Errorf("a plugin needs Name, Version and at least one role")
	}
	for _, r := range roles {
		if err := r.role(s); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// NewServer is what [Serve] serves, for who calls it otherwise than a host does: the
// tests of sdk/plugintest.
func NewServer(about About, roles ...Role) (*grpc.Server, error) {
	s, err := newServer(about, roles...)
	if err != nil {
		return nil, err
	}
	g := s.grpc(nil)
	s.register(g)
	return g, nil
}

func (s *server) register(g *grpc.Server) {
	own.RegisterPluginServer(g, s)
	if s.revoker != nil {
		own.RegisterRevokerServer(g, revokerServer{r: s.revoker})
	}
	if s.notifier != nil {
		own.RegisterNotifierServer(g, notifierServer{n: s.notifier})
	}
	if s.verifier != nil {
		own.RegisterVerifierServer(g, verifierServer{v: s.verifier})
	}
	if s.extension != nil {
		own.RegisterExtensionServer(g, extensionServer{e: s.extension})
	}
}

// grpc makes the server, whose calls know the host.
func (s *server) grpc(opts []grpc.ServerOption) *grpc.Server {
	return newGRPC(append(opts, grpc.ChainUnaryInterceptor(
		func(ctx context.Context, q any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			return next(context.WithValue(ctx, hostKey{}, s.host), q)
		})))
}

// Info says who the plugin is.
func (s *server) Info(context.Context, *own.InfoRequest) (*own.InfoResponse, error) {
	return &own.InfoResponse{Name: s.about.Name, Version: s.about.Version, Kinds: s.about.Kinds, Roles: s.roles}, nil
}

// Configure hands the configuration on.
func (s *server) Configure(ctx context.Context, q *own.ConfigureRequest) (*own.ConfigureResponse, error) {
	if s.about.Configure == nil {
		return &own.ConfigureResponse{Error: "this plugin takes no configuration"}, nil
	}
	if err := s.about.Configure(ctx, q.GetConfig()); err != nil {
		return &own.ConfigureResponse{Error: refused(ctx, err).GetReason()}, nil
	}
	return &own.ConfigureResponse{}, nil
}

// refused is what the caller may know of an error; what it may not is logged.
func refused(ctx context.Context, err error) *own.Refusal {
	r, known := refusalOf(err)
	if !known {
		logger().ErrorContext(ctx, "call failed", slog.Any("err", err))
	}
	return r
}

// logger writes to what standard error is now: go-plugin replaces it when it
// begins to serve.
func logger() *slog.Logger { return slog.New(slog.NewTextHandler(os.Stderr, nil)) }
