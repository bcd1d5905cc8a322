package plugin

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// image is a verified executable that nobody can change any more: a memory file
// sealed against writing, growing, shrinking and further seals. It is executed
// through its descriptor, so that nothing is looked up by name after the check.
type image struct{ file *os.File }

// newImage copies src once into a memory file, hashes in the same pass, seals,
// and compares size and digest. A difference is Denied with [ReasonDigest].
func newImage(src io.Reader, f manifest.File) (*image, error) {
	fd, err := unix.MemfdCreate("plugin:"+f.SHA256[:16], unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // kernels before 6.3 do not know the flag and allow exec
		fd, err = unix.MemfdCreate("plugin:"+f.SHA256[:16], unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fault.Unavailablef("this kernel does not let programs run from sealed memory (sysctl vm.memfd_noexec)").Because(err)
	}
	mem := os.NewFile(uintptr(fd), "plugin image")
	defer func() { _ = mem.Close() }()
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(mem, h), io.LimitReader(src, f.Size+1))
	if err != nil {
		return nil, fault.Wrap(err, "copy plugin into memory")
	}
	const seals = unix.F_SEAL_WRITE | unix.F_SEAL_GROW | unix.F_SEAL_SHRINK | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(mem.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return nil, fault.Wrap(err, "seal plugin image")
	}
	if n != f.Size || !sameDigest(h.Sum(nil), f.SHA256) {
		return nil, refuse(ReasonDigest, "%s in the plugin store is not the file that was signed; install the package again", f.Path)
	}
	// A descriptor that was never opened for writing, so that exec cannot find
	// the text busy.
	ro, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", mem.Fd()))
	if err != nil {
		return nil, fault.Wrap(err, "open plugin image")
	}
	return &image{ro}, nil
}

// path is what to execute while the image is open. It is valid in this process
// and in the child between fork and exec.
func (i *image) path() string { return fmt.Sprintf("/proc/self/fd/%d", i.file.Fd()) }

// Close gives the memory back once nothing runs from it.
func (i *image) Close() error { return i.file.Close() }
