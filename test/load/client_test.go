package main

import (
	"bufio"
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// The client against net/http's own server, in every way in which that frames
// answers.
func TestConnection_ReadsEveryFraming(t *testing.T) {
	long := strings.Repeat("0123456789", 10_000)
	mux := http.NewServeMux()
	mux.HandleFunc("/short", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("short")) })
	mux.HandleFunc("/empty", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/none", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("/chunked", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusCreated)
		for part := range strings.SplitSeq(long, "5") {
			_, _ = w.Write([]byte(part))
			w.(http.Flusher).Flush()
		}
	})
	server := httptest.NewUnstartedServer(mux)
	server.StartTLS()
	defer server.Close()
	config := &tls.Config{RootCAs: server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs, ServerName: "example.com", MinVersion: tls.VersionTLS13}
	c, err := dial(t.Context(), server.Listener.Addr().String(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	for range 3 { // on one connection
		for _, want := range []struct {
			path   string
			status int
			body   string
		}{
			{"/short", 200, "short"},
			{"/chunked", 201, strings.ReplaceAll(long, "5", "")},
			{"/empty", 200, ""},
			{"/none", 204, ""},
			{"/unknown", 404, "404 page not found\n"},
		} {
			status, body, err := c.exchange(request("GET", want.path, "example.com", nil))
			if err != nil || status != want.status || string(body) != want.body {
				t.Fatalf("%s: status %d, %d bytes, %v", want.path, status, len(body), err)
			}
		}
	}
}

// FuzzAnswer: a server may answer anything; the client gives an error or a body
// within its bounds.
func FuzzAnswer(f *testing.F) {
	f.Add("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
	f.Add("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
	f.Add("HTTP/1.1 204 No Content\r\n\r\n")
	f.Add("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n")
	f.Add("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7fffffff\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		c := &connection{r: bufio.NewReader(strings.NewReader(text))}
		if _, body, err := c.answer(); err == nil && len(body) > maxBody {
			t.Errorf("a body of %d bytes", len(body))
		}
	})
}
