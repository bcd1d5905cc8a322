package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// These take memory by ways that RLIMIT_DATA does not count. The argument is how
// much, in MB, and "hold" if it is to be kept until the end.
func init() {
	attacks["shared"] = taking(func(n int) ([]byte, error) {
		return unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANON)
	})
	attacks["downwards"] = taking(func(n int) ([]byte, error) {
		return unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_GROWSDOWN)
	})
	// Not touched, because a machine may have no such pages to give.
	attacks["huge"] = func(arg string) (string, error) {
		mb, _, err := amount(arg)
		if err != nil {
			return "", err
		}
		b, err := unix.Mmap(-1, 0, mb<<20, unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_HUGETLB|unix.MAP_NORESERVE)
		if err != nil {
			return "", err
		}
		return arg + " MB", unix.Munmap(b)
	}
	attacks["zero"] = taking(fromFile("/dev/zero", false))
	attacks["tmpfs"] = taking(fromFile("/dev/shm/sallyport-attack", true))
	attacks["memfdmap"] = taking(func(n int) ([]byte, error) {
		fd, err := unix.MemfdCreate("own", unix.MFD_CLOEXEC)
		if err != nil {
			return nil, err
		}
		defer func() { _ = unix.Close(fd) }()
		if err := unix.Ftruncate(fd, int64(n)); err != nil {
			return nil, err
		}
		return unix.Mmap(fd, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	})
	attacks["shm"] = func(arg string) (string, error) {
		mb, _, err := amount(arg)
		if err != nil {
			return "", err
		}
		id, err := unix.SysvShmGet(unix.IPC_PRIVATE, mb<<20, unix.IPC_CREAT|0o600)
		if err != nil {
			return "", err
		}
		defer func() { _, _ = unix.SysvShmCtl(id, unix.IPC_RMID, nil) }()
		b, err := unix.SysvShmAttach(id, 0, 0)
		if err != nil {
			return "", err
		}
		touch(b)
		return arg + " MB", unix.SysvShmDetach(b)
	}
	attacks["stack"] = stack
	attacks["sealed"] = sealed
	attacks["tables"] = tables
	attacks["brood"] = brood
	attacks["herd"] = herd
	attacks["buffers"] = buffers
	attacks["unshared"] = unshared
	attacks["flood"] = func(arg string) (string, error) { return children(arg, buffersAndPause) }
}

func amount(arg string) (mb int, hold bool, err error) {
	n, rest, _ := strings.Cut(arg, ",")
	mb, err = strconv.Atoi(n)
	return mb, rest == "hold", err
}

// taking fills memory of one kind.
func taking(get func(bytes int) ([]byte, error)) func(string) (string, error) {
	return func(arg string) (string, error) {
		mb, _, err := amount(arg)
		if err != nil {
			return "", err
		}
		b, err := get(mb << 20)
		if err != nil {
			return "", err
		}
		touch(b)
		return arg + " MB", unix.Munmap(b)
	}
}

func touch(b []byte) {
	for i := 0; i < len(b); i += 4096 {
		b[i] = 1
	}
}

func fromFile(name string, create bool) func(int) ([]byte, error) {
	return func(n int) ([]byte, error) {
		flags := os.O_RDWR
		if create {
			flags |= os.O_CREATE
			defer func() { _ = os.Remove(name) }()
		}
		f, err := os.OpenFile(name, flags, 0o600)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }()
		if create {
			if err := f.Truncate(int64(n)); err != nil {
				return nil, err
			}
		}
		return unix.Mmap(int(f.Fd()), 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	}
}

// stack raises its limit, and lets the first thread's stack grow by half of the
// amount; above it the kernel has put the arguments.
func stack(arg string) (_ string, err error) {
	mb, _, err := amount(arg)
	if err != nil {
		return "", err
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_STACK, &limit); err != nil {
		return "", err
	}
	limit.Cur = uint64(mb) << 20
	if err := unix.Setrlimit(unix.RLIMIT_STACK, &limit); err != nil {
		return "", err
	}
	debug.SetPanicOnFault(true)
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	top := uintptr(unsafe.Pointer(unsafe.StringData(os.Args[0]))) &^ 4095
	most := uintptr(mb) << 19
	for n := uintptr(0); n < most; n += 4096 {
		*(*byte)(unsafe.Pointer(top - 65536 - n)) = 1
	}
	return arg, syscallOf(unix.SYS_MADVISE, top-65536-most+4096, most-4096, unix.MADV_DONTNEED)
}

// sealed fills memory and takes its own right to write there: what cannot be
// written is not counted.
func sealed(arg string) (string, error) {
	mb, hold, err := amount(arg)
	if err != nil {
		return "", err
	}
	const piece = 4
	for range mb / piece {
		b, err := unix.Mmap(-1, 0, piece<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err != nil {
			return "", err
		}
		defer func() { _ = unix.Munmap(b) }()
		touch(b)
		if err := unix.Mprotect(b, unix.PROT_READ); err != nil {
			return "", err
		}
	}
	wait(hold)
	return arg, nil
}

// tables reads here and there in memory that was never written, which costs
// nothing but the tables of pages.
func tables(arg string) (string, error) {
	mb, hold, err := amount(arg)
	if err != nil {
		return "", err
	}
	size := mb << 20 / 4096 * (2 << 20)
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return "", err
	}
	defer func() { _ = unix.Munmap(b) }()
	sum := byte(0)
	for i := 0; i < size; i += 2 << 20 {
		sum += b[i]
	}
	wait(hold)
	return fmt.Sprint(arg, sum), nil
}

// herd lets twelve children share what was filled before they were made.
func herd(arg string) (string, error) {
	mb, _, err := amount(arg)
	if err != nil {
		return "", err
	}
	b, err := unix.Mmap(-1, 0, mb<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return "", err
	}
	defer func() { _ = unix.Munmap(b) }()
	touch(b)
	if _, err := brood("0"); err != nil {
		return "", err
	}
	return arg, nil
}

// brood lets twelve children have a part each.
func brood(arg string) (string, error) { return children(arg, fillAndPause) }

func children(arg string, fill func(size uintptr)) (string, error) {
	mb, hold, err := amount(arg)
	if err != nil {
		return "", err
	}
	var pids []int
	defer func() {
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			_, _ = syscall.Wait4(pid, nil, 0, nil)
		}
	}()
	for range 12 {
		pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
		if errno != 0 {
			return "", errno
		}
		if pid == 0 {
			fill(uintptr(mb) << 20 / 12 &^ 4095)
		}
		pids = append(pids, int(pid))
	}
	if mb == 0 {
		time.Sleep(time.Second) // so that it is measured
	}
	wait(hold)
	return arg, nil
}

// fillAndPause runs without the runtime, which a bare clone does not have.
//
//go:norace
//go:nosplit
func fillAndPause(size uintptr) {
	at, _, errno := syscall.RawSyscall6(unix.SYS_MMAP, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON, ^uintptr(0), 0)
	if errno == 0 {
		for n := uintptr(0); n < size; n += 4096 {
			*(*byte)(unsafe.Pointer(at + n)) = 1
		}
	}
	for {
		pause()
	}
}

// buffers fills those of pairs of sockets, as large as the kernel makes them.
func buffers(arg string) (string, error) {
	mb, hold, err := amount(arg)
	if err != nil {
		return "", err
	}
	for sum := 0; sum < mb<<20; {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return "", fmt.Errorf("after %d MB: %w", sum>>20, err)
		}
		for _, fd := range pair {
			defer func() { _ = unix.Close(fd) }()
			if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 8<<20); err != nil {
				return "", err
			}
			for n := 0; n >= 0; sum += max(n, 0) {
				n, _ = unix.Write(fd, block[:])
			}
		}
	}
	wait(hold)
	return arg, nil
}

var block [64 << 10]byte

// buffersAndPause is the same for a bare clone, with buffers as they are, and twice
// as much: the first sockets of a plugin do not count.
//
//go:norace
//go:nosplit
func buffersAndPause(size uintptr) {
	var pair [2]int32
	for sum := uintptr(0); sum < 2*size; {
		if _, _, errno := syscall.RawSyscall6(unix.SYS_SOCKETPAIR, unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0, uintptr(unsafe.Pointer(&pair)), 0, 0); errno != 0 {
			break
		}
		for _, fd := range pair {
			for {
				n, _, errno := syscall.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&block)), uintptr(len(block)))
				if errno != 0 {
					break
				}
				sum += n
			}
		}
	}
	for {
		pause()
	}
}

// unshared takes descriptors of its own for a thread, as many again.
func unshared(string) (string, error) {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and ends with it
		done <- syscallOf(unix.SYS_CLOSE_RANGE, 1<<30, 1<<30, unix.CLOSE_RANGE_UNSHARE)
	}()
	return "", <-done
}

// wait keeps what was taken.
func wait(hold bool) {
	if hold {
		time.Sleep(time.Minute)
	}
}
