package kbs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pluginv1 "github.com/sallyport-project/sallyport/api/kbs/plugin/v1"
)

// service answers the contract for a Handler.
type service struct {
	pluginv1.UnimplementedKbsPluginServer
	handler Handler
	log     *slog.Logger
	context *verifier // nil where callers are not asked about
	private bool      // the other side is the host that has started this process
}

// question is what the three requests have in common.
type question interface {
	GetMethod() string
	GetPath() []string
	GetQuery() map[string]string
	GetBody() []byte
}

func read(q question) *Request {
	return &Request{Method: q.GetMethod(), Path: q.GetPath(), Query: q.GetQuery(), Body: q.GetBody()}
}

type contextKey struct{}

// FromContext is what the broker says of who has sent the request that Handle
// answers; nil unless the server was made [Server.WithContext].
func FromContext(ctx context.Context) *Context {
	who, _ := ctx.Value(contextKey{}).(*Context)
	return who
}

// failed is all that a broker learns of a failure.
func failed() error { return status.Error(codes.Internal, "the plugin failed") }

// fail logs why a call failed.
func (s service) fail(ctx context.Context, call string, err error) error {
	s.log.ErrorContext(ctx, "call failed", slog.String("call", call), slog.Any("err", err))
	return failed()
}

// Handle answers a request.
func (s service) Handle(ctx context.Context, q *pluginv1.PluginRequest) (*pluginv1.PluginResponse, error) {
	asked := read(q)
	if s.context != nil {
		who, err := s.context.check(ctx, asked, s.private)
		if err != nil {
			s.log.WarnContext(ctx, "a request is refused", slog.Any("err", err))
			return nil, status.Error(codes.Unauthenticated, "the plugin is not told who calls")
		}
		ctx = context.WithValue(ctx, contextKey{}, who)
	}
	r, err := s.handler.Handle(ctx, asked)
	if no, ok := errors.AsType[*refusal](err); ok {
		r, err = &Response{Status: no.status, Body: []byte(no.text), ContentType: "text/plain; charset=utf-8"}, nil
	}
	switch {
	case err != nil:
		return nil, s.fail(ctx, "Handle", err)
	case r == nil:
		return nil, s.fail(ctx, "Handle", errors.New("the handler returned neither an answer nor an error"))
	case r.Status != 0 && (r.Status < 100 || r.Status > 599):
		return nil, s.fail(ctx, "Handle", fmt.Errorf("the handler returned status %d", r.Status))
	}
	out := &pluginv1.PluginResponse{Body: r.Body, StatusCode: int32(r.Status), ContentType: r.ContentType} //nolint:gosec // 0 to 599
	if out.GetStatusCode() == 0 {
		out.StatusCode = 200
	}
	if n := proto.Size(out); n > pluginv1.MaxMessageBytes {
		s.log.WarnContext(ctx, "an answer is larger than brokers take, and is not sent", slog.Int("bytes", n))
		return nil, status.Error(codes.ResourceExhausted, "the answer is larger than a broker takes")
	}
	return out, nil
}

// ValidateAuth says whether a request is for administrators.
func (s service) ValidateAuth(ctx context.Context, q *pluginv1.ValidateAuthRequest) (*pluginv1.ValidateAuthResponse, error) {
	yes, err := s.handler.ValidateAuth(ctx, read(q))
	if err != nil {
		return nil, s.fail(ctx, "ValidateAuth", err)
	}
	return &pluginv1.ValidateAuthResponse{RequiresAdminAuth: yes}, nil
}

// NeedsEncryption says whether an answer is sealed.
func (s service) NeedsEncryption(ctx context.Context, q *pluginv1.NeedsEncryptionRequest) (*pluginv1.NeedsEncryptionResponse, error) {
	yes, err := s.handler.NeedsEncryption(ctx, read(q))
	if err != nil {
		return nil, s.fail(ctx, "NeedsEncryption", err)
	}
	return &pluginv1.NeedsEncryptionResponse{RequiresPayloadEncryption: yes}, nil
}

// newGRPC makes a server with the contract's limits, in which a panic is one
// failed call.
func newGRPC(log *slog.Logger, options []grpc.ServerOption) *grpc.Server {
	return grpc.NewServer(append(options,
		grpc.MaxRecvMsgSize(pluginv1.MaxMessageBytes),
		grpc.ChainUnaryInterceptor(func(ctx context.Context, q any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (r any, err error) {
			defer func() {
				if p := recover(); p != nil {
					log.ErrorContext(ctx, "call panicked", slog.String("method", info.FullMethod),
						slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
					err = failed()
				}
			}()
			return next(ctx, q)
		}))...)
}

// serveHost serves the host that has started this process, and does not return.
func (s *Server) serveHost() {
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig: goplugin.HandshakeConfig{
			ProtocolVersion: pluginv1.ProtocolVersion, MagicCookieKey: pluginv1.CookieKey, MagicCookieValue: pluginv1.CookieValue,
		},
		Plugins: goplugin.PluginSet{pluginv1.SetName: registrar{register: func(g *grpc.Server) {
			pluginv1.RegisterKbsPluginServer(g, service{handler: s.handler, log: s.log, context: s.context, private: true})
		}}},
		GRPCServer: func(options []grpc.ServerOption) *grpc.Server { return newGRPC(s.log, options) },
		Logger:     hclog.New(&hclog.LoggerOptions{Level: hclog.Error, Output: os.Stderr}),
	})
	os.Exit(0)
}

// registrar adds the service to go-plugin's server. The client side is not ours.
type registrar struct {
	goplugin.NetRPCUnsupportedPlugin
	register func(*grpc.Server)
}

var _ goplugin.GRPCPlugin = registrar{}

// GRPCServer adds the service.
func (r registrar) GRPCServer(_ *goplugin.GRPCBroker, s *grpc.Server) error {
	r.register(s)
	return nil
}

// GRPCClient is for hosts and does not exist here.
func (r registrar) GRPCClient(context.Context, *goplugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, errors.New("this package serves plugins, it does not call them")
}
