package external

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// issued is a certificate with its key, and the files of both.
type issued struct {
	pair      tls.Certificate
	cert, key string
}

// issue makes a certificate for 127.0.0.1, by itself or by an authority.
func issue(t *testing.T, by *issued) issued {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: by == nil, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	parent, signer := template, key
	if by != nil {
		parent = by.pair.Leaf
		signer, _ = by.pair.PrivateKey.(*ecdsa.PrivateKey)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	out := issued{cert: filepath.Join(dir, "cert.pem"), key: filepath.Join(dir, "key.pem")}
	for name, block := range map[string]*pem.Block{out.cert: {Type: "CERTIFICATE", Bytes: der}, out.key: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out.pair, err = tls.LoadX509KeyPair(out.cert, out.key); err != nil {
		t.Fatal(err)
	}
	return out
}

// Over https the named authorities are believed and no others, for the host that
// the endpoint names, and the broker shows who it is to a plugin that asks.
func TestAddress_SpeaksTLS(t *testing.T) {
	ca, other := issue(t, nil), issue(t, nil)
	plugin, broker := issue(t, &ca), issue(t, &ca)
	clients := x509.NewCertPool()
	clients.AddCert(ca.pair.Leaf)
	yes := rude(func(context.Context, string) ([]byte, error) { return []byte{8, 1}, nil })
	serve := func(demand tls.ClientAuthType) string {
		at, _ := yes.serve(t, "127.0.0.1:0", grpc.Creds(credentials.NewTLS(&tls.Config{
			MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{plugin.pair}, ClientAuth: demand, ClientCAs: clients,
		})))
		return at
	}
	open, closed := serve(tls.NoClientCert), serve(tls.RequireAndVerifyClientCert)
	_, port, err := net.SplitHostPort(open)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		address Address
		good    bool
	}{
		"its authority":              {Address{Endpoint: "https://" + open, CA: ca.cert}, true},
		"another authority":          {Address{Endpoint: "https://" + open, CA: other.cert}, false},
		"another host's certificate": {Address{Endpoint: "https://localhost:" + port, CA: ca.cert}, false},
		"without TLS":                {Address{Endpoint: "http://" + open}, false},
		"a broker who is asked for":  {Address{Endpoint: "https://" + closed, CA: ca.cert, Certificate: broker.cert, Key: broker.key}, true},
		"a broker who says nothing":  {Address{Endpoint: "https://" + closed, CA: ca.cert}, false},
	} {
		c.address.Name, c.address.Timeout = "x", 2*time.Second
		b := find(t, gateway(t, c.address))
		admin, err := b.ValidateAuth(t.Context(), Request{Method: "GET"})
		if c.good && (err != nil || !admin) || !c.good && !fault.Is(err, fault.Unavailable) {
			t.Errorf("%s: %v, %v", name, admin, err)
		}
	}
}
