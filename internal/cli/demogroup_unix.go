//go:build unix

package cli

import (
	"os"
	"os/exec"
	"syscall"
)

// ownGroup puts a child into a process group of its own, so that Ctrl-C reaches
// the demo alone and the demo ends the child with all that it started.
func ownGroup(c *exec.Cmd) { c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// endGroup asks the leader of a group to end, or kills all of it.
func endGroup(p *os.Process, kill bool) error {
	if kill {
		return syscall.Kill(-p.Pid, syscall.SIGKILL)
	}
	return p.Signal(syscall.SIGTERM)
}
