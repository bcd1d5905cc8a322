// Package external is about what answers below /kbs/v0/external/NAME/: plugins
// that speak kbs.plugin.v1, at an address that an operator has configured, or
// installed as packages.
//
// It knows how to ask them and which floors they have. Who is let pass, and what
// becomes of an answer, is flow's.
package external

import (
	"context"
	"errors"
	"strings"
	"unicode/utf8"

	pluginv1 "github.com/sallyport-project/sallyport/api/kbs/plugin/v1"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// MaxBody bounds the body of a request, in bytes. It is judged before anything
// is asked.
const MaxBody = pluginv1.MaxBodyBytes

// Request is a request below a backend's name.
type Request struct {
	Method string
	Path   []string // segments after the name
	Query  map[string]string
	Body   []byte
	// Context is what Handle is told of who calls, signed; empty for nothing, as in
	// Trustee.
	Context string
}

// Check refuses (Invalid) what the contract cannot carry, which is text that is not
// UTF-8, and segments that a plugin could take for others than floors and policies
// see: those that have a slash in them, or are dots.
func (r Request) Check() error {
	for _, s := range r.Path {
		if !utf8.ValidString(s) {
			return fault.Invalidf("the path is not UTF-8")
		}
		if s == "." || s == ".." || strings.ContainsFunc(s, func(c rune) bool { return c == '/' || c == '\\' || c < ' ' || c == 0x7f }) {
			return fault.Invalidf("a segment of the path is dots, or has a slash or a control character in it")
		}
	}
	for k, v := range r.Query {
		if !utf8.ValidString(k) || !utf8.ValidString(v) {
			return fault.Invalidf("the query is not UTF-8")
		}
	}
	return nil
}

// The callers that a context can name.
const (
	CallerGuest         = pluginv1.CallerGuest
	CallerAdministrator = pluginv1.CallerAdministrator
	CallerAnybody       = pluginv1.CallerAnybody
)

// Digest is what a context says of the request, so that it counts for no other.
func (r Request) Digest() string { return pluginv1.RequestDigest(r.Method, r.Path, r.Query, r.Body) }

// Response is what a plugin answered, as it came.
type Response struct {
	Body        []byte
	Status      int
	ContentType string
}

// Success reports whether a broker takes the answer as one: no status, or one of
// the two hundreds.
func (r Response) Success() bool { return r.Status == 0 || r.Status >= 200 && r.Status <= 299 }

// Refusal reports whether the status is one by which HTTP says no.
func (r Response) Refusal() bool { return r.Status >= 400 && r.Status <= 599 }

// Backend is one plugin. Its calls end within the time that its operator has set,
// five seconds otherwise, and no more run at once than it was given. Faults are
// Unavailable and Exhausted; their public texts say nothing of what the plugin
// said. Safe for concurrent use.
type Backend interface {
	// About says which it is.
	About() About
	// ValidateAuth asks whether a request is for administrators.
	ValidateAuth(ctx context.Context, r Request) (bool, error)
	// Handle has the request answered.
	Handle(ctx context.Context, r Request) (Response, error)
	// NeedsEncryption asks whether the answer is sealed.
	NeedsEncryption(ctx context.Context, r Request) (bool, error)
}

// ErrReplaced is in the fault of a backend whose package was replaced since it was
// found: another one answers below the name, by other rules. Nothing was asked.
var ErrReplaced = errors.New("the plugin was replaced meanwhile")

// About describes a backend.
type About struct {
	Name   string
	Source string // what answers: a package with its digest, or an address; for records
	Rules  Rules
}
