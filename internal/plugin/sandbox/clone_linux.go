//go:build linux && (amd64 || arm64)

package sandbox

import (
	"encoding/binary"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// A launcher makes the namespaces of its plugin itself, by cloning itself into
// them: it has some pages, where the host may have gigabytes, whose tables the
// kernel would copy; docs/decisions/0025. Two processes work for some hundred
// microseconds then:
//
//	first                              second, in the namespaces
//	tell the host who the second is
//	                                   pass /proc/self to the first
//	write its users and groups
//	answer                             go on: mounts, privileges
//	                                   ask for SIGKILL when the host ends
//	                                   ask whether the first is still there
//	answer, end                        leave the group, tell the host, execute
//
// The second is a child of the host (CLONE_PARENT), which can wait for it and is
// waited for by its signal. If the first is killed at any point, the second finds
// nobody at the other end and ends. The host finds it until then by its process
// group, which is the first one's; by the time that it has one of its own the host
// was told who it is.

// namespaces are those that a plugin has of its own.
const namespaces = unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS

// pidSize is the length of the message that says who the second process is.
const pidSize = 4

// clone splits the launcher in two. What is added to the list afterwards is for
// the second process. It returns the step that ends a process which is alone.
func (r recipe) clone(l *list) (gone int) {
	l.call("connect both processes", unix.SYS_SOCKETPAIR, unix.AF_UNIX, unix.SOCK_STREAM, 0, l.words(0))
	flags := uint64(namespaces | unix.CLONE_PARENT | unix.CLONE_PARENT_SETTID)
	if r.network {
		flags |= unix.CLONE_NEWNET
	}
	pid, split := l.words(0), l.next()
	l.call("make namespaces", unix.SYS_CLONE, flags, 0, pid)

	l.call("close the second's end", unix.SYS_CLOSE, fdPeer)
	l.call("say who the second is", unix.SYS_SENDTO, fdControl, pid, pidSize, unix.MSG_NOSIGNAL, 0, 0)
	first := l.next()
	l.call("take the folder of the second", unix.SYS_RECVMSG, fdNext, l.message(make([]byte, unix.CmsgSpace(4))), 0)
	r.identify(l)
	l.call("let the second go on", unix.SYS_SENDTO, fdNext, l.text("1"), 1, unix.MSG_NOSIGNAL, 0, 0)
	last := l.next()
	l.call("wait for the second", unix.SYS_RECVFROM, fdNext, l.words(0), 1, 0, 0, 0)
	l.call("answer the second", unix.SYS_SENDTO, fdNext, l.text("1"), 1, unix.MSG_NOSIGNAL, 0, 0)
	l.call("end", unix.SYS_EXIT_GROUP, 0)
	gone = l.next()
	l.call("end alone", unix.SYS_EXIT_GROUP, 1)
	l.ifZero(first, gone)
	l.ifZero(last, gone)
	l.ifZero(split, l.next())

	l.call("close the first's end", unix.SYS_CLOSE, fdNext)
	// Its own folder in the host's /proc, whatever its number is.
	l.call("open its folder", unix.SYS_OPENAT, cwd, l.text("/proc/self"), unix.O_PATH|unix.O_DIRECTORY)
	l.call("pass its folder", unix.SYS_SENDMSG, fdPeer, l.message(rights(fdNext)), unix.MSG_NOSIGNAL)
	l.call("close its folder", unix.SYS_CLOSE, fdNext)
	r.await(l, "wait for users and groups", gone)
	return gone
}

// await lets the second process wait for the first, and end if that is gone.
func (r recipe) await(l *list, what string, gone int) {
	n := l.next()
	l.call(what, unix.SYS_RECVFROM, fdPeer, l.words(0), 1, 0, 0, 0)
	l.ifZero(n, gone)
}

// identify writes the users and groups of the second process's namespace, which
// takes somebody outside of it where there are two. The folder has the number of
// the end that the first process has closed.
func (r recipe) identify(l *list) {
	const file = fdNext + 1
	write := func(name, text string) {
		l.call("open "+name, unix.SYS_OPENAT, fdPeer, l.text(name), unix.O_WRONLY)
		l.call("write "+name, unix.SYS_WRITE, file, l.text(text), uint64(len(text)))
		l.call("close "+name, unix.SYS_CLOSE, file)
	}
	mapping := func(id int) string {
		text := fmt.Sprintf("0 %d 1\n", id)
		if r.dropUser {
			text += fmt.Sprintf("%d %d 1\n", inside, nobody)
		}
		return text
	}
	if !r.dropUser { // who may change no groups may map its own
		write("setgroups", "deny")
	}
	write("gid_map", mapping(os.Getegid()))
	write("uid_map", mapping(os.Geteuid()))
}

// endWithHost ties the second process to the host's life. Whoever changes who it
// is forgets that: it comes afterwards. The host may have ended before, so that no
// signal will come. Then the first process got its signal at that time, and does
// not answer: nobody who was killed goes back to his program.
func (r recipe) endWithHost(l *list, gone int) {
	l.call("end with the host", unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uint64(unix.SIGKILL))
	l.call("ask the first", unix.SYS_SENDTO, fdPeer, l.text("1"), 1, unix.MSG_NOSIGNAL, 0, 0)
	r.await(l, "wait for the first", gone)
	l.call("lead a group of its own", unix.SYS_SETPGID, 0, 0)
}

// message is a struct msghdr of one byte, with what goes beside it.
func (l *list) message(control []byte) uint64 {
	// Name, its length, vector, its length, control, its length, flags.
	return l.words(0, 0, l.words(l.text("s"), 1), 1, l.put(control), uint64(len(control)), 0)
}

// rights are descriptors to pass: a struct cmsghdr with its data.
func rights(fds ...int) []byte {
	b := make([]byte, unix.CmsgSpace(4*len(fds)))
	binary.NativeEndian.PutUint64(b, uint64(unix.CmsgLen(4*len(fds)))) //nolint:gosec // small
	binary.NativeEndian.PutUint32(b[8:], unix.SOL_SOCKET)
	binary.NativeEndian.PutUint32(b[12:], unix.SCM_RIGHTS)
	for n, fd := range fds {
		binary.NativeEndian.PutUint32(b[16+4*n:], uint32(fd)) //nolint:gosec // a descriptor
	}
	return b
}
