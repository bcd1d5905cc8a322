package app_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/app"
	"github.com/sallyport-project/sallyport/internal/fault"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// logged collects a server's log; several goroutines write it.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

const onLoopback = `
listen:
  main: {address: "127.0.0.1:0"}
  operations: "127.0.0.1:0"
`

func parse(t *testing.T, text string) app.Config {
	t.Helper()
	c, err := app.Parse([]byte(text), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// serve runs a server until the test ends, and returns its address.
func serve(t *testing.T, c app.Config) (*app.App, *logged) {
	t.Helper()
	out := &logged{}
	a, err := app.New(t.Context(), c, app.Options{Version: "test", Output: out})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	select {
	case <-a.Ready():
	case <-time.After(10 * time.Second):
		t.Fatalf("not ready: %s", out)
	}
	return a, out
}

func client(t *testing.T, a *app.App, f app.Founded) *sallyport.Client {
	t.Helper()
	pair, err := tls.X509KeyPair([]byte(f.Certificate), f.Private.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(f.CA))
	c, err := sallyport.New(sallyport.Config{URL: "https://" + a.Address("main"), Roots: roots, Certificate: &pair})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestApp_ServesTheFirstOperator(t *testing.T) {
	c := parse(t, onLoopback)
	f, err := app.Found(t.Context(), c, "alice")
	if err != nil {
		t.Fatal(err)
	}
	a, out := serve(t, c)
	operator := client(t, a, f)
	if _, err := operator.Policies(t.Context()); err != nil {
		t.Fatalf("policies: %v\n%s", err, out)
	}
	status, err := operator.Status(t.Context())
	if err != nil || !status.Ready {
		t.Fatalf("status %+v: %v", status, err)
	}
	if strings.Contains(out.String(), string(f.Private.Reveal())) {
		t.Error("the log has the operator's key")
	}
}

func TestFound_RefusesWhatExists(t *testing.T) {
	c := parse(t, onLoopback)
	if _, err := app.Found(t.Context(), c, "alice"); err != nil {
		t.Fatal(err)
	}
	if _, err := app.Found(t.Context(), c, "mallory"); !fault.Is(err, fault.Conflict) {
		t.Errorf("second founding: %v, want Conflict", err)
	}
}

func TestRecover_LetsTheOwnerOfTheKeyBackIn(t *testing.T) {
	c := parse(t, onLoopback)
	if _, err := app.Found(t.Context(), c, "alice"); err != nil {
		t.Fatal(err)
	}
	f, err := app.Recover(t.Context(), c, "alice-again")
	if err != nil {
		t.Fatal(err)
	}
	a, _ := serve(t, c)
	if _, err := client(t, a, f).Policies(t.Context()); err != nil {
		t.Errorf("recovered operator: %v", err)
	}
}

func TestNew_RefusesAnotherKey(t *testing.T) {
	c := parse(t, onLoopback)
	if _, err := app.Found(t.Context(), c, "alice"); err != nil {
		t.Fatal(err)
	}
	other := parse(t, onLoopback)
	if _, err := app.Found(t.Context(), other, "bob"); err != nil {
		t.Fatal(err)
	}
	c.KEK.File = other.KEK.File
	if _, err := app.New(t.Context(), c, app.Options{Version: "test", Output: &logged{}}); err == nil {
		t.Error("opened with a foreign key encryption key")
	}
}

func TestParse_ScalesPlugins(t *testing.T) {
	c, err := app.Parse([]byte("plugins: {scale: {sshcert: {instances: 2, concurrency: 64}}}"), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Plugins.Scale["sshcert"]; got != (app.Scale{Instances: 2, Concurrency: 64}) {
		t.Errorf("read %+v", got)
	}
	for _, bad := range []string{"instances: -1", "instances: 33", "queue: 1000000", "concurrency: 100000", "threads: 2"} {
		if _, err := app.Parse([]byte("plugins: {scale: {sshcert: {"+bad+"}}}"), t.TempDir()); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestParse_RefusesWhatWeakens(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"sample evidence on a public listener", "verifiers: {sample: {insecure: true}}\nlisten: {main: {address: '0.0.0.0:8443'}}", "loopback"},
		{"two of one name", "listen: {further: [{address: '127.0.0.1:0', doors: [kbs]}, {address: '127.0.0.1:0', doors: [rest]}]}", "two listeners are called 127.0.0.1:0"},
		{"a name that is taken", "listen: {further: [{name: operations, address: '127.0.0.1:0', doors: [kbs]}]}", "two listeners are called operations"},
		{"another name for main", "listen: {main: {name: front, address: '127.0.0.1:0'}}", "listen.main is called main"},
		{"operations in public", "listen: {operations: '0.0.0.0:9090'}", "loopback"},
		{"plain main listener", "listen: {main: {plain: true}}", "listen.main"},
		{"further listener with every door", "listen: {further: [{address: '127.0.0.1:1'}]}", "doors"},
		{"unknown member", "verifyers: {}", "unknown field"},
		{"repeated member", "data_dir: a\ndata_dir: b", "already defined"},
		{"webhook without TLS", "notify: {webhooks: [{name: a, url: 'http://example.org', secret_file: s}]}", "https"},
		{"unknown driver", "storage: {driver: mysql}", "sqlite or postgres"},
		{"unknown door", "listen: {further: [{address: '127.0.0.1:1', doors: [admin]}]}", "door"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := app.Parse([]byte(tt.text), t.TempDir())
			if !fault.Is(err, fault.Invalid) || !strings.Contains(fault.Public(err), tt.want) {
				t.Errorf("got %v, want Invalid with %q", err, tt.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(onLoopback))
	f.Add([]byte("a: &a [*a]"))
	f.Add([]byte("listen: {main: {address: '[::1]:0'}}"))
	folder := filepath.Join(f.TempDir(), "x")
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 4096 {
			return
		}
		if c, err := app.Parse(text, folder); err == nil && c.Validate() != nil {
			t.Error("parsed what does not validate")
		}
	})
}
