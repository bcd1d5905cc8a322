//go:build !windows

package cli

import (
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"syscall"
)

// pass lets a process inherit a file, and gives its number there.
func pass(cmd *exec.Cmd, f *os.File) string {
	cmd.ExtraFiles = []*os.File{f}
	return "3"
}

// signals begins to catch what may have to be passed on. At a terminal an
// interrupt reaches every process of the group, the plugin too.
func (s *shell) signals() passing {
	list := []os.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2}
	p := passing{caught: make(chan os.Signal, 16), target: make(chan *os.Process, 1)}
	signal.Notify(p.caught, list...)
	done := make(chan struct{})
	p.stop = func() {
		signal.Stop(p.caught)
		close(done)
	}
	reached := terminal(s.in) || terminal(s.out) || terminal(s.err)
	go func() {
		var process *os.Process
		var early []os.Signal
		for {
			select {
			case process = <-p.target:
				for _, sig := range early {
					_ = process.Signal(sig)
				}
			case sig := <-p.caught:
				switch {
				case reached && (sig == syscall.SIGINT || sig == syscall.SIGQUIT):
				case process == nil:
					early = append(early, sig)
				default:
					_ = process.Signal(sig)
				}
			case <-done:
				return
			}
		}
	}()
	return p
}

// code is the plugin's exit code. If a signal has ended it, that ends this
// process too, so that a shell sees the same.
func (e exited) code() int {
	status, ok := e.state.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() {
		return e.state.ExitCode()
	}
	if sig := status.Signal(); slices.Contains([]syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGKILL, syscall.SIGPIPE}, sig) {
		signal.Reset(sig)
		_ = syscall.Kill(os.Getpid(), sig)
	}
	return 128 + int(status.Signal())
}
