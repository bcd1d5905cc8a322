package plugin

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// Scratch is a private folder among temporary files, for as long as this process
// lives. One whose process was killed is removed when the next one with its prefix
// is made by the same user, where the system has locks (Linux).
//
// What is removed must be provably ours and dead: a folder of this user alone, with
// a lock file of this name in it that no process holds. The kernel gives the lock
// back when a process ends, however it ends, and plugins do not inherit it.
type Scratch struct {
	dir  string
	lock *os.File
}

const scratchLock = "sallyport.lock"

// NewScratch makes a folder whose name begins with prefix, mode 0700.
func NewScratch(prefix string) (*Scratch, error) {
	sweepScratch(prefix)
	const most = 10
	for range most {
		s := &Scratch{}
		var err error
		if s.dir, err = os.MkdirTemp("", prefix); err != nil {
			return nil, fault.Wrap(err, "make folder among temporary files")
		}
		if s.lock, err = os.OpenFile(filepath.Join(s.dir, scratchLock), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
			return nil, errors.Join(fault.Wrap(err, "make folder among temporary files"), s.Close())
		}
		switch err := hold(s.lock); {
		case errors.Is(err, errors.ErrUnsupported) || err == nil && s.intact():
			return s, nil
		default: // somebody swept it away before it was locked
			_ = s.Close()
		}
	}
	return nil, fault.Unavailablef("folders among temporary files vanish; look at who removes them, or set TMPDIR to another place")
}

// Dir is its path.
func (s *Scratch) Dir() string { return s.dir }

// Close removes it with all that is in it. Closing nil does nothing.
func (s *Scratch) Close() error {
	if s == nil {
		return nil
	}
	err := fault.Wrap(os.RemoveAll(s.dir), "remove folder among temporary files")
	if s.lock != nil {
		_ = s.lock.Close()
	}
	return err
}

// intact reports that the lock file is still the one that the folder has.
func (s *Scratch) intact() bool {
	held, err := s.lock.Stat()
	if err != nil {
		return false
	}
	named, err := os.Lstat(filepath.Join(s.dir, scratchLock))
	return err == nil && named.Mode().IsRegular() && os.SameFile(held, named)
}

// sweepScratch removes what processes of this user left that were killed. What
// cannot be removed is in nobody's way.
func sweepScratch(prefix string) {
	found, _ := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*"))
	for _, dir := range found {
		info, err := os.Lstat(dir)
		if err != nil || info.Mode() != fs.ModeDir|0o700 || !ownedByUs(info) {
			continue
		}
		lock, err := openLock(filepath.Join(dir, scratchLock))
		if err != nil {
			continue
		}
		s := &Scratch{dir, lock}
		if hold(lock) == nil && s.intact() {
			_ = s.Close()
		}
		_ = lock.Close()
	}
}
