package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// echoCommand makes this program the bare server of the floor.
const echoCommand = "echo"

// echoSetup is what the bare server reads from standard input.
type echoSetup struct {
	Certificate [][]byte `json:"certificate"`
	Key         []byte   `json:"key"`       // PKCS #8
	Authority   []byte   `json:"authority"` // for client certificates; none are asked for if empty
}

// echoServer answers each request with its body: net/http, TLS 1.3, and nothing
// else. It ends with its standard input.
func echoServer(in io.Reader, out io.Writer) error {
	var setup echoSetup
	input := json.NewDecoder(io.LimitReader(in, 1<<20))
	if err := input.Decode(&setup); err != nil {
		return fmt.Errorf("read setup: %w", err)
	}
	key, err := x509.ParsePKCS8PrivateKey(setup.Key)
	if err != nil {
		return fmt.Errorf("read key: %w", err)
	}
	config := &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{{Certificate: setup.Certificate, PrivateKey: key}},
	}
	if len(setup.Authority) > 0 {
		root, err := x509.ParseCertificate(setup.Authority)
		if err != nil {
			return fmt.Errorf("read authority: %w", err)
		}
		config.ClientCAs, config.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
		config.ClientCAs.AddCert(root)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // bound for the whole run
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	server := &http.Server{TLSConfig: config, ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(echo)}
	if _, err := fmt.Fprintln(out, listener.Addr()); err != nil {
		return fmt.Errorf("tell address: %w", err)
	}
	go func() {
		_, _ = io.Copy(io.Discard, in) // until whoever started us ends
		_ = server.Close()
	}()
	if err := server.ServeTLS(listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil {
		http.Error(w, "the body cannot be read", http.StatusBadRequest)
		return
	}
	_, _ = w.Write(body)
}

// bare is a running bare server.
type bare struct {
	cmd     *exec.Cmd
	stdin   io.Closer
	address string
	client  *tls.Config
	started time.Duration // from exec to the first line
	opened  connections
}

// startBare runs this program once more as the bare server.
func startBare(ctx context.Context, clientCertificates bool) (*bare, error) {
	ca, err := newAuthority()
	if err != nil {
		return nil, err
	}
	leaf, err := ca.issue("127.0.0.1")
	if err != nil {
		return nil, err
	}
	b := &bare{client: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: x509.NewCertPool(), NextProtos: []string{"http/1.1"}}}
	b.client.RootCAs.AddCert(ca.root)
	setup := echoSetup{Certificate: leaf.Certificate}
	if setup.Key, err = x509.MarshalPKCS8PrivateKey(leaf.PrivateKey); err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	if clientCertificates {
		setup.Authority = ca.root.Raw
		mine, err := ca.issue("")
		if err != nil {
			return nil, err
		}
		b.client.Certificates = []tls.Certificate{mine}
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	b.cmd = exec.CommandContext(ctx, self, echoCommand) //nolint:gosec // this program
	b.cmd.Stderr = os.Stderr
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	stdin, err := b.cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start bare server: %w", err)
	}
	b.stdin = stdin
	stdout, err := b.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start bare server: %w", err)
	}
	begin := time.Now()
	if err := b.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start bare server: %w", err)
	}
	err = json.NewEncoder(stdin).Encode(setup)
	if err == nil {
		b.address, err = bufio.NewReader(stdout).ReadString('\n')
		b.address, b.started = strings.TrimSpace(b.address), time.Since(begin)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start bare server: %w", err), b.stop())
	}
	return b, nil
}

func (b *bare) stop() error {
	b.opened.close()
	_ = b.stdin.Close()
	_ = syscall.Kill(-b.cmd.Process.Pid, syscall.SIGKILL)
	_ = b.cmd.Wait() // killed, so it always fails
	return nil
}

// drive asks the bare server with bodies of a size, by the same client as everything
// else.
func (b *bare) drive(size int) drive {
	body := []byte(strings.Repeat("x", size))
	return b.driven(func(ctx context.Context, opened func(*connection)) (call, error) {
		c, err := dial(ctx, b.address, b.client)
		if err != nil {
			return nil, err
		}
		opened(c)
		return func(context.Context) error { return b.echoed(c, body) }, nil
	})
}

// driveGuests asks the bare server as guests do when they come up: three requests
// with bodies of a guest's sizes, which count as one; fresh guests have a TLS
// connection of their own.
func (b *bare) driveGuests(fresh bool) drive {
	bodies := [][]byte{[]byte(strings.Repeat("x", 90)), []byte(strings.Repeat("x", 1700)), []byte(strings.Repeat("x", 700))}
	ask := func(c *connection) error {
		for _, body := range bodies {
			if err := b.echoed(c, body); err != nil {
				return err
			}
		}
		return nil
	}
	return b.driven(func(ctx context.Context, opened func(*connection)) (call, error) {
		if fresh {
			return func(ctx context.Context) error {
				c, err := dial(ctx, b.address, b.client)
				if err != nil {
					return err
				}
				defer c.close()
				return ask(c)
			}, nil
		}
		c, err := dial(ctx, b.address, b.client)
		if err != nil {
			return nil, err
		}
		opened(c)
		return func(context.Context) error { return ask(c) }, nil
	})
}

// driven closes the connections of the drive before with the next one, and the last
// ones with the server.
func (b *bare) driven(open func(context.Context, func(*connection)) (call, error)) drive {
	return drive{
		cpu: func() (time.Duration, error) { return processTime(b.cmd.Process.Pid) },
		open: func(ctx context.Context, worker int) (call, error) {
			if worker == 0 {
				b.opened.close()
			}
			return open(ctx, b.opened.add)
		},
	}
}

// echoed is one request and its answer.
func (b *bare) echoed(c *connection, body []byte) error {
	status, answer, err := c.exchange(request("POST", "/", b.address, body))
	if err == nil && (status != http.StatusOK || len(answer) != len(body)) {
		err = refused(status, answer)
	}
	return err
}

// authority is a CA for the floor alone.
type authority struct {
	root *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority() (authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return authority{}, fmt.Errorf("make CA: %w", err)
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "load floor"}, NotBefore: time.Now().Add(-time.Minute),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return authority{}, fmt.Errorf("make CA: %w", err)
	}
	root, err := x509.ParseCertificate(der)
	if err != nil {
		return authority{}, fmt.Errorf("make CA: %w", err)
	}
	return authority{root, key}, nil
}

// issue makes a leaf for a server's address, or for a client without one.
func (a authority) issue(address string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make key: %w", err)
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if address != "" {
		t.IPAddresses, t.ExtKeyUsage = []net.IP{net.ParseIP(address)}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.root, key.Public(), a.key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
