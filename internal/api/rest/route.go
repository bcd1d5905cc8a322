package rest

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"strings"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/flow"
)

// Limits of bodies, in bytes.
const (
	smallBody   = 64 << 10
	leakBody    = 192 << 10 // a value of 64 KiB, escaped
	policyBody  = 300 << 10
	packageBody = 256 << 20
)

// The forms of a body or an answer that are not JSON.
type (
	none     struct{}              // no body; answers 204
	blob     []byte                // the body as bytes
	stream   struct{ io.Reader }   // the body as it comes
	form     struct{ io.Reader }   // the package in a form, as it comes
	text     struct{ data []byte } // bytes of the route's content type
	download struct {              // as text, and large
		io.ReadCloser
		size int64
	}
)

// route is one operation of the API: how it is served and how it is described.
type route struct {
	id, method, path string
	summary          string
	about            string // further description
	tag              string
	query            []param
	open             bool   // needs no authentication, is limited by address
	uploads          bool   // an upload token stands for an identity, here alone
	keyed            bool   // takes an Idempotency-Key
	refreshes        bool   // may be shown, under its key, the session that it has ended
	limit            int64  // of the body; smallBody if zero
	optional         bool   // an empty body counts as {}
	status           int    // of a success; 200, or 204 without an answer, if zero
	kind             string // content type of an answer that is not JSON

	in, out reflect.Type
	handle  func(ctx context.Context, x *exchange) error
}

// param is a parameter in the query or the header.
type param struct {
	name, about string
	integer     bool
	boolean     bool
}

func (r route) template() string { return r.method + " " + r.path }

// headers are those that the document lists.
func (r route) headers() []param {
	if !r.keyed {
		return nil
	}
	return []param{{
		name: keyHeader,
		about: "1 to 128 visible ASCII characters, made anew for each change, best a ULID. A repetition under the same key changes nothing: " +
			"it answers what the first call did, 200 in place of 201, with the header " + replayHeader + ".",
	}}
}

// endpoint completes a route with what it does. The types say how body and
// answer are read, written and described.
func endpoint[I, O any](r route, act func(ctx context.Context, x *exchange, in I) (O, error)) route {
	r.in, r.out = reflect.TypeFor[I](), reflect.TypeFor[O]()
	if r.limit == 0 {
		r.limit = smallBody
	}
	if r.status == 0 {
		r.status = http.StatusOK
		if r.out == reflect.TypeFor[none]() {
			r.status = http.StatusNoContent
		}
	}
	known := memberNames(r.in)
	r.handle = func(ctx context.Context, x *exchange) error {
		var in I
		clean, err := x.read(r, &in, known)
		defer clean()
		if err != nil {
			return err
		}
		out, err := act(ctx, x, in)
		if err != nil {
			return err
		}
		return x.write(r, out)
	}
	return r
}

// exchange is one request on its way.
type exchange struct {
	w      http.ResponseWriter
	r      *http.Request
	query  url.Values
	key    *flow.Key   // nil for none
	caller flow.Caller // zero on open routes
}

// replayed reports whether the answer is the first one under the request's key.
func (x *exchange) replayed() bool { return x.key != nil && x.key.Replayed }

func (x *exchange) value(name string) string { return x.r.PathValue(name) }

// page reads the limit of a list: 100 by default, at most 1000.
func (x *exchange) page() (int, error) {
	const normal, most = 100, 1000
	text := x.query.Get("limit")
	if text == "" {
		return normal, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most {
		return 0, fault.Invalidf("limit must be a number from 1 to %d", most)
	}
	return n, nil
}

// readQuery takes the parameters that the route knows, each once.
func readQuery(r *http.Request, known []param) (url.Values, error) {
	const longest = 1024
	if r.URL.RawQuery == "" {
		return nil, nil
	}
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, fault.Invalidf("the query is malformed")
	}
	for name, list := range values {
		ok := false
		for _, p := range known {
			ok = ok || p.name == name
		}
		switch {
		case !ok && len(known) == 0:
			return nil, fault.Invalidf("this operation takes no query parameters")
		case !ok:
			return nil, fault.Invalidf("the query has an unknown parameter; known here: %s", names(known))
		case len(list) > 1 || len(list[0]) > longest:
			return nil, fault.Invalidf("query parameter %s must stand once, with at most %d bytes", name, longest)
		}
	}
	return values, nil
}

func names(params []param) string {
	list := make([]string, 0, len(params))
	for _, p := range params {
		list = append(list, p.name)
	}
	return strings.Join(list, ", ")
}

var (
	limitParam = param{name: "limit", about: "At most so many items, 1 to 1000; 100 by default.", integer: true}
	afterParam = param{name: "after", about: "The `next` of the page before."}
)
