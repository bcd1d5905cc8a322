package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport-project/sallyport/internal/fault"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// staleLock is after how long a renewal counts as having died.
const staleLock = time.Minute

// client is the SDK's client for the chosen context, with a certificate that
// is good for a while.
func (s *shell) client(ctx context.Context) (*sallyport.Client, error) {
	_, cfg, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	return sallyport.New(cfg)
}

// caller is the chosen context, nil without one, and what a client needs to act
// with it.
func (s *shell) caller(ctx context.Context) (*identity, sallyport.Config, error) {
	c, err := s.identity()
	if err != nil {
		return nil, sallyport.Config{}, err
	}
	cfg, err := s.target(c)
	if err != nil || c == nil {
		return c, cfg, err
	}
	pair, err := c.pair()
	if err != nil {
		return c, cfg, err
	}
	cfg.Certificate = &pair
	cfg.Sessions = sessions{filepath.Join(c.folder, "session.json")}
	if s.halfway(pair.Leaf.NotBefore, pair.Leaf.NotAfter) {
		if pair, err = s.renew(ctx, c, cfg); err != nil {
			return c, cfg, err
		}
		cfg.Certificate = &pair
	}
	return c, cfg, nil
}

// repeatable gives a command the flag by which a script repeats it safely.
func repeatable(c *cobra.Command, again string) *cobra.Command {
	const flag = "idempotency-key"
	key, run := "", c.RunE
	c.Flags().StringVar(&key, flag, "", "repeating the command with the same key within ten minutes "+again)
	c.RunE = func(c *cobra.Command, args []string) error {
		if c.Flags().Changed(flag) && key == "" {
			return fault.Invalidf("--%s needs a key, chosen anew for each change", flag)
		}
		c.SetContext(sallyport.WithIdempotencyKey(c.Context(), key))
		return run(c, args)
	}
	return c
}

// target is where to call, and which authority to trust there.
func (s *shell) target(c *identity) (sallyport.Config, error) {
	cfg := sallyport.Config{
		URL: s.url, Token: sallyport.NewSecret(s.token), UserAgent: "sallyport-cli/" + s.Version, Now: s.Now,
	}
	var err error
	if c != nil {
		cfg.URL = first(s.url, c.URL)
		if cfg.Roots, err = c.roots(); err != nil {
			return cfg, err
		}
	}
	if s.ca != "" {
		if cfg.Roots, err = readRoots(s.ca); err != nil {
			return cfg, err
		}
	}
	if cfg.URL == "" {
		return cfg, fault.Unauthenticatedf("no context is chosen: set up a server (sallyport init), enrol (sallyport agent enrol), " +
			"choose one (sallyport auth use), or give --url and SALLYPORT_TOKEN")
	}
	return cfg, nil
}

// reached is the host:port by which the server is reached, for somebody elsewhere;
// empty where it is this machine's own.
func (s *shell) reached(ctx context.Context) (string, error) {
	_, cfg, err := s.caller(ctx)
	if err != nil {
		return "", err
	}
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Hostname() == "localhost" || net.ParseIP(u.Hostname()).IsLoopback() {
		return "", nil //nolint:nilerr // the client says what is wrong with it
	}
	return net.JoinHostPort(u.Hostname(), first(u.Port(), "443")), nil
}

// halfway reports whether more than half of a certificate's life is over.
func (s *shell) halfway(from, to time.Time) bool {
	return s.Now().After(from.Add(to.Sub(from) / 2))
}

// unexpired refuses a certificate whose life is over: no server takes it any more,
// not even to renew it.
func (s *shell) unexpired(c *identity, pair certificate) error {
	if s.Now().Before(pair.Leaf.NotAfter) {
		return nil
	}
	again := "ask an operator for a join token (sallyport agent token) and enrol again"
	if c.Kind == "operator" {
		again = "ask another operator for a join token (sallyport agent token --kind operator) and enrol again, or on the server run: sallyport auth recover"
	}
	return fault.Unauthenticatedf("the certificate of context %s has expired; %s", c.Name, again)
}

// renew trades the context's certificate for a fresh one. While the old one is
// good, a failure is only warned of.
func (s *shell) renew(ctx context.Context, c *identity, cfg sallyport.Config) (pair certificate, err error) {
	if err := s.unexpired(c, *cfg.Certificate); err != nil {
		return *cfg.Certificate, err
	}
	done, err := lock(filepath.Join(c.folder, "renew.lock"), s.Now())
	if err != nil {
		return *cfg.Certificate, nil
	}
	defer done()
	pair, _, err = s.exchange(ctx, c, cfg)
	if err != nil {
		s.warn("the certificate of context %s was not renewed: %s", c.Name, describe(err).Detail)
		return *cfg.Certificate, nil
	}
	return pair, nil
}

// exchange renews and writes what came of it. The session of the old
// certificate is of no use any more.
func (s *shell) exchange(ctx context.Context, c *identity, cfg sallyport.Config) (certificate, sallyport.Identity, error) {
	client, err := sallyport.New(cfg)
	if err != nil {
		return certificate{}, sallyport.Identity{}, err
	}
	defer client.Close()
	fresh, err := client.Renew(sallyport.WithIdempotencyKey(ctx, "")) // a key is for what the command does
	if err != nil {
		return certificate{}, fresh, err
	}
	for _, f := range []struct {
		name, text string
		mode       os.FileMode
	}{
		{"key.pem", fresh.KeyPEM.Reveal(), 0o600}, {"cert.pem", fresh.CertificatePEM, 0o644}, {"ca.pem", fresh.RootPEM, 0o644},
	} {
		if err := replace(filepath.Join(c.folder, f.name), []byte(f.text), f.mode); err != nil {
			return certificate{}, fresh, err
		}
	}
	return fresh.Certificate, fresh, sessions{filepath.Join(c.folder, "session.json")}.Store(ctx, nil)
}

// lock makes a file that others respect, and returns how to remove it. One that
// is older than a minute was left by a process that died.
func lock(path string, now time.Time) (func(), error) {
	for range 2 {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600) //nolint:gosec // in the context's folder
		if err == nil {
			_ = f.Close()
			if err := os.Chtimes(path, now, now); err != nil { // age is told by one clock, not also by the disk's
				_ = os.Remove(path)
				return nil, err
			}
			return func() { _ = os.Remove(path) }, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		if info, err := os.Stat(path); err == nil && now.Sub(info.ModTime()) > staleLock {
			_ = os.Remove(path)
			continue
		}
		break
	}
	return nil, fs.ErrExist
}

type certificate = tls.Certificate
