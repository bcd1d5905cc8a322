package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"slices"
	"sync"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// Server keeps the certificate of our own listener fresh: it is issued by the
// embedded authority, with a new key each time, and renewed when a third of its
// life is left. Safe for concurrent use.
type Server struct {
	names []string
	now   func() time.Time

	mu        sync.Mutex
	authority *Authority
	current   *tls.Certificate
	renewAt   time.Time
}

// NewServer issues the first certificate for the names, DNS or IP.
func NewServer(a *Authority, names []string) (*Server, error) {
	s := &Server{names: slices.Clone(names), now: a.cfg.Now, authority: a}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.renew(); err != nil {
		return nil, err
	}
	return s, nil
}

// Use takes another authority, after its intermediate was renewed; the next
// handshake gets a certificate of it.
func (s *Server) Use(a *Authority) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.authority, s.renewAt = a, time.Time{}
}

// GetCertificate has the signature of tls.Config.GetCertificate. The chain
// ends with the root, for newcomers that know its hash only. If a renewal
// fails, the old certificate serves until its end.
func (s *Server) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if !now.Before(s.renewAt) {
		if err := s.renew(); err != nil && !now.Before(s.current.Leaf.NotAfter) {
			return nil, err
		}
	}
	return s.current, nil
}

func (s *Server) renew() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), s.authority.cfg.Rand)
	if err != nil {
		return fault.Wrap(err, "generate the server's key")
	}
	leaf, err := s.authority.IssueServer(key.Public(), s.names)
	if err != nil {
		return fault.Wrap(err, "issue the server's certificate")
	}
	pair := &tls.Certificate{Certificate: append([][]byte{leaf.DER}, s.authority.chain()...), PrivateKey: key}
	if pair.Leaf, err = parseLeaf(leaf.DER); err != nil {
		return err
	}
	s.current = pair
	s.renewAt = leaf.NotAfter.Add(-leaf.NotAfter.Sub(s.now()) / 3)
	return nil
}
