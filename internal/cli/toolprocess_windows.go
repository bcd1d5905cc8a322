package cli

import (
	"os"
	"os/exec"
	"strconv"
	"syscall"
)

// pass lets a process inherit a file, and gives its number there.
func pass(cmd *exec.Cmd, f *os.File) string {
	handle := syscall.Handle(f.Fd())
	_ = syscall.SetHandleInformation(handle, syscall.HANDLE_FLAG_INHERIT, syscall.HANDLE_FLAG_INHERIT)
	cmd.SysProcAttr = &syscall.SysProcAttr{AdditionalInheritedHandles: []syscall.Handle{handle}}
	return strconv.FormatUint(uint64(handle), 10)
}

// signals passes nothing on: the console tells every process of its own.
func (s *shell) signals() passing {
	return passing{target: make(chan *os.Process, 1), stop: func() {}}
}

// code is the plugin's exit code.
func (e exited) code() int { return e.state.ExitCode() }
