package plugin

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	akms "github.com/sallyport-project/sallyport/api/agentkms/plugin/v1"
	kbsplugin "github.com/sallyport-project/sallyport/api/kbs/plugin/v1"
	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	own "github.com/sallyport-project/sallyport/api/sallyport/plugin/v1"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// instance is one running process of one package, with its connection.
type instance struct {
	m         manifest.Manifest
	run       *program
	proc      *process
	client    *goplugin.Client
	conn      *grpc.ClientConn
	dir       string
	free      func() // gives the image back
	calls     *stream
	closes    context.CancelFunc // ends the services
	over      chan struct{}
	failed    sync.Once
	once      sync.Once
	announced *Announced // nil if it says nothing; not changed after the start
}

var _ worker = (*instance)(nil)

// gracePeriod is how long a process has to end by itself.
const gracePeriod = 2 * time.Second

// window is what a plugin may send ahead of us. A fixed one also ends the pings
// by which gRPC measures a network that is not there.
const window = 1 << 20

// launch starts a package from its verified image. It returns only when the
// plugin has answered who it is; every failure leaves nothing behind.
func (h *Host) launch(ctx context.Context, e Entry) (*instance, error) {
	return h.launchAs(ctx, e, beginning{handshake: handshake(e.Manifest), introduce: func(ctx context.Context, i *instance) error {
		return i.introduce(ctx, h.cfg.Settings)
	}})
}

// beginning is how a process is met.
type beginning struct {
	handshake goplugin.HandshakeConfig
	made      func(*process) // learns of the process, also where it does not become an instance; may be nil
	introduce func(context.Context, *instance) error
}

// connect starts the process and waits for its channel.
func (i *instance) connect() error {
	protocol, err := i.client.Client()
	if err != nil {
		if fault.Is(i.proc.failure, fault.Denied) {
			return i.proc.failure
		}
		return &reasoned{fault.Unavailablef("plugin %s did not start", i.m.Name).Because(err), ReasonStart}
	}
	g, ok := protocol.(*goplugin.GRPCClient)
	if !ok {
		return refuse(ReasonIncompatible, "plugin %s does not speak gRPC", i.m.Name)
	}
	i.conn = g.Conn
	return nil
}

// launchAs is launch with another beginning.
func (h *Host) launchAs(ctx context.Context, e Entry, how beginning) (_ *instance, err error) {
	m := e.Manifest
	img, free, err := h.images.use(e, h.store)
	if err != nil {
		return nil, err
	}
	i := &instance{m: m, free: free, over: make(chan struct{})}
	defer func() {
		if err != nil {
			i.stop(false)
		}
	}()
	if i.dir, err = os.MkdirTemp(h.runDir, "p"); err != nil {
		return nil, fault.Wrap(err, "make private folder")
	}
	if i.run, err = h.program(ctx, e, img, i.dir); err != nil {
		return nil, err
	}
	private := privateChannel && m.Contract != manifest.ContractAgentKMS
	i.proc = h.process(i, private)
	if how.made != nil {
		how.made(i.proc)
	}
	config := h.clientConfig(i, private, how.handshake)
	i.proc.plain = func() { config.TLSConfig = nil }
	i.client = goplugin.NewClient(config)
	ctx, cancel := context.WithTimeout(ctx, h.cfg.StartTimeout)
	defer cancel()
	// The library waits for the process and for its first answers without a
	// context; ending the process ends the wait.
	defer context.AfterFunc(ctx, func() { _ = i.proc.Kill(ctx) })()
	if err := i.connect(); err != nil {
		return nil, err
	}
	if err := i.run.unchanged(); err != nil { // before it learns anything
		return nil, err
	}
	if err := how.introduce(ctx, i); err != nil {
		return nil, err
	}
	h.announce(ctx, i)
	if err := h.serveServices(i); err != nil {
		return nil, err
	}
	i.calls = newStream(own.NewPluginClient(i.conn), i.fail)
	go func() {
		<-i.proc.exited
		i.fail()
	}()
	if err := i.startExtension(ctx); err != nil {
		return nil, err
	}
	return i, nil
}

// process makes the process of an instance, which is not started yet.
func (h *Host) process(i *instance, private bool) *process {
	exited := make(chan struct{})
	stop := &brake{exited: exited}
	return &process{
		name: i.m.Name, run: i.run, spawn: h.spawn, local: private, exited: exited,
		stderr: newOutput(h.cfg.Log, i.m.Name, "stderr", h.cfg.Now, stop), brake: stop,
		sandbox: h.cfg.Sandbox,
		plan: SandboxPlan{
			Plugin: i.m.Name, Capabilities: i.m.Capabilities, Tree: i.run.tree, Loopback: i.m.Contract == manifest.ContractAgentKMS,
		},
	}
}

// handshake is that of a package's contract.
func handshake(m manifest.Manifest) goplugin.HandshakeConfig {
	if m.Contract == manifest.ContractAgentKMS {
		return goplugin.HandshakeConfig{
			ProtocolVersion: akms.ProtocolVersion, MagicCookieKey: akms.CookieKey, MagicCookieValue: akms.CookieValue,
		}
	}
	if m.Contract == manifest.ContractKBS {
		return goplugin.HandshakeConfig{
			ProtocolVersion: kbsplugin.ProtocolVersion, MagicCookieKey: kbsplugin.CookieKey, MagicCookieValue: kbsplugin.CookieValue,
		}
	}
	return goplugin.HandshakeConfig{
		ProtocolVersion: own.ProtocolVersion, MagicCookieKey: own.CookieKey, MagicCookieValue: own.CookieValue,
	}
}

// stranger is the handshake of somebody who is no host.
func stranger(m manifest.Manifest) goplugin.HandshakeConfig {
	h := handshake(m)
	h.MagicCookieKey, h.MagicCookieValue = "NO_COOKIE", "none"
	return h
}

func (h *Host) clientConfig(i *instance, private bool, hand goplugin.HandshakeConfig) *goplugin.ClientConfig {
	stdout := newOutput(h.cfg.Log, i.m.Name, "stdout", h.cfg.Now, i.proc.brake)
	return &goplugin.ClientConfig{
		HandshakeConfig:  hand,
		Plugins:          goplugin.PluginSet{},
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		AutoMTLS:         !private,
		SkipHostEnv:      true,
		StartTimeout:     h.cfg.StartTimeout,
		UnixSocketConfig: &goplugin.UnixSocketConfig{TempDir: i.dir},
		Logger:           quiet{log: h.cfg.Log, name: i.m.Name},
		SyncStdout:       stdout,
		SyncStderr:       i.proc.stderr,
		GRPCDialOptions: []grpc.DialOption{
			grpc.WithContextDialer(i.proc.dial),
			grpc.WithDefaultCallOptions(
				grpc.MaxCallRecvMsgSize(h.cfg.MaxMessage), grpc.MaxCallSendMsgSize(h.cfg.MaxMessage),
				grpc.ForceCodecV2(newCodec())),
			grpc.WithDisableRetry(), // repeating is ours; see call
			grpc.WithDisableServiceConfig(),
			grpc.WithIdleTimeout(0),
			grpc.WithMaxHeaderListSize(maxHeaders),
			grpc.WithStreamInterceptor(withoutBroker),
			grpc.WithInitialWindowSize(window), grpc.WithInitialConnWindowSize(window),
		},
		RunnerFunc: func(_ hclog.Logger, cmd *exec.Cmd, dir string) (runner.Runner, error) {
			i.proc.socket, i.proc.plan.SocketDir = dir, dir
			i.proc.prepare(cmd.Env)
			return i.proc, nil
		},
	}
}

// maxHeaders bounds the headers of an answer, and with them the text of a status.
const maxHeaders = 64 << 10

// withoutBroker keeps the library's broker from being opened. Nothing of ours uses
// it, and what a plugin sends through it is kept in memory without a bound.
func withoutBroker(ctx context.Context, d *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	if strings.HasPrefix(method, "/plugin.GRPCBroker/") {
		return nil, status.Error(codes.Unimplemented, "the host has no broker")
	}
	return open(ctx, d, conn, method, opts...)
}

// introduce compares what the plugin says of itself with its manifest: the
// manifest is what was signed and recorded.
func (i *instance) introduce(ctx context.Context, settings func(context.Context, string) ([]byte, error)) error {
	switch i.m.Contract {
	case manifest.ContractAgentKMS:
		return i.kinds(ctx)
	case manifest.ContractKBS:
		return i.answers(ctx)
	}
	client := own.NewPluginClient(i.conn)
	info, err := client.Info(ctx, &own.InfoRequest{})
	if err != nil {
		return &reasoned{fault.Unavailablef("plugin %s does not say who it is", i.m.Name).Because(err), ReasonStart}
	}
	if info.GetName() != i.m.Name || info.GetVersion() != i.m.Version || !same(info.GetKinds(), i.m.Kinds) ||
		!same(info.GetRoles(), i.m.RolesFor(manifest.ForServer)) {
		return refuse(ReasonIncompatible, "plugin %s says of itself %s %s, as %s for %s, which is not what its manifest says",
			i.m.Name, clip(info.GetName(), 64), clip(info.GetVersion(), 64), clip(joined(info.GetRoles()), 200), clip(joined(info.GetKinds()), 200))
	}
	if settings == nil {
		return nil
	}
	config, err := settings(ctx, i.m.Name)
	if err != nil {
		return &reasoned{fault.Unavailablef("the configuration of plugin %s cannot be read", i.m.Name).Because(err), ReasonStart}
	}
	if len(config) == 0 {
		return nil
	}
	defer clear(config)
	answer, err := client.Configure(ctx, &own.ConfigureRequest{Config: config})
	if err != nil {
		return &reasoned{fault.Unavailablef("plugin %s could not be configured", i.m.Name).Because(err), ReasonStart}
	}
	if answer.GetError() != "" {
		return refuse(ReasonIncompatible, "plugin %s refuses its configuration", i.m.Name)
	}
	return nil
}

// kinds asks every declared service of agentkms.plugin.v1 for its kind.
func (i *instance) kinds(ctx context.Context) error {
	for _, role := range i.m.Roles {
		kind, err := i.kind(ctx, role)
		if err != nil {
			return &reasoned{fault.Unavailablef("plugin %s does not answer as %s", i.m.Name, role).Because(err), ReasonStart}
		}
		if kind != i.m.Kinds[0] {
			return refuse(ReasonIncompatible, "plugin %s serves kind %s as %s, which is not what its manifest says", i.m.Name, clip(kind, 64), role)
		}
	}
	return nil
}

func (i *instance) kind(ctx context.Context, role string) (string, error) {
	var r *akms.KindResponse
	var err error
	switch q := (&akms.KindRequest{}); role {
	case manifest.RoleValidator:
		r, err = akms.NewScopeValidatorServiceClient(i.conn).Kind(ctx, q)
	case manifest.RoleAnalyzer:
		r, err = akms.NewScopeAnalyzerServiceClient(i.conn).Kind(ctx, q)
	case manifest.RoleSerializer:
		r, err = akms.NewScopeSerializerServiceClient(i.conn).Kind(ctx, q)
	default:
		r, err = akms.NewCredentialVenderServiceClient(i.conn).Kind(ctx, q)
	}
	return r.GetKind(), err
}

// reachable reports whether a call can be sent at all. While the connection is
// being made anew, the process is gone or about to be.
func (i *instance) reachable() bool {
	s := i.conn.GetState()
	return s == connectivity.Ready || s == connectivity.Idle
}

// done is closed when the process has ended, or its stream of calls has: it gets
// no further call then.
func (i *instance) done() <-chan struct{} { return i.over }

// fail takes the process out of service.
func (i *instance) fail() { i.failed.Do(func() { close(i.over) }) }

// check asks grpc.health; a plugin without that service is asked who it is
// instead, and is not punished for what its contract does not demand.
func (i *instance) check(ctx context.Context) error {
	if err := i.run.unchanged(); err != nil {
		return err
	}
	if i.m.Contract == manifest.ContractKBS {
		return i.healthy(ctx)
	}
	r, err := grpc_health_v1.NewHealthClient(i.conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: goplugin.GRPCServiceName})
	switch status.Code(err) {
	case codes.OK:
		if r.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
			return errors.New("the health service says that it does not serve")
		}
		return nil
	case codes.Unimplemented, codes.NotFound:
		if i.m.Contract == manifest.ContractAgentKMS {
			_, err = i.kind(ctx, i.m.Roles[0])
			return err
		}
		_, err = own.NewPluginClient(i.conn).Info(ctx, &own.InfoRequest{})
		return err
	default:
		if lost(ctx, err) {
			settled(ctx, i) // one that ends is no one that hangs
		}
		return err
	}
}

// stop ends the process and returns when nothing is left: no process, no
// connection, no folder, no image in use.
func (i *instance) stop(gently bool) {
	i.once.Do(func() {
		if gently {
			i.stopExtension()
		}
		if i.closes != nil {
			i.closes()
		}
		if i.calls != nil {
			i.calls.close()
		}
		if i.client != nil {
			i.end(gently)
		}
		if i.run != nil {
			i.run.close()
		}
		if i.dir != "" {
			_ = os.RemoveAll(i.dir)
		}
		i.free()
	})
}

func (i *instance) end(gently bool) {
	started := i.proc.pid() != 0
	if !gently {
		_ = i.proc.Kill(context.Background())
	}
	ask := time.AfterFunc(gracePeriod/8, func() { i.proc.signal(askToEnd) })
	kill := time.AfterFunc(gracePeriod, func() { _ = i.proc.Kill(context.Background()) })
	i.client.Kill()
	_, _ = ask.Stop(), kill.Stop()
	_ = i.proc.Kill(context.Background())
	if started {
		<-i.proc.exited
		i.proc.pipes.Wait()
	}
	if i.conn != nil {
		_ = i.conn.Close()
	}
}

// unimplemented reports that a plugin does not have an RPC.
func unimplemented(err error) bool { return status.Code(err) == codes.Unimplemented }

// same reports whether two lists have the same entries, in whatever order.
func same(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

func joined(list []string) string {
	out := ""
	for n, s := range list {
		if n > 0 {
			out += ", "
		}
		out += s
	}
	return out
}
