//go:build !linux

package plugin

import (
	"errors"
	"io/fs"
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

func openSafe(root, entry, path string) (*os.File, error) {
	full := root
	steps := append([]string{entry}, strings.Split(path, "/")...)
	for n, step := range steps {
		if step == "" || step == "." || step == ".." || strings.ContainsAny(step, "\\\x00") {
			return nil, refuse(ReasonUnsafe, "a package has a file name that leaves its folder")
		}
		full = filepath.Join(full, step)
		info, err := os.Lstat(full)
		if err != nil {
			return nil, err
		}
		if n < len(steps)-1 && !info.IsDir() || n == len(steps)-1 && !info.Mode().IsRegular() {
			return nil, refuse(ReasonUnsafe, "%s in the plugin store is a link or no plain file; install the package again", step)
		}
	}
	before, err := os.Lstat(full)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(full)
	if err != nil {
		return nil, err
	}
	after, err := f.Stat()
	if err != nil || !os.SameFile(before, after) {
		_ = f.Close()
		return nil, errors.Join(refuse(ReasonUnsafe, "%s in the plugin store changed while it was opened", path), err)
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

func openProgram(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fault.Wrap(err, "open %s", path)
	}
	return f, nil
}

// markOf tells states of a file apart by what can be set back here.
func markOf(info fs.FileInfo) mark {
	return mark{mode: info.Mode(), size: info.Size(), changed: info.ModTime().UnixNano()}
}

// hold does nothing: folders of a host that was killed stay here.
func hold(*os.File) error { return errors.ErrUnsupported }

func openLock(string) (*os.File, error) { return nil, errors.ErrUnsupported }

func ownedByUs(fs.FileInfo) bool { return false }
