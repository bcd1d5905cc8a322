// Package webhook tells other programs: a signed POST per notification, by the
// Standard Webhooks convention (headers webhook-id, webhook-timestamp and
// webhook-signature with HMAC-SHA256).
package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/notify"
	"github.com/sallyport-project/sallyport/internal/secret"
)

// Config describes one receiver.
type Config struct {
	Name   string
	URL    string            // https, or http on loopback: the configuration's check
	Secret secret.Bytes      // key of the signatures, at least 16 bytes
	Client http.RoundTripper // http.DefaultTransport if nil
	Now    func() time.Time  // time.Now if nil
}

const (
	minSecret = 16
	window    = 10 * time.Second // for one delivery
	maxAnswer = 4 << 10          // bytes of an answer that are read, and thrown away
)

// Channel posts notifications to one receiver. Safe for concurrent use.
type Channel struct {
	Config
	client *http.Client
}

var _ notify.Channel = (*Channel)(nil)

// New checks the configuration; a short secret is Invalid.
func New(c Config) (*Channel, error) {
	if c.Secret.Len() < minSecret {
		return nil, fault.Invalidf("the secret of webhook %s has %d bytes, use at least %d random ones", c.Name, c.Secret.Len(), minSecret)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Channel{Config: c, client: &http.Client{
		Transport: c.Client, Timeout: window,
		// A redirect would send the message to who was not configured.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Name is the channel's name in deliveries.
func (c *Channel) Name() string { return c.Config.Name }

// Notify posts once. Success is a status of 2xx. A receiver that refuses the
// message itself (4xx, but for 408, 425 and 429) is Invalid and not asked again;
// everything else is Unavailable.
func (c *Channel) Notify(ctx context.Context, n notify.Notification) error {
	body, err := json.Marshal(n)
	if err != nil {
		return fault.Wrap(err, "encode notification")
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.URL, bytes.NewReader(body))
	if err != nil {
		return fault.Invalidf("the URL of webhook %s is not right", c.Config.Name)
	}
	at := strconv.FormatInt(c.Now().Unix(), 10)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "sallyport-webhook/1")
	r.Header.Set("webhook-id", n.ID)
	r.Header.Set("webhook-timestamp", at)
	r.Header.Set("webhook-signature", Signature(c.Secret, n.ID, at, body))
	answer, err := c.client.Do(r)
	if err != nil {
		return fault.Unavailablef("webhook %s cannot be reached", c.Config.Name).Because(err)
	}
	defer func() { _ = answer.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, maxAnswer)) // so that the connection can be used again
	switch status := answer.StatusCode; {
	case status >= 200 && status < 300:
		return nil
	case status == http.StatusRequestTimeout, status == http.StatusTooEarly, status == http.StatusTooManyRequests:
		return fault.Unavailablef("webhook %s answered with status %d", c.Config.Name, status)
	case status >= 400 && status < 500:
		return fault.Invalidf("webhook %s refused the message with status %d", c.Config.Name, status)
	default:
		return fault.Unavailablef("webhook %s answered with status %d", c.Config.Name, status)
	}
}

// Signature is the value of the header webhook-signature: "v1," and base64 of
// HMAC-SHA256 over id, timestamp and body, joined by dots.
func Signature(key secret.Bytes, id, timestamp string, body []byte) string {
	mac := hmac.New(sha256.New, key.Reveal())
	mac.Write([]byte(id + "." + timestamp + "."))
	mac.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}
