package file

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/id"
)

// Config says where the key files are.
type Config struct {
	Path    string    // the key that wraps
	Old     []string  // earlier keys, for unwrapping only
	DataDir string    // where the store is; the files must be elsewhere. Empty: not checked
	Rand    io.Reader // nil: crypto/rand
}

const maxOld = 16

// Create makes a new key file and loads it. The file must not exist: that is
// Conflict, for a key that is overwritten is lost with all that it wrapped. The
// file is on disk, its directory entry too, when Create returns.
func Create(cfg Config) (*KEK, error) {
	if err := outside(cfg.Path, cfg.DataDir); err != nil {
		return nil, err
	}
	k, err := fresh(cfg.Rand)
	if err != nil {
		return nil, err
	}
	defer k.material.Wipe()
	text := k.text()
	defer text.Wipe()
	if err := write(cfg.Path, text.Reveal()); err != nil {
		return nil, err
	}
	return Load(cfg)
}

// Load reads the key files. A missing one is NotFound. One that others than
// its owner can reach, that we do not own, that is no regular file or lies in
// the data directory is Denied, and one with foreign content Invalid; every
// text names the path and says what to do.
func Load(cfg Config) (*KEK, error) {
	if len(cfg.Old) > maxOld {
		return nil, fault.Invalidf("%d old key files are named, at most %d are read: rewrap and remove the oldest", len(cfg.Old), maxOld)
	}
	all := make([]key, 0, 1+len(cfg.Old))
	for _, path := range append([]string{cfg.Path}, cfg.Old...) {
		if err := outside(path, cfg.DataDir); err != nil {
			return nil, err
		}
		k, err := read(path)
		if err != nil {
			return nil, err
		}
		all = append(all, k)
	}
	return newKEK(cfg.Rand, all)
}

// read opens first and looks at the open file, so that nothing can be swapped
// in between.
func read(path string) (k key, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|noFollow, 0) //nolint:gosec // the operator names the path
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return key{}, fault.NotFoundf("there is no key file at %s: run `sallyport init`, or mount the file there", quoted(path))
	case err != nil && isLink(path):
		return key{}, fault.Deniedf("the key file %s is a symbolic link: name the file itself", quoted(path))
	case err != nil:
		return key{}, fault.Deniedf("the key file %s cannot be opened: check its owner and that its mode is 0600", quoted(path)).Because(err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return key{}, fault.Wrap(err, "look at key file %s", quoted(path))
	}
	if err := guarded(path, info); err != nil {
		return key{}, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	defer clear(text)
	if err != nil {
		return key{}, fault.Wrap(err, "read key file %s", quoted(path))
	}
	k, err = parse(text)
	if err != nil {
		return key{}, fault.Invalidf("the key file %s cannot be used: %s", quoted(path), fault.Public(err))
	}
	return k, nil
}

// guarded refuses what others could have read or replaced.
func guarded(path string, info fs.FileInfo) error {
	switch {
	case !info.Mode().IsRegular():
		return fault.Deniedf("the key file %s is not a regular file", quoted(path))
	case info.Mode().Perm()&0o077 != 0:
		return fault.Deniedf("the key file %s has mode %#o, others can reach it: run `chmod 600` on it, and replace the key if others may have read it", quoted(path), info.Mode().Perm())
	case !ours(info):
		return fault.Deniedf("the key file %s belongs to another user: run `chown` to the user that runs Sallyport", quoted(path))
	}
	return nil
}

// write makes the file durable, whole or not at all: a process that dies in
// between leaves no half of a key behind under its name.
func write(path string, text []byte) (err error) {
	draft := path + "." + id.New()                                                  // of this process alone
	f, err := os.OpenFile(draft, os.O_WRONLY|os.O_CREATE|os.O_EXCL|noFollow, 0o600) //nolint:gosec // the operator names the path
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fault.NotFoundf("the directory %s does not exist: create it with mode 0700", quoted(filepath.Dir(path)))
	case err != nil:
		return fault.Deniedf("the key file %s cannot be created: check the permissions of its directory", quoted(path)).Because(err)
	}
	defer func() { err = errors.Join(err, os.Remove(draft)) }()
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fault.Wrap(err, "write key file %s", quoted(path))
	}
	switch err := os.Link(draft, path); { // which never replaces a file
	case errors.Is(err, fs.ErrExist):
		return fault.Conflictf("the key file %s exists already: use it, or name another path", quoted(path))
	case err != nil:
		return fault.Unavailablef("the key file %s cannot be created: its file system has no links, use another one", quoted(path)).Because(err)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fault.Wrap(err, "open the directory of key file %s", quoted(path))
	}
	if err = errors.Join(dir.Sync(), dir.Close()); err != nil {
		return fault.Wrap(err, "make key file %s durable", quoted(path))
	}
	return nil
}

// outside refuses a key beside what it protects: one copied directory would
// hold both. Links in the directories' names are followed.
func outside(path, dataDir string) error {
	if path == "" {
		return fault.Invalidf("no key file is named: set its path, outside of the data directory")
	}
	if dataDir == "" {
		return nil
	}
	where, err := resolved(filepath.Dir(path))
	if err != nil {
		return err
	}
	data, err := resolved(dataDir)
	if err != nil {
		return err
	}
	rel, err := filepath.Rel(data, where)
	if err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator)) {
		return fault.Deniedf("the key file %s lies in the data directory %s: a copy of that directory would hold key and lock, move the file elsewhere", quoted(path), quoted(dataDir))
	}
	return nil
}

// resolved is the directory's real absolute name; what does not exist yet keeps
// the name it has.
func resolved(dir string) (string, error) {
	absolute, err := filepath.Abs(dir)
	if err != nil {
		return "", fault.Wrap(err, "resolve directory %s", quoted(dir))
	}
	rest := ""
	for at := absolute; ; at = filepath.Dir(at) {
		if name, err := filepath.EvalSymlinks(at); err == nil {
			return filepath.Join(name, rest), nil
		}
		if at == filepath.Dir(at) {
			return absolute, nil
		}
		rest = filepath.Join(filepath.Base(at), rest)
	}
}

func isLink(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode()&fs.ModeSymlink != 0
}
