package plugintest

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"

	own "github.com/sallyport-project/sallyport/api/sallyport/plugin/v1"
	"github.com/sallyport-project/sallyport/sdk/plugin"
)

// What a body may be ahead of its reader, and how much of it one frame has.
const (
	routeCredit = 256 << 10
	routeChunk  = 32 << 10
)

// Do sends a request to a route of an Extension, as a host does for who it has
// authenticated as the principal, and reads the whole answer. The path is the one
// below the prefix. A handler that panics is an error here, and 502 for who calls a
// host.
func (p *Plugin) Do(r *http.Request, who plugin.Principal) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
	}
	first := body[:min(len(body), routeChunk)]
	q := &own.RouteRequest{
		Method: r.Method, Path: r.URL.EscapedPath(), Query: r.URL.RawQuery, Body: first, More: len(first) < len(body), RequestId: "test",
		Principal: &own.Principal{Id: who.ID, Kind: who.Kind, Name: who.Name, Role: who.Role},
	}
	for name, values := range r.Header {
		for _, v := range values {
			q.Headers = append(q.Headers, &own.Header{Name: strings.ToLower(name), Value: v})
		}
	}
	x, err := p.stream.begin(r.Context(), &own.HostFrame{Body: &own.HostFrame_Route{Route: q}})
	if err != nil {
		return nil, err
	}
	defer x.end()
	return x.transfer(r.Context(), body[len(first):], routeCredit-len(first))
}

// transfer sends the rest of a request's body, as the plugin gives credit for it,
// and collects the answer.
func (x *exchange) transfer(ctx context.Context, rest []byte, credit int) (*http.Response, error) {
	var out *http.Response
	var body bytes.Buffer
	for {
		for len(rest) > 0 && credit > 0 {
			n := min(len(rest), routeChunk, credit)
			chunk := &own.BodyChunk{Data: rest[:n], More: n < len(rest)}
			if err := x.c.write(&own.HostFrame{Id: x.id, Body: &own.HostFrame_Chunk{Chunk: chunk}}); err != nil {
				return nil, err
			}
			rest, credit = rest[n:], credit-n
		}
		f, err := x.next(ctx)
		if err != nil {
			return nil, err
		}
		var more bool
		var data []byte
		switch b := f.GetBody().(type) {
		case *own.PluginFrame_Credit:
			credit += int(b.Credit.GetBytes())
			continue
		case *own.PluginFrame_Route:
			if out != nil {
				return nil, wrong("the rest of a body")
			}
			out = head(b.Route)
			data, more = b.Route.GetBody(), b.Route.GetMore()
		case *own.PluginFrame_Chunk:
			data, more = b.Chunk.GetData(), b.Chunk.GetMore()
		}
		if out == nil {
			return nil, wrong("a route")
		}
		body.Write(data)
		if !more {
			out.Body, out.ContentLength = io.NopCloser(&body), int64(body.Len())
			return out, nil
		}
		if err := x.c.write(&own.HostFrame{Id: x.id, Body: &own.HostFrame_Credit{Credit: &own.Credit{Bytes: uint32(len(data))}}}); err != nil {
			return nil, err
		}
	}
}

func head(r *own.RouteResponse) *http.Response {
	status := int(r.GetStatus())
	out := &http.Response{StatusCode: status, Status: http.StatusText(status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}}
	for _, h := range r.GetHeaders() {
		out.Header.Add(h.GetName(), h.GetValue())
	}
	return out
}
