package kbs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

// KeyFile reads a broker's key set from a file, as `sallyport kbs keys --contexts`
// prints it.
func KeyFile(name string) Keys {
	return func(context.Context) ([]byte, error) { return os.ReadFile(name) } //nolint:gosec // the author names it
}

// KeyURL fetches a broker's key set from an https URL, whose path is
// /.well-known/sallyport-context-jwks.json. ca is a PEM file with the authorities
// that are believed; the system's if it is empty.
func KeyURL(url, ca string) Keys {
	return func(ctx context.Context) ([]byte, error) {
		trust := &tls.Config{MinVersion: tls.VersionTLS12}
		if ca != "" {
			text, err := os.ReadFile(ca) //nolint:gosec // the author names it
			if err != nil {
				return nil, fmt.Errorf("read authorities: %w", err)
			}
			trust.RootCAs = x509.NewCertPool()
			trust.RootCAs.AppendCertsFromPEM(text)
		}
		client := &http.Client{
			Transport: &http.Transport{TLSClientConfig: trust, DisableKeepAlives: true, Proxy: http.ProxyFromEnvironment},
			Timeout:   10 * time.Second,
			CheckRedirect: func(*http.Request, []*http.Request) error {
				return http.ErrUseLastResponse
			},
		}
		q, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return nil, fmt.Errorf("make request: %w", err)
		}
		if q.URL.Scheme != "https" {
			return nil, fmt.Errorf("%s is no https URL: whoever is on the way could put a key of his own there", url)
		}
		a, err := client.Do(q)
		if err != nil {
			return nil, fmt.Errorf("fetch key set: %w", err)
		}
		defer func() { _ = a.Body.Close() }()
		if a.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("fetch key set: the broker answers %s", a.Status)
		}
		return io.ReadAll(io.LimitReader(a.Body, maxKeySet+1))
	}
}
