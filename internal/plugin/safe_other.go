//go:build !linux

package plugin

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// The reduction on systems other than Linux: names are checked before they are
// opened, not by descriptor, and owners and parents are not judged. docs/plugins
// says so.

func checkParents(string) error { return nil }

func checkFolder(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return fault.Wrap(err, "check folder")
	}
	if !info.IsDir() {
		return refuse(ReasonUnsafe, "%s must be a folder", dir)
	}
	return nil
}

func openSafe(root, entry, name string) (*os.File, error) {
	if strings.ContainsAny(entry+name, "/\\\x00") || name == ".." || name == "." {
		return nil, refuse(ReasonUnsafe, "a package has a file name with a folder in it")
	}
	dir := filepath.Join(root, entry)
	if _, err := os.Lstat(dir); err != nil {
		return nil, err
	}
	if err := checkFolder(dir); err != nil {
		return nil, err
	}
	full := filepath.Join(dir, name)
	before, err := os.Lstat(full)
	if err != nil {
		return nil, err
	}
	if !before.Mode().IsRegular() {
		return nil, refuse(ReasonUnsafe, "%s in the plugin store is a link or no plain file; install the package again", name)
	}
	f, err := os.Open(full)
	if err != nil {
		return nil, err
	}
	after, err := f.Stat()
	if err != nil || !os.SameFile(before, after) {
		_ = f.Close()
		return nil, errors.Join(refuse(ReasonUnsafe, "%s in the plugin store changed while it was opened", name), err)
	}
	return f, nil
}

// exchange replaces b by a in two steps.
func exchange(a, b string) error {
	old := a + ".old"
	if err := os.Rename(b, old); err != nil {
		return err
	}
	if err := os.Rename(a, b); err != nil {
		return errors.Join(err, os.Rename(old, b))
	}
	return os.RemoveAll(old)
}

// syncHandle does nothing: not every system can sync a folder.
func syncHandle(*os.File) error { return nil }
