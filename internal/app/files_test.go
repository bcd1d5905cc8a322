package app_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/app"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// authority is a CA that somebody else runs.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) authority {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{cert, key}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// issue makes a leaf; uri is empty for a server.
func (a authority) issue(t *testing.T, serial int64, uri string) tls.Certificate {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	if uri != "" {
		u, err := url.Parse(uri)
		if err != nil {
			t.Fatal(err)
		}
		template.URIs, template.IPAddresses, template.ExtKeyUsage = []*url.URL{u}, nil, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func write(t *testing.T, folder string, pair tls.Certificate) {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		"server.pem": {Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, "server.key": {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(filepath.Join(folder, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// A server shows a certificate from files, changes to a new one without a
// restart, and believes the clients of an authority that the operator named:
// for subjects that exist, and for no others.
func TestApp_TakesCertificatesFromFiles(t *testing.T) {
	folder := t.TempDir()
	servers, clients := newAuthority(t, "servers"), newAuthority(t, "clients")
	write(t, folder, servers.issue(t, 7, ""))
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: clients.cert.Raw})
	if err := os.WriteFile(filepath.Join(folder, "clients.pem"), ca, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := app.Parse([]byte(`
listen:
  main: {address: "127.0.0.1:0", certificate: server.pem, key: server.key, client_ca: clients.pem}
  operations: "off"
`), folder)
	if err != nil {
		t.Fatal(err)
	}
	f, err := app.Found(t.Context(), c, "alice")
	if err != nil {
		t.Fatal(err)
	}
	a, out := serve(t, c)
	call := func(pair tls.Certificate) error {
		cl, err := sallyport.New(sallyport.Config{URL: "https://" + a.Address("main"), Roots: servers.pool(), Certificate: &pair})
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		_, err = cl.Policies(t.Context())
		return err
	}
	own, err := tls.X509KeyPair([]byte(f.Certificate), f.Private.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	if err := call(own); err != nil {
		t.Fatalf("our own client: %v\n%s", err, out)
	}
	name := "spiffe://sallyport.internal/operator/" + f.Operator
	if err := call(clients.issue(t, 21, name)); err != nil {
		t.Errorf("client of the configured authority: %v\n%s", err, out)
	}
	refused := map[string]tls.Certificate{
		"a subject that does not exist": clients.issue(t, 22, "spiffe://sallyport.internal/operator/01JZZZZZZZZZZZZZZZZZZZZZZZ"),
		"another kind of subject":       clients.issue(t, 23, "spiffe://sallyport.internal/agent/"+f.Operator),
		"another trust domain":          clients.issue(t, 24, "spiffe://elsewhere.example/operator/"+f.Operator),
		"another authority":             newAuthority(t, "mallory").issue(t, 25, name),
	}
	for what, pair := range refused {
		if err := call(pair); err == nil {
			t.Errorf("%s was let in", what)
		}
	}
	write(t, folder, servers.issue(t, 8, ""))
	if err := eventually(func() error { return serialIs(a.Address("main"), servers.pool(), 8) }); err != nil {
		t.Errorf("the new certificate: %v\n%s", err, out)
	}
}

func serialIs(address string, roots *x509.CertPool, want int64) error {
	conn, err := tls.Dial("tcp", address, &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13})
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if got := conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64(); got != want {
		return fmt.Errorf("serial %d, want %d", got, want)
	}
	return nil
}

func eventually(check func() error) (err error) {
	for range 100 {
		if err = check(); err == nil {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return err
}
