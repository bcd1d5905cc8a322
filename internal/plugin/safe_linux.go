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
// through no link, without waiting on a FIFO, and only a regular file with one
// name that nobody else can write.
func openSafe(root, entry, name string) (*os.File, error) {
	if strings.ContainsAny(entry+name, "/\x00") || name == ".." || name == "." {
		return nil, refuse(ReasonUnsafe, "a package has a file name with a folder in it")
	}
	rootFD, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fault.Wrap(err, "open plugin store")
	}
	defer func() { _ = unix.Close(rootFD) }()
	const beneath = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS
	dirFD, err := unix.Openat2(rootFD, entry, &unix.OpenHow{
		Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: beneath,
	})
	if err != nil {
		return nil, openError(err, "the folder of a package")
	}
	dir := os.NewFile(uintptr(dirFD), entry)
	defer func() { _ = dir.Close() }()
	if err := checkOpen(dir, true); err != nil {
		return nil, err
	}
	fd, err := unix.Openat2(dirFD, name, &unix.OpenHow{
		Flags: unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_NONBLOCK, Resolve: beneath,
	})
	if err != nil {
		return nil, openError(err, name)
	}
	f := os.NewFile(uintptr(fd), name)
	if err := checkOpen(f, false); err != nil {
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
