//go:build linux && (amd64 || arm64)

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// Dial connects to the plugin's own loopback interface, by a socket that was
// made there. Each connection uses one up; when none is left the plugin must be
// started anew.
func (b *box) Dial(ctx context.Context, address string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil || !to.Addr().Is4() || !to.Addr().IsLoopback() {
		return nil, fault.Deniedf("plugin %s announces %q; in its sandbox it can serve on 127.0.0.1", b.plan.Plugin, address)
	}
	fd, ok := b.take()
	if !ok {
		return nil, fault.Unavailablef("plugin %s lost its connection too often", b.plan.Plugin)
	}
	if err := connect(ctx, fd, to); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("connect to plugin %s: %w", b.plan.Plugin, err)
	}
	f := os.NewFile(uintptr(fd), "plugin")
	defer func() { _ = f.Close() }()
	return net.FileConn(f)
}

func (b *box) take() (int, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.start.sockets) == 0 {
		return 0, false
	}
	fd := b.start.sockets[0]
	b.start.sockets = b.start.sockets[1:]
	return fd, true
}

// connect waits no longer than ctx. The runtime's poller takes only sockets that
// are connected, so this one is asked in small steps.
func connect(ctx context.Context, fd int, to netip.AddrPort) error {
	if err := unix.SetNonblock(fd, true); err != nil {
		return err
	}
	err := unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
	for errors.Is(err, unix.EINPROGRESS) || errors.Is(err, unix.EINTR) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}} //nolint:gosec // a descriptor
		n, perr := unix.Poll(poll, int((20 * time.Millisecond).Milliseconds()))
		if perr != nil && !errors.Is(perr, unix.EINTR) {
			return perr
		}
		if n > 0 {
			code, gerr := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
			if gerr != nil || code == 0 {
				return gerr
			}
			return unix.Errno(code)
		}
	}
	return err
}
