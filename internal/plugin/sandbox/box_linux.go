//go:build linux && (amd64 || arm64)

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

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
	start   *start
	keep    []*os.File // needed until the process executes the plugin
	group   string     // folder of its cgroup
	notes   []string

	released chan struct{}

	mu sync.Mutex // for the sockets of start, which lead to the plugin's loopback interface
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
	var rules *os.File
	if r.rules {
		if rules, err = b.sandbox.can.landlock.rules(grants, ports(b.plan.Capabilities), b.ownNetwork() && b.plan.Loopback); err != nil {
			return err
		}
		b.keep = append(b.keep, rules)
	}
	if b.start, err = newStart(r, cmd, program, rules); err != nil {
		return err
	}
	return b.enterGroup(cmd.SysProcAttr)
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
func (b *box) Confirm(ctx context.Context) (*os.Process, error) {
	b.letGo()
	control := b.start.control
	if deadline, ok := ctx.Deadline(); ok {
		_ = control.SetReadDeadline(deadline)
	} else {
		_ = control.SetReadDeadline(time.Now().Add(10 * time.Second))
	}
	defer context.AfterFunc(ctx, func() { _ = control.SetReadDeadline(time.Unix(1, 0)) })()
	err := b.start.listen()
	if err == nil {
		running, err := b.start.process()
		if err == nil {
			if b.sandbox.can.cgroup == nil {
				go b.meter(running)
			}
			return running, nil
		}
	}
	b.start.end()
	var failed *stepError
	switch {
	case errors.As(err, &failed) && failed.what == stepExecute:
		return nil, fault.Unavailablef("plugin %s cannot be executed: %s", b.plan.Plugin, failed.errno).Because(err)
	case errors.As(err, &failed):
		return nil, plugin.Unconfined(err, "plugin %s could not be confined: %s: %s", b.plan.Plugin, failed.what, failed.errno)
	default:
		return nil, fault.Unavailablef("plugin %s ended before it ran", b.plan.Plugin).Because(err)
	}
}

// letGo closes what only the child needs.
func (b *box) letGo() {
	for _, f := range b.keep {
		_ = f.Close()
	}
	b.keep = nil
	if b.start != nil {
		b.start.letGo()
	}
}

// Release gives everything back, after the process has ended.
func (b *box) Release() {
	close(b.released)
	b.letGo()
	if b.start != nil {
		b.mu.Lock()
		b.start.close()
		b.mu.Unlock()
	}
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
