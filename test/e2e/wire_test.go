package e2e

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"time"
)

// vended is what came of a request for a credential by plain HTTP.
type vended struct {
	status   int
	grant    string
	replayed bool
	body     string
}

// vendOver asks for a certificate over a shared client.
func vendOver(client *http.Client, address, token, key string) (vended, error) {
	body := `{"kind":"ssh-user-cert","params":{"principals":["deploy"],"source_addresses":["127.0.0.1/32"]},"ttl_seconds":600}`
	req, err := http.NewRequest(http.MethodPost, "https://"+address+"/v1/credentials", strings.NewReader(body)) //nolint:noctx // the client has a timeout
	if err != nil {
		return vended{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+token)
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	res, err := exchange(client, req)
	if err != nil {
		return vended{}, err
	}
	var out struct {
		Grant    string `json:"grant"`
		Value    string `json:"value"`
		Replayed bool   `json:"replayed"`
	}
	if res.status == http.StatusCreated || res.status == http.StatusOK {
		if err := json.Unmarshal([]byte(res.body), &out); err != nil {
			return vended{}, err
		}
	}
	return vended{res.status, out.Grant, out.Replayed, res.body}, nil
}

// line is a TLS connection on which a test writes HTTP/1.1 by hand.
type line struct {
	w    *world
	conn *tls.Conn
}

func (w *world) dial(certificate *tls.Certificate) line {
	w.t.Helper()
	config := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: w.House.Roots(), NextProtos: []string{"http/1.1"}}
	if certificate != nil {
		config.Certificates = []tls.Certificate{*certificate}
	}
	conn, err := tls.Dial("tcp", w.Main, config)
	must(w.t, err)
	w.t.Cleanup(func() { _ = conn.Close() })
	return line{w, conn}
}

func (l line) write(text string) {
	l.w.t.Helper()
	_, err := io.WriteString(l.conn, text)
	must(l.w.t, err)
}

// read reads one answer; status 0 means that the server closed the connection.
func (l line) read(within time.Duration) reply {
	l.w.t.Helper()
	must(l.w.t, l.conn.SetReadDeadline(time.Now().Add(within)))
	res, err := http.ReadResponse(bufio.NewReader(l.conn), nil)
	if err != nil {
		return reply{body: err.Error()}
	}
	defer func() { _ = res.Body.Close() }()
	body, _ := io.ReadAll(io.LimitReader(res.Body, 1<<20)) // the server may have closed early
	return reply{res.StatusCode, res.Header, string(body)}
}
