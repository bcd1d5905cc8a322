package extension

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/obs"
	"github.com/sallyport-project/sallyport/internal/plugin"
)

// stage is a door with an extension of prefix myext behind it, which does what a test
// wants.
type stage struct {
	*httptest.Server
	do func(flow.Call) (*plugin.RouteAnswer, error)

	mu    sync.Mutex
	calls []flow.Call
}

func newStage(t *testing.T, do func(flow.Call) (*plugin.RouteAnswer, error)) *stage {
	t.Helper()
	s := &stage{do: do}
	door := New(Config{Gate: s, Log: slog.New(slog.DiscardHandler), Metrics: obs.NewMetrics(), Now: time.Now})
	s.Server = httptest.NewUnstartedServer(door)
	s.EnableHTTP2 = true
	s.Config.MaxHeaderBytes = 16 << 10
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// Authenticate knows everybody who does not say otherwise.
func (s *stage) Authenticate(_ context.Context, p flow.Presented) (flow.Caller, error) {
	if p.Token == "wrong" {
		return flow.Caller{}, fault.Unauthenticatedf("this session has ended")
	}
	return flow.Caller{}, nil
}

func (s *stage) FindExtension(prefix string) (plugin.Extension, error) {
	if prefix != "myext" {
		return plugin.Extension{}, fault.NotFoundf("no installed extension serves this")
	}
	return plugin.Extension{Plugin: "tags", Extension: manifest.Extension{Prefix: prefix, Routes: []plugin.Route{
		{Path: "/items", Methods: []string{"GET", "POST"}}, {Path: "/items/{id}", Methods: []string{"GET"}},
	}}}, nil
}

func (s *stage) CallExtension(_ context.Context, _ flow.Caller, call flow.Call) (*plugin.RouteAnswer, error) {
	s.mu.Lock()
	s.calls = append(s.calls, call)
	s.mu.Unlock()
	return s.do(call)
}

func (s *stage) ListExtensions(context.Context, flow.Caller) ([]plugin.Extension, error) {
	return nil, nil
}

// raw writes a request by hand on a connection of HTTP/1.1, and reads the answer.
func (s *stage) raw(t *testing.T, text string) (*http.Response, string) {
	t.Helper()
	conn, err := tls.Dial("tcp", s.Listener.Addr().String(), &tls.Config{RootCAs: s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs, ServerName: "example.com"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, _ := io.ReadAll(res.Body)
	return res, string(body)
}

// whole answers with headers and a body that has ended.
func whole(status int, body string, headers ...plugin.Header) *plugin.RouteAnswer {
	return &plugin.RouteAnswer{Status: status, Headers: headers, Length: len(body), Body: io.NopCloser(strings.NewReader(body))}
}

// both runs a test over HTTP/1.1 and HTTP/2.
func both(t *testing.T, s *stage, test func(t *testing.T, c *http.Client)) {
	t.Helper()
	second := s.Client()
	second.Timeout = 20 * time.Second
	second.Transport.(*http.Transport).ExpectContinueTimeout = second.Timeout
	first := &http.Client{Timeout: second.Timeout, Transport: &http.Transport{ExpectContinueTimeout: second.Timeout, TLSClientConfig: second.Transport.(*http.Transport).TLSClientConfig.Clone()}}
	first.Transport.(*http.Transport).TLSClientConfig.NextProtos = []string{"http/1.1"}
	for _, c := range []*http.Client{first, second} {
		c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		res, err := c.Get(s.URL + "/api/v1/extensions")
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		t.Run(res.Proto, func(t *testing.T) { test(t, c) })
		c.CloseIdleConnections()
	}
}

func send(t *testing.T, c *http.Client, method, url string, body io.Reader, headers ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n < len(headers); n += 2 {
		r.Header.Add(headers[n], headers[n+1])
	}
	res, err := c.Do(r)
	if err != nil {
		t.Fatalf("%s %.60s: %v", method, url, err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(text)
}

func TestDoor_Statuses(t *testing.T) {
	failed := map[string]error{
		"late": fault.Unavailablef("late").Because(plugin.ErrLate), "broken": fault.Unavailablef("broken").Because(plugin.ErrBroken),
		"down": fault.Unavailablef("down"), "busy": fault.Exhaustedf("busy").After(time.Second), "denied": fault.Deniedf("denied"),
		"fine": nil,
	}
	s := newStage(t, func(c flow.Call) (*plugin.RouteAnswer, error) {
		if c.Request.Body != nil {
			if _, err := io.Copy(io.Discard, c.Request.Body); err != nil {
				return nil, fault.Invalidf("the body cannot be read").Because(err)
			}
		}
		if err := failed[c.Segments[len(c.Segments)-1]]; err != nil {
			return nil, err
		}
		return whole(200, "hello"), nil
	})
	huge := func() io.Reader { return io.LimitReader(zeros{}, MaxBody+1) } // of no declared length
	both(t, s, func(t *testing.T, c *http.Client) {
		for _, r := range []struct {
			method, path string
			body         io.Reader
			header       []string
			status       int
		}{
			{"GET", "/api/v1/myext/items", nil, nil, 200},
			{"HEAD", "/api/v1/myext/items", nil, nil, 200},
			{"POST", "/api/v1/myext/items", io.LimitReader(zeros{}, MaxBody), nil, 200},
			{"POST", "/api/v1/myext/items", huge(), nil, 413},
			{"POST", "/api/v1/myext/items", bytes.NewReader(make([]byte, MaxBody+1)), []string{"Expect", "100-continue"}, 413}, // else HTTP/1 clients may notice the end alone
			{"DELETE", "/api/v1/myext/items", nil, nil, 405},
			{"POST", "/api/v1/myext/items/7", nil, nil, 405},
			{"OPTIONS", "/api/v1/myext/items", nil, nil, 405},
			{"GET", "/api/v1/myext/other", nil, nil, 404},
			{"GET", "/api/v1/other/items", nil, nil, 404},
			{"GET", "/api/v1/myext/items/a%20b%3F%C3%A4", nil, nil, 200},
			{"GET", "/api/v1/myext/items/a%2Fb", nil, nil, 400},
			{"GET", "/api/v1/myext/items/%2E%2E", nil, nil, 404},
			{"GET", "/api/v1/myext//items", nil, nil, 404},
			{"GET", "/api/v1/myext/items/" + strings.Repeat("a", 8<<10), nil, nil, 200},
			{"GET", "/api/v1/myext/items/late", nil, nil, 504},
			{"GET", "/api/v1/myext/items/broken", nil, nil, 502},
			{"GET", "/api/v1/myext/items/down", nil, nil, 503},
			{"GET", "/api/v1/myext/items/busy", nil, nil, 429},
			{"GET", "/api/v1/myext/items/denied", nil, nil, 403},
			{"GET", "/api/v1/myext/items", nil, []string{"Authorization", "Bearer wrong"}, 401},
			{"GET", "/api/v1/myext/items", nil, []string{"Authorization", "Bearer a", "Authorization", "Bearer b"}, 401},
			{"POST", "/api/v1/myext/items", nil, []string{"Sec-Fetch-Site", "cross-site"}, 403},
		} {
			res, body := send(t, c, r.method, s.URL+r.path, r.body, r.header...)
			if res.StatusCode != r.status {
				t.Errorf("%s %.60s answers %d, want %d: %.200s", r.method, r.path, res.StatusCode, r.status, body)
			}
			if r.status == 405 && !strings.HasPrefix(res.Header.Get("Allow"), "GET") {
				t.Errorf("%s %s: Allow is %q", r.method, r.path, res.Header.Get("Allow"))
			}
			if r.method == "HEAD" && body != "" {
				t.Errorf("HEAD answers %q", body)
			}
			if res.Header.Get("X-Content-Type-Options") != "nosniff" || !strings.HasPrefix(res.Header.Get("Content-Security-Policy"), "sandbox;") {
				t.Errorf("%s %.60s: unguarded: %v", r.method, r.path, res.Header)
			}
			if r.status >= 400 && res.Header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("%s %.60s: %v", r.method, r.path, res.Header)
			}
		}
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// What belongs to the connection, and what only servers of the wrong kind would take.
func TestDoor_HTTPByHand(t *testing.T) {
	s := newStage(t, func(c flow.Call) (*plugin.RouteAnswer, error) {
		body := []byte(nil)
		if c.Request.Body != nil {
			body, _ = io.ReadAll(c.Request.Body)
		}
		return whole(200, fmt.Sprint(c.Request.Headers, string(body))), nil
	})
	const begin, host = " /api/v1/myext/items HTTP/1.1\r\n", "Host: example.com\r\n"
	for name, r := range map[string]struct {
		text   string
		status int
		body   string
	}{
		"upgrade":        {"GET" + begin + host + "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n", 200, "[]"},
		"h2c":            {"GET" + begin + host + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n", 200, "[]"},
		"connect":        {"CONNECT" + begin + host + "\r\n", 405, ""},
		"hop by hop":     {"GET" + begin + host + "Connection: X-Hop, Keep-Alive\r\nX-Hop: 1\r\nKeep-Alive: 1\r\nTE: trailers\r\nProxy-Authorization: x\r\nX-Mine: 1\r\n\r\n", 200, "[{x-mine 1}]"},
		"credentials":    {"GET" + begin + host + "Authorization: Bearer a\r\nCookie: a=b\r\nDPoP: x\r\nX-Forwarded-For: 1\r\nForwarded: for=1\r\n\r\n", 200, "[]"},
		"chunks":         {"POST" + begin + host + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", 200, "[]abcde"},
		"trailer":        {"POST" + begin + host + "Transfer-Encoding: chunked\r\nTrailer: Authorization\r\n\r\n3\r\nabc\r\n0\r\nAuthorization: Bearer a\r\n\r\n", 200, "[]abc"},
		"late header":    {"POST" + begin + host + "Transfer-Encoding: chunked\r\nTrailer: X-Ext-A\r\n\r\n3\r\nabc\r\n0\r\nX-Ext-A: 1\r\n\r\n", 200, "[]abc"},
		"two lengths":    {"POST" + begin + host + "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400, ""},
		"both lengths":   {"POST" + begin + host + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200, "[]"},
		"two hosts":      {"GET" + begin + host + host + "\r\n", 400, ""},
		"no host":        {"GET" + begin + "\r\n", 400, ""},
		"foreign host":   {"GET" + begin + "Host: elsewhere.example\r\n\r\n", 200, "[]"},
		"absolute":       {"GET https://elsewhere.example/api/v1/myext/items HTTP/1.1\r\n" + host + "\r\n", 200, "[]"},
		"long header":    {"GET" + begin + host + "X-Long: " + strings.Repeat("a", 32<<10) + "\r\n\r\n", 431, ""},
		"long path":      {"GET /api/v1/myext/items/" + strings.Repeat("a", 32<<10) + " HTTP/1.1\r\n" + host + "\r\n", 431, ""},
		"waits for more": {"POST" + begin + host + "Content-Length: 3\r\nExpect: something\r\n\r\nabc", 417, ""},
	} {
		res, body := s.raw(t, r.text)
		if res.StatusCode != r.status || r.body != "" && body != r.body && !strings.HasPrefix(body, r.body) {
			t.Errorf("%s: %d %q, want %d %q", name, res.StatusCode, body, r.status, r.body)
		}
	}
}

// A body is asked for only when policy has allowed the call (RFC 9110, 10.1.1).
func TestDoor_AsksForTheBodyLast(t *testing.T) {
	const expecting = "POST /api/v1/myext/items HTTP/1.1\r\nHost: example.com\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
	denies := newStage(t, func(flow.Call) (*plugin.RouteAnswer, error) { return nil, fault.Deniedf("policy does not allow this") })
	if res, _ := denies.raw(t, expecting); res.StatusCode != http.StatusForbidden {
		t.Errorf("what is denied: %d", res.StatusCode)
	}
	reads := newStage(t, func(c flow.Call) (*plugin.RouteAnswer, error) {
		_, _ = io.ReadAll(c.Request.Body)
		return whole(200, ""), nil
	})
	if res, _ := reads.raw(t, expecting+"abc"); res.StatusCode != http.StatusContinue {
		t.Errorf("what is allowed: %d", res.StatusCode)
	}
}

func TestDoor_AnswersInItsOwnName(t *testing.T) {
	s := newStage(t, func(flow.Call) (*plugin.RouteAnswer, error) {
		return whole(201, "hello", []plugin.Header{
			{Name: "content-type", Value: "text/html"},
			{Name: "etag", Value: `"1"`},
			{Name: "x-ext-a", Value: "1"},
			{Name: "X-Ext-B", Value: "2"},
			{Name: "set-cookie", Value: "a=b"},
			{Name: "authorization", Value: "x"},
			{Name: "www-authenticate", Value: "Basic"},
			{Name: "content-security-policy", Value: "default-src *"},
			{Name: "x-content-type-options", Value: "sniff"},
			{Name: "access-control-allow-origin", Value: "*"},
			{Name: "strict-transport-security", Value: "max-age=0"},
			{Name: "clear-site-data", Value: "*"},
			{Name: "content-length", Value: "1"},
			{Name: "transfer-encoding", Value: "chunked"},
			{Name: "connection", Value: "close"},
			{Name: "trailer", Value: "x"},
			{Name: "upgrade", Value: "h2c"},
			{Name: "request-id", Value: "mine"},
			{Name: "location", Value: "https://elsewhere.example/"},
			{Name: "x-ext-c", Value: "a\r\nSet-Cookie: a=b"},
			{Name: "service-worker-allowed", Value: "/"},
			{Name: "refresh", Value: "0"},
		}...), nil
	})
	both(t, s, func(t *testing.T, c *http.Client) {
		res, body := send(t, c, "POST", s.URL+"/api/v1/myext/items", nil)
		if res.StatusCode != http.StatusCreated || body != "hello" || res.ContentLength != 5 || res.Header.Get("Request-Id") == "mine" || res.Header.Get("Request-Id") == "" {
			t.Errorf("%d %q %v", res.StatusCode, body, res.Header)
		}
		var names []string
		for name := range res.Header {
			names = append(names, name)
		}
		slices.Sort(names)
		want := []string{
			"Cache-Control", "Content-Length", "Content-Security-Policy", "Content-Type", "Cross-Origin-Resource-Policy", "Date", "Etag", "Referrer-Policy",
			"Request-Id", "X-Content-Type-Options", "X-Ext-A", "X-Ext-B",
		}
		if !slices.Equal(names, want) {
			t.Errorf("got headers %v", names)
		}
		if csp := res.Header.Values("Content-Security-Policy"); len(csp) != 1 || !strings.HasPrefix(csp[0], "sandbox;") {
			t.Errorf("%v", csp)
		}
	})
}

// An answer that breaks off does not look whole.
func TestDoor_BreaksOff(t *testing.T) {
	s := newStage(t, func(flow.Call) (*plugin.RouteAnswer, error) {
		return &plugin.RouteAnswer{Status: 200, Length: -1, Body: io.NopCloser(io.MultiReader(strings.NewReader("half"), failing{}))}, nil
	})
	both(t, s, func(t *testing.T, c *http.Client) {
		res, err := c.Get(s.URL + "/api/v1/myext/items")
		if err == nil {
			var body []byte
			body, err = io.ReadAll(res.Body)
			_ = res.Body.Close()
			if err == nil {
				t.Errorf("it looks whole: %q", body)
			}
		}
	})
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("the plugin broke the call off") }

// Neither direction waits for the other: what the caller sends is with the plugin
// before the next part exists, and so is the answer. When the answer ends, nothing
// waits for the rest of the request.
func TestDoor_HoldsNothingBack(t *testing.T) {
	bodies := make(chan io.ReadCloser, 2)
	s := newStage(t, func(c flow.Call) (*plugin.RouteAnswer, error) {
		bodies <- c.Request.Body
		answer, out := io.Pipe()
		var pump sync.WaitGroup
		pump.Go(func() {
			part := make([]byte, 100)
			for {
				n, err := c.Request.Body.Read(part)
				if err != nil {
					_ = out.CloseWithError(io.EOF)
					return
				}
				_, _ = out.Write(part[:n])
				if string(part[:n]) == "bye" {
					_ = out.Close()
				}
			}
		})
		return &plugin.RouteAnswer{Status: 200, Length: -1, Body: &ending{answer, func() { _ = c.Request.Body.Close(); pump.Wait() }}}, nil
	})
	both(t, s, func(t *testing.T, c *http.Client) {
		body, parts := io.Pipe()
		defer func() { _ = parts.Close() }()
		say := func(text string) { _, _ = io.WriteString(parts, text) }
		go say("one")
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/api/v1/myext/items", body)
		if err != nil {
			t.Fatal(err)
		}
		res, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = res.Body.Close() }()
		got := make([]byte, 3)
		for _, word := range []string{"one", "two", "bye"} {
			if word != "one" {
				go say(word)
			}
			if _, err := io.ReadFull(res.Body, got); err != nil || string(got) != word {
				t.Fatalf("%q %v", got, err)
			}
		}
		if n, err := res.Body.Read(got); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("the end waits for the request: %q %v", got[:n], err)
		}
		if _, err := (<-bodies).Read(got); err == nil {
			t.Error("the body is read after the answer")
		}
	})
}

type ending struct {
	io.Reader
	end func()
}

func (e *ending) Close() error { e.end(); return nil }
