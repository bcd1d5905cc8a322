package plugin

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/id"
)

// A package of many files runs from a tree: a folder with its files and nothing
// else. Every file is verified once while it is copied into an [image], which
// nobody can change, and each start makes a tree of its own from that. Where a
// sandbox mounts the tree, nobody outside can reach it. Elsewhere it is a folder
// on disk that other processes of the same user could change: such a tree is
// compared with the image after it was made, and any later change is found by the
// times of the last change, before the first call and at every health check.

// treeImage copies the files that this side needs on this platform into an image.
func (s *Store) treeImage(e Entry) (*image, error) {
	files := e.Manifest.Tree(runtime.GOOS, runtime.GOARCH, s.side)
	slices.SortFunc(files, func(a, b manifest.File) int { return strings.Compare(a.Path, b.Path) })
	return seal("plugin:tree", false, func(w io.Writer) error {
		out := bufio.NewWriterSize(w, 1<<18)
		for _, f := range files {
			if err := s.copyInto(out, e, f); err != nil {
				return err
			}
		}
		return errors.Join(writeEnd(out), out.Flush())
	})
}

func (s *Store) copyInto(w io.Writer, e Entry, f manifest.File) error {
	block, err := header(f.Path, modeOf(e.Manifest, f), f.Size)
	if err != nil {
		return err
	}
	src, err := s.open(e.Digest, f.Path)
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }()
	if _, err := w.Write(block); err != nil {
		return fault.Wrap(err, "copy plugin into memory")
	}
	if err := copyVerified(w, src, f); err != nil {
		return err
	}
	_, err = w.Write(make([]byte, padding(f.Size)))
	return fault.Wrap(err, "copy plugin into memory")
}

// planted is a tree on disk.
type planted struct {
	dir   string
	held  *os.File
	marks map[string]mark
}

// mark is the state of one file or folder; see markOf.
type mark struct {
	mode    fs.FileMode
	size    int64
	file    uint64
	changed int64
}

// tick is longer than the steps in which file systems count the times of changes.
const tick = 20 * time.Millisecond

// plant makes a tree below the store and compares it with its image.
func (s *Store) plant(img *image) (_ *planted, err error) {
	p := &planted{dir: filepath.Join(s.trees(), id.New())}
	defer func() {
		if err != nil {
			p.remove()
		}
	}()
	if err := os.Mkdir(p.dir, 0o700); err != nil {
		return nil, fault.Wrap(err, "make folder")
	}
	if p.held, err = os.Open(p.dir); err != nil {
		return nil, fault.Wrap(err, "make folder")
	}
	if err := hold(p.held); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return nil, fault.Wrap(err, "hold folder")
	}
	if err := img.eachFile(func(h *tar.Header, r io.Reader) error { return p.write(h, r) }); err != nil {
		return nil, err
	}
	if err := p.close(); err != nil {
		return nil, err
	}
	if p.marks, err = marks(p.dir); err != nil {
		return nil, err
	}
	// From now on every change shows in the marks, and what changed before shows
	// in the content.
	time.Sleep(tick)
	if err := img.eachFile(p.compare); err != nil {
		return nil, err
	}
	return p, p.unchanged()
}

func (p *planted) write(h *tar.Header, r io.Reader) error {
	name := filepath.Join(p.dir, filepath.FromSlash(h.Name))
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return fault.Wrap(err, "plant %s", h.Name)
	}
	out, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fs.FileMode(h.Mode)&0o555) //nolint:gosec // a path that the manifest's rules allow
	if err != nil {
		return fault.Wrap(err, "plant %s", h.Name)
	}
	_, err = io.Copy(out, r)
	err = errors.Join(err, out.Chmod(fs.FileMode(h.Mode)&0o555), out.Close()) //nolint:gosec // whatever the umask says
	return fault.Wrap(err, "plant %s", h.Name)
}

// close takes the right to write from all folders. Others may read: a sandbox may
// run the process as a user of its own, and nobody else gets past the store.
func (p *planted) close() error {
	err := filepath.WalkDir(p.dir, func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = os.Chmod(name, 0o555) //nolint:gosec // a folder needs x
		}
		return err
	})
	return fault.Wrap(err, "close folder")
}

// compare demands that a file of the tree is the one in the image.
func (p *planted) compare(h *tar.Header, r io.Reader) error {
	f, err := os.Open(filepath.Join(p.dir, filepath.FromSlash(h.Name)))
	if err != nil {
		return changedTree(err)
	}
	defer func() { _ = f.Close() }()
	want, got := sha256.New(), sha256.New()
	if _, err := io.Copy(want, r); err != nil {
		return fault.Wrap(err, "read plugin image")
	}
	if _, err := io.Copy(got, io.LimitReader(f, h.Size+1)); err != nil {
		return fault.Wrap(err, "read %s", h.Name)
	}
	if !bytes.Equal(want.Sum(nil), got.Sum(nil)) {
		return changedTree(nil)
	}
	return nil
}

// unchanged reports, Denied with [ReasonDigest], that anything in the tree was
// changed, added or removed since it was made.
func (p *planted) unchanged() error {
	now, err := marks(p.dir)
	if err != nil || !maps.Equal(now, p.marks) {
		return changedTree(err)
	}
	return nil
}

func changedTree(cause error) error {
	return &reasoned{fault.Deniedf("somebody changed the folder from which the plugin runs").Because(cause), ReasonDigest}
}

// remove deletes the tree.
func (p *planted) remove() {
	removeTree(p.dir)
	if p.held != nil {
		_ = p.held.Close()
	}
}

func removeTree(dir string) {
	_ = filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = os.Chmod(name, 0o700) //nolint:gosec // a folder needs x
		}
		return err
	})
	_ = os.RemoveAll(dir)
}

// sweepTrees removes trees of hosts that were killed.
func (s *Store) sweepTrees() error {
	found, err := os.ReadDir(s.trees())
	if err != nil {
		return fault.Wrap(err, "sweep plugin folders")
	}
	for _, d := range found {
		name := filepath.Join(s.trees(), d.Name())
		f, err := os.Open(name) //nolint:gosec // a folder of ours
		if err != nil {
			continue
		}
		if hold(f) == nil {
			removeTree(name)
		}
		_ = f.Close()
	}
	return nil
}

// marks reads the state of everything in a folder.
func marks(dir string) (map[string]mark, error) {
	out := map[string]mark{}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		out[name] = markOf(info)
		return nil
	})
	return out, fault.Wrap(err, "look at plugin folder")
}

// eachFile reads the archive of a tree.
func (i *image) eachFile(do func(*tar.Header, io.Reader) error) error {
	content, err := i.content()
	if err != nil {
		return err
	}
	for r := tar.NewReader(content); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fault.Internalf("read plugin image").Because(err)
		}
		if err := do(h, r); err != nil {
			return err
		}
	}
}
