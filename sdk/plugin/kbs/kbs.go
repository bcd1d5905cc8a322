// Package kbs is for authors of plugins of a Key Broker Service: programs that
// answer requests below /kbs/v0/external/NAME/ for guests of confidential
// computing, by the contract kbs.plugin.v1.
//
// The same program serves Trustee of Confidential Containers, at an address, and
// Sallyport, at an address or as a signed package that Sallyport starts itself:
//
//	type hello struct{ kbs.Defaults }
//
//	func (hello) Handle(_ context.Context, r *kbs.Request) (*kbs.Response, error) {
//		return &kbs.Response{Body: []byte("hello " + r.Segment(0))}, nil
//	}
//
//	func main() {
//		if err := kbs.NewServer(hello{}).Serve(context.Background()); err != nil {
//			log.Fatal(err)
//		}
//	}
//
// A broker asks three questions about each request: ValidateAuth before anybody
// was authenticated, then Handle, then NeedsEncryption. They are independent
// calls, so each must answer from the request alone. docs/plugins/kbs.md has
// the whole story.
package kbs

import (
	"context"
	"fmt"
	"strings"
)

// Request is a request as the broker passes it on. Every part of it comes from
// whoever has sent it.
type Request struct {
	Method string   // GET, POST, PUT or DELETE
	Path   []string // the segments after the plugin's name; a slash at the end adds an empty one
	Query  map[string]string
	Body   []byte
}

// Segment is the i-th segment of the path, empty if there is none.
func (r *Request) Segment(i int) string {
	if i < 0 || i >= len(r.Path) {
		return ""
	}
	return r.Path[i]
}

// Match compares the path with a pattern such as "models/{name}" and returns
// what stands for the names in braces. A name stands for one segment that is not
// empty.
func (r *Request) Match(pattern string) (map[string]string, bool) {
	parts := strings.Split(pattern, "/")
	if len(parts) != len(r.Path) {
		return nil, false
	}
	found := map[string]string{}
	for i, p := range parts {
		name, open := strings.CutPrefix(p, "{")
		name, closed := strings.CutSuffix(name, "}")
		switch {
		case open && closed && r.Path[i] != "":
			found[name] = r.Path[i]
		case p != r.Path[i] || open && closed:
			return nil, false
		}
	}
	return found, true
}

// Response is the answer to a request. A broker tells its guests only whether
// it was a success, 200 to 299, unless its operator has switched statuses on.
type Response struct {
	Body        []byte
	Status      int    // 200 if zero
	ContentType string // of the body, for brokers that pass it on
}

// Handler is a plugin. Its methods are called concurrently; each call's context
// ends with the broker's deadline, or when nobody waits any more. An error made by
// [Refusef] is answered with its status; every other error, and a panic, is
// logged, and the broker learns only that the plugin failed. Embed [Defaults] to
// write no more than Handle.
type Handler interface {
	// Handle answers a request whose sender the broker has let pass.
	Handle(ctx context.Context, r *Request) (*Response, error)
	// ValidateAuth reports whether a request is for the broker's administrators,
	// whatever its method. Anybody's request gets here.
	ValidateAuth(ctx context.Context, r *Request) (bool, error)
	// NeedsEncryption reports whether the answer is sealed to the guest's key. An
	// administrator's answer never is, and the broker does not ask.
	NeedsEncryption(ctx context.Context, r *Request) (bool, error)
}

// Defaults are the answers of a plugin that leaves both questions open: no
// request is for administrators, every answer is sealed.
type Defaults struct{}

// ValidateAuth is false.
func (Defaults) ValidateAuth(context.Context, *Request) (bool, error) { return false, nil }

// NeedsEncryption is true.
func (Defaults) NeedsEncryption(context.Context, *Request) (bool, error) { return true, nil }

// HandlerFunc is a Handler of one function, with [Defaults].
type HandlerFunc func(ctx context.Context, r *Request) (*Response, error)

var _ Handler = HandlerFunc(nil)

// Handle calls the function.
func (f HandlerFunc) Handle(ctx context.Context, r *Request) (*Response, error) { return f(ctx, r) }

// ValidateAuth is false.
func (HandlerFunc) ValidateAuth(context.Context, *Request) (bool, error) { return false, nil }

// NeedsEncryption is true.
func (HandlerFunc) NeedsEncryption(context.Context, *Request) (bool, error) { return true, nil }

// refusal is an answer that is an error.
type refusal struct {
	status int
	text   string
}

func (r *refusal) Error() string { return fmt.Sprintf("status %d: %s", r.status, r.text) }

// Refusef is an error that Handle returns to answer with a status, 400 to 599,
// and a text. Brokers show the text to nobody but their log, or to the guest where
// the operator has switched that on, so it must hold no secret.
func Refusef(status int, format string, args ...any) error {
	if status < 400 || status > 599 {
		status = 500
	}
	return &refusal{status, fmt.Sprintf(format, args...)}
}
