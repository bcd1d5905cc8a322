//go:build linux && (amd64 || arm64)

package sandbox

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// start is a launcher that runs, as the host sees it.
type start struct {
	list    *list
	cmd     *exec.Cmd
	control *net.UnixConn
	keep    []*os.File // needed until the process executes the plugin
	sockets []int      // that it has passed
	second  int        // process id of the clone, 0 as long as it is not known
}

// newStart makes the launcher of a recipe and puts it in the command's place, with
// files at their numbers; see fdProgram.
func newStart(r recipe, cmd *exec.Cmd, program, rules *os.File) (*start, error) {
	s := &start{list: r.launcher(), cmd: cmd}
	image, err := s.list.image()
	if err != nil {
		return nil, err
	}
	s.keep = append(s.keep, image)
	ours, theirs, err := pair()
	if err != nil {
		s.letGo()
		return nil, err
	}
	s.control, s.keep = ours, append(s.keep, theirs)
	// Every descriptor is there, so that the launcher's own have known numbers.
	files := []*os.File{theirs, theirs, theirs}
	if program != nil {
		files[fdProgram-fdControl] = program
	}
	if rules != nil {
		files[fdRules-fdControl] = rules
	}
	cmd.Path, cmd.Args, cmd.Env, cmd.ExtraFiles = procFD(image), []string{"launcher"}, []string{}, files
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true // by which a clone is found
	return s, nil
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

var errEnded = errors.New("the launcher ended without a word")

// listen returns nil once the launcher is no more because it executed.
func (s *start) listen() error {
	buffer, control := make([]byte, 16), make([]byte, unix.CmsgSpace(4*loopbackSockets))
	alive := false
	for {
		n, c, _, _, err := s.control.ReadMsgUnix(buffer, control)
		switch {
		case err == nil && n == 16:
			return s.list.failed(buffer)
		case err == nil && n == pidSize:
			s.second = int(binary.NativeEndian.Uint32(buffer))
		case err == nil && n == 1 && buffer[0] == 's':
			if err := s.receive(control[:c]); err != nil {
				return err
			}
		case err == nil && n == 1 && buffer[0] == 'r':
			alive = true
		case (err == nil && n == 0 || errors.Is(err, io.EOF)) && alive:
			return nil
		default:
			return errors.Join(errEnded, err)
		}
	}
}

// receive keeps the sockets that a launcher passed.
func (s *start) receive(control []byte) error {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return fmt.Errorf("read sockets of the plugin: %w", err)
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return fmt.Errorf("read sockets of the plugin: %w", err)
		}
		s.sockets = append(s.sockets, fds...)
	}
	if len(s.sockets) != loopbackSockets {
		return fmt.Errorf("the launcher passed %d sockets", len(s.sockets))
	}
	return nil
}

// process is the one that has executed. It waits for the other one, which has
// nothing left to do.
func (s *start) process() (*os.Process, error) {
	if s.second == 0 {
		return s.cmd.Process, nil
	}
	_, _ = s.cmd.Process.Wait()
	return os.FindProcess(s.second) // a child that nobody has waited for: the number is its own
}

// end kills what was started, at whatever point it is, and waits for it.
func (s *start) end() {
	first := s.cmd.Process.Pid
	_ = unix.Kill(-first, unix.SIGKILL)
	_, _ = s.cmd.Process.Wait()
	// Now the first process says nothing more: either it has said who the second
	// is, or that one is in its group, because it leaves only after an answer.
	if s.second == 0 {
		s.second = s.unread()
	}
	if s.second == 0 {
		for wait(unix.P_PGID, first) == nil {
		}
		return
	}
	_ = unix.Kill(s.second, unix.SIGKILL)
	_ = wait(unix.P_PID, s.second)
}

// wait reaps a child of ours, and fails if there is none.
func wait(kind, id int) error {
	for {
		if err := unix.Waitid(kind, id, nil, unix.WEXITED, nil); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// unread looks for the second process in what nobody has read yet.
func (s *start) unread() (pid int) {
	raw, err := s.control.SyscallConn()
	if err != nil {
		return 0
	}
	buffer := make([]byte, 16)
	_ = raw.Control(func(fd uintptr) {
		for pid == 0 {
			n, _, err := unix.Recvfrom(int(fd), buffer, unix.MSG_DONTWAIT)
			if err != nil && !errors.Is(err, unix.EINTR) || err == nil && n == 0 {
				return
			}
			if n == pidSize {
				pid = int(binary.NativeEndian.Uint32(buffer))
			}
		}
	})
	return pid
}

// stepError says which step of a launcher failed.
type stepError struct {
	what  string
	errno unix.Errno
}

func (e *stepError) Error() string { return e.what + ": " + e.errno.Error() }

// failed reads a launcher's last words: the step's address, the negative error.
func (l *list) failed(report []byte) error {
	at := binary.NativeEndian.Uint64(report)
	errno := unix.Errno(-int64(binary.NativeEndian.Uint64(report[8:]))) //nolint:gosec // as the kernel gives it
	if at < stepBase || (at-stepBase)/stepSize >= uint64(len(l.steps)) {
		return errors.New("the launcher reports a step that it does not have")
	}
	return &stepError{l.steps[(at-stepBase)/stepSize].what, errno}
}

// letGo closes what only the child needs.
func (s *start) letGo() {
	for _, f := range s.keep {
		_ = f.Close()
	}
	s.keep = nil
}

// close gives everything back that was not taken.
func (s *start) close() {
	s.letGo()
	if s.control != nil {
		_ = s.control.Close()
	}
	for _, fd := range s.sockets {
		_ = unix.Close(fd)
	}
	s.sockets = nil
}
