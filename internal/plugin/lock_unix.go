//go:build !windows

package plugin

import (
	"errors"
	"os"
	"syscall"
)

// waitLock locks a file for this descriptor.
func waitLock(f *os.File) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}
