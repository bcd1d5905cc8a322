package sallyport

import (
	"context"
	"errors"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// Repository is a plugin repository that an operator pinned, and what was last
// seen of it.
type Repository struct {
	Name      string    `json:"name"`
	URL       string    `json:"url"` // https, http on loopback, or a folder on the client's machine
	Root      []byte    `json:"root"`
	Timestamp []byte    `json:"timestamp,omitempty"`
	Snapshot  []byte    `json:"snapshot,omitempty"`
	At        time.Time `json:"at"`
	Author    string    `json:"author"`
}

// Repositories lists the plugin repositories.
func (c *Client) Repositories(ctx context.Context) ([]Repository, error) {
	var out struct {
		Items []Repository `json:"items"`
	}
	r := get("/v1/repositories")
	r.limit = maxList
	_, err := c.do(ctx, r, &out)
	return out.Items, err
}

// AddRepository pins a plugin repository by its root.
func (c *Client) AddRepository(ctx context.Context, name, place string, root []byte) (Repository, error) {
	body := struct {
		Name string `json:"name"`
		URL  string `json:"url"`
		Root []byte `json:"root"`
	}{name, place, root}
	var out Repository
	_, err := c.do(ctx, call{method: http.MethodPost, path: "/v1/repositories", body: body, keyed: true}, &out)
	return out, err
}

// RemoveRepository forgets a plugin repository. What was installed from it stays.
func (c *Client) RemoveRepository(ctx context.Context, name string) error {
	_, err := c.do(ctx, call{method: http.MethodDelete, path: join("/v1/repositories/{}", name), keyed: true}, nil)
	return err
}

// Release is one package that a repository offers.
type Release struct {
	Name             string   `json:"name"`
	Version          string   `json:"version"`
	Digest           string   `json:"digest"`
	Publisher        string   `json:"publisher"`
	Roles            []string `json:"roles"`
	Kinds            []string `json:"kinds"`
	Summary          string   `json:"summary,omitempty"`
	MinSecureVersion string   `json:"min_secure_version,omitempty"`
	Yanked           string   `json:"yanked,omitempty"` // why it was withdrawn
	Size             int64    `json:"size"`
	SHA256           string   `json:"sha256"`
	Role             string   `json:"role"`
}

// Delivery is what came of a bundle.
type Delivery struct {
	Repository string            `json:"repository"`
	Versions   map[string]int64  `json:"versions"` // of the repository's roles
	Expires    time.Time         `json:"expires"`
	Releases   []Release         `json:"releases"`
	Installed  []InstalledPlugin `json:"installed"`
}

// DeliverBundle sends a repository's metadata, and packages to install. The
// stream is sent once: a caller that gets [Unavailable] may send it again. What
// was installed before a fault stays.
func (c *Client) DeliverBundle(ctx context.Context, repository string, bundle io.Reader, allowDowngrade bool) (Delivery, error) {
	r := call{
		method: http.MethodPost, path: join("/v1/repositories/{}/bundles", repository), stream: bundle, kind: "application/x-tar",
		limit: maxList,
	}
	if allowDowngrade {
		r.query = url.Values{"allow_downgrade": {"true"}}
	}
	var out Delivery
	_, err := c.do(ctx, r, &out)
	return out, err
}

// Installation is a package that was installed at some time.
type Installation struct {
	Name       string    `json:"name"`
	Version    string    `json:"version"`
	Digest     string    `json:"digest"`
	Repository string    `json:"repository,omitempty"` // empty for a file
	At         time.Time `json:"at"`
	Author     string    `json:"author"`
}

// Installations lists the packages that were ever installed.
func (c *Client) Installations(ctx context.Context) ([]Installation, error) {
	var out struct {
		Items []Installation `json:"items"`
	}
	r := get("/v1/installations")
	r.limit = maxList
	_, err := c.do(ctx, r, &out)
	return out.Items, err
}

// RollbackPlugin goes back to a version that was installed before: the one
// named, else the newest that is older than the present one.
func (c *Client) RollbackPlugin(ctx context.Context, name, version string) (InstalledPlugin, error) {
	body := struct {
		Version string `json:"version,omitempty"`
	}{version}
	var out InstalledPlugin
	_, err := c.do(ctx, call{method: http.MethodPost, path: join("/v1/plugins/{}/rollback", name), body: body, keyed: true}, &out)
	return out, err
}

// UploadPlugin sends a package to a server that takes packages into its own
// repository. Sending the same package again changes nothing: what can be read again
// from where it began (an [io.Seeker]) is, after the time that a server names, if
// another replica takes packages in. Any other stream is sent once.
func (c *Client) UploadPlugin(ctx context.Context, pack io.Reader) (Release, error) {
	again, ok := pack.(io.Seeker)
	begin := int64(0)
	if ok {
		at, err := again.Seek(0, io.SeekCurrent)
		begin, ok = at, err == nil // a pipe cannot
	}
	for n := 1; ; n++ {
		out, err := c.upload(ctx, pack)
		var refused *Error
		if err == nil || !ok || n >= attempts || !Is(err, Unavailable) || !errors.As(err, &refused) || refused.RetryAfter == 0 || pause(ctx, n, err) != nil {
			return out, err
		}
		c.Close() // a new connection may be to another replica
		if _, e := again.Seek(begin, io.SeekStart); e != nil {
			return out, err
		}
	}
}

// upload is one attempt. Nobody reads the package any more when it returns.
func (c *Client) upload(ctx context.Context, pack io.Reader) (Release, error) {
	reader, writer := io.Pipe()
	form := multipart.NewWriter(writer)
	var sending sync.WaitGroup
	sending.Go(func() {
		part, err := form.CreateFormFile("plugin", "package.spk")
		if err == nil {
			_, err = io.Copy(part, pack)
		}
		if err == nil {
			err = form.Close()
		}
		_ = writer.CloseWithError(err)
	})
	defer sending.Wait()
	defer func() { _ = reader.Close() }()
	var out Release
	_, err := c.do(ctx, call{method: http.MethodPost, path: "/plugins/upload", stream: reader, kind: form.FormDataContentType()}, &out)
	return out, err
}
