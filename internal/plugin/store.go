package plugin

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/id"
)

// Store keeps the files of packages on this machine, by content:
// <dir>/sha256/<digest of the manifest>/. What lies there is not trusted: every
// use checks owner, mode, links, signatures and digests again. Which packages
// are installed is decided by rows (see [Installed]), not by what is found here.
// It takes what one side needs, a server or a command line, and serves that.
// Safe for concurrent use, also by several processes.
type Store struct{ dir, side string }

// Entry is one package in the store.
type Entry struct {
	Digest   string            `json:"digest"`
	Manifest manifest.Manifest `json:"manifest"`
	KeyIDs   []string          `json:"key_ids,omitempty"` // trusted keys that signed, where that was checked
	Use      Use               `json:"signed_for,omitempty"`
	Reason   Reason            `json:"reason"` // why it cannot be used, or OK
	Detail   string            `json:"detail,omitempty"`

	bare []bareProof // what the executable's bytes must still prove
}

// OpenStore opens the store below dir and makes it if needed, mode 0700. A
// folder that others could change, or whose parents they could, is Denied with
// [ReasonUnsafe]; a world-writable parent counts as safe only with the sticky
// bit, as /tmp has it.
func OpenStore(dir string) (*Store, error) { return openStore(dir, manifest.ForServer) }

func openStore(dir, side string) (*Store, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fault.Wrap(err, "resolve plugin store")
	}
	if err := os.MkdirAll(abs, 0o700); err != nil {
		return nil, fault.Wrap(err, "make plugin store")
	}
	if abs, err = filepath.EvalSymlinks(abs); err != nil {
		return nil, fault.Wrap(err, "resolve plugin store")
	}
	s := &Store{dir: abs, side: side}
	for _, sub := range []string{s.root(), s.temp(), s.trees()} {
		if err := os.Mkdir(sub, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fault.Wrap(err, "make plugin store")
		}
	}
	if err := s.check(); err != nil {
		return nil, err
	}
	return s, nil
}

// supported reports why the store's side does not serve a package.
func (s *Store) supported(m manifest.Manifest) error {
	if s.side == manifest.ForCLI {
		return SupportedTool(m)
	}
	return Supported(m)
}

func (s *Store) root() string { return filepath.Join(s.dir, "sha256") }
func (s *Store) temp() string { return filepath.Join(s.dir, "tmp") }

// trees has the private folders from which packages of many files run where no
// sandbox mounts them.
func (s *Store) trees() string { return filepath.Join(s.dir, "trees") }

// check judges the folders on the way to the entries.
func (s *Store) check() error {
	if err := checkParents(s.dir); err != nil {
		return err
	}
	for _, sub := range []string{s.dir, s.root(), s.temp(), s.trees()} {
		if err := checkFolder(sub); err != nil {
			return err
		}
	}
	return nil
}

// Install verifies a package by trust, then unpacks it, syncs it and puts it in
// place with one rename: after a crash it is there as a whole or not at all.
// Installing the same content again is no error and repairs a damaged entry.
// Faults: Invalid for a malformed package, Denied with a reason for one that
// must not run here.
func (s *Store) Install(r io.Reader, trust Trust) (Entry, error) {
	if err := s.check(); err != nil {
		return Entry{}, err
	}
	a := &archiveReader{r: r}
	h, err := a.readHead()
	if err != nil {
		return Entry{}, err
	}
	v, err := trust.verify(h.manifestBytes, h.envelopeBytes, forInstall)
	if err != nil {
		return Entry{}, err
	}
	m, digest := v.m, Digest(h.manifestBytes)
	if err := v.asPackage(); err != nil {
		return Entry{}, err
	}
	if err := trust.admits(m, digest); err != nil {
		return Entry{}, err
	}
	if err := s.supported(m); err != nil {
		return Entry{}, err
	}
	if err := runsHere(m, s.side); err != nil {
		return Entry{}, err
	}
	work := filepath.Join(s.temp(), id.New())
	if err := os.Mkdir(work, 0o700); err != nil {
		return Entry{}, fault.Wrap(err, "make folder")
	}
	defer func() { _ = os.RemoveAll(work) }()
	if err := s.unpack(work, h, m, a); err != nil {
		return Entry{}, err
	}
	e := Entry{Digest: digest, Manifest: m, KeyIDs: v.ids, Use: v.use, Reason: ReasonOK}
	return e, s.place(work, e.Digest)
}

// place moves a complete folder to its final name.
func (s *Store) place(work, digest string) error {
	name, _ := hexDigest(digest)
	final := filepath.Join(s.root(), name)
	err := os.Rename(work, final) //nolint:gosec // our folder, and a digest
	if err != nil {
		if _, serr := os.Lstat(final); serr != nil {
			return fault.Wrap(err, "place package")
		}
		// There already: exchange, so that there is never a moment without it.
		if err := exchange(work, final); err != nil {
			return fault.Wrap(err, "replace package")
		}
	}
	return syncDir(s.root())
}

// unpack writes the files that this side needs; those of the other are read, and
// compared with the manifest, and never land here.
func (s *Store) unpack(work string, h head, m manifest.Manifest, a *archiveReader) error {
	if err := writeNew(filepath.Join(work, manifestName), h.manifestBytes, 0o400); err != nil {
		return err
	}
	if err := writeNew(filepath.Join(work, signatureName), h.envelopeBytes, 0o400); err != nil {
		return err
	}
	folders := map[string]bool{work: true}
	err := a.readFiles(m, func(f manifest.File) (io.Writer, func(bool) error, error) {
		if f.For != "" && f.For != s.side {
			return discardFile(f)
		}
		name := filepath.Join(work, filepath.FromSlash(f.Path))
		if dir := filepath.Dir(name); !folders[dir] {
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return nil, nil, fault.Wrap(err, "unpack %s", f.Path)
			}
			for ; !folders[dir]; dir = filepath.Dir(dir) {
				folders[dir] = true
			}
		}
		out, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, storedMode(m, f)) //nolint:gosec // a plain path, checked by the manifest
		if err != nil {
			return nil, nil, fault.Wrap(err, "unpack %s", f.Path)
		}
		return out, func(ok bool) error {
			if !ok {
				return out.Close()
			}
			return fault.Wrap(errors.Join(out.Sync(), out.Close()), "unpack %s", f.Path)
		}, nil
	})
	for dir := range folders {
		if err == nil {
			err = syncDir(dir)
		}
	}
	return err
}

// storedMode is the mode of a file in the store: as in the package, for its
// owner alone, and never writable.
func storedMode(m manifest.Manifest, f manifest.File) fs.FileMode {
	return fs.FileMode(modeOf(m, f)) & 0o500 //nolint:gosec // one of two small numbers
}

// List returns what the store holds, also entries that cannot be used, with the
// reason. The manifests are read and not verified: see [Store.Verify].
func (s *Store) List() ([]Entry, error) {
	found, err := os.ReadDir(s.root())
	if err != nil {
		return nil, fault.Wrap(err, "list plugin store")
	}
	var out []Entry
	for _, d := range found {
		digest := digestPrefix + d.Name()
		if _, ok := hexDigest(digest); !ok {
			continue
		}
		e := Entry{Digest: digest, Reason: ReasonOK}
		h, err := s.head(digest)
		if err == nil {
			e.Manifest, err = ParseManifest(h.manifestBytes)
		}
		if err != nil {
			e.Reason, e.Detail = ReasonOf(err), fault.Public(err)
		}
		out = append(out, e)
	}
	return out, nil
}

// Verify judges one entry completely: folders, signatures and the content of
// what runs on this platform.
func (s *Store) Verify(digest string, trust Trust) (Entry, error) {
	e, err := s.judge(digest, trust)
	if err != nil {
		return e, err
	}
	img, err := s.image(e)
	if err != nil {
		return e, err
	}
	return e, img.Close()
}

// judge checks everything about an entry but the content of its files.
func (s *Store) judge(digest string, trust Trust) (Entry, error) {
	h, err := s.head(digest)
	if err != nil {
		return Entry{Digest: digest, Reason: ReasonOf(err)}, err
	}
	v, err := trust.verify(h.manifestBytes, h.envelopeBytes, forStart)
	if err == nil {
		err = trust.admits(v.m, digest)
	}
	if err == nil {
		err = s.supported(v.m)
	}
	return Entry{Digest: digest, Manifest: v.m, KeyIDs: v.ids, Use: v.use, Reason: ReasonOf(err), bare: v.bare}, err
}

// head reads manifest and envelope of an entry; the manifest is the one that
// the digest names, the envelope is not judged yet.
func (s *Store) head(digest string) (head, error) {
	if err := s.check(); err != nil {
		return head{}, err
	}
	data, err := s.read(digest, manifestName, manifest.MaxBytes)
	if err != nil {
		return head{}, err
	}
	if Digest(data) != digest {
		return head{}, refuse(ReasonDigest, "the manifest in the store is not the one that was installed; install the package again")
	}
	env, err := s.read(digest, signatureName, maxEnvelopeBytes)
	return head{data, env}, err
}

// image makes the verified, unchangeable object that runs: the executable, or
// the tree of a package of many files.
func (s *Store) image(e Entry) (*image, error) {
	if err := runsHere(e.Manifest, s.side); err != nil {
		return nil, err
	}
	if e.Manifest.Run != nil {
		return s.treeImage(e)
	}
	f, _ := e.Manifest.Executable(runtime.GOOS, runtime.GOARCH, s.side)
	src, err := s.open(e.Digest, f.Path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = src.Close() }()
	img, err := newImage(src, f)
	if err != nil || len(e.bare) == 0 {
		return img, err
	}
	if err := proven(img, e.bare); err != nil {
		return nil, errors.Join(err, img.Close())
	}
	return img, nil
}

func (s *Store) open(digest, name string) (*os.File, error) {
	hex, ok := hexDigest(digest)
	if !ok {
		return nil, fault.Invalidf("a package digest must be sha256: and 64 lower-case hex digits")
	}
	f, err := openSafe(s.root(), hex, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &reasoned{fault.Unavailablef("the files of the package are not on this machine; install it again").Because(err), ReasonMissing}
	}
	return f, err
}

func (s *Store) read(digest, name string, limit int64) ([]byte, error) {
	f, err := s.open(digest, name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fault.Wrap(err, "read %s", name)
	}
	if int64(len(data)) > limit {
		return nil, refuse(ReasonDigest, "%s in the store is larger than allowed; install the package again", name)
	}
	return data, nil
}

// Remove deletes a package's files. What runs already goes on until it is
// stopped. NotFound if there is no such entry.
func (s *Store) Remove(digest string) error {
	hex, ok := hexDigest(digest)
	if !ok {
		return fault.Invalidf("a package digest must be sha256: and 64 lower-case hex digits")
	}
	away := filepath.Join(s.temp(), id.New())
	if err := os.Rename(filepath.Join(s.root(), hex), away); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return fault.NotFoundf("the store has no package %s", digest)
		}
		return fault.Wrap(err, "remove package")
	}
	if err := syncDir(s.root()); err != nil {
		return err
	}
	return fault.Wrap(os.RemoveAll(away), "remove package files")
}

func syncDir(dir string) error {
	d, err := os.Open(filepath.Clean(dir)) //nolint:gosec // one of the store's folders
	if err != nil {
		return fault.Wrap(err, "open folder")
	}
	defer func() { _ = d.Close() }()
	return fault.Wrap(syncHandle(d), "sync folder")
}
