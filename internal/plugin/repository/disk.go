package repository

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/id"
)

// The folders and files beside those that are served. Nobody who reads a
// repository looks at them.
const (
	stagedDir    = "staged" // metadata that waits for signatures
	tempDir      = "tmp"
	settingsFile = "repository.json"
	lockFile     = "lock"
)

// write puts a file in place: after a crash it is there as a whole, as it was
// before, or not at all.
func (d *Dir) write(name string, data []byte) error {
	return d.place(name, func(f *os.File) error {
		_, err := f.Write(data)
		return err //nolint:wrapcheck // by place
	})
}

// place fills a temporary file, syncs it, and renames it to its name.
func (d *Dir) place(name string, fill func(*os.File) error) error {
	temp := filepath.Join(d.path, tempDir, id.New())
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) //nolint:gosec // a repository is public
	if err != nil {
		return unwritable(err, d.path)
	}
	defer func() { _ = os.Remove(temp) }()
	err = fill(f)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return unwritable(err, d.path)
	}
	return d.move(temp, name)
}

// move renames a synced file of the same file system to its name, and syncs the
// folder.
func (d *Dir) move(from, name string) error {
	if d.before != nil {
		if err := d.before(name); err != nil {
			return err
		}
	}
	final := filepath.Join(d.path, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(final), 0o755); err != nil { //nolint:gosec // a repository is public
		return unwritable(err, d.path)
	}
	if err := os.Rename(from, final); err != nil {
		return unwritable(err, d.path)
	}
	for dir := filepath.Dir(final); ; dir = filepath.Dir(dir) {
		if err := syncDir(dir); err != nil {
			return unwritable(err, d.path)
		}
		if dir == d.path {
			return nil
		}
	}
}

// read reads a file of ours; NotFound if it is not there.
func (d *Dir) read(name string, limit int64) ([]byte, error) {
	f, err := os.Open(filepath.Join(d.path, filepath.FromSlash(name)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.NotFoundf("the repository has no file %s", name)
	}
	if err != nil {
		return nil, fault.Unavailablef("the repository %s cannot be read", d.path).Because(err)
	}
	defer func() { _ = f.Close() }()
	return bounded(f, name, limit)
}

func (d *Dir) remove(name string) error {
	if d.before != nil {
		if err := d.before(name); err != nil {
			return err
		}
	}
	err := os.Remove(filepath.Join(d.path, filepath.FromSlash(name)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fault.Wrap(err, "remove %s", name)
}

// lock makes the caller the only writer, of all processes that see this folder
// on this machine, and clears what an earlier writer left when it died. It waits
// until ctx ends: Unavailable.
func (d *Dir) lock(ctx context.Context) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(d.path, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, unwritable(err, d.path)
	}
	for {
		held, err := tryLock(f)
		if err != nil {
			_ = f.Close()
			return nil, fault.Unavailablef("the repository %s cannot be locked", d.path).Because(err)
		}
		if held {
			break
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, fault.Unavailablef("somebody else is writing to the repository %s; try again", d.path)
		case <-time.After(20 * time.Millisecond):
		}
	}
	if err := d.clear(tempDir); err != nil {
		_ = f.Close()
		return nil, err
	}
	return func() { _ = f.Close() }, nil // the lock ends with its descriptor
}

// clear empties a folder of temporary files, and makes it if it is not there.
func (d *Dir) clear(name string) error {
	dir := filepath.Join(d.path, name)
	if err := os.RemoveAll(dir); err != nil {
		return unwritable(err, d.path)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return unwritable(err, d.path)
	}
	return nil
}

func unwritable(err error, path string) error {
	if fault.KindOf(err) != fault.Internal {
		return err
	}
	return fault.Unavailablef("the repository %s cannot be written", path).Because(err)
}

func copyFile(from string) func(*os.File) error {
	return func(to *os.File) error {
		in, err := os.Open(filepath.Clean(from))
		if err != nil {
			return err //nolint:wrapcheck // by place
		}
		defer func() { _ = in.Close() }()
		_, err = io.Copy(to, io.LimitReader(in, MaxPackage+1))
		return err //nolint:wrapcheck // by place
	}
}
