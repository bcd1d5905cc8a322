// Package sallyport is the Go client of Sallyport's REST door (docs/api.md).
//
// A newcomer enrols once with a join token and gets a certificate; from then on
// a [Client] opens and renews sessions by itself:
//
//	who, err := sallyport.Enrol(ctx, joinToken, "build-7")
//	...
//	client, err := sallyport.New(sallyport.Config{URL: who.URL, Roots: who.Roots(), Certificate: &who.Certificate})
//	...
//	got, err := client.Vend(ctx, sallyport.VendRequest{Kind: "ssh-user-cert", TTL: 5 * time.Minute})
//	...
//	use(got.Value.Reveal())
//
// The package imports the standard library alone. Whatever a server answers is
// bounded in size, redirects are never followed, and no server is trusted on
// first use. Errors are [*Error].
package sallyport

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Config says where the server is and who calls. URL is required, and so is
// one of Roots and RootHash unless the server's certificate is from a public
// authority.
type Config struct {
	URL string // https://host:port, without a path

	Roots    *x509.CertPool // authorities to trust; nil means the system's
	RootHash [32]byte       // SHA-256 of the root's public key (SPKI); if set, only that root is trusted

	// Certificate identifies the caller; ClientCertificate, if set, is asked for
	// at each handshake instead, so that a renewed one is used.
	Certificate       *tls.Certificate
	ClientCertificate func() (*tls.Certificate, error)

	// Token acts with a session that somebody else opened. With Key it is a
	// delegated one, and each request carries a proof of possession of Key: an
	// ed25519.PrivateKey or a P-256 *ecdsa.PrivateKey. No other session is
	// opened then.
	Token Secret
	Key   crypto.Signer

	// Scopes narrow the sessions that the client opens. Agents always act in a
	// session; operators act with their certificate alone unless Scopes is set.
	Scopes   []string
	Sessions SessionCache // keeps sessions between processes; nil keeps them in memory

	Timeout   time.Duration    // of one attempt; 30 seconds if zero
	UserAgent string           // empty for the package's own
	Now       func() time.Time // nil for the wall clock
}

// SessionCache keeps the session of one identity at one server. What is stored
// is a secret. Load returns nil without an error when there is none; errors of
// either method fail the request.
type SessionCache interface {
	Load(ctx context.Context) (*Session, error)
	Store(ctx context.Context, s *Session) error
}

// Client calls one server as one identity. All methods may be called
// concurrently.
type Client struct {
	cfg  Config
	base *url.URL
	http *http.Client

	mu      sync.Mutex // of session, held while one is opened
	session *Session
}

const (
	defaultTimeout = 30 * time.Second
	userAgent      = "sallyport-go"
)

// New makes a client; it sends nothing. A configuration that cannot work is an
// error of kind [Invalid].
func New(c Config) (*Client, error) {
	base, err := url.Parse(c.URL)
	if err != nil || base.Scheme != "https" || base.Host == "" || base.User != nil || base.RawQuery != "" || base.Fragment != "" ||
		strings.Trim(base.Path, "/") != "" {
		return nil, invalid("the server's URL must be https://host:port")
	}
	base.Path = ""
	if c.Key != nil {
		if c.Token.Empty() {
			return nil, invalid("a delegate's key needs the delegated session's token")
		}
		if _, err := publicKey(c.Key.Public()); err != nil {
			return nil, err
		}
	}
	if c.Timeout <= 0 {
		c.Timeout = defaultTimeout
	}
	if c.UserAgent == "" {
		c.UserAgent = userAgent
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	security := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: c.Roots}
	if c.RootHash != ([32]byte{}) {
		pin(security, c.RootHash, base.Hostname(), c.Now, nil)
	}
	switch {
	case c.ClientCertificate != nil:
		security.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.ClientCertificate() }
	case c.Certificate != nil:
		security.Certificates = []tls.Certificate{*c.Certificate}
	}
	return &Client{cfg: c, base: base, http: httpClient(security, c.Timeout)}, nil
}

// httpClient follows no redirect: a redirect could carry a token elsewhere. It
// honours the proxy of the environment, as the standard library reads it.
func httpClient(security *tls.Config, timeout time.Duration) *http.Client {
	dialer := &net.Dialer{Timeout: min(timeout, 10*time.Second), KeepAlive: 30 * time.Second}
	return &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, DialContext: dialer.DialContext, TLSClientConfig: security, ForceAttemptHTTP2: true,
			TLSHandshakeTimeout: min(timeout, 10*time.Second), IdleConnTimeout: 90 * time.Second, MaxIdleConnsPerHost: 8,
			MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Close ends idle connections. The client may be used again afterwards.
func (c *Client) Close() { c.http.CloseIdleConnections() }
