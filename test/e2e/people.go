package e2e

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/sallyport-project/sallyport/internal/policy"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// patience bounds one attempt of a client.
const patience = 20 * time.Second

// Client is the SDK's client with a certificate.
func (s *Server) Client(certificate tls.Certificate) (*sallyport.Client, error) {
	c, err := sallyport.New(sallyport.Config{
		URL: "https://" + s.Main, Roots: s.House.Roots(), Certificate: &certificate, Timeout: patience,
	})
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	return c, nil
}

// HTTP is a plain client with a certificate, or with none. It trusts the house's
// authority and follows nothing.
func (s *Server) HTTP(certificate *tls.Certificate) *http.Client {
	security := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: s.House.Roots()}
	if certificate != nil {
		security.Certificates = []tls.Certificate{*certificate}
	}
	return &http.Client{
		Timeout:       patience,
		Transport:     &http.Transport{TLSClientConfig: security, MaxIdleConnsPerHost: 64, ForceAttemptHTTP2: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Enrol invites a newcomer as the operator and enrols it with its own join
// token.
func (s *Server) Enrol(ctx context.Context, kind, role, name string) (sallyport.Enrolment, error) {
	operator, err := s.Client(s.House.Operator)
	if err != nil {
		return sallyport.Enrolment{}, err
	}
	defer operator.Close()
	invited, err := operator.Invite(ctx, sallyport.InviteRequest{Kind: kind, Role: role})
	if err != nil {
		return sallyport.Enrolment{}, fmt.Errorf("invite %s: %w", name, err)
	}
	who, err := sallyport.Enrol(ctx, invited.Token.Reveal(), name)
	if err != nil {
		return who, fmt.Errorf("enrol %s: %w", name, err)
	}
	return who, nil
}

// Equip trusts the publisher, installs the sshcert plugin and sets the example
// policy for deployers.
func (s *Server) Equip(ctx context.Context) error {
	operator, err := s.Client(s.House.Operator)
	if err != nil {
		return err
	}
	defer operator.Close()
	if _, err := operator.TrustPublisher(ctx, sallyport.TrustRequest{Publisher: s.House.Publisher, PublicKey: s.House.PublicKey}); err != nil {
		return fmt.Errorf("trust publisher: %w", err)
	}
	if err := s.Install(ctx); err != nil {
		return err
	}
	if _, err := operator.SetPolicy(ctx, "ssh", "sallyport", policy.ExampleSSH()); err != nil {
		return fmt.Errorf("set policy: %w", err)
	}
	return nil
}

// Install sends the package to this node. The error is the SDK's.
func (s *Server) Install(ctx context.Context) error {
	operator, err := s.Client(s.House.Operator)
	if err != nil {
		return err
	}
	defer operator.Close()
	pack, err := os.Open(s.House.Package)
	if err != nil {
		return fmt.Errorf("open package: %w", err)
	}
	defer func() { _ = pack.Close() }()
	if _, err := operator.InstallPlugin(ctx, pack, sallyport.InstallRequest{}); err != nil {
		return err //nolint:wrapcheck // callers ask for its kind
	}
	return nil
}

// SSH asks for a certificate within the example policy's bounds.
func SSH(ttl time.Duration) sallyport.VendRequest {
	return sallyport.VendRequest{
		Kind: "ssh-user-cert", TTL: ttl,
		Params: map[string]any{"principals": []any{"deploy"}, "source_addresses": []any{"127.0.0.1/32"}},
	}
}
