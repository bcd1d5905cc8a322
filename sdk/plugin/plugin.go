// Package plugin is all that the author of a Sallyport plugin imports.
//
// A plugin is a main package that calls [Serve] with what it offers:
//
//	func main() {
//		plugin.Serve(plugin.Vender{
//			Name: "greeter", Version: "1.0.0", Kinds: []string{"greeting"},
//			Issue: func(ctx context.Context, r plugin.Request) (plugin.Issued, error) {
//				return plugin.Issued{Scope: r.Scope, Value: []byte("hello")}, nil
//			},
//		})
//	}
//
// Functions are called concurrently. Their context ends with the host's deadline
// or when the host no longer waits. What they write to standard error appears in
// the host's log with the plugin's name; a panic is a failed call, not the end
// of the process. The environment is empty: configuration comes through
// Vender.Configure.
//
// A plugin for AgentKMS, or for Sallyport by agentkms.plugin.v1, calls
// [ServeAgentKMS] instead. docs/plugins/writing.md is the ten-minute start.
package plugin

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	own "github.com/sallyport-project/sallyport/api/sallyport/plugin/v1"
)

// Scope is what a credential may do. Params holds JSON values: string, float64,
// bool, nil, []any, map[string]any; 64-bit integers are decimal strings.
type Scope struct {
	Kind   string
	Params map[string]any
	TTL    time.Duration
}

// Bounds is the widest scope that policy allows. A parameter that MaxParams does
// not name is not restricted by policy.
type Bounds struct {
	Kind      string
	MaxParams map[string]any
	MaxTTL    time.Duration
}

// Request asks for a credential: narrow Scope to Bounds, or refuse. Parameters
// that the host itself adds have been taken out of Scope into Host, without the
// prefix "host.".
type Request struct {
	Scope  Scope
	Bounds Bounds
	Host   map[string]string
}

// Issued is a credential.
type Issued struct {
	// Scope is what was granted. The host refuses it unless it lies within the
	// request and the bounds; start from the request's and narrow it.
	Scope     Scope
	Value     []byte
	ExpiresAt time.Time // zero if not known
	Handle    string    // what a revocation needs; not secret
	Anomalies []Anomaly
}

// Anomaly is something unusual about a scope. It is recorded and blocks nothing.
type Anomaly struct {
	Level   Level
	Code    string
	Message string
}

// Level grades an anomaly.
type Level int32

// The levels.
const (
	Info  Level = 1
	Warn  Level = 2
	Alert Level = 3
)

// Vender issues credentials by sallyport.plugin.v1: one call does all stages.
type Vender struct {
	Name    string   // as in the manifest
	Version string   // as in the manifest
	Kinds   []string // as in the manifest
	// Issue validates, narrows and makes a credential. Required. Return
	// [Invalidf] or [Deniedf] to refuse with a reason that the caller may read;
	// any other error is logged and reaches the caller without its text.
	Issue func(ctx context.Context, r Request) (Issued, error)
	// Vet checks a scope before policy sees it. Optional. It is not called for
	// kinds whose parameters the manifest describes: the host checks those.
	Vet func(ctx context.Context, s Scope) error
	// Configure takes the configuration, a JSON object, once and before any other
	// call. Optional.
	Configure func(ctx context.Context, config []byte) error
}

// Serve runs the plugin until the host ends it. It does not return. A Vender
// that cannot work, or a start without a host, ends the process with a message.
//
// Go code of the plugin runs on one processor at a time, which makes short calls
// a fifth cheaper. A plugin whose calls compute for milliseconds calls
// [runtime.GOMAXPROCS] in Configure or in its first call.
func Serve(v Vender) {
	if v.Issue == nil || v.Name == "" || v.Version == "" || len(v.Kinds) == 0 {
		fmt.Fprintln(os.Stderr, "a plugin needs Name, Version, Kinds and Issue")
		os.Exit(2)
	}
	serve(&goplugin.ServeConfig{
		HandshakeConfig: goplugin.HandshakeConfig{
			ProtocolVersion: own.ProtocolVersion, MagicCookieKey: own.CookieKey, MagicCookieValue: own.CookieValue,
		},
		Plugins:    goplugin.PluginSet{own.SetName: registrar{register: newServer(v).register}},
		GRPCServer: newGRPC,
		Logger:     hclog.New(&hclog.LoggerOptions{Level: hclog.Error, Output: os.Stderr}),
	})
}

// ballast is memory that nobody touches, so that it takes address space only. The
// collector runs whenever the heap has doubled; that of a plugin is so small
// that without it this is hundreds of times a second under load.
const ballast = 8 << 20

// serve runs the plugin's process until the host ends it. A call is a few hops
// between goroutines that compute for microseconds: on one processor they follow
// each other, on several each hop wakes another one up.
func serve(c *goplugin.ServeConfig) {
	runtime.GOMAXPROCS(1)
	held := make([]byte, ballast)
	goplugin.Serve(c)
	runtime.KeepAlive(held)
	os.Exit(0)
}

// streamWorkers is how many goroutines wait for unary calls: one that is new for
// each call spends much of it on growing its stack.
const streamWorkers = 64

// window is what the host may send ahead of us. A fixed one also ends the pings by
// which gRPC measures a network that is not there.
const window = 1 << 20

// newGRPC makes the server with the contract's message limit.
func newGRPC(opts []grpc.ServerOption) *grpc.Server {
	return grpc.NewServer(append(opts,
		grpc.MaxRecvMsgSize(own.MaxMessageBytes), grpc.MaxSendMsgSize(own.MaxMessageBytes),
		grpc.InitialWindowSize(window), grpc.InitialConnWindowSize(window),
		grpc.NumStreamWorkers(streamWorkers),
		grpc.ChainUnaryInterceptor(contain))...)
}

// contain makes a failed call of a panic.
func contain(ctx context.Context, q any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (r any, err error) {
	defer func() {
		if p := recover(); p != nil {
			logger().ErrorContext(ctx, "call panicked", slog.String("method", info.FullMethod),
				slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
			err = status.Error(codes.Internal, "the plugin failed")
		}
	}()
	return next(ctx, q)
}

// registrar adds services to go-plugin's server. The client side is not ours.
type registrar struct {
	goplugin.NetRPCUnsupportedPlugin
	register func(*grpc.Server)
}

var _ goplugin.GRPCPlugin = registrar{}

// GRPCServer adds the services.
func (r registrar) GRPCServer(_ *goplugin.GRPCBroker, s *grpc.Server) error {
	r.register(s)
	return nil
}

// GRPCClient is for hosts and does not exist here.
func (r registrar) GRPCClient(context.Context, *goplugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, fmt.Errorf("this package serves plugins, it does not call them")
}
