package sallyport

import (
	"context"
	"net/http"
	"strings"
)

// Extension is an installed plugin that adds routes, hooks or gates.
type Extension struct {
	Name        string           `json:"name"` // the plugin's, with underscores
	Plugin      string           `json:"plugin"`
	Version     string           `json:"version"`
	Description string           `json:"description"`
	Prefix      string           `json:"prefix,omitempty"` // below /api/v1/
	Digest      string           `json:"digest"`
	Routes      []ExtensionRoute `json:"routes"`
	Hooks       []string         `json:"hooks"`
	Gates       []string         `json:"gates"`
	Reason      string           `json:"reason"` // OK, or why it does not run
	LastError   string           `json:"last_error,omitempty"`
}

// ExtensionRoute is one path below the prefix.
type ExtensionRoute struct {
	Path    string   `json:"path"`
	Methods []string `json:"methods"`
}

// Extensions lists the installed extensions.
func (c *Client) Extensions(ctx context.Context) ([]Extension, error) {
	var out struct {
		Extensions []Extension `json:"extensions"`
	}
	_, err := c.do(ctx, call{method: http.MethodGet, path: "/api/v1/extensions", again: true, limit: maxList}, &out)
	return out.Extensions, err
}

// ExtensionCall is a request for a route of an extension.
type ExtensionCall struct {
	Method string
	Path   string // escaped, with the query: /api/v1/myext/machines/m1/tags?limit=1
	Body   []byte
	Type   string // of the body; application/json if empty
}

// ExtensionAnswer is a successful answer of an extension.
type ExtensionAnswer struct {
	Status int
	Header http.Header
	Body   []byte
}

// CallExtension calls a route of an extension and reads the whole answer, of at most
// 64 MiB. It is repeated only if the method is GET.
func (c *Client) CallExtension(ctx context.Context, e ExtensionCall) (ExtensionAnswer, error) {
	if !strings.HasPrefix(e.Path, "/api/v1/") {
		return ExtensionAnswer{}, invalid("the path of a route begins with /api/v1/")
	}
	r := call{method: e.Method, path: e.Path, again: e.Method == http.MethodGet, limit: maxList}
	if len(e.Body) > 0 {
		r.raw, r.kind = e.Body, e.Type
		if r.kind == "" {
			r.kind = "application/json"
		}
	}
	a, err := c.send(ctx, r)
	return ExtensionAnswer{a.status, a.header, a.body}, err
}

// PurgePlugin removes what a plugin that is not installed any more has left: the
// tables of an extension, for good.
func (c *Client) PurgePlugin(ctx context.Context, name string) error {
	_, err := c.do(ctx, call{method: http.MethodDelete, path: join("/v1/plugins/{}/data", name), keyed: true}, nil)
	return err
}
