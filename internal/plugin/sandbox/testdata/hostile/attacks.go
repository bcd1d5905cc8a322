package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// attacks try one thing each. What they return is what they got.
var attacks = map[string]func(arg string) (string, error){
	"nothing": func(string) (string, error) { return "", nil },
	"read":    func(arg string) (string, error) { b, err := os.ReadFile(arg); return string(b), err },
	"list":    list,
	"stat":    func(arg string) (string, error) { i, err := os.Stat(arg); return name(i), err },
	"write":   func(arg string) (string, error) { return "", os.WriteFile(arg, []byte("x"), 0o600) },
	"fill":    fill,
	"home":    func(string) (string, error) { return os.UserHomeDir() },
	"exec":    func(arg string) (string, error) { b, err := exec.Command(arg).CombinedOutput(); return string(b), err },

	"dial":     dial,
	"udp":      udp,
	"socket":   socket,
	"netlink":  func(string) (string, error) { i, err := net.Interfaces(); return fmt.Sprint(len(i)), err },
	"ptrace":   aim(trace),
	"kill":     aim(func(pid int) error { return syscall.Kill(pid, syscall.SIGKILL) }),
	"memory":   aim(readMemory),
	"fork":     forkBomb,
	"escape":   escape,
	"allocate": allocate,
	"fds":      descriptors,
	"ids":      ids,
	"outlive":  func(string) (string, error) { return "", unix.Prctl(unix.PR_SET_PDEATHSIG, 0, 0, 0, 0) },

	"mount":   mount,
	"unshare": call(unix.SYS_UNSHARE, unix.CLONE_NEWUSER),
	"clone": func(string) (string, error) {
		pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, unix.CLONE_NEWUSER|uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
		if errno == 0 && pid == 0 {
			syscall.RawSyscall(unix.SYS_EXIT, 0, 0, 0)
		}
		return "", number(errno)
	},
	"module":  call(unix.SYS_INIT_MODULE),
	"uring":   call(unix.SYS_IO_URING_SETUP, 8),
	"bpf":     call(unix.SYS_BPF),
	"keyctl":  call(unix.SYS_KEYCTL, unix.KEYCTL_GET_KEYRING_ID, ^uintptr(2), 1),
	"perf":    call(unix.SYS_PERF_EVENT_OPEN),
	"faultfd": call(unix.SYS_USERFAULTFD, 1),
	"memfd":   memfd,
	"chroot":  func(string) (string, error) { return "", unix.Chroot("/") },
	"sethost": call(unix.SYS_SETHOSTNAME, 0, 1<<20),
	"setuid":  func(string) (string, error) { return "", unix.Setuid(0) },
	"limits": func(string) (string, error) {
		return "", unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 1 << 30, Max: 1 << 30})
	},
	"caps":     status("CapEff"),
	"capbnd":   status("CapBnd"),
	"hostname": func(string) (string, error) { return os.Hostname() },
}

func name(i os.FileInfo) string {
	if i == nil {
		return ""
	}
	return i.Name()
}

func list(arg string) (string, error) {
	entries, err := os.ReadDir(arg)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " "), err
}

func number(errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}

func syscallOf(nr uintptr, args ...uintptr) error {
	var a [6]uintptr
	copy(a[:], args)
	_, _, errno := syscall.Syscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5])
	return number(errno)
}

// call makes a system call whose arguments are wrong: what is filtered fails
// with ENOSYS, what is not fails for another reason, which counts as done.
func call(nr uintptr, args ...uintptr) func(string) (string, error) {
	return func(string) (string, error) {
		err := syscallOf(nr, args...)
		if errors.Is(err, syscall.ENOSYS) {
			return "", err
		}
		return fmt.Sprint(err), nil
	}
}

// aim parses a process id.
func aim(f func(pid int) error) func(string) (string, error) {
	return func(arg string) (string, error) {
		pid, err := strconv.Atoi(arg)
		if err != nil {
			return "", err
		}
		return "", f(pid)
	}
}

// trace attaches to a process and lets it go again.
func trace(pid int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := syscall.PtraceAttach(pid); err != nil {
		return err
	}
	if _, err := syscall.Wait4(pid, nil, syscall.WALL, nil); err != nil {
		return err
	}
	return syscall.PtraceDetach(pid)
}

func readMemory(pid int) error {
	buffer := make([]byte, 8)
	_, err := unix.ProcessVMReadv(pid, []unix.Iovec{{Base: &buffer[0], Len: 8}}, []unix.RemoteIovec{{Base: 0x400000, Len: 8}}, 0)
	return err
}

func dial(arg string) (string, error) {
	network, address, _ := strings.Cut(arg, "|")
	c, err := net.DialTimeout(network, address, 2*time.Second)
	if err != nil {
		return "", err
	}
	return "connected", c.Close()
}

func udp(arg string) (string, error) {
	c, err := net.Dial("udp", arg)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	_, err = c.Write([]byte("hello"))
	return "sent", err
}

// socket asks for family, type, protocol.
func socket(arg string) (string, error) {
	var family, kind, protocol int
	if _, err := fmt.Sscanf(arg, "%d,%d,%d", &family, &kind, &protocol); err != nil {
		return "", err
	}
	fd, err := unix.Socket(family, kind, protocol)
	if err == nil {
		_ = unix.Close(fd)
	}
	return "", err
}

// mount covers the plugin's own folder, and uncovers it again.
func mount(string) (string, error) {
	dir := os.Getenv("PLUGIN_UNIX_SOCKET_DIR")
	if err := unix.Mount("none", dir, "tmpfs", 0, ""); err != nil {
		return "", err
	}
	return "", unix.Unmount(dir, unix.MNT_DETACH)
}

// fill writes until it is stopped.
func fill(arg string) (string, error) {
	dir := arg
	if dir == "" {
		dir = os.Getenv("PLUGIN_UNIX_SOCKET_DIR")
	}
	f, err := os.Create(filepath.Join(dir, "fill"))
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	block := make([]byte, 1<<20)
	for n := range 8 {
		if _, err := f.Write(block); err != nil {
			return fmt.Sprint(n), err
		}
	}
	return "8 MB", nil
}

// forkBomb starts sleeping copies of itself until it is stopped, and reports how
// many it got.
func forkBomb(string) (string, error) {
	for n := range 300 {
		pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
		if errno != 0 {
			return "", fmt.Errorf("after %d: %w", n, errno)
		}
		if pid == 0 {
			for {
				pause()
			}
		}
	}
	return "300 processes", nil
}

// escape leaves a process in another session behind.
func escape(string) (string, error) {
	pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		return "", errno
	}
	if pid == 0 {
		syscall.RawSyscall(unix.SYS_SETSID, 0, 0, 0)
		for {
			pause()
		}
	}
	return strconv.Itoa(int(pid)), nil
}

// pause sleeps without the runtime, which a bare clone does not have.
//
//go:norace
//go:nosplit
func pause() {
	t := syscall.Timespec{Sec: 3600}
	syscall.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&t)), 0, 0)
}

func allocate(arg string) (string, error) {
	var hoard [][]byte
	defer func() {
		for _, b := range hoard {
			_ = unix.Munmap(b)
		}
	}()
	mb, err := strconv.Atoi(arg)
	if err != nil {
		return "", err
	}
	for n := range mb / 16 {
		b, err := unix.Mmap(-1, 0, 16<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err != nil {
			return "", fmt.Errorf("after %d MB: %w", n*16, err)
		}
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		hoard = append(hoard, b)
	}
	return arg + " MB", nil
}

// descriptors lists what is open that is not the plugin's own: neither a socket
// nor an event of its making.
func descriptors(string) (string, error) {
	var open []string
	for fd := 3; fd < 400; fd++ {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			continue
		}
		kind := "other"
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFSOCK:
			family, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
			kind = fmt.Sprint("socket-", family)
			if k, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); k == unix.SOCK_SEQPACKET {
				kind = "control"
			}
		case unix.S_IFREG:
			kind = "file"
		case unix.S_IFDIR:
			kind = "folder"
		case unix.S_IFIFO:
			kind = "pipe"
		}
		open = append(open, fmt.Sprintf("%d=%s", fd, kind))
	}
	return strings.Join(open, " "), nil
}

func ids(string) (string, error) {
	return fmt.Sprintf("pid %d uid %d", os.Getpid(), os.Getuid()), nil
}

// memfd makes a program of its own and executes it.
func memfd(string) (string, error) {
	fd, err := unix.MemfdCreate("own", unix.MFD_CLOEXEC)
	if err != nil {
		return "", err
	}
	return "", unix.Close(fd)
}

func status(field string) func(string) (string, error) {
	return func(string) (string, error) {
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err := unix.Capget(&hdr, &data[0]); err != nil {
			return "", err
		}
		if field == "CapBnd" {
			n := 0
			for c := range 64 {
				r, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0)
				if err == nil && r == 1 {
					n++
				}
			}
			return strconv.Itoa(n), nil
		}
		return fmt.Sprintf("%x%08x", data[1].Effective, data[0].Effective), nil
	}
}
