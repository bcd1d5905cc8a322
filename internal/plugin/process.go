package plugin

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-plugin/runner"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// process runs one verified program as go-plugin's runner. It gets the variables
// of the handshake and nothing of our environment, no descriptor but its three
// standard ones, its own process group, and it dies with us.
type process struct {
	name    string
	run     *program
	spawn   *spawner
	socket  string // private folder of its sockets
	local   bool   // only a unix socket in that folder is acceptable
	stderr  *output
	brake   *brake // for all that it writes
	sandbox Sandbox
	plan    SandboxPlan
	plain   func() // tells the library that the channel has no certificates

	cmd       *exec.Cmd
	running   *os.Process  // what runs the plugin; nil before the start
	box       Box          // nil without a sandbox
	said      bytes.Buffer // the handshake line, as the library reads it
	failure   error        // why it did not start, if the library only says that
	out       *io.PipeReader
	exited    chan struct{}
	pipes     sync.WaitGroup
	extra     int64 // bytes on standard output after the first line; read it after pipes
	mu        sync.Mutex
	alive     *os.Process // from start to reaping
	unwanted  bool        // it was killed before that
	address   net.Addr
	waitError error
}

var _ runner.Runner = (*process)(nil)

// prepare takes over the environment that go-plugin made for the handshake.
func (p *process) prepare(env []string) {
	p.cmd = &exec.Cmd{Path: p.run.path, Args: p.run.args, Env: append(env, p.run.env...), Dir: p.socket}
	isolate(p.cmd)
}

// Start runs the process, confined if there is a sandbox.
func (p *process) Start(ctx context.Context) error {
	p.failure = p.begin(ctx)
	return p.failure
}

func (p *process) begin(ctx context.Context) error {
	if err := p.confine(ctx); err != nil {
		return err
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		p.release()
		return fault.Wrap(err, "make pipe")
	}
	errR, errW, err := os.Pipe()
	if err != nil {
		_, _ = outR.Close(), outW.Close()
		p.release()
		return fault.Wrap(err, "make pipe")
	}
	p.cmd.Stdout, p.cmd.Stderr = outW, errW
	p.running, err = p.launch(ctx)
	_, _ = outW.Close(), errW.Close()
	if err != nil {
		_, _ = outR.Close(), errR.Close()
		p.release()
		return err
	}
	p.mu.Lock()
	p.alive = p.running
	if p.unwanted {
		killGroup(p.alive)
	}
	p.mu.Unlock()
	var w *io.PipeWriter
	p.out, w = io.Pipe()
	p.pipes.Add(2)
	go func() {
		defer p.pipes.Done()
		p.extra = firstLine(outR, w, p.brake)
	}()
	go func() {
		defer p.pipes.Done()
		_, _ = io.Copy(p.stderr, errR)
		_ = p.stderr.Close()
	}()
	go p.reap(outR, errR, w)
	return nil
}

// launch returns the process that runs the plugin, confined if there is a sandbox.
func (p *process) launch(ctx context.Context) (*os.Process, error) {
	if err := p.spawn.start(p.cmd); err != nil {
		return nil, fault.Wrap(err, "start plugin process")
	}
	if p.box == nil {
		return p.cmd.Process, nil
	}
	return p.box.Confirm(ctx)
}

// confine lets the sandbox change the command.
func (p *process) confine(ctx context.Context) (err error) {
	if p.sandbox == nil {
		return nil
	}
	p.box, err = p.sandbox.Prepare(ctx, p.plan, p.cmd)
	return err
}

func (p *process) release() {
	if p.box != nil {
		p.box.Release()
	}
}

// tail is how long the last output of an ended process is waited for.
const tail = 200 * time.Millisecond

// reap waits for the end, which nothing but the process itself can delay: a
// grandchild that holds the pipes is killed with the group or loses them.
func (p *process) reap(outR, errR *os.File, w *io.PipeWriter) {
	p.collect()
	close(p.exited)
	soon := time.Now().Add(tail)
	_, _ = outR.SetReadDeadline(soon), errR.SetReadDeadline(soon)
	_ = w.CloseWithError(io.EOF)
	p.pipes.Wait()
	_, _ = outR.Close(), errR.Close()
	p.release()
}

// waitFor reaps a process, and says as an error that it did not end well.
func waitFor(p *os.Process) error {
	state, err := p.Wait()
	if err == nil && !state.Success() {
		return &exec.ExitError{ProcessState: state}
	}
	return err
}

// Wait returns when the process has ended.
func (p *process) Wait(context.Context) error {
	<-p.exited
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.waitError
}

// Kill ends the process and its group at once. It may be called at any time.
func (p *process) Kill(context.Context) error {
	p.mu.Lock()
	p.unwanted = true
	p.mu.Unlock()
	p.signal(killGroup)
	return nil
}

// signal calls f while the process exists and is not reaped, so that its number
// cannot have been given to another one.
func (p *process) signal(f func(*os.Process)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.alive != nil {
		f(p.alive)
	}
}

// pid is the process id, 0 before the start.
func (p *process) pid() int {
	if p.running == nil {
		return 0
	}
	return p.running.Pid
}

// uid is the user that the kernel shows for the process.
func (p *process) uid() int {
	if p.box != nil {
		return p.box.UID()
	}
	return os.Geteuid()
}

// Stdout has the handshake line and nothing after it.
func (p *process) Stdout() io.ReadCloser {
	return struct {
		io.Reader
		io.Closer
	}{io.TeeReader(p.out, &p.said), p.out}
}

// Stderr is empty and ends with the process: what a plugin writes there goes to
// our log directly.
func (p *process) Stderr() io.ReadCloser { return untilExit{p.exited} }

type untilExit struct{ exited <-chan struct{} }

func (u untilExit) Read([]byte) (int, error) {
	<-u.exited
	return 0, io.EOF
}

func (u untilExit) Close() error { return nil }

// Name is the plugin's name.
func (p *process) Name() string { return p.name }

// ID is the process id.
func (p *process) ID() string {
	if pid := p.pid(); pid != 0 {
		return strconv.Itoa(pid)
	}
	return ""
}

// Diagnose has nothing to add: the log has what the plugin wrote.
func (p *process) Diagnose(context.Context) string { return "" }

// PluginToHost judges the address that a plugin announces before anything
// connects to it: a unix socket in the folder that was made for it, or, for
// contracts that allow it, the loopback interface. A plugin cannot make the host
// talk to something else.
func (p *process) PluginToHost(network, address string) (string, string, error) {
	switch {
	case network == "unix" && filepath.IsAbs(address) && strings.HasPrefix(filepath.Clean(address), p.socket+string(filepath.Separator)):
		if !p.local && privateChannel && !p.certified() {
			p.local = true // the kernel says who is at the other end, as for our own contract
			p.plain()
		}
	case network == "tcp" && !p.local:
		if p.failure = p.judgeTCP(address); p.failure != nil {
			return "", "", p.failure
		}
	default:
		return "", "", fault.Deniedf("plugin %s announces an address outside of its private folder", p.name)
	}
	p.mu.Lock()
	p.address = announced{network, address}
	p.mu.Unlock()
	return network, address, nil
}

// judgeTCP accepts a loopback address with certificates, and one without them
// where nobody else can reach it.
func (p *process) judgeTCP(address string) error {
	host, _, err := net.SplitHostPort(address)
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
		return fault.Deniedf("plugin %s announces an address that is not on the loopback interface", p.name)
	}
	if p.certified() {
		return nil
	}
	if p.box == nil || !p.box.Private() {
		return Unconfined(nil, "plugin %s serves TCP without certificates, where every process of this machine could call it; "+
			"that needs a sandbox with namespaces, and a plugin that declares no network", p.name)
	}
	p.plain()
	return nil
}

// certified reports whether the handshake line has a certificate.
func (p *process) certified() bool {
	const certificate = 6 // its place
	return strings.Count(strings.TrimSpace(p.said.String()), "|") >= certificate-1
}

// HostToPlugin changes nothing: both see the same names.
func (p *process) HostToPlugin(network, address string) (string, string, error) {
	return network, address, nil
}

type announced struct{ network, address string }

func (a announced) Network() string { return a.network }
func (a announced) String() string  { return a.address }

// dial connects to the announced address and checks, for private sockets, that
// the process at the other end is the one that was started.
func (p *process) dial(ctx context.Context, _ string) (net.Conn, error) {
	p.mu.Lock()
	a := p.address
	p.mu.Unlock()
	if a == nil {
		return nil, fmt.Errorf("plugin %s has announced no address", p.name)
	}
	if p.box != nil && p.box.Private() && a.Network() == "tcp" {
		return p.box.Dial(ctx, a.String())
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, a.Network(), a.String())
	if err != nil {
		return nil, err
	}
	if p.local {
		if err := checkPeer(conn, p.pid(), p.uid()); err != nil {
			_ = conn.Close()
			return nil, err
		}
	}
	return conn, nil
}
