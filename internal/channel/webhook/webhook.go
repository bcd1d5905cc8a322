// Package webhook tells a receiver by a signed POST, as Standard Webhooks
// (standardwebhooks.com, version 1.0.0) describes it: the notification as JSON,
// its id, the time of the attempt, and an HMAC-SHA256 over the three. docs/api.md
// shows how a receiver verifies it.
//
// Where the operator's configured URL points is trusted, private addresses
// included; where an answer wants to send us is not: redirects are not followed.
package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/notify"
	"github.com/sallyport-project/sallyport/internal/secret"
)

// Config is one receiver. Name, URL and Secret are required.
type Config struct {
	Name string // of the channel
	URL  string // https, or http on a loopback address
	// Secret is the key of the signatures, 24 to 1024 bytes, or its text form:
	// "whsec_" and base64.
	Secret  secret.Bytes
	Client  http.RoundTripper // nil for the standard library's
	Timeout time.Duration     // of one attempt; 10 seconds if zero
	Now     func() time.Time  // nil for the wall clock
}

// Channel posts notifications to one receiver. Safe for concurrent use.
type Channel struct {
	name, url string
	key       secret.Bytes
	client    *http.Client
	now       func() time.Time
}

var _ notify.Channel = (*Channel)(nil)

const (
	secretPrefix   = "whsec_"
	leastKey       = 24
	mostKey        = 1024
	mostAnswer     = 64 << 10 // read to reuse the connection, and forgotten
	mostPause      = 24 * time.Hour
	defaultTimeout = 10 * time.Second
)

// New checks the configuration; what is wrong with it is Invalid. It sends
// nothing.
func New(c Config) (*Channel, error) {
	if c.Name == "" || strings.Contains(c.Name, "/") {
		return nil, fault.Invalidf("a webhook needs a name without a slash")
	}
	if err := checkURL(c.URL); err != nil {
		return nil, err
	}
	key, err := parseSecret(c.Secret)
	if err != nil {
		return nil, err
	}
	if c.Timeout <= 0 {
		c.Timeout = defaultTimeout
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Channel{name: c.Name, url: c.URL, key: key, now: c.Now, client: &http.Client{
		Transport: c.Client, Timeout: c.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// checkURL never repeats the URL, which may hold a token.
func checkURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Opaque != "":
		return fault.Invalidf("the webhook's URL is malformed")
	case u.User != nil || u.Fragment != "":
		return fault.Invalidf("the webhook's URL must have neither user nor fragment")
	case u.Scheme == "https" || u.Scheme == "http" && loopback(u.Hostname()):
		return nil
	}
	return fault.Invalidf("the webhook's URL must be https, or http on loopback")
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}

func parseSecret(s secret.Bytes) (secret.Bytes, error) {
	raw := s.Reveal()
	if text, ok := bytes.CutPrefix(raw, []byte(secretPrefix)); ok {
		decoded := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
		n, err := base64.StdEncoding.Decode(decoded, text)
		if err != nil {
			return secret.Bytes{}, fault.Invalidf("the webhook's secret begins with %s and is not base64 after it", secretPrefix)
		}
		raw = decoded[:n]
	}
	if len(raw) < leastKey || len(raw) > mostKey {
		return secret.Bytes{}, fault.Invalidf("the webhook's secret must have %d to %d bytes", leastKey, mostKey)
	}
	return secret.New(bytes.Clone(raw)), nil
}

// Name is the configured name.
func (c *Channel) Name() string { return c.name }

// Notify posts once. An answer of the 2xx range is delivery. Invalid, which is
// not tried again: any other 4xx but 408, 425 and 429. Everything else, no answer
// and redirects included, is Unavailable, with the receiver's Retry-After.
func (c *Channel) Notify(ctx context.Context, n notify.Notification) error {
	body, err := json.Marshal(n)
	if err != nil {
		return fault.Wrap(err, "encode notification")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return fault.Wrap(err, "make request")
	}
	at := strconv.FormatInt(c.now().Unix(), 10)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "Sallyport-Webhook")
	req.Header.Set("webhook-id", n.ID)
	req.Header.Set("webhook-timestamp", at)
	req.Header.Set("webhook-signature", "v1,"+c.sign(n.ID, at, body))
	res, err := c.client.Do(req)
	if err != nil {
		return fault.Unavailablef("webhook %s does not answer", c.name).Because(withoutURL(err))
	}
	defer func() { _ = res.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, mostAnswer))
	return c.judge(res)
}

// sign is the signature over id, time and body (Standard Webhooks, signature
// scheme).
func (c *Channel) sign(id, at string, body []byte) string {
	h := hmac.New(sha256.New, c.key.Reveal())
	h.Write([]byte(id + "." + at + "."))
	h.Write(body)
	return base64.StdEncoding.EncodeToString(h.Sum(nil))
}

func (c *Channel) judge(res *http.Response) error {
	switch s := res.StatusCode; {
	case s >= 200 && s <= 299:
		return nil
	case s == http.StatusRequestTimeout, s == http.StatusTooEarly, s == http.StatusTooManyRequests, s < 400, s > 499:
		return fault.Unavailablef("webhook %s answers %d", c.name, s).After(c.retryAfter(res.Header.Get("Retry-After")))
	default:
		return fault.Invalidf("webhook %s refuses the notification with %d", c.name, s)
	}
}

// retryAfter reads seconds or a date (RFC 9110, 10.2.3), at most a day.
func (c *Channel) retryAfter(text string) time.Duration {
	wait := time.Duration(0)
	if s, err := strconv.ParseInt(text, 10, 32); err == nil {
		wait = time.Duration(s) * time.Second
	} else if at, err := http.ParseTime(text); err == nil {
		wait = at.Sub(c.now())
	}
	return min(max(wait, 0), mostPause)
}

// withoutURL takes the URL out of an error, since it may hold a token.
func withoutURL(err error) error {
	if e, ok := err.(*url.Error); ok { //nolint:errorlint // http.Client returns it unwrapped
		err = e.Err
	}
	if e, ok := err.(*net.OpError); ok { //nolint:errorlint // only the outermost has the address
		return e.Err
	}
	return err
}
