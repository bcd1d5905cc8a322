// Command rogue is a plugin that does wrong what its name says.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"

	own "github.com/sallyport-project/sallyport/api/sallyport/plugin/v1"
	"github.com/sallyport-project/sallyport/sdk/plugin"
)

var name, config = os.Args[0], ""

func main() {
	switch name {
	case "anyone", "stays":
		bare()
	case "parent":
		c := exec.Command("/bin/sleep", "30")
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		_ = c.Start()
	case "liar":
		serve("somebody")
	case "beside-alone":
		plugin.Serve(plugin.About{Name: name, Version: "1.0.0"}, plugin.Notifier{Notify: func(context.Context, plugin.Notification) error { return nil }})
	}
	if strings.HasPrefix(name, "beside-") {
		beside()
	}
	serve(name)
}

func serve(as string) {
	plugin.Serve(plugin.About{
		Name: as, Version: "1.0.0", Kinds: []string{"rogue"},
		Configure: func(_ context.Context, c []byte) error { config = string(c); return nil },
	}, plugin.Vender{Issue: issue})
}

func issue(ctx context.Context, r plugin.Request) (plugin.Issued, error) {
	out := plugin.Issued{Scope: r.Scope, Value: []byte("credential-of-rogue"), ExpiresAt: time.Now().Add(r.Scope.TTL)}
	out.Scope.TTL = min(r.Scope.TTL, r.Bounds.MaxTTL)
	for p, limit := range r.Bounds.MaxParams {
		if r.Scope.Params[p] != limit {
			return out, plugin.Deniedf("policy says something else of %s", p)
		}
	}
	switch name {
	case "widens":
		out.Scope.TTL = r.Scope.TTL
	case "adds":
		out.Scope.Params["admin"] = true
	case "outlives":
		out.ExpiresAt = time.Now().Add(time.Hour + r.Scope.TTL)
	case "talks":
		_, _ = syscall.Write(1, []byte("hello\n"))
	case "logs":
		fmt.Fprintln(os.Stderr, "made", string(out.Value))
	case "babbles":
		fmt.Fprintln(os.Stderr, "configured with", config)
	case "tells":
		if r.Scope.Params["audience"] == nil {
			return out, plugin.Invalidf("no audience, and I know %s", config)
		}
	case "fragile":
		if r.Scope.Kind != "rogue" {
			os.Exit(1)
		}
	case "hangs":
		<-time.After(time.Minute)
	}
	return out, ctx.Err()
}

// bareServer speaks the contract from the proto alone.
type bareServer struct {
	own.UnimplementedPluginServer
}

func (bareServer) Info(context.Context, *own.InfoRequest) (*own.InfoResponse, error) {
	return &own.InfoResponse{Name: name, Version: "1.0.0", Kinds: []string{"rogue"}, Roles: []string{"credential-vender"}}, nil
}

// bare asks for no cookie, and ends when it is killed.
func bare() {
	signal.Ignore(syscall.SIGTERM)
	l, err := net.Listen("unix", filepath.Join(os.Getenv("PLUGIN_UNIX_SOCKET_DIR"), "s"))
	if err != nil {
		os.Exit(1)
	}
	g := grpc.NewServer()
	own.RegisterPluginServer(g, bareServer{})
	fmt.Printf("1|1|unix|%s|grpc\n", l.Addr())
	_ = g.Serve(l)
	os.Exit(0)
}
