package plugin

import (
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// ReadPrivate reads a file that nobody else can change: through no link, with the
// owner, mode and folder that the files of a store have. The error of a file that
// is not there is fs.ErrNotExist; others are Denied with [ReasonUnsafe].
func ReadPrivate(path string, limit int64) ([]byte, error) {
	if _, err := os.Lstat(path); err != nil {
		return nil, err
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return nil, fault.Wrap(err, "resolve folder")
	}
	if err := checkParents(dir); err != nil {
		return nil, err
	}
	if err := checkFolder(dir); err != nil {
		return nil, err
	}
	name := filepath.Base(path)
	f, err := openSafe(filepath.Dir(dir), filepath.Base(dir), name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fault.Wrap(err, "read %s", name)
	}
	if int64(len(data)) > limit {
		return nil, fault.Invalidf("%s is larger than %d bytes", path, limit)
	}
	return data, nil
}

// WritePrivate replaces a file as a whole: after a crash it is the old one or the
// new one. It is readable by its owner alone.
func WritePrivate(path string, data []byte) error {
	temp, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return fault.Unavailablef("%s cannot be written", path).Because(err)
	}
	_, err = temp.Write(data)
	err = errors.Join(err, temp.Sync(), temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), path)
	}
	if err != nil {
		_ = os.Remove(temp.Name())
		return fault.Unavailablef("%s cannot be written", path).Because(err)
	}
	return syncDir(filepath.Dir(path))
}

// LockFolder waits until no other process holds the folder, and holds it until
// the function is called.
func LockFolder(dir string) (func(), error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600) //nolint:gosec // in our own folder
	if err == nil {
		err = waitLock(f)
	}
	if err != nil {
		return nil, fault.Unavailablef("%s cannot be locked", dir).Because(err)
	}
	return func() { _ = f.Close() }, nil
}
