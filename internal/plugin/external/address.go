package external

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/url"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	pluginv1 "github.com/sallyport-project/sallyport/api/kbs/plugin/v1"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// Address is a backend that somebody else runs.
type Address struct {
	Name     string
	Endpoint string // https://host:port, or http://host:port without TLS
	// CA is a PEM file with the only authorities that are believed for https;
	// required there.
	CA string
	// Certificate and Key (PEM files) are shown to a plugin that asks who calls;
	// none otherwise.
	Certificate, Key string
	Timeout          time.Duration // for each call; 5 s if zero
	Concurrency      int           // calls in flight; 256 if zero
	Rules            Rules
}

const (
	defaultTimeout     = 5 * time.Second
	defaultConcurrency = 256
)

// address is an Address with its connection, which is made in the background and
// again whenever it is lost.
type address struct {
	Address
	conn  *grpc.ClientConn
	slots chan struct{}
}

var _ Backend = (*address)(nil)

// Plain reports whether calls travel without TLS.
func (a Address) Plain() bool {
	u, err := url.Parse(a.Endpoint)
	return err == nil && u.Scheme == "http"
}

// dial begins to connect and does not wait: a plugin that is down stops nothing.
// What cannot work at all is Invalid.
func dial(a Address) (*address, error) {
	target, transport, err := a.transport()
	if err != nil {
		return nil, err
	}
	if a.Timeout <= 0 {
		a.Timeout = defaultTimeout
	}
	if a.Concurrency <= 0 {
		a.Concurrency = defaultConcurrency
	}
	conn, err := grpc.NewClient("dns:///"+target,
		grpc.WithTransportCredentials(transport),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(pluginv1.MaxMessageBytes), grpc.MaxCallSendMsgSize(pluginv1.MaxMessageBytes)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: time.Second,
		}),
		grpc.WithDisableServiceConfig(), // what a name server says of retries is not ours
		grpc.WithDisableRetry(),
		grpc.WithNoProxy(), // guests' secrets go where the operator says, whatever the environment says
		grpc.WithIdleTimeout(0),
		grpc.WithMaxHeaderListSize(maxHeaders),
	)
	if err != nil {
		return nil, fault.Invalidf("kbs.external: %s has an endpoint that cannot be used", a.Name).Because(err)
	}
	conn.Connect()
	return &address{a, conn, make(chan struct{}, a.Concurrency)}, nil
}

// maxHeaders bounds the headers of an answer, and with them the text of a status.
const maxHeaders = 64 << 10

// transport reads the endpoint and the files that belong to it.
func (a Address) transport() (string, credentials.TransportCredentials, error) {
	u, err := url.Parse(a.Endpoint)
	if err != nil || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Path != "" && u.Path != "/" ||
		u.Scheme != "http" && u.Scheme != "https" {
		return "", nil, fault.Invalidf("kbs.external: the endpoint of %s must be like https://host:port, or http://host:port without TLS", a.Name)
	}
	port := u.Port()
	if u.Scheme == "http" {
		if a.CA != "" || a.Certificate != "" || a.Key != "" {
			return "", nil, fault.Invalidf("kbs.external: %s has certificates, and an endpoint without TLS; use https", a.Name)
		}
		return net.JoinHostPort(u.Hostname(), orElse(port, "80")), insecure.NewCredentials(), nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool(), ServerName: u.Hostname()}
	if a.CA == "" {
		return "", nil, fault.Invalidf("kbs.external: %s needs ca_cert_path, the authorities that are believed for its endpoint", a.Name)
	}
	text, err := os.ReadFile(a.CA)
	if err != nil {
		return "", nil, fault.Invalidf("kbs.external: ca_cert_path of %s, %s, cannot be read", a.Name, a.CA).Because(err)
	}
	if !c.RootCAs.AppendCertsFromPEM(text) {
		return "", nil, fault.Invalidf("kbs.external: ca_cert_path of %s, %s, has no certificate", a.Name, a.CA)
	}
	if (a.Certificate == "") != (a.Key == "") {
		return "", nil, fault.Invalidf("kbs.external: client_cert_path and client_key_path of %s go together", a.Name)
	}
	if a.Certificate != "" {
		pair, err := tls.LoadX509KeyPair(a.Certificate, a.Key)
		if err != nil {
			return "", nil, fault.Invalidf("kbs.external: the client certificate of %s and its key cannot be read", a.Name).Because(err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return net.JoinHostPort(u.Hostname(), orElse(port, "443")), credentials.NewTLS(c), nil
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// About says which it is.
func (a *address) About() About { return About{Name: a.Name, Source: a.Endpoint, Rules: a.Rules} }

// ValidateAuth asks; see [Backend].
func (a *address) ValidateAuth(ctx context.Context, r Request) (bool, error) {
	return within(ctx, a, func(ctx context.Context) (bool, error) { return Wire{a.conn}.ValidateAuth(ctx, r) })
}

// Handle asks; see [Backend].
func (a *address) Handle(ctx context.Context, r Request) (Response, error) {
	return within(ctx, a, func(ctx context.Context) (Response, error) { return Wire{a.conn}.Handle(ctx, r) })
}

// NeedsEncryption asks; see [Backend].
func (a *address) NeedsEncryption(ctx context.Context, r Request) (bool, error) {
	return within(ctx, a, func(ctx context.Context) (bool, error) { return Wire{a.conn}.NeedsEncryption(ctx, r) })
}

// up reports whether there is a connection.
func (a *address) up() bool { return a.conn.GetState() == connectivity.Ready }

// within makes one call in its turn and time. Nothing is repeated.
func within[T any](ctx context.Context, a *address, call func(context.Context) (T, error)) (T, error) {
	var none T
	ctx, cancel := context.WithTimeout(ctx, a.Timeout)
	defer cancel()
	select {
	case a.slots <- struct{}{}:
		defer func() { <-a.slots }()
	case <-ctx.Done():
		return none, fault.Exhaustedf("plugin %s has too many calls in flight", a.Name).After(time.Second).Because(ctx.Err())
	}
	v, err := call(ctx)
	if err == nil {
		return v, nil
	}
	switch code := status.Code(err); {
	case late(err) || ctx.Err() != nil:
		return none, fault.Unavailablef("plugin %s did not answer in time", a.Name).Because(err)
	case code == codes.Unavailable:
		return none, fault.Unavailablef("plugin %s cannot be reached", a.Name).Because(err)
	case code == codes.ResourceExhausted:
		return none, fault.Unavailablef("plugin %s sent a message that is larger than allowed, or is overloaded", a.Name).Because(err)
	default:
		return none, fault.Unavailablef("plugin %s is failing", a.Name).Because(err)
	}
}

// Connect opens an address for the calls of the contract, without places and
// deadlines of its own; end closes it. Faults are Invalid.
func Connect(a Address) (w Wire, end func(), err error) {
	open, err := dial(a)
	if err != nil {
		return Wire{}, nil, err
	}
	return Wire{open.conn}, func() { _ = open.conn.Close() }, nil
}
