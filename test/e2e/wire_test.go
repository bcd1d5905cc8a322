package e2e

import (
	"bufio"
	"crypto/tls"
	"io"
	"net/http"
	"time"
)

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
