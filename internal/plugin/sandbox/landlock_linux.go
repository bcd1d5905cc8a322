//go:build linux && (amd64 || arm64)

package sandbox

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The rights of Landlock, as the kernel's documentation groups them
// (userspace-api/landlock).
const (
	readFile = unix.LANDLOCK_ACCESS_FS_READ_FILE
	readTree = readFile | unix.LANDLOCK_ACCESS_FS_READ_DIR
	runFile  = readFile | unix.LANDLOCK_ACCESS_FS_EXECUTE
	// socketRights are those of the plugin's own folder: sockets, and the empty
	// files by which go-plugin finds a free name.
	socketRights = readTree | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE |
		unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_SOCK | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE
	deviceRights = readFile | unix.LANDLOCK_ACCESS_FS_WRITE_FILE

	// fileRights are those that exist for what is no folder.
	fileRights = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | readFile |
		unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
)

// attributes is struct landlock_ruleset_attr. Old kernels know only its
// beginning, and accept the rest as long as it is zero.
type attributes struct {
	FS, Net, Scoped uint64
}

// landlock is what the kernel's Landlock can restrict. The zero value: nothing.
type landlock struct{ attributes }

// probeLandlock asks for every right by itself, so that it does not matter which
// version brought it.
func probeLandlock() (landlock, error) {
	var l landlock
	fd, err := ruleset(attributes{FS: unix.LANDLOCK_ACCESS_FS_EXECUTE})
	if err != nil {
		return l, err
	}
	_ = unix.Close(fd)
	try := func(set *uint64, bits int, ask func(uint64) attributes) {
		for b := range bits {
			if fd, err := ruleset(ask(1 << b)); err == nil {
				*set |= 1 << b
				_ = unix.Close(fd)
			}
		}
	}
	// Of the network TCP alone: UDP's rights would stop look-ups of names.
	try(&l.FS, 17, func(bit uint64) attributes { return attributes{FS: bit} })
	try(&l.Net, 2, func(bit uint64) attributes { return attributes{Net: bit} })
	try(&l.Scoped, 2, func(bit uint64) attributes { return attributes{Scoped: bit} })
	return l, nil
}

func (l landlock) works() bool   { return l.FS != 0 }
func (l landlock) ports() bool   { return l.Net&unix.LANDLOCK_ACCESS_NET_CONNECT_TCP != 0 }
func (l landlock) signals() bool { return l.Scoped&unix.LANDLOCK_SCOPE_SIGNAL != 0 }

// grant is one thing that a plugin may use of the file system.
type grant struct {
	path   string
	rights uint64
}

// rules makes a set of rules: nothing but the grants, and connections to the
// ports, unless free says that the network is the plugin's own.
func (l landlock) rules(grants []grant, ports []uint16, free bool) (*os.File, error) {
	a := l.attributes
	if free {
		a.Net = 0
	}
	fd, err := ruleset(a)
	if err != nil {
		return nil, fmt.Errorf("make rules: %w", err)
	}
	set := os.NewFile(uintptr(fd), "rules")
	for _, g := range grants {
		if err := l.allow(fd, g); err != nil {
			_ = set.Close()
			return nil, err
		}
	}
	for _, p := range ports {
		if !l.ports() || free {
			break
		}
		rule := struct{ access, port uint64 }{unix.LANDLOCK_ACCESS_NET_CONNECT_TCP, uint64(p)}
		const netPort = 2                                                   // LANDLOCK_RULE_NET_PORT
		if err := addRule(fd, netPort, unsafe.Pointer(&rule)); err != nil { //nolint:gosec // the kernel reads it
			_ = set.Close()
			return nil, fmt.Errorf("allow port %d: %w", p, err)
		}
	}
	return set, nil
}

func (l landlock) allow(fd int, g grant) error {
	at, err := unix.Open(g.path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", g.path, err)
	}
	defer func() { _ = unix.Close(at) }()
	var st unix.Stat_t
	if err := unix.Fstat(at, &st); err != nil {
		return fmt.Errorf("look at %s: %w", g.path, err)
	}
	rights := g.rights & l.FS
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		rights &= fileRights
	}
	rule := unix.LandlockPathBeneathAttr{Allowed_access: rights, Parent_fd: int32(at)}          //nolint:gosec // a descriptor
	if err := addRule(fd, unix.LANDLOCK_RULE_PATH_BENEATH, unsafe.Pointer(&rule)); err != nil { //nolint:gosec // the kernel reads it
		return fmt.Errorf("allow %s: %w", g.path, err)
	}
	return nil
}

// ruleset makes an empty set of rules, of the shortest form that has what is
// asked for.
func ruleset(a attributes) (int, error) {
	size := unsafe.Sizeof(a)
	if a.Scoped == 0 {
		size -= unsafe.Sizeof(a.Scoped)
		if a.Net == 0 {
			size -= unsafe.Sizeof(a.Net)
		}
	}
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&a)), size, 0) //nolint:gosec // the kernel reads it
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

func addRule(fd int, kind uintptr, rule unsafe.Pointer) error {
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(fd), kind, uintptr(rule), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// without says why there is no Landlock.
func without(err error) string {
	switch {
	case errors.Is(err, unix.ENOSYS):
		return "the kernel has none (5.13 and later do)"
	case errors.Is(err, unix.EOPNOTSUPP):
		return "it is switched off at boot (parameter lsm=)"
	default:
		return err.Error()
	}
}
