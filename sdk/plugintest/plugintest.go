// Package plugintest runs plugins in tests, without a host and without a process:
// what [plugin.Serve] would serve is called over the same contract in memory, so that
// a test sees what a host would see.
//
//	func TestIssue(t *testing.T) {
//		p := plugintest.Start(t, about, vender)
//		issued, err := p.Issue(t.Context(), plugin.Request{Scope: plugin.Scope{Kind: "greeting", TTL: time.Minute}})
//		...
//	}
//
// There is a method for each role's calls; [Plugin.Host] is a host that remembers what
// the plugin asked of it, with a key-value space and, if a test gives it one
// ([Config.Database]), a database. Errors are those that the plugin gave, as far as
// the contract carries them: [plugin.Denied] and its siblings say which.
//
// [StartAgentKMS] and [StartKBS] do the same for plugins of agentkms.plugin.v1 and
// kbs.plugin.v1. What only a host does, it does not do: comparing a granted scope with
// policy's bounds, checking parameters by the manifest, authorising routes.
// `sallyport plugin conformance` judges the built package.
package plugintest

import (
	"context"
	"database/sql"
	"net"
	"slices"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	own "github.com/sallyport-project/sallyport/api/sallyport/plugin/v1"
	"github.com/sallyport-project/sallyport/sdk/plugin"
)

// Config says what the plugin finds. The zero value is a host that has granted
// every service but the database.
type Config struct {
	// Services are those that are granted, by the manifest's names; nil grants log,
	// kv, events, signals and vend, and with Database the database. An empty list grants
	// none.
	Services []string
	// Database is the plugin's own, with its tables made. Package
	// sdk/plugintest/sqlite opens one. The plugin's statements are run as they are:
	// what a host would refuse (DDL, other schemas) is not refused here.
	Database *sql.DB
	// Settings is the configuration that About.Configure gets; nil is none.
	Settings []byte
	// Vend answers [plugin.Host.Vend]; nil gives what was asked for, with a made-up
	// value.
	Vend func(plugin.Scope) (plugin.Vended, error)
	// Matches is how many grants a reported leak matches.
	Matches int
}

// Plugin is a running plugin. Its methods are safe for concurrent use.
type Plugin struct {
	Host *Host // what it has asked of its host

	conn   *grpc.ClientConn
	stream *calls
}

// Start runs a plugin until the test ends: Info, Configure, the services, and Start
// of an extension, in a host's order. What fails there ends the test.
func Start(t testing.TB, about plugin.About, roles ...plugin.Role) *Plugin {
	t.Helper()
	return Config{}.Start(t, about, roles...)
}

// Start is [Start] with settings.
func (c Config) Start(t testing.TB, about plugin.About, roles ...plugin.Role) *Plugin {
	t.Helper()
	server, err := plugin.NewServer(about, roles...)
	if err != nil {
		t.Fatalf("the plugin cannot serve: %v", err)
	}
	if c.Services == nil {
		c.Services = []string{"log", "kv", "events", "signals", "vend"}
		if c.Database != nil {
			c.Services = append(c.Services, "database")
		}
	}
	p := &Plugin{conn: serve(t, server), Host: newHost(c)}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	if err := p.begin(ctx, c, about); err != nil {
		t.Fatalf("the plugin does not start: %v", err)
	}
	t.Cleanup(func() { _, _ = own.NewExtensionClient(p.conn).Stop(context.Background(), &own.StopRequest{}) })
	return p
}

// begin is what a host does with a process before the first call.
func (p *Plugin) begin(ctx context.Context, c Config, about plugin.About) error {
	client := own.NewPluginClient(p.conn)
	info, err := client.Info(ctx, &own.InfoRequest{})
	if err != nil {
		return err
	}
	if info.GetName() != about.Name || info.GetVersion() != about.Version {
		return plugin.Invalidf("Info says another name or version than About")
	}
	if c.Settings != nil {
		answer, err := client.Configure(ctx, &own.ConfigureRequest{Config: c.Settings})
		if err != nil {
			return err
		}
		if answer.GetError() != "" {
			return plugin.Invalidf("%s", answer.GetError())
		}
	}
	services, err := client.Services(ctx)
	if err != nil {
		return err
	}
	if err := p.Host.open(services); err != nil {
		return err
	}
	frames, err := client.Calls(ctx)
	if err != nil {
		return err
	}
	p.stream = newCalls(frames)
	if !slices.Contains(info.GetRoles(), "extension") {
		return nil
	}
	answer, err := own.NewExtensionClient(p.conn).Start(ctx, &own.StartRequest{})
	if err == nil && answer.GetError() != "" {
		err = plugin.Unavailablef("%s", answer.GetError())
	}
	return err
}

// serve serves in memory until the test ends, and connects.
func serve(t testing.TB, server *grpc.Server) *grpc.ClientConn {
	t.Helper()
	l := bufconn.Listen(1 << 20)
	go func() { _ = server.Serve(l) }() // ends with Stop
	conn, err := grpc.NewClient("passthrough:///plugin", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(own.MaxMessageBytes), grpc.MaxCallSendMsgSize(own.MaxMessageBytes)),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatalf("connect to the plugin: %v", err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		server.Stop()
	})
	return conn
}
