package repository

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
)

// Source is where the files of a repository come from.
type Source interface {
	// Open opens a file by its name. One that is not there is NotFound.
	Open(ctx context.Context, name string) (io.ReadCloser, error)
}

// How long one file of metadata, and one package, may take to arrive.
const (
	metadataTime = 30 * time.Second
	packageTime  = 10 * time.Minute
)

// At gives the source at a place: an https URL, http on loopback, or an absolute
// path. The client must not be nil for URLs; its redirects are refused.
func At(place string, client *http.Client) (Source, error) {
	if filepath.IsAbs(place) {
		return folder(place), nil
	}
	if err := plugin.ValidRepositoryURL(place); err != nil {
		return nil, err
	}
	if client == nil {
		return nil, fault.Internalf("a repository's URL needs a client")
	}
	own := *client
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return errRedirect }
	own.Jar = nil
	return web{base: strings.TrimSuffix(place, "/"), client: &own}, nil
}

// errRedirect: who pinned an address gets its files from there, or not at all.
var errRedirect = errors.New("the repository redirects to another place")

// web reads over HTTP. Nothing about the caller is sent: no credentials, no
// cookies, the same name of the program for all.
type web struct {
	base   string
	client *http.Client
}

func (s web) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	if !Served(name) {
		return nil, fault.Internalf("%q is no file of a repository", name)
	}
	parts := strings.Split(name, "/")
	for i, p := range parts {
		parts[i] = url.PathEscape(p)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.base+"/"+strings.Join(parts, "/"), nil)
	if err != nil {
		return nil, fault.Invalidf("the repository's address is not a valid URL").Because(err)
	}
	req.Header.Set("User-Agent", "sallyport")
	req.Header.Set("Accept-Encoding", "identity") // lengths are those of the files
	res, err := s.client.Do(req)
	if err != nil {
		if errors.Is(err, errRedirect) {
			return nil, fault.Deniedf("the repository redirects to another place, which is refused: give its real address").Because(err)
		}
		return nil, fault.Unavailablef("the repository at %s does not answer", s.base).Because(err)
	}
	switch res.StatusCode {
	case http.StatusOK:
		return res.Body, nil
	case http.StatusNotFound, http.StatusGone, http.StatusForbidden:
		err = fault.NotFoundf("the repository has no file %s", name) // object stores say 403 of what is not there
	default:
		err = fault.Unavailablef("the repository at %s answers %d", s.base, res.StatusCode)
	}
	_ = res.Body.Close()
	return nil, err
}

// folder reads a folder on this machine, through no link: what a mirror put
// there must not name files elsewhere.
type folder string

func (s folder) Open(_ context.Context, name string) (io.ReadCloser, error) {
	if !Served(name) {
		return nil, fault.Internalf("%q is no file of a repository", name)
	}
	root, err := os.OpenRoot(string(s))
	if err != nil {
		return nil, fault.Unavailablef("the repository %s cannot be opened", string(s)).Because(err)
	}
	defer func() { _ = root.Close() }()
	var last fs.FileInfo
	for i, c := range name + "/" {
		if c != '/' {
			continue
		}
		info, err := root.Lstat(name[:i])
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fault.NotFoundf("the repository has no file %s", name)
		}
		if err != nil {
			return nil, fault.Unavailablef("the repository %s cannot be read", string(s)).Because(err)
		}
		if last = info; i < len(name) && !info.IsDir() || i == len(name) && !info.Mode().IsRegular() {
			return nil, plugin.Refuse(plugin.ReasonUnsafe, "%s in the repository is a link or another special file, which is refused", path.Base(name[:i]))
		}
	}
	f, err := root.Open(name)
	if err != nil {
		return nil, fault.Unavailablef("the repository %s cannot be read", string(s)).Because(err)
	}
	if info, err := f.Stat(); err != nil || !os.SameFile(info, last) {
		_ = f.Close()
		return nil, plugin.Refuse(plugin.ReasonUnsafe, "%s in the repository was exchanged while it was opened", path.Base(name))
	}
	return f, nil
}

// From is the getter of a source: each file bounded before it is read, and in
// time.
func From(s Source) Getter {
	return func(ctx context.Context, name string, limit int64) ([]byte, error) {
		ctx, cancel := context.WithTimeout(ctx, metadataTime)
		defer cancel()
		f, err := s.Open(ctx, name)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }()
		return bounded(f, name, limit)
	}
}

func bounded(r io.Reader, name string, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, fault.Unavailablef("%s did not arrive completely", name).Because(err)
	}
	if int64(len(data)) > limit {
		return nil, plugin.Refuse(plugin.ReasonDigest, "%s in the repository is longer than the %d bytes that it may have", name, limit)
	}
	return data, nil
}

// Download copies the package of a release to w and compares length and digest.
// It reads not a byte more than the length. What w holds after a fault must be
// thrown away.
func Download(ctx context.Context, s Source, r plugin.Release, w io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, packageTime)
	defer cancel()
	f, err := s.Open(ctx, TargetName(r))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	c := Check(f, r)
	if _, err := io.Copy(w, c); err != nil {
		if cause := c.Err(); cause != nil {
			return cause
		}
		return fault.Unavailablef("the package of %s %s did not arrive completely", r.Name, r.Version).Because(err)
	}
	return nil
}

// Checked reads a package and ends without an error only if it is the one that
// a release describes.
type Checked struct {
	r    io.Reader
	want plugin.Release
	left int64
	sum  interface {
		io.Writer
		Sum(b []byte) []byte
	}
	err error
}

// Check wraps r, which must hold the package and nothing else.
func Check(r io.Reader, want plugin.Release) *Checked {
	return &Checked{r: r, want: want, left: want.Size, sum: sha256.New()}
}

// Err is why the content was refused, nil if it was not.
func (c *Checked) Err() error { return c.err }

// Read reads, and says at the end whether all was right.
func (c *Checked) Read(p []byte) (int, error) {
	if c.err != nil {
		return 0, c.err
	}
	if c.left == 0 {
		return 0, c.end()
	}
	n, err := c.r.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	_, _ = c.sum.Write(p[:n]) // never fails (hash.Hash)
	switch {
	case errors.Is(err, io.EOF) && c.left > 0:
		c.err = plugin.Refuse(plugin.ReasonDigest, "the package of %s %s is shorter than its repository says", c.want.Name, c.want.Version)
		return n, c.err
	case errors.Is(err, io.EOF):
		return n, nil
	}
	return n, err //nolint:wrapcheck // io.Reader's contract
}

// end demands the end of the input and the right digest.
func (c *Checked) end() error {
	var more [1]byte
	n, err := io.ReadFull(c.r, more[:])
	switch {
	case n > 0:
		c.err = plugin.Refuse(plugin.ReasonDigest, "the package of %s %s is longer than its repository says", c.want.Name, c.want.Version)
	case !errors.Is(err, io.EOF):
		c.err = fault.Unavailablef("the package of %s %s did not arrive completely", c.want.Name, c.want.Version).Because(err)
	case hex.EncodeToString(c.sum.Sum(nil)) != c.want.SHA256:
		c.err = plugin.Refuse(plugin.ReasonDigest, "the package of %s %s is not the one that its repository describes", c.want.Name, c.want.Version)
	default:
		return io.EOF
	}
	return c.err
}
