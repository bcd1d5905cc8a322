package plugin

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/event"
)

// Extensions is the part of the host that serves role extension. All calls are safe
// for concurrent use.
type Extensions interface {
	// Extension finds what answers below a prefix: NotFound if nothing does,
	// Unavailable if it must not run here.
	Extension(prefix string) (Extension, error)
	// Extensions lists what is installed with role extension, sorted by name.
	Extensions() []Extension
	// Route gives a request to an extension. The answer must be closed. A plugin that
	// does not answer in time is [ErrLate], one that breaks the call off or answers
	// nonsense [ErrBroken], each Unavailable.
	Route(ctx context.Context, plugin string, r RouteRequest) (*RouteAnswer, error)
	// Hook tells an extension of an event. An error says that it must be told again;
	// [Down] whether it heard of it at all.
	Hook(ctx context.Context, plugin string, e event.Event) error
	// Ask asks a gate. The question is JSON. Who has no such gate is Unavailable.
	Ask(ctx context.Context, plugin, gate string, question []byte) (Verdict, error)
}

// Extension is an installed package with role extension.
type Extension struct {
	Plugin  string
	Version string
	Summary string
	Digest  string
	manifest.Extension
	Reason Reason // why it does not run; ReasonOK if it does
	Detail string
}

// Route is one path of an extension with its methods.
type Route = manifest.Route

// Find is the route of a method and the decoded segments of a path, the first one
// in the manifest's order that has both. Without one it returns the methods that
// the path has; none means that there is no such path.
func (e Extension) Find(method string, segments []string) (Route, []string, bool) {
	if method == "HEAD" {
		method = "GET"
	}
	var methods []string
	for _, r := range e.Routes {
		if !r.Match(segments) {
			continue
		}
		if slices.Contains(r.Methods, method) {
			return r, nil, true
		}
		methods = append(methods, r.Methods...)
	}
	return Route{}, methods, false
}

// Header is one header of HTTP, its name in lower case.
type Header struct{ Name, Value string }

// Principal is who calls, authenticated by the host.
type Principal struct{ ID, Kind, Name, Role string }

// RouteRequest is a request that the host has authenticated and authorised. Headers
// have no credentials in them.
type RouteRequest struct {
	Method    string
	Path      string // below the prefix, escaped
	Query     string
	Headers   []Header
	Principal Principal
	// Body is nil for none; an error of it ends the call. It is closed when nobody
	// wants more of it, at the latest with the answer; Close must end a Read that
	// waits, and nothing reads after the answer was closed.
	Body      io.ReadCloser
	Length    int64 // of Body, -1 if it is not known
	RequestID string
}

// Safe reports whether the method changes nothing (RFC 9110, 9.2.1), as far as
// extensions are called by such.
func (r RouteRequest) Safe() bool { return r.Method == http.MethodGet || r.Method == http.MethodHead }

// RouteAnswer is an extension's answer. Body gives what has come so far without
// waiting for more, and must be closed; that ends the call.
type RouteAnswer struct {
	Status  int
	Headers []Header
	Length  int // of the body, -1 if it is still coming
	Body    io.ReadCloser
}

// Verdict is the answer of a gate.
type Verdict struct {
	Allow  bool
	Reason string // for the caller
}

// Down reports whether a call of a plugin has failed because no process of it
// could take it: the plugin has heard nothing.
func Down(err error) bool {
	_, down := errors.AsType[*downError](err)
	return down
}

// The ways in which a call of a route fails at the plugin.
var (
	ErrLate   = errors.New("the plugin did not answer in time")
	ErrBroken = errors.New("the plugin broke the call off")
)
