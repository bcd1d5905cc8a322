package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// shows writes a server's certificate and key as a renewal does.
func (o *outside) shows(t *testing.T, dir string, serial int64) {
	t.Helper()
	pair, _ := o.sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(serial), KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	})
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	must(t, err)
	writePEM(t, filepath.Join(dir, "server.pem"), "CERTIFICATE", pair.Certificate[0])
	writePEM(t, filepath.Join(dir, "server.key"), "PRIVATE KEY", key)
}

// greet opens a connection of at most a version and gives what was agreed.
func greet(address string, roots *x509.CertPool, most uint16) (tls.ConnectionState, error) {
	conn, err := tls.Dial("tcp", address, &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS10, MaxVersion: most})
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer func() { _ = conn.Close() }()
	return conn.ConnectionState(), nil
}

// TestTLS_ProfilesAndRenewal serves guests by certificates from files, under each
// profile, and changes files under the running server: the server's certificate, a
// broken pair, and the authority of clients, which comes without a certificate.
func TestTLS_ProfilesAndRenewal(t *testing.T) {
	dir, servers, clients := t.TempDir(), newOutside(t, "servers"), newOutside(t, "clients")
	servers.shows(t, dir, 7)
	authorities := writePEM(t, filepath.Join(dir, "clients.pem"), "CERTIFICATE", clients.cert.Raw)
	guests := func(profile string) map[string]any {
		return map[string]any{
			"name": profile, "address": "127.0.0.1:0", "doors": []string{"kbs"}, "tls": map[string]any{"profile": profile},
			"certificate": filepath.Join(dir, "server.pem"), "key": filepath.Join(dir, "server.key"),
		}
	}
	custom := guests("custom")
	custom["tls"] = map[string]any{"profile": "custom", "min_version": "1.2", "max_version": "1.2", "groups": []string{"P-384"}}
	h := found(t, Options{Further: []any{
		guests("modern"), guests("intermediate"), guests("old"), custom,
		map[string]any{"name": "mesh", "address": "127.0.0.1:0", "doors": []string{"rest"}, "client_ca": authorities},
	}})
	w := start(t, h)
	roots := x509.NewCertPool()
	roots.AddCert(servers.cert)
	for profile, spoken := range map[string][]bool{ // 1.1, 1.2, 1.3
		"modern": {false, false, true}, "intermediate": {false, true, true}, "old": {true, true, true}, "custom": {false, true, true},
	} {
		for i, most := range []uint16{tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13} {
			got, err := greet(w.Bound[profile], roots, most)
			if (err == nil) != spoken[i] || err == nil && profile == "custom" && (got.Version != tls.VersionTLS12 || got.CurveID != tls.CurveP384) {
				t.Errorf("profile %s with at most version %x: %x by %s, %v", profile, most, got.Version, got.CurveID, err)
			}
		}
	}

	// Renewed: by both files, and not by one that does not belong to the other.
	serial := func() int64 {
		got, err := greet(w.Bound["intermediate"], roots, tls.VersionTLS13)
		must(t, err)
		return got.PeerCertificates[0].SerialNumber.Int64()
	}
	servers.shows(t, dir, 8)
	must(t, Eventually(15*time.Second, func() error {
		if got := serial(); got != 8 {
			return fmt.Errorf("the certificate is still number %d", got)
		}
		return nil
	}))
	servers.shows(t, dir, 9)
	writePEM(t, filepath.Join(dir, "server.key"), "PRIVATE KEY", []byte("no key"))
	must(t, Eventually(15*time.Second, func() error {
		if got := serial(); got != 8 {
			t.Fatalf("a certificate without its key is shown: %d", got)
		}
		if !strings.Contains(w.Log(), "do not make a pair") {
			return fmt.Errorf("the log does not say that the files are broken: %s", w.LastLog())
		}
		return nil
	}))
	clientsChange(t, w, clients, authorities)
}

// clientsChange replaces the authority of clients, beside which the listener shows
// the embedded authority's certificate.
func clientsChange(t *testing.T, w *world, clients *outside, file string) {
	t.Helper()
	next := newOutside(t, "next clients")
	whoami := func(by *outside, serial int64) error {
		pair := by.client(t, serial, "operator", w.operatorID())
		c, err := sallyport.New(sallyport.Config{URL: "https://" + w.Bound["mesh"], Roots: w.House.Roots(), Certificate: &pair, Timeout: patience})
		must(t, err)
		defer c.Close()
		_, err = c.Whoami(t.Context())
		return err
	}
	if err := whoami(clients, 21); err != nil {
		t.Fatalf("a client of the configured authority: %v", err)
	}
	if err := whoami(next, 31); err == nil {
		t.Error("a client of an authority that nobody named is let in")
	}
	writePEM(t, file, "CERTIFICATE", next.cert.Raw)
	must(t, Eventually(15*time.Second, func() error { return whoami(next, 32) }))
	if err := whoami(clients, 22); err == nil {
		t.Error("a client of the authority before is let in")
	}
}
