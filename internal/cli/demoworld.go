package cli

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// demo is the world of the story: the folder, the processes, and who is who.
type demo struct {
	s          *shell // of the user who runs the demo
	keeping    bool
	pluginFile string

	dir, home string // temporary; home is SALLYPORT_HOME of the story
	exe       string // this very program
	me        *shell // acts in home
	children  []*demoChild
	undo      []func()

	server    *demoChild
	url       string
	roots     *x509.CertPool
	operator  *sallyport.Client
	ledgerKey string // as init printed it
	firstNote string // checkpoint right after the start

	pack       string // signed package
	pluginName string // empty before it is installed and runs

	agent   *sallyport.Client
	scanner *sallyport.Client
	cred    sallyport.Credential
	idFile  string // the agent's private key; certificate beside it
	public  string // its public key
	sshd    *demoSSHD

	reported time.Time // when the leak was reported
	response sallyport.Reaction
}

// open makes the folder and finds this program.
func (d *demo) open() error {
	var err error
	if d.exe, err = os.Executable(); err != nil {
		return fault.Unavailablef("this program does not find its own file").Because(err)
	}
	if d.dir, err = os.MkdirTemp("", "sallyport-demo-"); err != nil {
		return fault.Unavailablef("no temporary folder can be made").Because(err)
	}
	d.home = filepath.Join(d.dir, "home")
	d.me = &shell{
		in: strings.NewReader(""), out: io.Discard, err: io.Discard, output: "json", context: demoOperatorName,
		Env: Env{Version: d.s.Version, Now: d.s.Now, Getenv: func(name string) string {
			if name == "SALLYPORT_HOME" {
				return d.home
			}
			return ""
		}},
	}
	return nil
}

// close ends every process and removes the folder, but what --keep keeps.
func (d *demo) close(keep bool) {
	for _, c := range []*sallyport.Client{d.operator, d.agent, d.scanner} {
		if c != nil {
			c.Close()
		}
	}
	for i := len(d.children) - 1; i >= 0; i-- {
		if c := d.children[i]; !keep || c != d.server {
			_ = c.stop(5 * time.Second)
		}
	}
	for i := len(d.undo) - 1; i >= 0; i-- {
		d.undo[i]()
	}
	if !keep {
		_ = os.RemoveAll(d.dir)
	}
}

func (d *demo) at(parts ...string) string { return filepath.Join(append([]string{d.dir}, parts...)...) }

// longestTemp is the longest TMPDIR below which a server's plugins can have
// their sockets, whose paths are short by nature (unix(7)).
const longestTemp = 24

// environment is all that children see: nothing of the user's own Sallyport.
func (d *demo) environment() []string {
	env := []string{"HOME=" + d.dir, "SALLYPORT_HOME=" + d.home, "LC_ALL=C", "TZ=UTC"}
	for _, name := range []string{"PATH", "TMPDIR", "SystemRoot", "TEMP"} {
		if v := d.s.Getenv(name); v != "" && (name != "TMPDIR" || len(v) <= longestTemp) {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// demoTool finds a program, or says which Debian package has it.
func demoTool(name, pack string) (string, error) {
	for _, p := range []string{name, "/usr/sbin/" + name, "/usr/local/sbin/" + name} {
		if found, err := exec.LookPath(p); err == nil {
			return filepath.Abs(found)
		}
	}
	return "", demoSkip(pack)
}

// command runs a program to its end and gives both of its outputs.
func (d *demo) command(ctx context.Context, name string, args ...string) (out, said string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	c := exec.CommandContext(ctx, name, args...) //nolint:gosec // programs of the demo's own choice
	var stdout, stderr bytes.Buffer
	c.Env, c.Stdout, c.Stderr = d.environment(), &stdout, &stderr
	ownGroup(c)
	c.Cancel = func() error { return endGroup(c.Process, true) }
	c.WaitDelay = 2 * time.Second
	err = c.Run()
	if err != nil && ctx.Err() != nil {
		err = errors.Join(err, ctx.Err())
	}
	return stdout.String(), stderr.String(), err
}

// demoChild is a process that runs beside the story.
type demoChild struct {
	cmd   *exec.Cmd
	log   string // file with its standard error
	ended chan struct{}
	err   error // once ended
}

// start starts a process in a group of its own, which logs to a file: it may
// outlive the demo.
func (d *demo) start(log, name string, args ...string) (*demoChild, error) {
	f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600) //nolint:gosec // in the demo's folder
	if err != nil {
		return nil, fileFault(log, err)
	}
	defer func() { _ = f.Close() }()
	c := &demoChild{cmd: exec.Command(name, args...), log: log, ended: make(chan struct{})} //nolint:gosec,noctx // ended by stop
	c.cmd.Env, c.cmd.Stdout, c.cmd.Stderr = d.environment(), f, f
	ownGroup(c.cmd)
	if err := c.cmd.Start(); err != nil {
		return nil, fault.Unavailablef("%s cannot be started", filepath.Base(name)).Because(err)
	}
	d.children = append(d.children, c)
	go func() {
		c.err = c.cmd.Wait()
		close(c.ended)
	}()
	return c, nil
}

func (c *demoChild) pid() int { return c.cmd.Process.Pid }

func (c *demoChild) gone() bool {
	select {
	case <-c.ended:
		return true
	default:
		return false
	}
}

// stop asks a process to end, waits, and in the end kills its whole group.
func (c *demoChild) stop(patience time.Duration) error {
	if c.gone() {
		return c.err
	}
	_ = endGroup(c.cmd.Process, false)
	select {
	case <-c.ended:
	case <-time.After(patience):
		_ = endGroup(c.cmd.Process, true)
		<-c.ended
	}
	return c.err
}

// said is what the process has logged so far.
func (c *demoChild) said() string {
	text, err := os.ReadFile(c.log)
	if err != nil {
		return ""
	}
	return string(text)
}

// demoWait asks again until something holds or the time is over.
func demoWait(ctx context.Context, limit time.Duration, what string, holds func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		ok, err := holds()
		if err != nil || ok {
			return err
		}
		select {
		case <-ctx.Done():
			return fault.Unavailablef("%s did not happen within %s", what, limit).Because(ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}
