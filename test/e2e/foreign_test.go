package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// outside is an authority that somebody else runs.
type outside struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// sign makes a key and its certificate, by the authority, or by itself for nil.
func (o *outside) sign(t *testing.T, c *x509.Certificate) (tls.Certificate, *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	parent, signer := c, key
	if o != nil {
		parent, signer = o.cert, o.key
	}
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	must(t, err)
	made, err := x509.ParseCertificate(der)
	must(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: made}, made
}

func newOutside(t *testing.T, name string) *outside {
	t.Helper()
	pair, cert := (*outside)(nil).sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	key, _ := pair.PrivateKey.(*ecdsa.PrivateKey)
	return &outside{cert, key}
}

// client is a certificate for a subject of the house.
func (o *outside) client(t *testing.T, serial int64, kind, id string) tls.Certificate {
	t.Helper()
	pair, _ := o.sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(serial), KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		URIs: []*url.URL{{Scheme: "spiffe", Host: "sallyport.internal", Path: "/" + kind + "/" + id}},
	})
	return pair
}

func writePEM(t *testing.T, path, kind string, der []byte) string {
	t.Helper()
	must(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	return path
}

// meshed is a house with a listener whose client authority is somebody else's.
func meshed(t *testing.T) (*House, *outside, *x509.CertPool) {
	t.Helper()
	dir, servers, clients := t.TempDir(), newOutside(t, "servers"), newOutside(t, "clients")
	pair, _ := servers.sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(2), KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	})
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	must(t, err)
	h := found(t, Options{Further: []any{map[string]any{
		"name": "mesh", "address": "127.0.0.1:0", "doors": []string{"rest"},
		"certificate": writePEM(t, filepath.Join(dir, "server.pem"), "CERTIFICATE", pair.Certificate[0]),
		"key":         writePEM(t, filepath.Join(dir, "server.key"), "PRIVATE KEY", key),
		"client_ca":   writePEM(t, filepath.Join(dir, "clients.pem"), "CERTIFICATE", clients.cert.Raw),
	}}})
	pool := x509.NewCertPool()
	pool.AddCert(servers.cert)
	return h, clients, pool
}

// TestRevoke_OneCertificateOfAnotherAuthority takes single certificates of a
// client authority away that the server did not issue: one that is in use, one
// that nobody has shown yet, and their sessions.
func TestRevoke_OneCertificateOfAnotherAuthority(t *testing.T) {
	h, clients, roots := meshed(t)
	w, ctx := start(t, h), t.Context()
	agent := w.enrol("agent", "reporter", "build-7")
	stolen, kept := clients.client(t, 21, "agent", agent.Subject.ID), clients.client(t, 22, "agent", agent.Subject.ID)
	unused := clients.client(t, 23, "agent", agent.Subject.ID)
	whoami := func(w *world, pair tls.Certificate) error {
		t.Helper()
		c, err := sallyport.New(sallyport.Config{URL: "https://" + w.Bound["mesh"], Roots: roots, Certificate: &pair, Timeout: patience})
		must(t, err)
		defer c.Close()
		_, err = c.Whoami(ctx)
		return err
	}
	open := func(pair tls.Certificate) *sallyport.Client {
		t.Helper()
		c, err := sallyport.New(sallyport.Config{URL: "https://" + w.Bound["mesh"], Roots: roots, Certificate: &pair, Timeout: patience})
		must(t, err)
		t.Cleanup(c.Close)
		must(t, done(c.Whoami(ctx))) // opens a session
		return c
	}
	thief, holder := open(stolen), open(kept)
	detail, err := w.admin.Subject(ctx, agent.Subject.ID)
	must(t, err)
	if len(detail.Certificates) != 3 || len(detail.Sessions) != 2 {
		t.Fatalf("shown: %+v", detail)
	}

	file := writePEM(t, filepath.Join(t.TempDir(), "stolen.pem"), "CERTIFICATE", stolen.Certificate[0])
	_, err = h.Command(ctx, "agent", "revoke", "--certificate", file, "--reason", "copied", "--url", "https://"+w.Main)
	must(t, err)
	file = writePEM(t, filepath.Join(t.TempDir(), "unused.pem"), "CERTIFICATE", unused.Certificate[0])
	_, err = h.Command(ctx, "agent", "revoke", "--certificate", file, "--url", "https://"+w.Main)
	must(t, err)

	_, err = thief.Whoami(ctx) // with the session, over the connection that is open
	refused(t, "the session of a revoked certificate", err, sallyport.Unauthenticated)
	if _, err := holder.Whoami(ctx); err != nil {
		t.Errorf("the session of another certificate: %v", err)
	}
	for range 2 {
		refused(t, "the revoked certificate", whoami(w, stolen), sallyport.Unauthenticated)
		refused(t, "the one that was never shown", whoami(w, unused), sallyport.Unauthenticated)
		must(t, whoami(w, kept))
		must(t, done(w.meet(agent).client.Whoami(ctx)))
		w = w.restart()
	}
}
