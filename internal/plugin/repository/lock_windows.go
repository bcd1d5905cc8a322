package repository

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// tryLock locks a file for this descriptor, if nobody else has.
func tryLock(f *os.File) (bool, error) {
	err := windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, new(windows.Overlapped))
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return false, nil
	}
	return err == nil, err //nolint:wrapcheck // by the one caller
}

// syncDir does nothing: folders cannot be synced here.
func syncDir(string) error { return nil }
