package plugin

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// checkParents judges every folder above dir: owned by root or us, and changed
// by nobody else. A sticky folder is accepted, because others cannot rename what
// they do not own, and each next step must be owned by root or us.
func checkParents(dir string) error {
	for p := filepath.Dir(dir); ; p = filepath.Dir(p) {
		info, err := os.Lstat(p)
		if err != nil {
			return fault.Wrap(err, "check folder")
		}
		sticky := info.Mode()&fs.ModeSticky != 0
		if !info.IsDir() || !ourOwner(info) || info.Mode().Perm()&0o022 != 0 && !sticky {
			return refuse(ReasonUnsafe, "others can change %s, above the plugin store; take group and world write from it, or move the store", p)
		}
		if p == filepath.Dir(p) {
			return nil
		}
	}
}

// checkFolder judges a folder of the store itself, without the exception.
func checkFolder(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return fault.Wrap(err, "check folder")
	}
	if !info.IsDir() || !ourOwner(info) || info.Mode().Perm()&0o022 != 0 {
		return refuse(ReasonUnsafe, "%s must be a folder that only its owner, root or this user, can write", dir)
	}
	return nil
}

func ourOwner(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && (st.Uid == 0 || int(st.Uid) == os.Geteuid())
}

// openSafe opens one file of an entry by descriptors alone: below the root,
// through no link, without waiting on a FIFO, through folders and to a regular
// file with one name that nobody else can write.
func openSafe(root, entry, path string) (*os.File, error) {
	steps := append([]string{entry}, strings.Split(path, "/")...)
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fault.Wrap(err, "open plugin store")
	}
	at := os.NewFile(uintptr(fd), root)
	for n, step := range steps {
		next, err := openStep(at, step, n < len(steps)-1)
		_ = at.Close()
		if err != nil {
			return nil, err
		}
		at = next
	}
	return at, nil
}

// openStep opens one name in a folder and judges what it got.
func openStep(in *os.File, name string, folder bool) (*os.File, error) {
	if name == "" || name == "." || name == ".." || strings.ContainsRune(name, 0) {
		return nil, refuse(ReasonUnsafe, "a package has a file name that leaves its folder")
	}
	flags := unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_NONBLOCK
	if folder {
		flags |= unix.O_DIRECTORY
	}
	fd, err := unix.Openat2(int(in.Fd()), name, &unix.OpenHow{
		Flags:   uint64(flags),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, openError(err, name)
	}
	f := os.NewFile(uintptr(fd), name)
	if err := checkOpen(f, folder); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

func openError(err error, what string) error {
	is := func(errno syscall.Errno) bool { return errors.Is(err, errno) }
	switch {
	case is(unix.ENOENT):
		return &fs.PathError{Op: "openat2", Path: what, Err: err}
	case is(unix.ELOOP), is(unix.EXDEV), is(unix.ENOTDIR), is(unix.ENXIO):
		return refuse(ReasonUnsafe, "%s in the plugin store is a link or no plain file; install the package again", what)
	default:
		return fault.Wrap(err, "open %s", what)
	}
}

// checkOpen judges what a descriptor stands for.
func checkOpen(f *os.File, folder bool) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fault.Wrap(err, "stat %s", f.Name())
	}
	kind, links := uint32(unix.S_IFREG), st.Nlink == 1
	if folder {
		kind, links = unix.S_IFDIR, true
	}
	switch {
	case st.Mode&unix.S_IFMT != kind || !links:
		return refuse(ReasonUnsafe, "%s in the plugin store is a link or no plain file; install the package again", f.Name())
	case st.Uid != 0 && int(st.Uid) != os.Geteuid():
		return refuse(ReasonUnsafe, "%s in the plugin store belongs to another user; install the package again", f.Name())
	case st.Mode&0o022 != 0:
		return refuse(ReasonUnsafe, "%s in the plugin store can be written by others; install the package again", f.Name())
	}
	return nil
}

// exchange swaps two names in one step and leaves the old content under a.
func exchange(a, b string) error {
	return unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
}

func syncHandle(d *os.File) error { return d.Sync() }

// openProgram opens an executable of the system, whose own name may be one of
// several.
func openProgram(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fault.Wrap(err, "open %s", path)
	}
	f := os.NewFile(uintptr(fd), path)
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || !ourOwner(info) || info.Mode().Perm()&0o022 != 0 {
		_ = f.Close()
		return nil, refuse(ReasonUnsafe, "%s must be a plain file that only its owner, root or this user, can write", path)
	}
	return f, nil
}

// markOf tells one state of a file from every later one: nobody but root can set
// the time of the last change of a file's content or attributes.
func markOf(info fs.FileInfo) mark {
	m := mark{mode: info.Mode(), size: info.Size(), changed: info.ModTime().UnixNano()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		m.file, m.changed = st.Ino, st.Ctim.Nano()
	}
	return m
}

// hold keeps other processes from sweeping something away while it is open.
func hold(f *os.File) error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) }

// openLock opens a lock file, through no link and without waiting on a FIFO.
func openLock(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0) //nolint:gosec // its folder was judged
}

// ownedByUs is stricter than ourOwner: what is root's is not everybody's.
func ownedByUs(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}
