// Package fetch gets what makers hand out about their devices: over HTTPS alone,
// from hosts that the operator named, bounded in size, time and rate. It
// understands nothing of what it gets, and believes nothing: whoever asked
// verifies it.
//
// Who shows evidence decides what is asked for, and needs no identity to do so.
// So one thing is asked for once in a while whatever comes of it, everything
// together so often a minute, and an answer never leads to another host.
package fetch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// Limits.
const (
	timeout   = 5 * time.Second // of one request
	again     = time.Minute     // how long an answer, or a failure, is kept
	perMinute = 60              // requests in all
)

// Config is what a [Client] is made with.
type Config struct {
	Hosts []string       // host or host:port, as in the URLs; nothing else is asked
	Roots *x509.CertPool // nil: those of the system
	Most  int64          // bytes of an answer
	Now   func() time.Time
}

// Client gets. Safe for concurrent use.
type Client struct {
	cfg  Config
	http *http.Client

	mu     sync.Mutex
	kept   map[string]*answer
	minute time.Time // in which asked counts
	asked  int
}

// answer is one request, on its way until done is closed.
type answer struct {
	done   chan struct{}
	until  time.Time // zero on its way
	body   []byte
	header http.Header
	err    error
}

// New makes a client.
func New(c Config) *Client {
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: c.Roots, MinVersion: tls.VersionTLS12}, TLSHandshakeTimeout: timeout, ResponseHeaderTimeout: timeout,
		MaxResponseHeaderBytes: 64 << 10, MaxConnsPerHost: 4, IdleConnTimeout: again, ForceAttemptHTTP2: true,
		// No proxy: whom the server talks to is in its configuration alone.
	}
	return &Client{cfg: c, kept: map[string]*answer{}, http: &http.Client{
		Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Get asks for a URL, or gives the answer that is kept. The fault is Invalid for
// a URL that is not allowed, Exhausted when too much was asked for, NotFound when
// the host does not have it, and Unavailable for all that may pass. A caller who
// goes away leaves the request to others who wait for it.
func (c *Client) Get(ctx context.Context, address string) ([]byte, http.Header, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" || u.User != nil || !slices.Contains(c.cfg.Hosts, u.Host) {
		return nil, nil, fault.Invalidf("only https addresses of hosts in the configuration are fetched")
	}
	a, mine, err := c.enter(address)
	if err != nil {
		return nil, nil, err
	}
	if mine {
		go c.ask(context.WithoutCancel(ctx), u, a)
	}
	select {
	case <-a.done:
		return a.body, a.header, a.err
	case <-ctx.Done():
		return nil, nil, fault.Unavailablef("the caller went away").Because(ctx.Err())
	}
}

// enter finds the answer to wait for; mine says that it has to be asked for.
func (c *Client) enter(address string) (a *answer, mine bool, err error) {
	now := c.cfg.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if a := c.kept[address]; a != nil && (a.until.IsZero() || now.Before(a.until)) {
		return a, false, nil
	}
	if m := now.Truncate(time.Minute); !m.Equal(c.minute) {
		c.minute, c.asked = m, 0
		c.sweep(now) // an answer may be large: none is kept for longer than it counts
	}
	if c.asked >= perMinute {
		return nil, false, fault.Exhaustedf("too much was fetched within a minute, try again later")
	}
	c.asked++
	a = &answer{done: make(chan struct{})}
	c.kept[address] = a
	return a, true, nil
}

func (c *Client) sweep(now time.Time) {
	for k, a := range c.kept {
		if !a.until.IsZero() && !now.Before(a.until) {
			delete(c.kept, k)
		}
	}
}

func (c *Client) ask(ctx context.Context, u *url.URL, a *answer) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	body, header, err := c.request(ctx, u)
	c.mu.Lock()
	defer c.mu.Unlock()
	a.body, a.header, a.err = body, header, err
	a.until = c.cfg.Now().Add(again)
	close(a.done)
}

func (c *Client) request(ctx context.Context, u *url.URL) ([]byte, http.Header, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), http.NoBody)
	if err != nil {
		return nil, nil, fault.Wrap(err, "make request")
	}
	w, err := c.http.Do(r)
	if err != nil {
		return nil, nil, fault.Unavailablef("%s cannot be reached", u.Host).Because(err)
	}
	defer func() { _ = w.Body.Close() }()
	switch {
	case w.StatusCode == http.StatusNotFound:
		return nil, nil, fault.NotFoundf("%s does not have it", u.Host)
	case w.StatusCode != http.StatusOK:
		return nil, nil, fault.Unavailablef("%s answered with status %d", u.Host, w.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(w.Body, c.cfg.Most+1))
	if err != nil {
		return nil, nil, fault.Unavailablef("the answer of %s did not arrive completely", u.Host).Because(err)
	}
	if int64(len(body)) > c.cfg.Most {
		return nil, nil, fault.Unavailablef("the answer of %s is larger than %d bytes", u.Host, c.cfg.Most)
	}
	return body, w.Header, nil
}
