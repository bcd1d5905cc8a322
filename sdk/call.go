package sallyport

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Limits of answers, in bytes.
const (
	maxAnswer = 1 << 20
	maxList   = 64 << 20
	maxBundle = 17 << 20 // an entry bundle of 256 records of 64 KiB
)

// auth says what a call shows besides the certificate of the connection.
type auth int

const (
	withSession auth = iota // the session of this client, opened if needed
	bare                    // the certificate alone, or nothing
)

// call is one request of the API.
type call struct {
	method, path string
	query        url.Values
	body         any       // JSON
	raw          []byte    // in place of body
	stream       io.Reader // in place of body; is sent once
	kind         string    // content type of raw and stream
	auth         auth
	again        bool  // may be repeated when it is not known whether it arrived
	keyed        bool  // changes something, once under its Idempotency-Key: may be repeated as well
	limit        int64 // of the answer; maxAnswer if zero
}

// answer is a successful one.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// attempts and pauses of calls that may be repeated.
const (
	attempts  = 4
	firstWait = 200 * time.Millisecond
	mostWait  = 3 * time.Second
)

// do sends a call and decodes a JSON answer into out, which may be nil.
func (c *Client) do(ctx context.Context, r call, out any) (answer, error) {
	a, err := c.send(ctx, r)
	if err != nil || out == nil {
		return a, err
	}
	if err := json.Unmarshal(a.body, out); err != nil {
		return a, unreadable(a.status, requestID(a.header), err)
	}
	return a, nil
}

// send repeats what may be repeated: a session that the server does not take
// is replaced once, and calls that are safe to repeat are repeated while the
// server is not there.
func (c *Client) send(ctx context.Context, r call) (answer, error) {
	if r.body != nil {
		raw, err := json.Marshal(r.body)
		if err != nil {
			return answer{}, invalid("the request cannot be written as JSON").because(err)
		}
		r.raw, r.kind = raw, "application/json"
	}
	key := ""
	if r.keyed {
		key, r.again = c.idempotencyKey(ctx), r.stream == nil
	}
	renewed := false
	for n := 1; ; n++ {
		session, err := c.authorise(ctx, r)
		if err != nil {
			return answer{}, err
		}
		a, err := c.once(ctx, r, session, key)
		if err == nil {
			return a, nil
		}
		if Is(err, Unauthenticated) && session != nil && !renewed && r.stream == nil {
			renewed = true
			if err := c.forget(ctx, session); err != nil {
				return answer{}, err
			}
			continue
		}
		if !r.again || !Is(err, Unavailable) || n >= attempts {
			return answer{}, err
		}
		if pause(ctx, n, err) != nil {
			return answer{}, err
		}
	}
}

// pause waits before attempt n+1: as long as the server says, else a little
// longer each time.
func pause(ctx context.Context, n int, err error) error {
	wait := min(firstWait<<(n-1), mostWait)
	if spread, e := rand.Int(rand.Reader, big.NewInt(int64(wait/2))); e == nil {
		wait = wait/2 + time.Duration(spread.Int64())
	}
	var e *Error
	if errors.As(err, &e) && e.RetryAfter > 0 {
		wait = min(e.RetryAfter, mostWait)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// once is one attempt.
func (c *Client) once(ctx context.Context, r call, session *Session, key string) (answer, error) {
	timeout := c.cfg.Timeout
	if r.stream != nil || r.limit > maxAnswer {
		timeout *= 10
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := c.request(ctx, r)
	if err != nil {
		return answer{}, err
	}
	if key != "" {
		req.Header.Set(keyHeader, key)
	}
	if err := c.show(req, r, session); err != nil {
		return answer{}, err
	}
	return exchange(c.http, req, r.limit)
}

func (c *Client) request(ctx context.Context, r call) (*http.Request, error) {
	body := r.stream
	if body == nil && r.raw != nil {
		body = bytes.NewReader(r.raw)
	}
	target := c.base.String() + r.path
	if len(r.query) > 0 {
		target += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, target, body)
	if err != nil {
		return nil, invalid("the request has no valid URL").because(err)
	}
	req.Header.Set("User-Agent", c.cfg.UserAgent)
	req.Header.Set("Accept", "application/json, application/problem+json, */*;q=0.1")
	if r.kind != "" {
		req.Header.Set("Content-Type", r.kind)
	}
	return req, nil
}

// exchange sends a request and reads the whole answer, within a limit.
func exchange(h *http.Client, req *http.Request, limit int64) (answer, error) {
	if limit == 0 {
		limit = maxAnswer
	}
	res, err := h.Do(req)
	if err != nil {
		return answer{}, transportError(req.Context(), err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(res.Body, limit+1))
	if err != nil {
		return answer{}, unreachable(err)
	}
	if int64(len(body)) > limit {
		return answer{}, unreadable(res.StatusCode, requestID(res.Header), errors.New("it is larger than "+strconv.FormatInt(limit, 10)+" bytes"))
	}
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return answer{}, refusal(res, body)
	}
	return answer{res.StatusCode, res.Header, body}, nil
}

// transportError tells a server that is not there from one that is not ours.
func transportError(ctx context.Context, err error) error {
	var e *Error
	if errors.As(err, &e) {
		return e // of our own checks within the handshake
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	if untrusted(err) {
		return &Error{Kind: Unauthenticated, Detail: "the server's certificate is not trusted", cause: err}
	}
	return unreachable(err)
}

// problem is the body of an error answer (RFC 9457).
type problem struct {
	Detail     string `json:"detail"`
	Kind       Kind   `json:"kind"`
	Reason     string `json:"reason"`
	RequestID  string `json:"request_id"`
	RetryAfter int64  `json:"retry_after_seconds"`
}

func refusal(res *http.Response, body []byte) error {
	e := &Error{Kind: kindOfStatus(res.StatusCode), Status: res.StatusCode, RequestID: requestID(res.Header)}
	var p problem
	if strings.HasPrefix(res.Header.Get("Content-Type"), "application/problem+json") && json.Unmarshal(body, &p) == nil {
		e.Detail, e.Reason = p.Detail, p.Reason
		if knownKind(p.Kind) {
			e.Kind = p.Kind
		}
	}
	if e.Detail == "" {
		e.Detail = "the server answers " + strconv.Itoa(res.StatusCode) + " " + http.StatusText(res.StatusCode)
	}
	if s, err := strconv.ParseInt(res.Header.Get("Retry-After"), 10, 32); err == nil && s > 0 {
		e.RetryAfter = time.Duration(s) * time.Second
	}
	return e
}

func requestID(h http.Header) string {
	id := h.Get("Request-Id")
	if len(id) > 64 {
		return ""
	}
	return id
}

func (e *Error) because(cause error) *Error {
	c := *e
	c.cause = cause
	return &c
}

// join makes a path of fixed words and escaped values.
func join(words string, values ...string) string {
	for _, v := range values {
		words = strings.Replace(words, "{}", url.PathEscape(v), 1)
	}
	return words
}
