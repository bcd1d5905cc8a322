//go:build linux && (amd64 || arm64)

package sandbox

import (
	"encoding/binary"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// The descriptors that a launcher is started with.
const (
	fdControl = 3 // to the host
	fdProgram = 4
	fdRules   = 5 // of Landlock
	fdPeer    = 6 // to the other process of a launcher that clones itself
	fdNext    = 7 // the first one that the launcher opens besides
)

// The user that a plugin of a server that runs as root becomes, and its number
// inside of the plugin's user namespace. A plugin of another server is number 0
// inside, which has no meaning there without capabilities.
const (
	nobody = 65534
	inside = 1000
)

// loopbackSockets is how many connections the host can make in the life of a
// plugin that serves on TCP. The host makes one, and more only if it breaks.
const loopbackSockets = 16

// recipe is everything that a launcher is made from.
type recipe struct {
	spaces   bool     // the launcher clones itself into new namespaces
	network  bool     // one of them is of the network
	dropUser bool     // become inside
	root     string   // where the new root is mounted, a folder
	binds    []bind   // what is in it
	links    []link   // symbolic links in it
	dir      string   // working directory
	loopback bool     // raise the interface, pass sockets to the host
	limits   []limit  // of resources
	rules    bool     // Landlock is there
	filter   *filter  // seccomp is there
	lastCap  int      // the kernel's highest capability
	args     []string // of the plugin
	env      []string
	probe    bool   // end well in place of executing
	group    string // cgroup that a probe begins in
}

// bind is a file or folder of the host that the plugin sees under its own name.
type bind struct {
	path   string
	folder bool
	write  bool
	device bool
	exec   bool
}

type link struct{ path, to string }

type limit struct {
	resource int
	value    uint64
}

// The texts of steps that others ask for.
const (
	stepExecute = "execute the plugin"
	stepRules   = "restrict by Landlock"
	stepFilter  = "filter system calls"
)

// launcher writes the list.
func (r recipe) launcher() *list {
	l := &list{}
	l.call("close other descriptors", unix.SYS_CLOSE_RANGE, fdPeer, 1<<32-1, 0)
	gone := 0
	if r.spaces {
		gone = r.clone(l)
	}
	l.call("clear umask", unix.SYS_UMASK, 0)
	if r.spaces {
		l.call("set host name", unix.SYS_SETHOSTNAME, l.text("plugin"), 6)
		r.mounts(l)
		if r.loopback {
			loopback(l)
		}
	}
	r.privileges(l)
	for _, m := range r.limits {
		l.call("limit resource", unix.SYS_PRLIMIT64, 0, uint64(m.resource), l.words(m.value, m.value), 0) //nolint:gosec // small
	}
	l.call("set umask", unix.SYS_UMASK, 0o077)
	if r.rules {
		l.call(stepRules, unix.SYS_LANDLOCK_RESTRICT_SELF, fdRules, 0)
	}
	if r.spaces {
		r.endWithHost(l, gone)
	}
	l.call("tell the host", unix.SYS_SENDTO, fdControl, l.text("r"), 1, unix.MSG_NOSIGNAL, 0, 0)
	l.call("keep descriptors from the plugin", unix.SYS_CLOSE_RANGE, fdControl, 1<<32-1, unix.CLOSE_RANGE_CLOEXEC)
	if r.filter != nil {
		program := r.filter.program()
		l.call(stepFilter, unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, l.words(uint64(len(program)/8), l.put(program)))
	}
	if r.probe {
		l.call("end", unix.SYS_EXIT_GROUP, 0)
	} else {
		l.call(stepExecute, unix.SYS_EXECVEAT, fdProgram, l.text(""), l.texts(r.args), l.texts(r.env), unix.AT_EMPTY_PATH)
	}
	return l
}

// mounts makes a file system that has nothing but what is bound.
func (r recipe) mounts(l *list) {
	none := l.text("")
	mount := func(what, from, to, kind string, flags uint64, options string) {
		l.call(what, unix.SYS_MOUNT, l.text(from), l.text(to), l.text(kind), flags, l.text(options))
	}
	mount("keep mounts to itself", "", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	mount("mount a root", "tmpfs", r.root, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0755")
	made := map[string]bool{"/": true}
	folders := func(p string) {
		var missing []string
		for ; !made[p]; p = path.Dir(p) {
			made[p] = true
			missing = append(missing, p)
		}
		for _, p := range slices.Backward(missing) {
			l.call("make folder "+p, unix.SYS_MKDIRAT, cwd, l.text(r.root+p), 0o755)
		}
	}
	for n, b := range r.binds {
		switch within := func(o bind) bool { return below(b.path, o.path) }; {
		case slices.ContainsFunc(r.binds[:n], within): // it is there already
		case b.folder:
			folders(b.path)
		default:
			folders(path.Dir(b.path))
			l.call("make file "+b.path, unix.SYS_MKNODAT, cwd, l.text(r.root+b.path), unix.S_IFREG|0o444, 0)
		}
		mount("bind "+b.path, b.path, r.root+b.path, "", unix.MS_BIND|unix.MS_REC, "")
		l.call("restrict mount "+b.path, unix.SYS_MOUNT_SETATTR, cwd, l.text(r.root+b.path), unix.AT_RECURSIVE,
			l.words(b.attributes(), 0, 0, 0), 32)
	}
	for _, k := range r.links {
		folders(path.Dir(k.path))
		l.call("link "+k.path, unix.SYS_SYMLINKAT, l.text(k.to), cwd, l.text(r.root+k.path))
	}
	l.call("enter root", unix.SYS_CHDIR, l.text(r.root))
	l.call("change root", unix.SYS_PIVOT_ROOT, l.text("."), l.text("."))
	l.call("leave the host's root", unix.SYS_UMOUNT2, l.text("."), unix.MNT_DETACH)
	l.call("make root read-only", unix.SYS_MOUNT, none, l.text("/"), none,
		unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, none)
	l.call("enter working directory", unix.SYS_CHDIR, l.text(r.dir))
}

// cwd is AT_FDCWD as a register has it.
const cwd = ^uint64(99)

// attributes are what mount_setattr adds.
func (b bind) attributes() uint64 {
	a := uint64(unix.MOUNT_ATTR_NOSUID)
	if !b.write {
		a |= unix.MOUNT_ATTR_RDONLY
	}
	if !b.device {
		a |= unix.MOUNT_ATTR_NODEV
	}
	if !b.exec {
		a |= unix.MOUNT_ATTR_NOEXEC
	}
	return a
}

// loopback raises the interface of the empty network, and passes sockets of it
// to the host, unconnected: they are the only way in.
func loopback(l *list) {
	// struct ifreq: name of 16 bytes, then the flags.
	request := make([]byte, 40)
	copy(request, "lo")
	binary.NativeEndian.PutUint16(request[16:], unix.IFF_UP)
	l.call("open a socket", unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_DGRAM, 0)
	l.call("raise loopback", unix.SYS_IOCTL, fdNext, unix.SIOCSIFFLAGS, l.put(request))
	l.call("close socket", unix.SYS_CLOSE, fdNext)
	var fds []int
	for n := range loopbackSockets {
		l.call("open a socket", unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_TCP)
		fds = append(fds, fdNext+n)
	}
	l.call("pass sockets to the host", unix.SYS_SENDMSG, fdControl, l.message(rights(fds...)), unix.MSG_NOSIGNAL)
	l.call("close sockets", unix.SYS_CLOSE_RANGE, fdNext, 1<<32-1, 0)
}

// privileges takes everything away that could be more than an ordinary user's.
func (r recipe) privileges(l *list) {
	l.call("give up new privileges", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1)
	if r.spaces || os.Geteuid() == 0 {
		for c := range r.lastCap + 1 {
			l.call("drop capability", unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, uint64(c))
		}
		// Number 0 is nobody special, nothing brings capabilities back, for ever:
		// SECBIT_NOROOT, NO_SETUID_FIXUP, NO_CAP_AMBIENT_RAISE, each with its lock,
		// and the lock of KEEP_CAPS.
		const secureBits = 1<<0 | 1<<1 | 1<<2 | 1<<3 | 1<<5 | 1<<6 | 1<<7
		l.call("lock privileges", unix.SYS_PRCTL, unix.PR_SET_SECUREBITS, secureBits)
	}
	if r.dropUser {
		l.call("leave groups", unix.SYS_SETGROUPS, 0, 0)
		l.call("change group", unix.SYS_SETRESGID, inside, inside, inside)
		l.call("change user", unix.SYS_SETRESUID, inside, inside, inside)
	}
	const version3 = 0x20080522 // of struct __user_cap_header_struct
	l.call("drop capabilities", unix.SYS_CAPSET, l.words(version3), l.put(make([]byte, 24)))
}

// below reports whether p is root or lies in it.
func below(p, root string) bool {
	return p == root || strings.HasPrefix(p, strings.TrimSuffix(root, "/")+"/")
}
