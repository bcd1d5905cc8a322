package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

// connection is a keep-alive HTTP/1.1 client on one TLS connection. The
// generator shares the processor with what it measures, so it parses no more of
// an answer than its length and status.
type connection struct {
	tls  *tls.Conn
	r    *bufio.Reader
	body []byte
	// cookie is the last one that was set, with its attributes.
	cookie string
}

// maxBody bounds an answer.
const maxBody = 4 << 20

// exchangeTime is how long an answer may take.
const exchangeTime = 30 * time.Second

// dial opens a connection and shakes hands.
func dial(ctx context.Context, address string, config *tls.Config) (*connection, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	d := tls.Dialer{NetDialer: &net.Dialer{}, Config: config}
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	secured, ok := c.(*tls.Conn)
	if !ok {
		return nil, fmt.Errorf("connect: this is no TLS connection")
	}
	return &connection{tls: secured, r: bufio.NewReaderSize(secured, 16<<10)}, nil
}

func (c *connection) close() { _ = c.tls.Close() }

// connections are those of one drive. Workers are opened one after the other.
type connections []*connection

func (all *connections) add(c *connection) { *all = append(*all, c) }

func (all *connections) close() {
	for _, c := range *all {
		c.close()
	}
	*all = nil
}

// request writes an HTTP/1.1 request; headers are whole lines without their
// ends.
func request(method, path, host string, body []byte, headers ...string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", method, path, host)
	for _, h := range headers {
		b.WriteString(h + "\r\n")
	}
	if body != nil {
		fmt.Fprintf(&b, "Content-Type: application/json\r\nContent-Length: %d\r\n", len(body))
	}
	b.WriteString("\r\n")
	b.Write(body)
	return b.Bytes()
}

// exchange sends a request and reads the whole answer; the body is valid until
// the next call.
func (c *connection) exchange(request []byte) (status int, body []byte, err error) {
	if err := c.tls.SetDeadline(time.Now().Add(exchangeTime)); err != nil {
		return 0, nil, fmt.Errorf("set deadline: %w", err)
	}
	if _, err := c.tls.Write(request); err != nil {
		return 0, nil, fmt.Errorf("send: %w", err)
	}
	return c.answer()
}

// answer reads a whole answer.
func (c *connection) answer() (status int, body []byte, err error) {
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		return 0, nil, fmt.Errorf("read status: %w", err)
	}
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) {
		return 0, nil, fmt.Errorf("read status: the answer is not HTTP/1.1")
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, nil, fmt.Errorf("read status: %w", err)
	}
	length, chunked, err := c.headers()
	if err != nil {
		return 0, nil, err
	}
	switch {
	case chunked:
		err = c.chunks()
	case length < 0 && status != http.StatusNoContent:
		err = fmt.Errorf("the answer has no length")
	default:
		c.body = c.body[:0]
		err = c.read(max(length, 0))
	}
	return status, c.body, err
}

var (
	contentLength = []byte("content-length:")
	transfer      = []byte("transfer-encoding:")
	closing       = []byte("connection: close")
	setCookie     = []byte("set-cookie:")
)

// headers reads to the empty line: the body's length, -1 if not given.
func (c *connection) headers() (length int, chunked bool, err error) {
	for length = -1; ; {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return 0, false, fmt.Errorf("read headers: %w", err)
		}
		line = bytes.TrimRight(line, "\r\n")
		switch {
		case len(line) == 0:
			return length, chunked, nil
		case begins(line, contentLength):
			length, err = strconv.Atoi(string(bytes.TrimSpace(line[len(contentLength):])))
			if err != nil || length < 0 {
				return 0, false, fmt.Errorf("read headers: the length is no number")
			}
		case begins(line, transfer):
			chunked = true
		case begins(line, setCookie):
			c.cookie = string(bytes.TrimSpace(line[len(setCookie):]))
		case begins(line, closing):
			return 0, false, fmt.Errorf("the server ends the connection")
		}
	}
}

// begins compares without regard to case; prefix is lower-case.
func begins(line, prefix []byte) bool {
	return len(line) >= len(prefix) && bytes.EqualFold(line[:len(prefix)], prefix)
}

// read appends n bytes to the body.
func (c *connection) read(n int) error {
	at := len(c.body)
	if at+n > maxBody {
		return fmt.Errorf("the answer is larger than %d bytes", maxBody)
	}
	if cap(c.body) < at+n {
		c.body = append(make([]byte, 0, 2*(at+n)), c.body...)
	}
	c.body = c.body[:at+n]
	if _, err := io.ReadFull(c.r, c.body[at:]); err != nil {
		return fmt.Errorf("read body: %w", err)
	}
	return nil
}

// chunks reads a chunked body (RFC 9112, 7.1).
func (c *connection) chunks() error {
	for c.body = c.body[:0]; ; {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return fmt.Errorf("read chunk: %w", err)
		}
		size, _, _ := bytes.Cut(bytes.TrimRight(line, "\r\n"), []byte(";"))
		n, err := strconv.ParseUint(string(size), 16, 31)
		if err != nil {
			return fmt.Errorf("read chunk: %w", err)
		}
		if err := c.read(int(n)); err != nil {
			return err
		}
		if line, err = c.r.ReadSlice('\n'); err != nil || len(bytes.TrimRight(line, "\r\n")) != 0 {
			return fmt.Errorf("read chunk: it does not end where it should")
		}
		if n == 0 {
			return nil
		}
	}
}

// statusError is an answer with another status than was wanted.
type statusError struct {
	status int
	body   string
}

func refused(status int, body []byte) error {
	return statusError{status, string(body[:min(len(body), 300)])}
}

// Error shows the beginning of the body: the caller is a test tool.
func (s statusError) Error() string     { return "status " + strconv.Itoa(s.status) + ": " + s.body }
func (s statusError) errorKind() string { return "status " + strconv.Itoa(s.status) }
