package plugin

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// privateChannel says that the kernel tells us who is at the other end of a unix
// socket, so that no certificates are needed between us and our own plugins.
const privateChannel = true

// isolate gives the process its own group and ties its life to ours.
func isolate(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// spawner starts processes from one thread that lives as long as the host: the
// signal that Pdeathsig asks for is sent when the *thread* that started the
// child ends, not the process.
type spawner struct{ work chan func() }

func newSpawner() *spawner {
	s := &spawner{work: make(chan func())}
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for f := range s.work {
			f()
		}
	}()
	return s
}

func (s *spawner) start(cmd *exec.Cmd) error {
	result := make(chan error, 1)
	s.work <- func() { result <- cmd.Start() }
	return <-result
}

func (s *spawner) close() { close(s.work) }

// collect waits for the end without reaping, kills what the process left in its
// group while the group's number cannot have been given away, and reaps.
func (p *process) collect() {
	for {
		err := unix.Waitid(unix.P_PID, p.pid(), nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = unix.Kill(-p.pid(), unix.SIGKILL)
	p.waitError = waitFor(p.running)
	p.alive = nil
}

// killGroup kills the process and everything in its group. The caller knows that
// it was not reaped.
func killGroup(p *os.Process) {
	_ = unix.Kill(-p.Pid, unix.SIGKILL)
	_ = p.Kill()
}

// askToEnd is the gentle signal for plugins without a controller service. Whom
// it would end at once is killed: the kernel keeps the first process of a
// namespace from what it has not chosen itself. One that ignores the signal may
// be ending in its own way, and has its time for that.
func askToEnd(p *os.Process) {
	if !chose(p.Pid, syscall.SIGTERM) {
		killGroup(p)
		return
	}
	_ = p.Signal(syscall.SIGTERM)
}

// chose reports whether a process handles or ignores a signal itself.
func chose(pid int, s syscall.Signal) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	for _, set := range []string{"SigCgt:", "SigIgn:"} {
		_, after, _ := strings.Cut(string(text), set)
		line, _, _ := strings.Cut(after, "\n")
		if mask, err := strconv.ParseUint(strings.TrimSpace(line), 16, 64); err == nil && mask&(1<<(s-1)) != 0 {
			return true
		}
	}
	return false
}

// checkPeer demands that the listener at the other end was made by the process
// that we started, as the user that it runs as. Both are as this process sees
// them, also for a process in namespaces of its own.
func checkPeer(conn net.Conn, pid, uid int) error {
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return fmt.Errorf("the plugin's channel is no unix socket")
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return fmt.Errorf("check peer: %w", err)
	}
	var cred *unix.Ucred
	var optErr error
	err = raw.Control(func(fd uintptr) {
		cred, optErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(err, optErr); err != nil {
		return fmt.Errorf("check peer: %w", err)
	}
	if int(cred.Pid) != pid || int(cred.Uid) != uid {
		return fmt.Errorf("process %d answers in place of plugin process %d", cred.Pid, pid)
	}
	return nil
}
