//go:build !windows

package repository

import (
	"errors"
	"os"
	"syscall"
)

// tryLock locks a file for this descriptor, if nobody else has.
func tryLock(f *os.File) (bool, error) {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, syscall.EINTR) {
		return false, nil
	}
	return err == nil, err //nolint:wrapcheck // by the one caller
}

func syncDir(path string) error {
	d, err := os.Open(path) //nolint:gosec // a folder of the repository
	if err != nil {
		return err //nolint:wrapcheck // by the callers
	}
	defer func() { _ = d.Close() }()
	return d.Sync() //nolint:wrapcheck // by the callers
}
