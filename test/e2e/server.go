package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Limits of a server's life.
const (
	StartTime = 30 * time.Second
	StopTime  = 10 * time.Second // from SIGTERM to the end, as promised
)

// Server is a running sallyport serve.
type Server struct {
	House      *House
	Main       string            // host:port
	Operations string            // host:port
	Bound      map[string]string // host:port of every listener, by name
	PID        int

	cmd   *exec.Cmd
	log   string
	ended chan struct{}
	err   error // of the process, once ended is closed
}

// Start runs the server and waits until it says that it is ready. A server that
// ends before is an error with the end of its log.
func (h *House) Start(ctx context.Context) (*Server, error) {
	ready := filepath.Join(h.Dir, "ready.json")
	if err := os.RemoveAll(ready); err != nil {
		return nil, fmt.Errorf("remove ready file: %w", err)
	}
	s := &Server{House: h, log: filepath.Join(h.Dir, "server.log"), ended: make(chan struct{})}
	out, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	defer func() { _ = out.Close() }()
	// The server outlives the context: only Kill and Stop end it.
	s.cmd = exec.CommandContext(context.WithoutCancel(ctx), h.Programs.Server, "serve", "--ready-file", ready) //nolint:gosec // ours
	s.cmd.Env, s.cmd.Stdout, s.cmd.Stderr = h.environment(), out, out
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start server: %w", err)
	}
	s.PID = s.cmd.Process.Pid
	go func() { s.err = s.cmd.Wait(); close(s.ended) }()
	return s, s.await(ctx, ready)
}

func (s *Server) await(ctx context.Context, ready string) error {
	late := time.After(StartTime)
	for {
		if text, err := os.ReadFile(ready); err == nil { //nolint:gosec // of this house
			if err := json.Unmarshal(text, &s.Bound); err != nil {
				s.Kill()
				return fmt.Errorf("read ready file: %w", err)
			}
			s.Main, s.Operations = s.Bound["main"], s.Bound["operations"]
			return nil
		}
		select {
		case <-s.ended:
			return fmt.Errorf("the server ended before it was ready: %w: %s", s.code(), s.LastLog())
		case <-late:
			s.Kill()
			return fmt.Errorf("the server was not ready in time: %s", s.LastLog())
		case <-ctx.Done():
			s.Kill()
			return ctx.Err()
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// code is how the process ended.
func (s *Server) code() error {
	if s.err == nil {
		return errors.New("exit code 0")
	}
	return s.err
}

// Kill ends the server with SIGKILL, at once, and whatever of its group is left.
func (s *Server) Kill() {
	_ = s.cmd.Process.Kill()
	<-s.ended
	_ = syscall.Kill(-s.PID, syscall.SIGKILL)
}

// Terminate sends SIGTERM and does not wait.
func (s *Server) Terminate() { _ = s.cmd.Process.Signal(syscall.SIGTERM) }

// Ended is closed when the process has ended.
func (s *Server) Ended() <-chan struct{} { return s.ended }

// Stop ends the server as an operator does. It must exit with 0 within
// [StopTime].
func (s *Server) Stop() error {
	begin := time.Now()
	s.Terminate()
	return s.Wait(begin)
}

// Wait demands that a server to which SIGTERM was sent has exited with 0 within
// [StopTime].
func (s *Server) Wait(begin time.Time) error {
	defer s.Kill()
	select {
	case <-s.ended:
	case <-time.After(StopTime - time.Since(begin) + 5*time.Second):
		return fmt.Errorf("the server did not stop: %s", s.LastLog())
	}
	if took := time.Since(begin); took > StopTime {
		return fmt.Errorf("the server took %s to stop", took)
	}
	if s.err != nil {
		return fmt.Errorf("the server ended with %w: %s", s.err, s.LastLog())
	}
	return nil
}

// Log is all that servers of this house have written so far.
func (s *Server) Log() string {
	text, err := os.ReadFile(s.log)
	if err != nil {
		return "(no log: " + err.Error() + ")"
	}
	return string(text)
}

// LastLog is the end of the log, for people.
func (s *Server) LastLog() string {
	text := s.Log()
	return text[max(0, len(text)-3000):]
}
