package rest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// maxDepth is how deep the JSON of a body may be nested.
const maxDepth = 32

// uploadWindow is how long a package may take to arrive.
const uploadWindow = 10 * time.Minute

// read fills in from the body. The returned function wipes what was read and is
// called when the answer is written.
func (x *exchange) read(r route, in any, known map[string]bool) (func(), error) {
	nothing := func() {}
	switch body := in.(type) {
	case *stream:
		var err error
		body.Reader, err = x.flowing(r)
		return nothing, err
	case *form:
		flowing, err := x.flowing(r)
		if err == nil {
			body.Reader, err = x.part(flowing)
		}
		return nothing, err
	}
	data, err := io.ReadAll(&bounded{body: http.MaxBytesReader(x.w, x.r.Body, r.limit), limit: r.limit})
	if err != nil {
		return nothing, err
	}
	wipe := func() { clear(data) }
	switch body := in.(type) {
	case *none:
		if len(data) > 0 {
			return wipe, fault.Invalidf("this operation takes no body")
		}
		return wipe, nil
	case *blob:
		*body = data
		return wipe, nil
	}
	if len(data) == 0 && r.optional {
		return wipe, nil
	}
	if kind, _, err := mime.ParseMediaType(x.r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return wipe, fault.Invalidf("send JSON, with Content-Type application/json")
	}
	return wipe, discreet(canon.Strict(data, int(r.limit), maxDepth, in), known)
}

// flowing is a body that is read while it comes. It may take longer than the
// server grants a request.
func (x *exchange) flowing(r route) (io.Reader, error) {
	if x.r.ContentLength > r.limit {
		return nil, tooLarge(r.limit)
	}
	control := http.NewResponseController(x.w)
	_ = control.SetReadDeadline(time.Now().Add(uploadWindow)) // not every connection has one
	_ = control.SetWriteDeadline(time.Now().Add(uploadWindow))
	return &bounded{body: http.MaxBytesReader(x.w, x.r.Body, r.limit), limit: r.limit}, nil
}

// bounded turns the errors of reading a body into faults.
type bounded struct {
	body  io.Reader
	limit int64
}

// Read reads.
func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.body.Read(p)
	if err == nil || errors.Is(err, io.EOF) {
		return n, err //nolint:wrapcheck // io.Reader's contract
	}
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return n, tooLarge(b.limit)
	}
	return n, fault.Invalidf("the body did not arrive completely").Because(err)
}

func tooLarge(limit int64) error {
	return fault.Invalidf("the body is larger than the %d bytes allowed here", limit)
}

// where finds the place that package canon names in its public texts.
var where = regexp.MustCompile(`\(at ("[^"]*")`)

// discreet leaves out the place of a mistake if it holds a name that the caller
// made up: it could be a secret that slipped into the wrong position.
func discreet(err error, known map[string]bool) error {
	if err == nil {
		return nil
	}
	found := where.FindStringSubmatch(fault.Public(err))
	if found == nil {
		return err
	}
	for _, name := range strings.Split(strings.Trim(found[1], `"`), "/")[1:] {
		if !known[name] {
			return fault.Invalidf("the JSON is not acceptable: a member is unknown, stands twice or has another form than expected").Because(err)
		}
	}
	return err
}

// memberNames are the JSON names in a type.
func memberNames(t reflect.Type) map[string]bool {
	out := map[string]bool{}
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return out
	}
	for f := range t.Fields() {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" {
			out[name] = true
			for inner := range memberNames(f.Type) {
				out[inner] = true
			}
		}
	}
	return out
}

// write sends a successful answer.
func (x *exchange) write(r route, out any) error {
	status := r.status
	if x.replayed() {
		x.w.Header().Set(replayHeader, "true")
		if status == http.StatusCreated {
			status = http.StatusOK
		}
	}
	switch body := out.(type) {
	case none:
		x.w.WriteHeader(status)
		return nil
	case text:
		x.w.Header().Set("Content-Type", r.kind)
		x.w.WriteHeader(status)
		_, _ = x.w.Write(body.data) // the peer may have left
		return nil
	case download:
		defer func() { _ = body.Close() }()
		_ = http.NewResponseController(x.w).SetWriteDeadline(time.Now().Add(uploadWindow)) // not every connection has one
		x.w.Header().Set("Content-Type", r.kind)
		x.w.Header().Set("Content-Length", strconv.FormatInt(body.size, 10))
		x.w.WriteHeader(status)
		_, _ = io.Copy(x.w, io.LimitReader(body, body.size)) // the peer may have left
		return nil
	}
	data, err := encode(out)
	if err != nil {
		return err
	}
	defer clear(data)
	x.w.Header().Set("Content-Type", "application/json")
	x.w.Header().Set("Content-Length", strconv.Itoa(len(data))) // else long answers are sent in chunks
	x.w.WriteHeader(status)
	_, _ = x.w.Write(data) // the peer may have left
	return nil
}

func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, fault.Wrap(err, "encode answer")
	}
	return b.Bytes(), nil
}
