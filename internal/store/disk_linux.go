package store

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// lockFile holds a file for one process; it fails at once if another has it.
func lockFile(f *os.File) error {
	return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) //nolint:wrapcheck // a descriptor is small; the caller explains
}

// syncData makes what was written to a file durable, with its size but without
// its times.
func syncData(f *os.File) error {
	for {
		if err := unix.Fdatasync(int(f.Fd())); !errors.Is(err, unix.EINTR) {
			return err //nolint:wrapcheck // the caller explains
		}
	}
}

// writeOut has the disk take a part of a file, and waits until it has. Nothing is
// durable by that, but who syncs then has less to wait for. An error is that of a
// sync: it is told once, so that a later sync would not know of it.
func writeOut(f *os.File, from, n int64) error {
	const all = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	var err error = unix.EINTR
	for errors.Is(err, unix.EINTR) {
		err = unix.SyncFileRange(int(f.Fd()), from, n, all)
	}
	switch err {
	case unix.ENOSYS, unix.EOPNOTSUPP, unix.ESPIPE, unix.EINVAL, unix.EPERM: // not here, or forbidden: left to the sync
		return nil
	}
	return err //nolint:wrapcheck // the caller explains
}

// allocate gives a file its space, really and not only in name.
func allocate(f *os.File, size int64) error {
	err := unix.Fallocate(int(f.Fd()), 0, 0, size)
	if errors.Is(err, unix.EOPNOTSUPP) {
		_, err = f.WriteAt(make([]byte, size), 0)
	}
	return err //nolint:wrapcheck // the caller explains
}

// noSpace reports whether an error means a full disk.
func noSpace(err error) bool { return errors.Is(err, unix.ENOSPC) }

// freeSpace is how many bytes a folder's file system can still take.
func freeSpace(dir string) (int64, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return 0, err //nolint:wrapcheck // the caller explains
	}
	return int64(fs.Bavail) * fs.Bsize, nil //nolint:gosec // sizes of disks
}
