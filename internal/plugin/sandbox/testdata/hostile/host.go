package main

import (
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// These reach for processes and files of the host by calls that are no file
// access, which Landlock does not judge.
func init() {
	attacks["chmod"] = func(arg string) (string, error) { return "", os.Chmod(arg, 0o640) }
	attacks["datagram"] = datagram
	attacks["fastopen"] = fastOpen
	attacks["starve"] = aim(func(pid int) error {
		limit := unix.Rlimit{Cur: 1 << 20, Max: 1 << 20}
		return unix.Prlimit(pid, unix.RLIMIT_CPU, &limit, nil)
	})
	attacks["pin"] = aim(func(pid int) error {
		var set unix.CPUSet
		set.Set(0)
		return unix.SchedSetaffinity(pid, &set)
	})
	attacks["signal"] = aim(ownSignal)
}

// datagram sends to a name without connect.
func datagram(arg string) (string, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer func() { _, _ = unix.Close(fds[0]), unix.Close(fds[1]) }()
	return "sent", unix.Sendto(fds[0], []byte("hello"), 0, &unix.SockaddrUnix{Name: arg})
}

// fastOpen connects over TCP without connect, by each call that sends.
func fastOpen(arg string) (string, error) {
	how, address, _ := strings.Cut(arg, "|")
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return "", err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer func() { _ = unix.Close(fd) }()
	target := &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}
	if how == "sendmsg" {
		return "sent", unix.Sendmsg(fd, []byte("hello"), nil, target, unix.MSG_FASTOPEN)
	}
	return "sent", unix.Sendto(fd, []byte("hello"), unix.MSG_FASTOPEN, target)
}

// ownSignal makes the kernel send a signal when a pipe can be read.
func ownSignal(pid int) error {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	for _, c := range [][2]int{{unix.F_SETSIG, int(unix.SIGCONT)}, {unix.F_SETOWN, pid}} {
		if _, err := unix.FcntlInt(uintptr(p[0]), c[0], c[1]); err != nil {
			return err
		}
	}
	_, err := unix.FcntlInt(uintptr(p[0]), unix.F_GETOWN, 0)
	return err
}
