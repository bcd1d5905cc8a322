package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"

	own "github.com/sallyport-project/sallyport/api/sallyport/plugin/v1"
)

const (
	routeCredit = 256 << 10 // that a body may be ahead of its reader
	routeChunk  = 32 << 10
)

// parts are what came for a call of a route after its first frame.
type parts struct {
	mu      sync.Mutex
	chunks  [][]byte
	ended   bool // no more chunks come
	ahead   int  // bytes that came, less the credit that was given
	credit  int  // bytes of the answer that may still be sent
	err     error
	changed chan struct{} // closed and replaced with each change
}

func newParts(q *own.RouteRequest) *parts {
	return &parts{ended: !q.GetMore(), credit: routeCredit, ahead: len(q.GetBody()), changed: make(chan struct{})}
}

// take takes a further frame of the host.
func (p *parts) take(f *own.HostFrame) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch b := f.GetBody().(type) {
	case *own.HostFrame_Credit:
		p.credit += int(b.Credit.GetBytes())
	case *own.HostFrame_Chunk:
		p.ahead += len(b.Chunk.GetData())
		if p.ended || p.ahead > routeCredit+own.MaxMessageBytes {
			p.err = errors.New("the host sends more than it may")
		}
		p.chunks, p.ended = append(p.chunks, b.Chunk.GetData()), !b.Chunk.GetMore()
	}
	close(p.changed)
	p.changed = make(chan struct{})
}

// wait runs ready under the lock until it is true, no longer than ctx.
func (p *parts) wait(ctx context.Context, ready func() bool) error {
	for {
		p.mu.Lock()
		ok, err, changed := ready(), p.err, p.changed
		p.mu.Unlock()
		if ok || err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// requestBody is the body of a request as it comes.
type requestBody struct {
	call   *callContext
	out    *sender
	buffer []byte
	read   int // since credit was given
}

// Read implements io.Reader.
func (b *requestBody) Read(into []byte) (int, error) {
	p := b.call.parts
	for len(b.buffer) == 0 {
		over := false
		err := p.wait(b.call, func() bool {
			if len(p.chunks) > 0 {
				b.buffer, p.chunks = p.chunks[0], p.chunks[1:]
				return true
			}
			over = p.ended
			return over
		})
		if err != nil {
			return 0, err
		}
		if over {
			return 0, io.EOF
		}
	}
	n := copy(into, b.buffer)
	b.buffer = b.buffer[n:]
	if b.read += n; b.read >= routeCredit/4 {
		p.mu.Lock()
		p.ahead -= b.read
		over := p.ended
		p.mu.Unlock()
		if !over {
			_ = b.out.add(&own.PluginFrame{Id: b.call.frame.GetId(), Body: &own.PluginFrame_Credit{Credit: &own.Credit{Bytes: uint32(b.read)}}}) //nolint:gosec // at most the credit
		}
		b.read = 0
	}
	return n, nil
}

// Close implements io.Closer.
func (b *requestBody) Close() error { return nil }

// responder is the http.ResponseWriter of one call.
type responder struct {
	call    *callContext
	out     *sender
	header  http.Header
	status  int
	buffer  []byte
	begun   bool // the head was sent
	stopped error
}

// Header implements http.ResponseWriter.
func (w *responder) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *responder) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
}

// Write implements http.ResponseWriter.
func (w *responder) Write(data []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	written := 0
	for len(data) > 0 {
		n := min(len(data), routeChunk-len(w.buffer))
		w.buffer, data = append(w.buffer, data[:n]...), data[n:]
		if len(w.buffer) == routeChunk {
			if w.send(true); w.stopped != nil {
				return written, w.stopped
			}
		}
		written += n
	}
	return written, w.stopped
}

// Flush implements http.Flusher.
func (w *responder) Flush() {
	if !w.begun || len(w.buffer) > 0 {
		w.send(true)
	}
}

// send sends what is there: the head, if it was not sent, and a part of the body.
func (w *responder) send(more bool) {
	if w.stopped != nil {
		return
	}
	p, n := w.call.parts, len(w.buffer)
	w.stopped = p.wait(w.call, func() bool {
		if p.credit < n {
			return false
		}
		p.credit -= n
		return true
	})
	if w.stopped != nil {
		return
	}
	f := &own.PluginFrame{Id: w.call.frame.GetId()}
	if w.begun {
		f.Body = &own.PluginFrame_Chunk{Chunk: &own.BodyChunk{Data: w.buffer, More: more}}
	} else {
		head := &own.RouteResponse{Status: uint32(max(w.status, http.StatusOK)), Body: w.buffer, More: more} //nolint:gosec // three digits
		for name, values := range w.header {
			for _, v := range values {
				head.Headers = append(head.Headers, &own.Header{Name: strings.ToLower(name), Value: v})
			}
		}
		f.Body = &own.PluginFrame_Route{Route: head}
	}
	w.begun = true
	w.stopped = w.out.add(f)
	w.buffer = w.buffer[:0] // the frame is encoded
}

// route answers one request.
func (c *calls) route(call *callContext, q *own.RouteRequest) {
	w := &responder{call: call, out: c.out, header: http.Header{}}
	r, err := c.request(call, q)
	if err == nil {
		err = c.handle(w, r)
	}
	if err == nil {
		w.send(false)
		return
	}
	f := &own.PluginFrame{Id: call.frame.GetId(), Body: &own.PluginFrame_Refusal{Refusal: refused(call, err)}}
	_ = c.out.add(f) // the stream's end is noticed by its reader
}

// handle runs the handler; a panic is its failure.
func (c *calls) handle(w http.ResponseWriter, r *http.Request) (err error) {
	defer func() {
		switch p := recover(); p {
		case nil:
		case http.ErrAbortHandler:
			err = &refusal{own.Code_CODE_UNAVAILABLE, "the answer was broken off"}
		default:
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	c.s.extension.Routes.ServeHTTP(w, r)
	return nil
}

// request makes what the handler sees.
func (c *calls) request(call *callContext, q *own.RouteRequest) (*http.Request, error) {
	u := &url.URL{RawPath: q.GetPath(), RawQuery: q.GetQuery()}
	var err error
	if u.Path, err = url.PathUnescape(q.GetPath()); err != nil {
		return nil, Invalidf("the path is malformed")
	}
	p := q.GetPrincipal()
	ctx := context.WithValue(call, principalKey{}, Principal{ID: p.GetId(), Kind: p.GetKind(), Name: p.GetName(), Role: p.GetRole()})
	r := (&http.Request{
		Method: q.GetMethod(), URL: u, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, RequestURI: u.RequestURI(),
		Body: &requestBody{call: call, out: c.out, buffer: q.GetBody()}, ContentLength: -1,
	}).WithContext(ctx)
	for _, h := range q.GetHeaders() {
		r.Header.Add(h.GetName(), h.GetValue())
	}
	if n, err := strconv.ParseInt(r.Header.Get("Content-Length"), 10, 64); err == nil && n >= 0 {
		r.ContentLength = n
	} else if !q.GetMore() {
		r.ContentLength = int64(len(q.GetBody()))
	}
	if r.ContentLength == 0 {
		r.Body = http.NoBody
	}
	return r, nil
}
