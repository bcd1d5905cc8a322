package ca_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/id"
	"github.com/sallyport-project/sallyport/internal/keys/ca"
)

// shake makes one TLS handshake over a pipe and gives what each side saw.
func shake(t *testing.T, server, client *tls.Config) (atServer, atClient tls.ConnectionState, err error) {
	t.Helper()
	a, b := net.Pipe()
	s, c := tls.Server(a, server), tls.Client(b, client)
	done := make(chan error, 1)
	go func() {
		err := s.HandshakeContext(context.Background())
		if err != nil {
			err = errors.Join(err, a.Close())
		}
		done <- err
	}()
	err = c.HandshakeContext(t.Context())
	if err != nil {
		err = errors.Join(err, b.Close())
	} else {
		go func() { _, _ = io.Copy(io.Discard, c) }() // session tickets
	}
	err = errors.Join(err, <-done)
	atServer, atClient = s.ConnectionState(), c.ConnectionState()
	t.Cleanup(func() { _ = a.Close(); _ = b.Close() })
	return atServer, atClient, err
}

func TestServer_meetsANewcomer(t *testing.T) {
	h := newHouse(t)
	a := h.load(t)
	s, err := ca.NewServer(a, []string{"localhost", "127.0.0.1", "::1"})
	if err != nil {
		t.Fatal(err)
	}
	key, subject := newSigner(t), id.New()
	leaf, err := a.Issue(ca.Request{CSR: csr(t, key, x509.CertificateRequest{}), Subject: subject, Kind: "agent"})
	if err != nil {
		t.Fatal(err)
	}
	listener := &tls.Config{GetCertificate: s.GetCertificate, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: a.Pool(), Time: h.now, MinVersion: tls.VersionTLS13}
	var trusted *x509.Certificate
	_, _, err = shake(t, listener, &tls.Config{
		InsecureSkipVerify: true,
		ServerName:         "localhost", Time: h.now, MinVersion: tls.VersionTLS13,
		VerifyConnection: func(state tls.ConnectionState) error {
			var err error
			trusted, err = ca.VerifyPinned(state.PeerCertificates, a.KeyHash(), "localhost", h.at)
			return err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(trusted)
	t.Run("enrolled, both sides know each other", func(t *testing.T) {
		seen, _, err := shake(t, listener, &tls.Config{
			RootCAs: pool, ServerName: "127.0.0.1", Time: h.now, MinVersion: tls.VersionTLS13,
			Certificates: []tls.Certificate{{Certificate: [][]byte{leaf.DER, chainOf(t, leaf)}, PrivateKey: key}},
		})
		if err != nil {
			t.Fatal(err)
		}
		if who, err := a.Verify(seen.PeerCertificates, h.at); err != nil || who.SubjectID != subject {
			t.Fatalf("%+v, %v", who, err)
		}
	})
	t.Run("another authority is found out", func(t *testing.T) {
		other := newHouse(t).load(t)
		pair, err := s.GetCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		var chain []*x509.Certificate
		for _, der := range pair.Certificate {
			chain = append(chain, parse(t, der))
		}
		for name, check := range map[string]func() error{
			"another hash": func() error { _, err := ca.VerifyPinned(chain, other.KeyHash(), "localhost", start); return err },
			"another name": func() error { _, err := ca.VerifyPinned(chain, a.KeyHash(), "evil.example", start); return err },
			"without root": func() error { _, err := ca.VerifyPinned(chain[:2], a.KeyHash(), "localhost", start); return err },
			"root beside": func() error {
				_, err := ca.VerifyPinned([]*x509.Certificate{strayLeaf(t, other), chain[2]}, a.KeyHash(), "localhost", start)
				return err
			},
			"after its end": func() error {
				_, err := ca.VerifyPinned(chain, a.KeyHash(), "localhost", start.Add(8*24*time.Hour))
				return err
			},
			"a client's": func() error {
				_, err := ca.VerifyPinned([]*x509.Certificate{parse(t, leaf.DER), chain[1], chain[2]}, a.KeyHash(), "localhost", start)
				return err
			},
		} {
			if err := check(); !fault.Is(err, fault.Unauthenticated) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
	t.Run("renews before its end, and takes a renewed authority at once", func(t *testing.T) {
		first, err := s.GetCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		h.at = start.Add(ca.ServerLife/2 + time.Hour)
		if again, err := s.GetCertificate(nil); err != nil || again != first {
			t.Fatalf("renewed too early: %v", err)
		}
		h.at = start.Add(ca.ServerLife*2/3 + time.Minute)
		second, err := s.GetCertificate(nil)
		if err != nil || second == first || !second.Leaf.NotAfter.After(first.Leaf.NotAfter) {
			t.Fatalf("not renewed: %v", err)
		}
		s.Use(h.load(t))
		if third, err := s.GetCertificate(nil); err != nil || third == second {
			t.Fatalf("kept the old authority: %v", err)
		}
	})
	t.Run("refuses names that are none", func(t *testing.T) {
		for _, names := range [][]string{nil, {""}, {"a b"}, {"-a"}, {"http://a"}, {strings.Repeat("a.", 200) + "b"}} {
			if _, err := ca.NewServer(a, names); !fault.Is(err, fault.Invalid) {
				t.Errorf("%q: %v", names, err)
			}
		}
	})
}

// chainOf is the intermediate below a leaf's PEM.
func chainOf(t testing.TB, leaf ca.Leaf) []byte {
	t.Helper()
	_, rest := pem.Decode([]byte(leaf.PEM))
	block, _ := pem.Decode(rest)
	return block.Bytes
}

func strayLeaf(t testing.TB, a *ca.Authority) *x509.Certificate {
	t.Helper()
	leaf, err := a.IssueServer(newSigner(t).Public(), []string{"localhost"})
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, leaf.DER)
}

// pair writes a server's certificate and key and gives the certificate's DER.
func pair(t testing.TB, a *ca.Authority, dir string) []byte {
	t.Helper()
	key := newSigner(t)
	leaf, err := a.IssueServer(key.Public(), []string{"localhost"})
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "cert"), leaf.PEM)
	put(t, filepath.Join(dir, "key"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
	return leaf.DER
}

func put(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestFiles_GetCertificate(t *testing.T) {
	h, dir := newHouse(t), t.TempDir()
	a := h.load(t)
	first := pair(t, a, dir)
	put(t, filepath.Join(dir, "ca"), a.Bundle())
	var said bytes.Buffer
	cfg := ca.FilesConfig{
		Certificate: filepath.Join(dir, "cert"), Key: filepath.Join(dir, "key"), ClientCA: filepath.Join(dir, "ca"),
		Logger: slog.New(slog.NewTextHandler(&said, nil)), Now: h.now,
	}
	f, err := ca.OpenFiles(cfg)
	if err != nil {
		t.Fatal(err)
	}
	serves := func(want []byte) {
		t.Helper()
		got, err := f.GetCertificate(nil)
		if err != nil || !bytes.Equal(got.Certificate[0], want) {
			t.Fatalf("serves another certificate: %v\n%s", err, said.String())
		}
	}
	later := func() { h.at = h.at.Add(time.Second) }
	serves(first)
	if len(f.ClientCAs()) != 1 {
		t.Errorf("%d client authorities", len(f.ClientCAs()))
	}

	second := pair(t, a, dir)
	serves(first) // looked within this second
	later()
	serves(second)
	if f.Err() != nil || !strings.Contains(said.String(), "reloaded") {
		t.Errorf("%v, said %s", f.Err(), said.String())
	}

	for name, spoil := range map[string]func(){
		"a half-written certificate": func() { put(t, cfg.Certificate, "-----BEGIN CERTIFICATE-----\nAAAA") },
		"a certificate of another key": func() {
			other := t.TempDir()
			pair(t, a, other)
			text, err := os.ReadFile(filepath.Join(other, "cert"))
			if err != nil {
				t.Fatal(err)
			}
			put(t, cfg.Certificate, string(text))
		},
		"a missing key":      func() { _ = os.Remove(cfg.Key) },
		"an empty client CA": func() { put(t, cfg.ClientCA, "") },
		"a leaf as client CA": func() {
			put(t, cfg.ClientCA, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: first})))
		},
		"a gigantic certificate":  func() { put(t, cfg.Certificate, strings.Repeat("x", 2<<20)) },
		"a directory for the key": func() { _ = os.Remove(cfg.Key); _ = os.Mkdir(cfg.Key, 0o700) },
	} {
		t.Run(name+" does not replace the good ones", func(t *testing.T) {
			kept := map[string][]byte{}
			for _, path := range []string{cfg.Certificate, cfg.Key, cfg.ClientCA} {
				b, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				kept[path] = b
			}
			said.Reset()
			spoil()
			for range 3 {
				later()
				serves(second)
			}
			if f.Err() == nil || strings.Count(said.String(), "level=ERROR") != 1 {
				t.Errorf("%v, said %q", f.Err(), said.String())
			}
			_ = os.Remove(cfg.Key)
			for path, b := range kept {
				put(t, path, string(b))
			}
			later()
			serves(second)
			if f.Err() != nil {
				t.Errorf("still broken: %v", f.Err())
			}
		})
	}
	t.Run("an ended certificate is refused at the start", func(t *testing.T) {
		h.at = h.at.Add(30 * 24 * time.Hour)
		if _, err := ca.OpenFiles(cfg); !fault.Is(err, fault.Invalid) {
			t.Fatalf("got %v", err)
		}
	})
	t.Run("authorities of clients come alone too, and change", func(t *testing.T) {
		alone, err := ca.OpenFiles(ca.FilesConfig{ClientCA: cfg.ClientCA, Logger: cfg.Logger, Now: h.now})
		if err != nil || len(alone.ClientCAs()) != 1 {
			t.Fatalf("%d authorities, %v", len(alone.ClientCAs()), err)
		}
		put(t, cfg.ClientCA, a.Bundle()+a.Bundle())
		later()
		if alone.Look(t.Context()); len(alone.ClientCAs()) != 2 {
			t.Errorf("%d authorities, %v", len(alone.ClientCAs()), alone.Err())
		}
		put(t, cfg.ClientCA, "")
		later()
		if alone.Look(t.Context()); len(alone.ClientCAs()) != 2 || alone.Err() == nil {
			t.Errorf("%d authorities, %v", len(alone.ClientCAs()), alone.Err())
		}
	})
	t.Run("a missing file is refused at the start, by name", func(t *testing.T) {
		if _, err := ca.OpenFiles(ca.FilesConfig{Certificate: dir + "/none", Key: cfg.Key}); !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "none") {
			t.Fatalf("got %v", err)
		}
	})
}

// The key of attestation results gets a certificate that leads to the root, ends
// with its life, and admits nobody.
func TestAuthority_IssueResults(t *testing.T) {
	h := newHouse(t)
	a := h.load(t)
	key := newSigner(t)
	chain, err := a.IssueResults(key.Public(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	leaf, between, roots := chain[0], x509.NewCertPool(), x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	roots.AddCert(a.Roots()[0])
	verify := func(at time.Time, usage x509.ExtKeyUsage) error {
		_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{usage}})
		return err
	}
	if err := verify(h.at, x509.ExtKeyUsageAny); err != nil || !key.PublicKey.Equal(leaf.PublicKey) || leaf.IsCA {
		t.Errorf("the chain does not lead to the root: %v", err)
	}
	if verify(h.at.Add(time.Hour+time.Second), x509.ExtKeyUsageAny) == nil {
		t.Error("the certificate outlives what it is for")
	}
	if verify(h.at, x509.ExtKeyUsageServerAuth) == nil || verify(h.at, x509.ExtKeyUsageClientAuth) == nil {
		t.Error("the certificate is good for TLS")
	}
	if who, err := a.Verify(chain, h.at); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("the certificate admits %+v, %v", who, err)
	}
}
