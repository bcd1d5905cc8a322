//go:build linux && (amd64 || arm64)

package sandbox

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
)

// Sandbox confines plugins as far as this host allows it. It is safe for
// concurrent use.
type Sandbox struct {
	mode    Mode
	can     abilities
	root    *plugin.Scratch // where launchers mount
	private []string        // see [Config]
	log     *slog.Logger
}

var _ plugin.Sandbox = (*Sandbox)(nil)

// New finds out what this host allows, by doing it. What is missing is no error:
// see [Sandbox.Missing]. Close ends it, after the last plugin.
func New(c Config) (*Sandbox, error) {
	if c.Mode == "" {
		c.Mode = Preferred
	}
	if c.Mode != Preferred && c.Mode != Required {
		return nil, fault.Invalidf("the sandbox is %q: use required or preferred", c.Mode)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	root, err := plugin.NewScratch("sallyport-root-")
	if err != nil {
		return nil, err
	}
	return &Sandbox{mode: c.Mode, can: probe(root.Dir()), root: root, private: c.Private, log: c.Log}, nil
}

// Close gives back what New made.
func (s *Sandbox) Close() error {
	return errors.Join(s.can.cgroup.close(), s.root.Close())
}

// Name is what every start gets.
func (s *Sandbox) Name() string { return s.can.report(nil) }

// Missing is what this host does not allow, with the reason, one entry each.
func (s *Sandbox) Missing() []string { return s.can.missing }

// Lacks names what the mode required demands and this host has not; empty if it
// has everything.
func (s *Sandbox) Lacks() string { return s.can.lacks() }

// MountsTree is false: the host fills the folder, and the plugin sees it through
// a mount that is read-only.
func (s *Sandbox) MountsTree() bool { return false }

// Prepare makes the launcher of one start and puts it in the command's place.
func (s *Sandbox) Prepare(_ context.Context, plan plugin.SandboxPlan, cmd *exec.Cmd) (plugin.Box, error) {
	if s.mode == Required && s.can.lacks() != "" {
		return nil, plugin.Unconfined(nil, "plugin %s must not run: plugins.sandbox is required, and this host has no %s", plan.Plugin, s.can.lacks())
	}
	if s.mode == Required && !s.can.spaces && len(plan.Capabilities.Network) > 0 {
		return nil, plugin.Unconfined(nil, "plugin %s must not run: it declares a network, and on this host, without namespaces, it could then also "+
			"call every unix socket that the server's user may call; allow namespaces, or let plugins.sandbox be preferred", plan.Plugin)
	}
	b := &box{sandbox: s, plan: plan, cmd: cmd, uid: os.Geteuid(), released: make(chan struct{})}
	if err := b.prepare(cmd); err != nil {
		b.Release()
		return nil, plugin.Unconfined(err, "plugin %s cannot be confined: %s", plan.Plugin, cause(err))
	}
	return b, nil
}

// box is one start.
type box struct {
	sandbox *Sandbox
	plan    plugin.SandboxPlan
	cmd     *exec.Cmd
	uid     int
	list    *list
	control *net.UnixConn
	keep    []*os.File // needed until the process executes the plugin
	group   string     // folder of its cgroup
	notes   []string

	released chan struct{}

	mu      sync.Mutex
	sockets []int // to the plugin's loopback interface
}

var _ plugin.Box = (*box)(nil)

func (b *box) prepare(cmd *exec.Cmd) error {
	program, err := os.Open(cmd.Path)
	if err != nil {
		return fmt.Errorf("open program: %w", err)
	}
	b.keep = append(b.keep, program)
	r, grants, err := b.recipe(cmd, program)
	if err != nil {
		return err
	}
	ours, theirs, err := pair()
	if err != nil {
		return err
	}
	b.control, b.keep = ours, append(b.keep, theirs)
	// Every descriptor is there, so that the launcher's own have known numbers.
	files := []*os.File{theirs, program, theirs}
	if r.rules {
		rules, err := b.sandbox.can.landlock.rules(grants, ports(b.plan.Capabilities), b.ownNetwork() && b.plan.Loopback)
		if err != nil {
			return err
		}
		b.keep = append(b.keep, rules)
		files[fdRules-fdControl] = rules
	}
	b.list = r.launcher()
	image, err := b.list.image()
	if err != nil {
		return err
	}
	b.keep = append(b.keep, image)
	cmd.Path, cmd.Args, cmd.Env, cmd.ExtraFiles = procFD(image), []string{"launcher"}, []string{}, files
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	if r.spaces {
		spaces(cmd.SysProcAttr, r.dropUser, b.ownNetwork())
	}
	return b.enterGroup(cmd.SysProcAttr)
}

// spaces asks for the namespaces that the process begins in.
func spaces(a *syscall.SysProcAttr, dropUser, network bool) {
	a.Cloneflags |= unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS
	if network {
		a.Cloneflags |= unix.CLONE_NEWNET
	}
	a.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
	a.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	if dropUser {
		a.UidMappings = append(a.UidMappings, syscall.SysProcIDMap{ContainerID: inside, HostID: nobody, Size: 1})
		a.GidMappings = append(a.GidMappings, syscall.SysProcIDMap{ContainerID: inside, HostID: nobody, Size: 1})
		a.GidMappingsEnableSetgroups = true
	}
}

// pair makes the two ends of the control channel.
func pair() (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make control channel: %w", err)
	}
	near, far := os.NewFile(uintptr(fds[0]), "control"), os.NewFile(uintptr(fds[1]), "control")
	defer func() { _ = near.Close() }()
	conn, err := net.FileConn(near)
	if err != nil {
		_ = far.Close()
		return nil, nil, fmt.Errorf("make control channel: %w", err)
	}
	return conn.(*net.UnixConn), far, nil //nolint:forcetypeassert // of a unix socket
}

// ownNetwork reports whether the process has a network of its own, with nothing
// in it.
func (b *box) ownNetwork() bool {
	return b.sandbox.can.spaces && len(b.plan.Capabilities.Network) == 0
}

// Private reports whether TCP of the plugin can be reached by Dial alone.
func (b *box) Private() bool { return b.ownNetwork() && b.plan.Loopback }

// UID is the user that the kernel shows for the process.
func (b *box) UID() int { return b.uid }

// Report says what confines the process.
func (b *box) Report() string { return b.sandbox.can.report(b.notes) }

// Confirm reads what the launcher reports until it executes the plugin, which
// closes its end.
func (b *box) Confirm(ctx context.Context) error {
	b.letGo()
	if deadline, ok := ctx.Deadline(); ok {
		_ = b.control.SetReadDeadline(deadline)
	} else {
		_ = b.control.SetReadDeadline(time.Now().Add(10 * time.Second))
	}
	defer context.AfterFunc(ctx, func() { _ = b.control.SetReadDeadline(time.Unix(1, 0)) })()
	err := b.listen()
	var failed *stepError
	switch {
	case err == nil:
		if b.sandbox.can.cgroup == nil {
			go b.meter()
		}
		return nil
	case errors.As(err, &failed) && failed.what == stepExecute:
		return fault.Unavailablef("plugin %s cannot be executed: %s", b.plan.Plugin, failed.errno).Because(err)
	case errors.As(err, &failed):
		return plugin.Unconfined(err, "plugin %s could not be confined: %s: %s", b.plan.Plugin, failed.what, failed.errno)
	default:
		return fault.Unavailablef("plugin %s ended before it ran", b.plan.Plugin).Because(err)
	}
}

// listen returns nil once the launcher is no more because it executed.
func (b *box) listen() error {
	buffer, control := make([]byte, 16), make([]byte, unix.CmsgSpace(4*loopbackSockets))
	alive := false
	for {
		n, c, _, _, err := b.control.ReadMsgUnix(buffer, control)
		switch {
		case err == nil && n == 16:
			return b.failed(buffer)
		case err == nil && n == 1 && buffer[0] == 's':
			if err := b.receive(control[:c]); err != nil {
				return err
			}
		case err == nil && n == 1 && buffer[0] == 'r':
			alive = true
		case (err == nil && n == 0 || errors.Is(err, io.EOF)) && alive:
			return nil
		default:
			return errors.Join(errors.New("the launcher ended without a word"), err)
		}
	}
}

// stepError says which step of a launcher failed.
type stepError struct {
	what  string
	errno unix.Errno
}

func (e *stepError) Error() string { return e.what + ": " + e.errno.Error() }

// failed reads a launcher's last words: the step's address, the negative error.
func (b *box) failed(report []byte) error {
	return b.list.failed(report)
}

func (l *list) failed(report []byte) error {
	at := binary.NativeEndian.Uint64(report)
	errno := unix.Errno(-int64(binary.NativeEndian.Uint64(report[8:]))) //nolint:gosec // as the kernel gives it
	if at < stepBase || (at-stepBase)/stepSize >= uint64(len(l.steps)) {
		return errors.New("the launcher reports a step that it does not have")
	}
	return &stepError{l.steps[(at-stepBase)/stepSize].what, errno}
}

// letGo closes what only the child needs.
func (b *box) letGo() {
	for _, f := range b.keep {
		_ = f.Close()
	}
	b.keep = nil
}

// Release gives everything back, after the process has ended.
func (b *box) Release() {
	close(b.released)
	b.letGo()
	if b.control != nil {
		_ = b.control.Close()
	}
	b.mu.Lock()
	for _, fd := range b.sockets {
		_ = unix.Close(fd)
	}
	b.sockets = nil
	b.mu.Unlock()
	b.leaveGroup()
}

// cause is the text of an error for people, without the names of files that do
// not concern them.
func cause(err error) string {
	var failed *stepError
	if errors.As(err, &failed) {
		return failed.Error()
	}
	return strings.TrimSpace(err.Error())
}
