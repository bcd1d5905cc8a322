package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// module is where programs are built from.
const module = "github.com/sallyport-project/sallyport"

// build makes a program as the Makefile does. The tool chain's own cache makes
// a second time cheap.
func build(ctx context.Context, dir, pkg string) (string, error) {
	out := filepath.Join(dir, filepath.Base(pkg)+"-built")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, module+"/"+pkg) //nolint:gosec // constant packages
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w: %s", pkg, err, text)
	}
	return out, nil
}

// installation is a founded server that may be started and stopped.
type installation struct {
	dir      string
	binary   string
	command  []string // if set, this program serves, by this command and what follows the arguments
	config   string   // path
	operator tls.Certificate
	root     string // PEM
}

// operatorName names the context of the first operator.
const operatorName = "load"

// found builds the server and sets up an installation in a directory, as an
// operator does: a configuration, then init.
func found(ctx context.Context, o options, dir string) (*installation, error) {
	in := &installation{dir: dir, binary: o.server, config: filepath.Join(dir, "sallyport.yaml")}
	if o.profile != "" {
		in.command = []string{serveCommand, o.profile}
	}
	var err error
	if in.binary == "" {
		if in.binary, err = build(ctx, o.dir, "cmd/sallyport"); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory: %w", err)
	}
	text := "listen:\n  main:\n    address: 127.0.0.1:0\n  operations: 127.0.0.1:0\n"
	if strings.HasPrefix(o.scenario, "kbs-") { // all guests come from one address
		text += "verifiers:\n  sample:\n    insecure: true\nkbs:\n  handshakes:\n    per_second: -1\n"
	}
	if o.dsn != "" {
		if err := os.WriteFile(filepath.Join(dir, "dsn"), []byte(o.dsn), 0o600); err != nil {
			return nil, fmt.Errorf("write connection string: %w", err)
		}
		text += "storage:\n  driver: postgres\n  dsn_file: " + filepath.Join(dir, "dsn") + "\n"
	}
	if err := os.WriteFile(in.config, []byte(text), 0o600); err != nil {
		return nil, fmt.Errorf("write configuration: %w", err)
	}
	cmd := exec.CommandContext(ctx, in.binary, "init", "--dir", dir, "--name", operatorName) //nolint:gosec // ours
	cmd.Env = append(os.Environ(), "SALLYPORT_HOME="+dir)
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("found installation: %w: %s", err, text)
	}
	return in, in.credential()
}

// credential reads what init made for the operator.
func (in *installation) credential() error {
	at := filepath.Join(in.dir, "contexts", operatorName)
	var err error
	if in.operator, err = tls.LoadX509KeyPair(filepath.Join(at, "cert.pem"), filepath.Join(at, "key.pem")); err != nil {
		return fmt.Errorf("read operator's certificate: %w", err)
	}
	root, err := os.ReadFile(filepath.Join(at, "ca.pem")) //nolint:gosec // ours
	if err != nil {
		return fmt.Errorf("read CA: %w", err)
	}
	in.root = string(root)
	return nil
}

// server is a running one.
type server struct {
	in         *installation
	cmd        *exec.Cmd
	log        *tail
	main       string        // host:port
	operations string        // host:port
	started    time.Duration // from exec until all listeners are open
	ended      chan error
	plugins    [2]time.Duration // their processor time at the last two calls of cpu
}

const (
	startTime = 20 * time.Second
	stopTime  = 12 * time.Second
)

// start runs the server and waits until it says that it is ready.
func (in *installation) start(ctx context.Context) (*server, error) {
	ready := filepath.Join(in.dir, "ready.json")
	if err := os.RemoveAll(ready); err != nil { //nolint:gosec // ours
		return nil, fmt.Errorf("remove ready file: %w", err)
	}
	s := &server{in: in, log: &tail{}, ended: make(chan error, 1)}
	binary, args := in.binary, []string{"serve", "--config", in.config, "--ready-file", ready}
	if len(in.command) > 0 {
		self, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("find this program: %w", err)
		}
		binary, args[0] = self, in.command[0]
		args = append(args, in.command[1:]...)
	}
	s.cmd = exec.CommandContext(ctx, binary, args...) //nolint:gosec // ours
	s.cmd.Stderr, s.cmd.Stdout = s.log, s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	begin := time.Now()
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start server: %w", err)
	}
	go func() { s.ended <- s.cmd.Wait() }()
	for {
		text, err := os.ReadFile(ready) //nolint:gosec // ours
		if err == nil {
			s.started = time.Since(begin)
			return s, s.addresses(text)
		}
		select {
		case err := <-s.ended:
			s.ended <- err
			return nil, fmt.Errorf("the server ended: %w: %s", errors.Join(err, errors.New("before it was ready")), s.log)
		case <-time.After(time.Millisecond):
		}
		if time.Since(begin) > startTime {
			return nil, errors.Join(fmt.Errorf("the server is not ready after %s: %s", startTime, s.log), s.stop())
		}
	}
}

func (s *server) addresses(text []byte) error {
	var bound struct{ Main, Operations string }
	if err := json.Unmarshal(text, &bound); err != nil {
		return errors.Join(fmt.Errorf("read ready file: %w", err), s.stop())
	}
	s.main, s.operations = bound.Main, bound.Operations
	return nil
}

// stop ends the server as an operator does, and whatever it left behind.
func (s *server) stop() error {
	pid := s.cmd.Process.Pid
	_ = syscall.Kill(pid, syscall.SIGTERM)
	var failed error
	select {
	case err := <-s.ended:
		s.ended <- err
		if err != nil {
			failed = fmt.Errorf("the server ended: %w: %s", err, s.log)
		}
	case <-time.After(stopTime):
		failed = fmt.Errorf("the server did not stop within %s: %s", stopTime, s.log)
	}
	_ = syscall.Kill(-pid, syscall.SIGKILL) // plugins, if any are left
	return failed
}

// cpu is the processor time of the server and its plugins. It notes the share
// of the plugins at the last two calls.
func (s *server) cpu() (time.Duration, error) {
	own, below, err := processTimes(s.cmd.Process.Pid)
	s.plugins[0], s.plugins[1] = s.plugins[1], below
	return own + below, err
}

// admin is a client with the operator's certificate.
func (s *server) admin() (*sallyport.Client, error) {
	c, err := sallyport.New(sallyport.Config{
		URL: "https://" + s.main, Roots: s.in.roots(), Certificate: &s.in.operator, Timeout: time.Minute,
	})
	if err != nil {
		return nil, fmt.Errorf("make operator's client: %w", err)
	}
	return c, nil
}

// tail keeps the beginning and the end of what is written.
type tail struct {
	mu          sync.Mutex
	first, last []byte
}

const tailed = 2 << 10

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if room := tailed - len(t.first); room > 0 {
		t.first = append(t.first, p[:min(room, len(p))]...)
	}
	t.last = append(t.last, p...)
	if len(t.last) > 2*tailed {
		t.last = bytes.Clone(t.last[len(t.last)-tailed:])
	}
	return len(p), nil
}

// String is what was kept.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.last) <= tailed && len(t.first) >= len(t.last) {
		return string(t.first)
	}
	return string(t.first) + "\n...\n" + string(t.last[max(0, len(t.last)-tailed):])
}
