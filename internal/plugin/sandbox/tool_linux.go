//go:build linux && (amd64 || arm64)

package sandbox

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sallyport-project/sallyport/internal/plugin"
)

// toolPaths are what programs at a terminal read besides libraries.
var toolPaths = []string{
	"/etc/terminfo", "/usr/share/terminfo", "/usr/share/locale", "/usr/share/i18n", "/usr/share/zoneinfo", "/etc/localtime",
}

// terminalRights are those of the terminal, which a program may open by its name.
const terminalRights = deviceRights | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV

// ToolReport says how tools are confined on this host.
func ToolReport() string {
	if weak := ToolWeakness(); weak != "" {
		return weak
	}
	return "no_new_privs, landlock, seccomp"
}

// ToolWeakness is ToolReport where this host has not all of it, else empty.
func ToolWeakness() string {
	l, err := probeLandlock()
	switch {
	case err != nil:
		return "no_new_privs, seccomp; no landlock: " + without(err) + ": CLI plugins read what you read"
	case !l.ports():
		return "no_new_privs, landlock, seccomp; any port (kernel 6.7 limits them)"
	}
	return ""
}

// Start starts a program of the command line, confined, in the process group of
// its user's. It has the command's streams and descriptors, and dies with this
// process. The function that is returned waits for its end, and must be called.
func (t Tool) Start(cmd *exec.Cmd) (wait func() error, err error) {
	rules, err := t.rules(cmd)
	if err != nil {
		return nil, plugin.Unconfined(err, "plugin %s cannot be confined: %s", t.Plugin, cause(err))
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	started, ended := make(chan error, 1), make(chan error, 1)
	go func() {
		// What confines is inherited from this thread, which is of no use for
		// anything else afterwards: it ends with this function, and not before the
		// program, which would die with it.
		runtime.LockOSThread()
		err := confine(rules)
		if rules != nil {
			_ = rules.Close()
		}
		if err == nil {
			err = cmd.Start()
		}
		started <- err
		if err == nil {
			ended <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, plugin.Unconfined(err, "plugin %s cannot be started: %s", t.Plugin, cause(err))
	}
	return func() error { return <-ended }, nil
}

// rules are those of Landlock, nil on a host that has none.
func (t Tool) rules(cmd *exec.Cmd) (*os.File, error) {
	can, err := probeLandlock()
	if err != nil {
		return nil, nil //nolint:nilnil // see ToolReport
	}
	program, err := os.Open(cmd.Path)
	if err != nil {
		return nil, fmt.Errorf("open program: %w", err)
	}
	defer func() { _ = program.Close() }()
	v := &view{links: map[string]string{}}
	loader, err := loaderOf(program)
	if err != nil {
		return nil, err
	}
	if loader != "" {
		libraries(v, loader)
	}
	if t.Tree != "" {
		v.add(t.Tree, readTree|runFile, bind{})
	}
	if t.Interpreter != "" {
		interpreter(v, t.Interpreter)
	}
	v.optional(slices.Concat(toolPaths, networkPaths), readTree, bind{})
	v.optional(devicePaths, deviceRights, bind{})
	v.optional([]string{"/dev/tty"}, terminalRights, bind{})
	for _, f := range t.Files {
		if err := v.mayDeclare(f, t.Private); err != nil {
			return nil, err
		}
		v.add(f, readTree, bind{})
	}
	if v.err != nil {
		return nil, v.err
	}
	return can.rules(v.grants, t.Ports, false)
}

// confine restricts this thread, and every process that it starts.
func confine(rules *os.File) error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("give up new privileges: %w", err)
	}
	if os.Geteuid() == 0 { // what it executes gets no capability
		for c := range lastCapability() + 1 {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err != nil {
				return fmt.Errorf("drop capability: %w", err)
			}
		}
	}
	if rules != nil {
		if _, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, rules.Fd(), 0, 0); errno != 0 {
			return fmt.Errorf("%s: %w", stepRules, errno)
		}
	}
	text := denials()
	program := struct {
		length uint16
		filter *byte
	}{uint16(len(text) / 8), &text[0]} //nolint:gosec // small
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&program))) //nolint:gosec // the kernel reads it
	runtime.KeepAlive(text)
	if errno != 0 {
		return fmt.Errorf("%s: %w", stepFilter, errno)
	}
	return nil
}

// refused are calls by which a program would get at other processes of its user,
// or around what the filter and Landlock see.
var refused = []uint32{
	unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PIDFD_GETFD, unix.SYS_KCMP,
	unix.SYS_IO_URING_SETUP, unix.SYS_USERFAULTFD, unix.SYS_PERF_EVENT_OPEN, unix.SYS_BPF,
	unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY,
	unix.SYS_SHMGET, unix.SYS_SHMAT, unix.SYS_MSGGET, unix.SYS_SEMGET, unix.SYS_MQ_OPEN,
}

// denials is a filter that refuses, and allows everything else: a program at a
// terminal may do more than one in a server. It connects to no unix socket, behind
// which other programs of its user wait for orders, and types nothing into the
// terminal that the user's shell would read after it.
func denials() []byte {
	p := []unix.SockFilter{
		load(offsetArch), jump(unix.BPF_JEQ, auditArch, 1, 0), answer(unix.SECCOMP_RET_KILL_PROCESS), load(offsetNr),
		// The second numbering of amd64 (x32) has every call under another number.
		jump(unix.BPF_JGE, x32, 0, 1), answer(unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)),
	}
	f := filter{inet: true, connect: true, signal: true}
	for _, r := range f.rules() {
		if !slices.Contains([]uint32{unix.SYS_SOCKET, unix.SYS_SOCKETPAIR, unix.SYS_SENDTO, unix.SYS_SENDMSG, unix.SYS_SENDMMSG}, r.nr) {
			continue
		}
		if r.nr == unix.SYS_SOCKET {
			r.any = slices.DeleteFunc(r.any, func(all []test) bool { return all[0].value == unix.AF_UNIX })
		}
		body := r.body()
		p = append(p, jump(unix.BPF_JEQ, r.nr, 0, uint8(len(body)))) //nolint:gosec // a test keeps bodies short
		p = append(p, body...)
	}
	terminal := []unix.SockFilter{
		load(offsetArgs + 8), jump(unix.BPF_JEQ, unix.TIOCSTI, 1, 0), jump(unix.BPF_JEQ, tioclinux, 0, 1),
		answer(unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)), answer(unix.SECCOMP_RET_ALLOW),
	}
	p = append(p, jump(unix.BPF_JEQ, unix.SYS_IOCTL, 0, uint8(len(terminal)))) //nolint:gosec // five
	p = append(p, terminal...)
	for _, nr := range refused {
		p = append(p, jump(unix.BPF_JEQ, nr, 0, 1), answer(unix.SECCOMP_RET_ERRNO|uint32(unix.EPERM)))
	}
	p = append(p, answer(unix.SECCOMP_RET_ALLOW))
	var b []byte
	for _, i := range p {
		b = binary.NativeEndian.AppendUint16(b, i.Code)
		b = append(b, i.Jt, i.Jf)
		b = binary.NativeEndian.AppendUint32(b, i.K)
	}
	return b
}

const (
	tioclinux = 0x541C // TIOCLINUX, which pastes into a console
	x32       = 0x40000000
)
