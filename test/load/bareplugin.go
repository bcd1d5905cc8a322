package main

import (
	"context"
	"fmt"
	"os/exec"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/structpb"

	akms "github.com/sallyport-project/sallyport/api/agentkms/plugin/v1"
	own "github.com/sallyport-project/sallyport/api/sallyport/plugin/v1"
)

// barePlugin is the floor under the plugin host: the same executable, run by
// go-plugin alone, with neither signature nor digest nor supervision.
type barePlugin struct {
	client *goplugin.Client
	conn   *grpc.ClientConn
}

// bareContract says how to greet a plugin, and with mutual TLS or without.
type bareContract struct {
	handshake goplugin.HandshakeConfig
	autoMTLS  bool
}

var (
	bareOwn = bareContract{goplugin.HandshakeConfig{
		ProtocolVersion: own.ProtocolVersion, MagicCookieKey: own.CookieKey, MagicCookieValue: own.CookieValue,
	}, false}
	bareAgentKMS = bareContract{goplugin.HandshakeConfig{
		ProtocolVersion: akms.ProtocolVersion, MagicCookieKey: akms.CookieKey, MagicCookieValue: akms.CookieValue,
	}, true}
)

// plain is the contract without mutual TLS.
func (c bareContract) plain() bareContract { c.autoMTLS = false; return c }

// run starts a plugin and returns when it has its connection.
func (c bareContract) run(binary string) (*barePlugin, error) {
	client := goplugin.NewClient(&goplugin.ClientConfig{
		HandshakeConfig: c.handshake, AutoMTLS: c.autoMTLS, Cmd: exec.Command(binary), SkipHostEnv: true, //nolint:noctx // ours, ended by stop
		Plugins: goplugin.PluginSet{}, AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC}, Logger: hclog.NewNullLogger(),
	})
	protocol, err := client.Client()
	if err != nil {
		client.Kill()
		return nil, fmt.Errorf("start bare plugin: %w", err)
	}
	g, ok := protocol.(*goplugin.GRPCClient)
	if !ok {
		client.Kill()
		return nil, fmt.Errorf("the bare plugin does not speak gRPC")
	}
	return &barePlugin{client, g.Conn}, nil
}

func (p *barePlugin) stop() { p.client.Kill() }

// validate is one unary call with a message that is ready.
func (p *barePlugin) validate() (call, error) {
	params, err := structpb.NewStruct(map[string]any{"places": []any{"north"}})
	if err != nil {
		return nil, fmt.Errorf("make question: %w", err)
	}
	client := akms.NewScopeValidatorServiceClient(p.conn)
	q := &akms.ValidateRequest{Scope: &akms.Scope{Kind: "load-token", Params: params, TtlSeconds: 300}}
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second) // as every user of it must
		defer cancel()
		a, err := client.Validate(ctx, q)
		if err == nil && a.GetError() != "" {
			err = fmt.Errorf("refused: %s", a.GetError())
		}
		return err
	}, nil
}

// greet asks a plugin for its first answer.
func (p *barePlugin) greet(ctx context.Context, c bareContract) (err error) {
	if c.handshake == bareOwn.handshake {
		_, err = own.NewPluginClient(p.conn).Info(ctx, &own.InfoRequest{})
	} else {
		_, err = akms.NewScopeValidatorServiceClient(p.conn).Kind(ctx, &akms.KindRequest{})
	}
	return err //nolint:wrapcheck // counted by its text
}
