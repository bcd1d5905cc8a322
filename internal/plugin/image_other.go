//go:build !linux

package plugin

import (
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// image is a verified private copy. Without sealed memory a process of the same
// user can change it between check and start; docs/plugins names this reduction.
type image struct{ dir, name string }

// newImage copies src into a private folder and compares size and digest. A
// difference is Denied with [ReasonDigest].
func newImage(src io.Reader, f manifest.File) (*image, error) {
	dir, err := os.MkdirTemp("", "sallyport-image-")
	if err != nil {
		return nil, fault.Wrap(err, "make folder")
	}
	i := &image{dir, filepath.Join(dir, f.Path)}
	out, err := os.OpenFile(i.name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o500)
	if err != nil {
		return nil, errors.Join(fault.Wrap(err, "copy plugin"), i.Close())
	}
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(out, h), io.LimitReader(src, f.Size+1))
	if err = errors.Join(err, out.Close()); err != nil {
		return nil, errors.Join(fault.Wrap(err, "copy plugin"), i.Close())
	}
	if n != f.Size || !sameDigest(h.Sum(nil), f.SHA256) {
		_ = i.Close()
		return nil, refuse(ReasonDigest, "%s in the plugin store is not the file that was signed; install the package again", f.Path)
	}
	return i, nil
}

func (i *image) path() string { return i.name }

// Close removes the copy.
func (i *image) Close() error { return os.RemoveAll(i.dir) }
