//go:build !linux

package plugin

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// image is a verified private copy. Without sealed memory a process of the same
// user can change it between check and start; docs/plugins names this reduction.
type image struct{ dir, name string }

// seal makes an image of what fill writes. An error of fill is returned as it is.
func seal(_ string, _ bool, fill func(io.Writer) error) (*image, error) {
	dir, err := os.MkdirTemp("", "sallyport-image-")
	if err != nil {
		return nil, fault.Wrap(err, "make folder")
	}
	i := &image{dir, filepath.Join(dir, "image")}
	out, err := os.OpenFile(i.name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o500)
	if err != nil {
		return nil, errors.Join(fault.Wrap(err, "copy plugin"), i.Close())
	}
	err = fill(out)
	if cerr := out.Close(); err == nil {
		err = fault.Wrap(cerr, "copy plugin")
	}
	if err != nil {
		_ = i.Close()
		return nil, err
	}
	return i, nil
}

func (i *image) path() string { return i.name }

func (i *image) content() (io.Reader, error) {
	data, err := os.ReadFile(i.name)
	if err != nil {
		return nil, fault.Wrap(err, "read plugin image")
	}
	return bytes.NewReader(data), nil
}

// memoryFile is nil: there is no sealed memory here.
func (i *image) memoryFile() *os.File { return nil }

// Close removes the copy.
func (i *image) Close() error { return os.RemoveAll(i.dir) }

func descriptorPath(f *os.File) string { return f.Name() }
