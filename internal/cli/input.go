package cli

import (
	"bytes"
	"io"
	"os"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/secret"
)

// maxSecret bounds what is read as a secret.
const maxSecret = 1 << 20

// readFile reads a file of at most limit bytes; "-" is standard input.
func (s *shell) readFile(path string, limit int64) ([]byte, error) {
	if path == "-" {
		return s.readInput(limit)
	}
	f, err := os.Open(path) //nolint:gosec // the user names it
	if err != nil {
		return nil, fileFault(path, err)
	}
	defer func() { _ = f.Close() }()
	return bounded(f, path, limit)
}

// readInput reads standard input, and says so where a person would be waited
// for.
func (s *shell) readInput(limit int64) ([]byte, error) {
	if terminal(s.in) {
		s.note("reading standard input; end it with Ctrl-D")
	}
	return bounded(s.in, "standard input", limit)
}

func bounded(r io.Reader, name string, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, fault.Unavailablef("%s cannot be read", name).Because(err)
	}
	if int64(len(data)) > limit {
		return nil, fault.Invalidf("%s is larger than %d bytes", name, limit)
	}
	return data, nil
}

func fileFault(path string, err error) error {
	switch {
	case os.IsNotExist(err):
		return fault.NotFoundf("there is no file %s", path).Because(err)
	case os.IsExist(err):
		return fault.Conflictf("%s exists already; choose another name or remove it", path).Because(err)
	case os.IsPermission(err):
		return fault.Deniedf("%s may not be opened", path).Because(err)
	}
	return fault.Unavailablef("%s cannot be used", path).Because(err)
}

// newFault is why a file could not be made.
func newFault(path string, err error) error {
	switch {
	case os.IsNotExist(err):
		return fault.NotFoundf("%s cannot be written: there is no folder %s", path, folder(path)).Because(err)
	case os.IsPermission(err):
		return fault.Deniedf("%s may not be written", path).Because(err)
	}
	return fileFault(path, err)
}

// hush is where a secret may come from: a file, standard input, a variable of
// the environment, or an argument, which others can see.
type hush struct {
	what     string // for messages
	file     string // path, "-" for standard input
	variable string
	argument string
}

// read takes the one source that is given; without any it reads standard input.
// White space at the end is dropped.
func (s *shell) read(h hush) (secret.Bytes, error) {
	var data []byte
	var err error
	switch {
	case h.file != "" && h.argument != "":
		return secret.Bytes{}, fault.Invalidf("give the %s once: as a file or as an argument", h.what)
	case h.file != "":
		data, err = s.readFile(h.file, maxSecret)
	case h.argument != "":
		s.warn("a %s among the arguments is seen by everybody who may list processes: use a file or standard input", h.what)
		data = []byte(h.argument)
	case h.variable != "" && s.Getenv(h.variable) != "":
		data = []byte(s.Getenv(h.variable))
	default:
		data, err = s.readInput(maxSecret)
	}
	if err != nil {
		return secret.Bytes{}, err
	}
	data = bytes.TrimRight(data, "\r\n\t ")
	if len(data) == 0 {
		return secret.Bytes{}, fault.Invalidf("the %s is empty", h.what)
	}
	return secret.New(data), nil
}

// create writes a new file and refuses one that exists.
func create(path string, data []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode) //nolint:gosec // the user names it
	if err != nil {
		return newFault(path, err)
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		_ = os.Remove(path)
		return fault.Unavailablef("%s cannot be written", path).Because(err)
	}
	return nil
}

// replace writes a file as a whole: readers see the old text or the new one.
func replace(path string, data []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(folder(path), ".new-*")
	if err != nil {
		return newFault(path, err)
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fault.Unavailablef("%s cannot be written", path).Because(err)
	}
	return nil
}
