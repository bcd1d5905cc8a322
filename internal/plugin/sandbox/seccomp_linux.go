//go:build linux && (amd64 || arm64)

package sandbox

import (
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"
)

// The filter of system calls is a list of those that are allowed: what is not
// on it, a call that a later kernel brings included, answers ENOSYS, as if the
// kernel had none. Programs and libraries know that answer and do without:
// glibc falls back from clone3 to clone, whose flags can be seen here. A call
// on the list of conditions is allowed if its arguments meet one of them.

// filter is what the filter of one start depends on.
type filter struct {
	inet    bool // TCP and UDP
	stream  bool // TCP alone, for an interface of its own
	connect bool // may connect to something
	apart   bool // namespaces of its own: it can name no process and no file of the host
	signal  bool // may send signals: namespace or Landlock keep them inside
}

// test is a condition on one argument of a call: arg & mask == value.
type test struct {
	arg   uint32
	mask  uint32
	value uint32
}

// rule says under which conditions a call is allowed; each is a list of tests
// that must all hold.
type rule struct {
	nr   uint32
	any  [][]test
	errn unix.Errno // otherwise
}

const all = ^uint32(0)

// kinds of sockets without the flags in the same argument.
const kindOfSocket = 0xf

// rules are the calls that are allowed conditionally.
func (f filter) rules() []rule {
	const newNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC |
		unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET
	// A thread with descriptors of its own would have as many again.
	const thread = unix.CLONE_THREAD | unix.CLONE_FILES
	clones := [][]test{{{0, newNamespaces | thread, thread}}}
	if f.apart { // elsewhere children would not die with the namespace
		clones = append(clones, []test{{0, newNamespaces | unix.CLONE_THREAD, 0}})
	}
	list := []rule{
		{unix.SYS_SOCKET, f.sockets(), unix.EAFNOSUPPORT},
		// No pairs of datagrams either: they can be sent to any name.
		{unix.SYS_SOCKETPAIR, [][]test{
			{{0, all, unix.AF_UNIX}, {1, kindOfSocket, unix.SOCK_STREAM}}, {{0, all, unix.AF_UNIX}, {1, kindOfSocket, unix.SOCK_SEQPACKET}},
		}, unix.EAFNOSUPPORT},
		// To connect while sending passes connect, and Landlock's check of ports.
		{unix.SYS_SENDTO, [][]test{{{3, unix.MSG_FASTOPEN, 0}}}, unix.EOPNOTSUPP},
		{unix.SYS_SENDMSG, [][]test{{{2, unix.MSG_FASTOPEN, 0}}}, unix.EOPNOTSUPP},
		{unix.SYS_SENDMMSG, [][]test{{{3, unix.MSG_FASTOPEN, 0}}}, unix.EOPNOTSUPP},
		{unix.SYS_FCNTL, controls(), unix.EPERM},
		{unix.SYS_MMAP, mappings(), unix.EPERM},
		{unix.SYS_CLONE, clones, unix.EPERM},
		{unix.SYS_CLOSE_RANGE, [][]test{{{2, unix.CLOSE_RANGE_UNSHARE, 0}}}, unix.EPERM},
		{unix.SYS_PRCTL, options(), unix.EPERM},
		// Neither put characters into a terminal nor take it over.
		{unix.SYS_IOCTL, ioctls(), unix.EPERM},
	}
	if !f.apart { // Landlock does not judge these
		list = append(list,
			rule{unix.SYS_PRLIMIT64, [][]test{{{0, all, 0}}}, unix.EPERM},
			rule{unix.SYS_SCHED_SETAFFINITY, [][]test{{{0, all, 0}}}, unix.EPERM})
		for _, nr := range modes {
			list = append(list, rule{nr, nil, unix.EPERM})
		}
	}
	if !f.connect {
		list = append(list, rule{unix.SYS_CONNECT, nil, unix.EACCES})
	}
	if !f.signal { // SIGURG, which is ignored unless waited for, is how Go stops its threads
		list = append(list,
			rule{unix.SYS_KILL, nil, unix.EPERM}, rule{unix.SYS_TKILL, nil, unix.EPERM},
			rule{unix.SYS_TGKILL, [][]test{{{2, all, uint32(unix.SIGURG)}}}, unix.EPERM})
	}
	return list
}

// sockets are the families and protocols that may be asked for: no datagrams of
// AF_UNIX, which could be sent to any name, no MPTCP, which Landlock does not
// see, no raw, packet, netlink or other sockets.
func (f filter) sockets() [][]test {
	list := [][]test{{{0, all, unix.AF_UNIX}, {1, kindOfSocket, unix.SOCK_STREAM}, {2, all, 0}}}
	for _, family := range []uint32{unix.AF_INET, unix.AF_INET6} {
		if f.inet || f.stream {
			list = append(list,
				[]test{{0, all, family}, {1, kindOfSocket, unix.SOCK_STREAM}, {2, all, 0}},
				[]test{{0, all, family}, {1, kindOfSocket, unix.SOCK_STREAM}, {2, all, unix.IPPROTO_TCP}})
		}
		if f.inet {
			list = append(list,
				[]test{{0, all, family}, {1, kindOfSocket, unix.SOCK_DGRAM}, {2, all, 0}},
				[]test{{0, all, family}, {1, kindOfSocket, unix.SOCK_DGRAM}, {2, all, unix.IPPROTO_UDP}})
		}
	}
	return list
}

// options are those of prctl that programs use. PR_SET_PDEATHSIG is not among
// them: a plugin must not outlive the host.
func options() [][]test {
	var list [][]test
	for _, o := range []uint32{
		unix.PR_SET_NAME, unix.PR_GET_NAME, unix.PR_SET_VMA, unix.PR_GET_DUMPABLE, unix.PR_SET_DUMPABLE,
		unix.PR_CAPBSET_READ, unix.PR_GET_NO_NEW_PRIVS, unix.PR_SET_NO_NEW_PRIVS, unix.PR_SET_THP_DISABLE,
		unix.PR_GET_SECCOMP, unix.PR_GET_KEEPCAPS, unix.PR_GET_TIMERSLACK, unix.PR_SET_TIMERSLACK,
	} {
		list = append(list, []test{{0, all, o}})
	}
	return list
}

// controls are the commands of fcntl that programs use: none by which the kernel
// sends signals to an owner (F_SETOWN, F_SETSIG), and no leases, on which others
// wait who open the file.
func controls() [][]test {
	var list [][]test
	for _, c := range []uint32{
		unix.F_DUPFD, unix.F_DUPFD_CLOEXEC, unix.F_GETFD, unix.F_SETFD, unix.F_GETFL, unix.F_SETFL, unix.F_GETLK, unix.F_SETLK,
		unix.F_SETLKW, unix.F_OFD_GETLK, unix.F_OFD_SETLK, unix.F_OFD_SETLKW, unix.F_GETPIPE_SZ, unix.F_SETPIPE_SZ, unix.F_GET_SEALS,
	} {
		list = append(list, []test{{1, all, c}})
	}
	return list
}

// refusals are calls that are allowed unless their arguments meet a condition. The
// size of a socket's buffer is not refused but ignored, as the kernel does with
// one that it finds too large: what is in there no limit counts.
func refusals() []rule {
	return []rule{{unix.SYS_SETSOCKOPT, [][]test{{{1, all, unix.SOL_SOCKET}, {2, all, unix.SO_SNDBUF}}}, 0}}
}

// mappings are memory that is limited, and files: nothing that is shared and of no
// file, or grows by itself like a stack, which RLIMIT_DATA does not count, and no
// huge pages, which nobody counts once they cannot be written.
func mappings() [][]test {
	const flags = 3 // its argument
	return [][]test{
		{{flags, unix.MAP_TYPE | unix.MAP_GROWSDOWN | unix.MAP_HUGETLB, unix.MAP_PRIVATE}},
		{{flags, unix.MAP_TYPE | unix.MAP_GROWSDOWN | unix.MAP_ANONYMOUS, unix.MAP_SHARED}},
		{{flags, unix.MAP_TYPE | unix.MAP_GROWSDOWN | unix.MAP_ANONYMOUS, unix.MAP_SHARED_VALIDATE}},
	}
}

func ioctls() [][]test {
	var list [][]test
	const fionread, fionbio, fionclex, fioclex = 0x541B, 0x5421, 0x5450, 0x5451
	for _, o := range []uint32{fionread, fionbio, fionclex, fioclex, unix.TCGETS, unix.TIOCGWINSZ} {
		list = append(list, []test{{1, all, o}})
	}
	return list
}

// The offsets in struct seccomp_data.
const (
	offsetNr   = 0
	offsetArch = 4
	offsetArgs = 16 // of 8 bytes; the lower half is first
)

// program translates the filter for the kernel: struct sock_filter, eight bytes
// each.
func (f filter) program() []byte {
	p := []unix.SockFilter{
		load(offsetArch), jump(unix.BPF_JEQ, auditArch, 1, 0), answer(unix.SECCOMP_RET_KILL_PROCESS), load(offsetNr),
	}
	conditional := f.rules()
	for _, r := range conditional {
		body := r.body()
		p = append(p, jump(unix.BPF_JEQ, r.nr, 0, uint8(len(body)))) //nolint:gosec // a test keeps bodies short
		p = append(p, body...)
	}
	for _, r := range refusals() {
		body := r.refusal()
		p = append(p, jump(unix.BPF_JEQ, r.nr, 0, uint8(len(body)))) //nolint:gosec // a test keeps bodies short
		p = append(p, body...)
	}
	for _, run := range runs(f.allowed(conditional)) {
		if run.first == run.last {
			p = append(p, jump(unix.BPF_JEQ, run.first, 0, 1), answer(unix.SECCOMP_RET_ALLOW))
			continue
		}
		p = append(p, jump(unix.BPF_JGE, run.first, 0, 2), jump(unix.BPF_JGT, run.last, 1, 0), answer(unix.SECCOMP_RET_ALLOW))
	}
	p = append(p, answer(unix.SECCOMP_RET_ERRNO|uint32(unix.ENOSYS)))
	var b []byte
	for _, i := range p {
		b = binary.NativeEndian.AppendUint16(b, i.Code)
		b = append(b, i.Jt, i.Jf)
		b = binary.NativeEndian.AppendUint32(b, i.K)
	}
	return b
}

// allowed are the numbers of the calls that need no condition.
func (f filter) allowed(conditional []rule) []uint32 {
	list := slices.Concat(everywhere, onlyHere)
	if f.apart {
		list = append(list, forks...)
	}
	slices.Sort(list)
	return slices.DeleteFunc(slices.Compact(list), func(nr uint32) bool {
		return slices.ContainsFunc(conditional, func(r rule) bool { return r.nr == nr })
	})
}

// body decides about one call whose number is loaded.
func (r rule) body() []unix.SockFilter {
	return append(r.clauses(unix.SECCOMP_RET_ALLOW), r.refuse())
}

// refusal decides the other way round.
func (r rule) refusal() []unix.SockFilter {
	return append(r.clauses(r.refuse().K), answer(unix.SECCOMP_RET_ALLOW))
}

func (r rule) refuse() unix.SockFilter {
	return answer(unix.SECCOMP_RET_ERRNO | uint32(r.errn)) //nolint:gosec // small
}

// clauses give an answer if one of the conditions is met.
func (r rule) clauses(then uint32) []unix.SockFilter {
	var b []unix.SockFilter
	for _, tests := range r.any {
		var clause []unix.SockFilter
		for _, t := range tests {
			clause = append(clause, load(offsetArgs+8*t.arg))
			if t.mask != all {
				clause = append(clause, unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: t.mask})
			}
			clause = append(clause, jump(unix.BPF_JEQ, t.value, 0, 0))
		}
		clause = append(clause, answer(then))
		for i := range clause { // a test that fails goes behind the clause
			if clause[i].Code == unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K {
				clause[i].Jf = uint8(len(clause) - i - 1) //nolint:gosec // a clause has some ten instructions
			}
		}
		b = append(b, clause...)
	}
	return b
}

func load(offset uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
}

func jump(how uint16, k uint32, yes, no uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | how | unix.BPF_K, Jt: yes, Jf: no, K: k}
}

func answer(k uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k}
}

// span is a run of numbers without a gap.
type span struct{ first, last uint32 }

// runs joins sorted numbers.
func runs(list []uint32) []span {
	var out []span
	for _, n := range list {
		if len(out) > 0 && out[len(out)-1].last+1 == n {
			out[len(out)-1].last = n
			continue
		}
		out = append(out, span{n, n})
	}
	return out
}
