package kbs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	pluginv1 "github.com/sallyport-project/sallyport/api/kbs/plugin/v1"
)

// DefaultAddress is where a server listens that was given no other.
const DefaultAddress = "127.0.0.1:50051"

// grace is how long calls in flight have to finish when the server ends.
const grace = 5 * time.Second

// Server serves one plugin. Its With methods change it and return it, so that
// they can be chained; use them before Serve.
type Server struct {
	handler Handler
	address string
	tls     *TLS
	health  bool
	log     *slog.Logger
	context *verifier // nil for none
}

// NewServer makes a server for a plugin: at [DefaultAddress], without TLS, with
// the services grpc.health.v1 and reflection (v1 and v1alpha).
func NewServer(h Handler) *Server {
	return &Server{handler: h, address: DefaultAddress, health: true, log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
}

// WithAddress sets host:port to listen at.
func (s *Server) WithAddress(address string) *Server {
	s.address = address
	return s
}

// WithTLS serves TLS; see [ServerTLS].
func (s *Server) WithTLS(t TLS) *Server {
	s.tls = &t
	return s
}

// WithoutHealth leaves the health service out.
func (s *Server) WithoutHealth() *Server {
	s.health = false
	return s
}

// WithContext demands that the broker says, signed, who has sent each request:
// Handle is called only with a [Context] that [FromContext] gives. name is that
// under which the broker knows the plugin, the first segment of its paths; keys are
// the broker's, and may be nil for a plugin that only ever runs as a package of
// Sallyport, over the private channel of its host.
//
// Trustee says nothing of callers, and is refused.
func (s *Server) WithContext(name string, keys Keys) *Server {
	s.context = &verifier{audience: name, source: keys, now: time.Now, seen: map[string]bool{}}
	return s
}

// WithLogger sets where the server logs; standard error otherwise.
func (s *Server) WithLogger(l *slog.Logger) *Server {
	s.log = l
	return s
}

// TLS is what a server shows and demands. Make one with [ServerTLS].
type TLS struct{ cert, key, clientCA string }

// ServerTLS names the PEM files of the server's certificate, with its chain, and
// of its key. The certificate must name the host by which brokers call.
func ServerTLS(cert, key string) TLS { return TLS{cert: cert, key: key} }

// WithClientCA also demands a client certificate of one of these authorities
// (PEM). Trustee shows none; Sallyport shows one if its configuration has it.
func (t TLS) WithClientCA(file string) TLS {
	t.clientCA = file
	return t
}

func (t TLS) config() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(t.cert, t.key)
	if err != nil {
		return nil, fmt.Errorf("read certificate and key: %w", err)
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}
	if t.clientCA == "" {
		return c, nil
	}
	text, err := os.ReadFile(t.clientCA)
	if err != nil {
		return nil, fmt.Errorf("read client authorities: %w", err)
	}
	c.ClientCAs, c.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
	if !c.ClientCAs.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s has no certificate", t.clientCA)
	}
	return c, nil
}

// Serve serves until ctx ends or the process gets SIGTERM or SIGINT, and then
// gives calls in flight five seconds. It returns nil after such an end.
//
// In a process that Sallyport has started it serves that host and nobody else,
// over the private channel that the two share: address, TLS and health do not
// count then, the host ends the process, and Serve does not return.
func (s *Server) Serve(ctx context.Context) error {
	if s.handler == nil {
		return errors.New("a server needs a handler")
	}
	if os.Getenv(pluginv1.CookieKey) == pluginv1.CookieValue {
		s.serveHost()
	}
	var options []grpc.ServerOption
	if s.tls == nil {
		s.log.WarnContext(ctx, "the plugin serves without TLS: use it on this machine only, for development", slog.String("address", s.address))
	} else {
		c, err := s.tls.config()
		if err != nil {
			return err
		}
		options = append(options, grpc.Creds(credentials.NewTLS(c)))
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.address)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	return s.serve(ctx, listener, options...)
}

// Register adds the plugin's service to a server, for who serves it otherwise: the
// tests of sdk/plugintest.
func (s *Server) Register(g grpc.ServiceRegistrar) {
	pluginv1.RegisterKbsPluginServer(g, service{handler: s.handler, log: s.log, context: s.context})
}

// serve serves one listener.
func (s *Server) serve(ctx context.Context, listener net.Listener, options ...grpc.ServerOption) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, os.Interrupt)
	defer stop()
	g := newGRPC(s.log, options)
	s.Register(g)
	state := health.NewServer()
	if s.health {
		state.SetServingStatus(pluginv1.Service, grpc_health_v1.HealthCheckResponse_SERVING)
		grpc_health_v1.RegisterHealthServer(g, state)
	}
	reflection.Register(g)
	ended := make(chan error, 1)
	go func() { ended <- g.Serve(listener) }()
	s.log.InfoContext(ctx, "the plugin serves", slog.String("address", listener.Addr().String()))
	select {
	case err := <-ended:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	state.Shutdown() // says NOT_SERVING, before the connections are told to go
	late := time.AfterFunc(grace, g.Stop)
	defer late.Stop()
	g.GracefulStop()
	if err := <-ended; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}
