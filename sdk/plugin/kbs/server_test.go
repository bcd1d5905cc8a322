package kbs

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/grpc/status"

	pluginv1 "github.com/sallyport-project/sallyport/api/kbs/plugin/v1"
)

// safe is a buffer for logs.
type safe struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safe) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safe) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// begin serves until end is called, which returns what Serve did.
func begin(t *testing.T, s *Server) (conn *grpc.ClientConn, log *safe, end func() error) {
	t.Helper()
	log = &safe{}
	s.WithLogger(slog.New(slog.NewTextHandler(log, nil)))
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.serve(ctx, l) }()
	conn, err = grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		t.Fatal(err)
	}
	end = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() { _ = end(); _ = conn.Close() })
	return conn, log, end
}

// plugin is a Handler of functions.
type plugin struct {
	Defaults
	handle func(context.Context, *Request) (*Response, error)
}

func (p plugin) Handle(ctx context.Context, r *Request) (*Response, error) { return p.handle(ctx, r) }

// strict answers the other two questions with errors or panics.
type strict struct{ plugin }

func (strict) ValidateAuth(_ context.Context, r *Request) (bool, error) {
	return r.Method == http.MethodPost, nil
}

func (strict) NeedsEncryption(context.Context, *Request) (bool, error) { panic("canary") }

func TestServer_AnswersTheThreeCalls(t *testing.T) {
	echo := plugin{handle: func(_ context.Context, r *Request) (*Response, error) {
		return &Response{Body: []byte(r.Method + " " + strings.Join(r.Path, "|") + " " + r.Query["q"] + " " + string(r.Body)), ContentType: "text/x"}, nil
	}}
	conn, _, _ := begin(t, NewServer(echo))
	c := pluginv1.NewKbsPluginClient(conn)
	a, err := c.Handle(t.Context(), &pluginv1.PluginRequest{Method: "PUT", Path: []string{"a", ""}, Query: map[string]string{"q": "v"}, Body: []byte("b")})
	if err != nil || a.GetStatusCode() != 200 || string(a.GetBody()) != "PUT a| v b" || a.GetContentType() != "text/x" {
		t.Errorf("Handle: %v %v", a, err)
	}
	if v, err := c.ValidateAuth(t.Context(), &pluginv1.ValidateAuthRequest{Method: "POST"}); err != nil || v.GetRequiresAdminAuth() {
		t.Errorf("the default of ValidateAuth: %v %v", v, err)
	}
	if n, err := c.NeedsEncryption(t.Context(), &pluginv1.NeedsEncryptionRequest{}); err != nil || !n.GetRequiresPayloadEncryption() {
		t.Errorf("the default of NeedsEncryption: %v %v", n, err)
	}
	conn, log, _ := begin(t, NewServer(strict{echo}))
	c = pluginv1.NewKbsPluginClient(conn)
	if v, err := c.ValidateAuth(t.Context(), &pluginv1.ValidateAuthRequest{Method: "POST"}); err != nil || !v.GetRequiresAdminAuth() {
		t.Errorf("ValidateAuth: %v %v", v, err)
	}
	_, err = c.NeedsEncryption(t.Context(), &pluginv1.NeedsEncryptionRequest{})
	if status.Code(err) != codes.Internal || strings.Contains(err.Error(), "canary") || !strings.Contains(log.String(), "canary") {
		t.Errorf("a panic: %v, logged: %s", err, log)
	}
}

func TestServer_TellsFailuresFromRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		out    *Response
		err    error
		status int32
		code   codes.Code
	}{
		"status 0":         {&Response{}, nil, 200, codes.OK},
		"its own status":   {&Response{Status: 404}, nil, 404, codes.OK},
		"a refusal":        {nil, Refusef(403, "no"), 403, codes.OK},
		"a strange one":    {nil, Refusef(200, "no"), 500, codes.OK},
		"an error":         {nil, errors.New("canary"), 0, codes.Internal},
		"nothing":          {nil, nil, 0, codes.Internal},
		"no status":        {&Response{Status: 1000}, nil, 0, codes.Internal},
		"a negative one":   {&Response{Status: -1}, nil, 0, codes.Internal},
		"a larger message": {&Response{Body: make([]byte, 4<<20)}, nil, 0, codes.ResourceExhausted},
	} {
		conn, log, _ := begin(t, NewServer(HandlerFunc(func(context.Context, *Request) (*Response, error) { return c.out, c.err })))
		a, err := pluginv1.NewKbsPluginClient(conn).Handle(t.Context(), &pluginv1.PluginRequest{})
		if status.Code(err) != c.code || a.GetStatusCode() != c.status || err != nil && strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v %v", name, a.GetStatusCode(), err)
		}
		if c.code != codes.OK && !strings.Contains(log.String(), "level=") {
			t.Errorf("%s is not logged", name)
		}
	}
}

// Health says first that the plugin ends; what it has begun it finishes.
func TestServer_EndsInOrder(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	conn, _, end := begin(t, NewServer(HandlerFunc(func(context.Context, *Request) (*Response, error) {
		close(entered)
		<-leave
		return &Response{Body: []byte("done")}, nil
	})))
	health := grpc_health_v1.NewHealthClient(conn)
	for _, name := range []string{"", pluginv1.Service} {
		if a, err := health.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: name}); err != nil || a.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
			t.Errorf("health of %q: %v %v", name, a, err)
		}
	}
	watch, err := health.Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: pluginv1.Service})
	if err != nil {
		t.Fatal(err)
	}
	if a, err := watch.Recv(); err != nil || a.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Fatal(a, err)
	}
	answer := make(chan string, 1)
	go func() {
		a, err := pluginv1.NewKbsPluginClient(conn).Handle(context.Background(), &pluginv1.PluginRequest{})
		if err != nil {
			answer <- err.Error()
			return
		}
		answer <- string(a.GetBody())
	}()
	<-entered
	ended := make(chan error, 1)
	go func() { ended <- end() }()
	if a, err := watch.Recv(); err != nil || a.GetStatus() != grpc_health_v1.HealthCheckResponse_NOT_SERVING {
		t.Errorf("while it ends: %v %v", a, err)
	}
	close(leave)
	if got := <-answer; got != "done" {
		t.Errorf("the call in flight: %s", got)
	}
	if err := <-ended; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

func TestServer_IsReflected(t *testing.T) {
	conn, _, _ := begin(t, NewServer(plugin{}).WithoutHealth())
	if _, err := grpc_health_v1.NewHealthClient(conn).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("health is there: %v", err)
	}
	one, err := reflectionv1.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = one.Send(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}})
	if a, err := one.Recv(); err != nil || !strings.Contains(a.String(), pluginv1.Service) {
		t.Errorf("v1: %v %v", a, err)
	}
	old, err := reflectionv1alpha.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = old.Send(&reflectionv1alpha.ServerReflectionRequest{MessageRequest: &reflectionv1alpha.ServerReflectionRequest_ListServices{}}) //nolint:staticcheck // served for old tools
	if a, err := old.Recv(); err != nil || !strings.Contains(a.String(), pluginv1.Service) {
		t.Errorf("v1alpha: %v %v", a, err)
	}
}

func TestServer_ServesTLS(t *testing.T) {
	dir := t.TempDir()
	cert, key, pool, pair := selfSigned(t, dir)
	answering := func(c *tls.Config, o TLS) error {
		conf, err := o.config()
		if err != nil {
			t.Fatal(err)
		}
		l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		s := NewServer(HandlerFunc(func(context.Context, *Request) (*Response, error) { return &Response{}, nil })).
			WithLogger(slog.New(slog.DiscardHandler))
		go func() { ended <- s.serve(ctx, l, grpc.Creds(credentials.NewTLS(conf))) }()
		defer func() { cancel(); <-ended }()
		conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(credentials.NewTLS(c)))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		_, err = pluginv1.NewKbsPluginClient(conn).Handle(t.Context(), &pluginv1.PluginRequest{})
		return err
	}
	if err := answering(&tls.Config{RootCAs: pool}, ServerTLS(cert, key)); err != nil {
		t.Errorf("TLS: %v", err)
	}
	if err := answering(&tls.Config{RootCAs: x509.NewCertPool()}, ServerTLS(cert, key)); err == nil {
		t.Error("another authority is believed")
	}
	if err := answering(&tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}}, ServerTLS(cert, key).WithClientCA(cert)); err != nil {
		t.Errorf("with a client certificate: %v", err)
	}
	if err := answering(&tls.Config{RootCAs: pool}, ServerTLS(cert, key).WithClientCA(cert)); err == nil {
		t.Error("a caller without certificate is served")
	}
	for _, bad := range []TLS{ServerTLS(cert+"x", key), ServerTLS(key, cert), ServerTLS(cert, key).WithClientCA(key)} {
		if err := NewServer(plugin{}).WithTLS(bad).WithAddress("127.0.0.1:0").Serve(t.Context()); err == nil {
			t.Errorf("%+v is accepted", bad)
		}
	}
}

// selfSigned is a certificate for 127.0.0.1 that is its own authority.
func selfSigned(t *testing.T, dir string) (cert, key string, pool *x509.CertPool, pair tls.Certificate) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	form := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "plugin"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, form, form, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	certText := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyText := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
	cert, key = filepath.Join(dir, "crt"), filepath.Join(dir, "key")
	for file, text := range map[string][]byte{cert: certText, key: keyText} {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(certText)
	if pair, err = tls.X509KeyPair(certText, keyText); err != nil {
		t.Fatal(err)
	}
	return cert, key, pool, pair
}

func TestRequest_Match(t *testing.T) {
	r := &Request{Path: []string{"models", "llama", ""}}
	for pattern, want := range map[string]string{
		"models/{name}/": "llama", "models/{name}": "-", "models/{name}/{x}": "-", "models/llama/": "", "{a}/{name}/": "llama", "x/{name}/": "-",
	} {
		got, ok := r.Match(pattern)
		if !ok && want != "-" || ok && got["name"] != want {
			t.Errorf("%s: %v %v", pattern, got, ok)
		}
	}
	if r.Segment(1) != "llama" || r.Segment(3) != "" || r.Segment(-1) != "" {
		t.Error("Segment")
	}
}
