// Package plugin is all that the author of a Sallyport plugin imports.
//
// A plugin is a main package that calls [Serve] with what it offers:
//
//	func main() {
//		about := plugin.About{Name: "greeter", Version: "1.0.0", Kinds: []string{"greeting"}}
//		plugin.Serve(about, plugin.Vender{
//			Issue: func(ctx context.Context, r plugin.Request) (plugin.Issued, error) {
//				return plugin.Issued{Scope: r.Scope, Value: []byte("hello")}, nil
//			},
//		})
//	}
//
// One program may serve several roles: [Vender], [Revoker], [Notifier],
// [Verifier], [Extension]. What the host does for a plugin that its operator has allowed it is
// reached through [HostFrom].
//
// Functions are called concurrently. Their context ends with the host's deadline
// or when the host no longer waits. What they write to standard error appears in
// the host's log with the plugin's name; a panic is a failed call, not the end
// of the process. The environment is empty: configuration comes through
// About.Configure.
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

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	own "github.com/sallyport-project/sallyport/api/sallyport/plugin/v1"
)

// About says who a plugin is. What it says must be what the manifest says: the
// host compares them at every start.
type About struct {
	Name    string
	Version string
	Kinds   []string // the credential kinds of Vender and Revoker
	// Configure takes the configuration, a JSON object, once and before any other
	// call. Optional.
	Configure func(ctx context.Context, config []byte) error
}

// Role is one thing that a plugin does: a [Vender], [Revoker], [Notifier],
// [Verifier] or [Extension].
type Role interface {
	// role adds itself to a server, which has none of its kind yet.
	role(s *server) error
}

// Serve runs the plugin until the host ends it. It does not return. A plugin that
// cannot work, or a start without a host, ends the process with a message.
//
// Go code of the plugin runs on one processor at a time, which makes short calls
// a fifth cheaper. A plugin whose calls compute for milliseconds calls
// [runtime.GOMAXPROCS] in Configure or in its first call.
func Serve(about About, roles ...Role) {
	s, err := newServer(about, roles...)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	serve(&goplugin.ServeConfig{
		HandshakeConfig: goplugin.HandshakeConfig{
			ProtocolVersion: own.ProtocolVersion, MagicCookieKey: own.CookieKey, MagicCookieValue: own.CookieValue,
		},
		Plugins:    goplugin.PluginSet{own.SetName: registrar{register: s.register}},
		GRPCServer: s.grpc,
		Logger:     hclog.New(&hclog.LoggerOptions{Level: hclog.Error, Output: os.Stderr}),
	})
}

// ballast is memory that nobody touches, so that it takes address space only. The
// collector runs whenever the heap has doubled; that of a plugin is so small
// that without it this is hundreds of times a second under load.
//
// An idle plugin never collects: the first run alone takes half a megabyte, so that
// there is no ballast before it, and in its place a first run at 8 MiB.
const (
	ballast  = 8 << 20
	firstRun = 200 // percent of 4 MiB, where Go's own is
)

// calm sets the collector's pace. What it returns must be kept.
func calm() any {
	debug.SetGCPercent(firstRun)
	held := make(chan []byte, 1)
	runtime.AddCleanup(new([32]byte), func(held chan []byte) {
		held <- make([]byte, ballast)
		debug.SetGCPercent(100)
	}, held)
	return held
}

// serve runs the plugin's process until the host ends it. A call is a few hops
// between goroutines that compute for microseconds: on one processor they follow
// each other, on several each hop wakes another one up.
func serve(c *goplugin.ServeConfig) {
	runtime.GOMAXPROCS(1)
	held := calm()
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
		grpc.ForceServerCodecV2(own.NewCodec()),
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
