package app

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/keys/ca"
)

// drain is how long requests in flight may take after the signal to stop; the
// whole of stopping stays within ten seconds.
const drain = 8 * time.Second

// Run serves until the context ends or the store fails, then stops in reverse:
// no new connections, requests in flight to their end, background work, plugins,
// store. The error says why it stopped, nil for an ended context.
func (a *App) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	servers, err := a.listen(ctx)
	if err != nil {
		a.close(context.WithoutCancel(ctx))
		return err
	}
	for _, w := range a.weak {
		a.log.WarnContext(ctx, "a switch that weakens is on", slog.Any("switch", w))
	}
	for _, s := range servers {
		go func() {
			if err := s.serve(); !errors.Is(err, http.ErrServerClosed) {
				cancel(fmt.Errorf("serve %s: %w", s.name, err))
			}
		}()
	}
	a.fetchKeys(ctx)
	background := a.background(ctx)
	close(a.ready)
	where := []slog.Attr{slog.Any("main", a.bound[mainListener]), slog.Any("operations", a.bound[operationsListener])}
	if further := a.further(); len(further) > 0 {
		where = append(where, slog.Any("further", further))
	}
	a.log.LogAttrs(ctx, slog.LevelInfo, "serving", where...)
	var failed error
	select {
	case <-ctx.Done():
		if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
			failed = cause
		}
	case cause := <-a.store.Failed():
		failed = fault.Unavailablef("the store failed while writing: what was not answered may or may not have happened; start the server again").Because(cause)
	}
	a.log.InfoContext(ctx, "stopping")
	stopping, end := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer end()
	for i := len(servers) - 1; i >= 0; i-- {
		if err := servers[i].http.Shutdown(stopping); err != nil {
			_ = servers[i].http.Close()
		}
	}
	cancel(nil)
	background()
	a.close(stopping)
	return failed
}

// close gives back what New opened, in reverse.
func (a *App) close(ctx context.Context) {
	if a.host != nil {
		if err := a.host.Close(ctx); err != nil {
			a.log.WarnContext(ctx, "plugins did not stop in time", slog.Any("err", err))
		}
	}
	if a.external != nil {
		a.external.Close()
	}
	if a.annexes != nil {
		if err := a.annexes.Close(); err != nil {
			a.log.WarnContext(ctx, "the databases of extensions did not close cleanly", slog.Any("err", err))
		}
	}
	if a.sandbox != nil {
		if err := a.sandbox.Close(); err != nil {
			a.log.WarnContext(ctx, "the sandbox left something behind", slog.Any("err", err))
		}
	}
	if a.gate != nil {
		if err := a.gate.RecordStrangers(ctx); err != nil {
			a.log.WarnContext(ctx, "the count of refused strangers was not recorded", slog.Any("err", err))
		}
	}
	if a.store != nil {
		if err := a.store.Close(ctx); err != nil {
			a.log.WarnContext(ctx, "the store did not close cleanly", slog.Any("err", err))
		}
	}
}

// Ready is closed once every listener is open.
func (a *App) Ready() <-chan struct{} { return a.ready }

// Address is where a listener is bound: main, operations, or a further one by
// its configured name. Valid once [App.Ready] is closed.
func (a *App) Address(name string) string { return a.bound[name] }

// Addresses is where every listener is bound, by its name. Valid once
// [App.Ready] is closed.
func (a *App) Addresses() map[string]string { return maps.Clone(a.bound) }

// further is where the further listeners are bound, each as name=address.
func (a *App) further() []string {
	var out []string
	for _, l := range a.cfg.Listen.Further {
		out = append(out, l.Name+"="+a.bound[l.Name])
	}
	return out
}

// server is one open listener.
type server struct {
	name  string
	http  *http.Server
	open  net.Listener
	plain bool
}

func (s server) serve() error {
	if s.plain {
		return s.http.Serve(s.open)
	}
	return s.http.ServeTLS(s.open, "", "")
}

// listen opens all listeners, or none.
func (a *App) listen(ctx context.Context) ([]server, error) {
	var servers []server
	add := func(l Listener, handler http.Handler) error {
		open, err := new(net.ListenConfig).Listen(ctx, "tcp", l.Address)
		if err != nil {
			return fault.Unavailablef("the address %s cannot be bound; is a server running there already?", l.Address).Because(err)
		}
		a.bound[l.Name] = open.Addr().String()
		s := server{name: l.Name, open: open, plain: l.Plain, http: httpServer(handler, a.quiet())}
		servers = append(servers, s)
		if !l.Plain {
			s.http.TLSConfig, err = a.tls(l)
		}
		return err
	}
	err := add(a.cfg.Listen.Main, a.doors(nil))
	for _, l := range a.cfg.Listen.Further {
		if err == nil {
			err = add(l, a.doors(l.Doors))
		}
	}
	if err == nil && a.cfg.Listen.Operations != "off" {
		err = add(Listener{Name: operationsListener, Address: a.cfg.Listen.Operations, Plain: true}, a.operations())
	}
	if err != nil {
		for _, s := range servers {
			_ = s.open.Close()
		}
		return nil, err
	}
	return servers, nil
}

func httpServer(handler http.Handler, errorLog io.Writer) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       2 * time.Minute, // a plugin package may be large
		WriteTimeout:      2 * time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    160 << 10, // an attestation token travels in a header
		ErrorLog:          stdlog.New(errorLog, "", 0),
	}
}

// quiet takes net/http's own lines, which strangers can cause at will.
func (a *App) quiet() io.Writer { return debugWriter{a} }

type debugWriter struct{ a *App }

func (w debugWriter) Write(line []byte) (int, error) {
	w.a.log.Debug("connection", "err", string(line)) //nolint:sloglint // net/http gives no context here
	return len(line), nil
}

// tls is the configuration of one listener: TLS 1.3 unless it says otherwise,
// client certificates asked for, and verified if given.
func (a *App) tls(l Listener) (*tls.Config, error) {
	files := a.files[l.Name]
	config := &tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: tls.VerifyClientCertIfGiven, NextProtos: []string{"h2", "http/1.1"}}
	if err := l.TLS.apply(config); err != nil {
		return nil, err
	}
	if l.Certificate != "" {
		config.GetCertificate = files.GetCertificate
	} else {
		embedded, err := ca.NewServer(a.keys().authority, l.names())
		if err != nil {
			return nil, err
		}
		a.embedded = append(a.embedded, embedded)
		config.GetCertificate = embedded.GetCertificate
	}
	// The authorities for clients may change while we run: ours when the root is
	// replaced, others with their file.
	var current atomic.Pointer[served]
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		now := served{ring: a.keys()}
		if files != nil {
			files.Look(context.Background())
			now.clients = files.ClientCAs()
		}
		if have := current.Load(); have != nil && have.ring == now.ring && slices.Equal(have.clients, now.clients) {
			return have.config, nil
		}
		now.config = config.Clone()
		now.config.GetConfigForClient, now.config.ClientCAs = nil, now.ring.authority.Pool()
		for _, root := range now.clients {
			now.config.ClientCAs.AddCert(root)
		}
		current.Store(&now)
		return now.config, nil
	}
	return config, nil
}

// served is a listener's configuration for the authorities of one moment.
type served struct {
	ring    *keyring
	clients []*x509.Certificate // from a file
	config  *tls.Config
}

// names are those in the embedded CA's server certificate.
func (l Listener) names() []string {
	if len(l.Names) > 0 {
		return l.Names
	}
	names := []string{"localhost", "127.0.0.1", "::1"}
	if host, _, err := net.SplitHostPort(l.Address); err == nil && host != "" && !loopback(l.Address) {
		names = append(names, host)
	}
	return names
}
