package plugin

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// image is something verified that nobody can change any more: a memory file
// sealed against writing, growing, shrinking and further seals. It holds an
// executable, which runs through its descriptor, so that nothing is looked up by
// name after the check; or the files of a package of many, as a tar archive.
type image struct{ file *os.File }

// seal makes an image of what fill writes. An error of fill is returned as it is.
func seal(name string, executable bool, fill func(io.Writer) error) (*image, error) {
	fd, err := memory(name, executable)
	if err != nil {
		return nil, fault.Unavailablef("this kernel does not let programs run from sealed memory (sysctl vm.memfd_noexec)").Because(err)
	}
	mem := os.NewFile(uintptr(fd), "plugin image")
	defer func() { _ = mem.Close() }()
	if err := fill(mem); err != nil {
		return nil, err
	}
	const seals = unix.F_SEAL_WRITE | unix.F_SEAL_GROW | unix.F_SEAL_SHRINK | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(mem.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return nil, fault.Wrap(err, "seal plugin image")
	}
	// A descriptor that was never opened for writing, so that exec cannot find
	// the text busy.
	ro, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", mem.Fd()))
	if err != nil {
		return nil, fault.Wrap(err, "open plugin image")
	}
	return &image{ro}, nil
}

// memory makes a memory file. Kernels before 6.3 do not know the flags about
// execution and allow it.
func memory(name string, executable bool) (int, error) {
	const common = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	flags := common | unix.MFD_NOEXEC_SEAL
	if executable {
		flags = common | unix.MFD_EXEC
	}
	fd, err := unix.MemfdCreate(name, flags)
	if errors.Is(err, unix.EINVAL) {
		fd, err = unix.MemfdCreate(name, common)
	}
	return fd, err
}

// path is what to execute while the image is open. It is valid in this process
// and in the child between fork and exec.
func (i *image) path() string { return descriptorPath(i.file) }

// content is the image from its beginning, independent of other readers.
func (i *image) content() (io.Reader, error) {
	info, err := i.file.Stat()
	if err != nil {
		return nil, fault.Wrap(err, "read plugin image")
	}
	return io.NewSectionReader(i.file, 0, info.Size()), nil
}

// memoryFile is the sealed file.
func (i *image) memoryFile() *os.File { return i.file }

// Close gives the memory back once nothing runs from it.
func (i *image) Close() error { return i.file.Close() }

// descriptorPath names an open file for exec.
func descriptorPath(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }
