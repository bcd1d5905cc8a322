package external

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	pluginv1 "github.com/sallyport-project/sallyport/api/kbs/plugin/v1"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/obs"
)

// rude is a plugin that answers as a function says, with whatever bytes.
type rude func(ctx context.Context, method string) ([]byte, error)

// twice is the answer that is given two times.
const twice = "twice"

// raw hands bytes on as they are.
type raw struct{}

func (raw) Name() string                       { return "proto" }
func (raw) Marshal(v any) ([]byte, error)      { b, _ := v.([]byte); return b, nil }
func (raw) Unmarshal(data []byte, v any) error { *v.(*[]byte) = data; return nil }

// serve runs it until the test ends, or the returned function is called.
func (r rude) serve(t *testing.T, address string, options ...grpc.ServerOption) (at string, stop func()) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	options = append(options, grpc.ForceServerCodec(raw{}), grpc.MaxSendMsgSize(64<<20))
	g := grpc.NewServer(append(options, grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
		var q []byte
		if err := s.RecvMsg(&q); err != nil {
			return err
		}
		method, _ := grpc.MethodFromServerStream(s)
		a, err := r(s.Context(), method[strings.LastIndexByte(method, '/')+1:])
		if err != nil {
			return err
		}
		if string(a) == twice {
			if err := s.SendMsg([]byte{}); err != nil {
				return err
			}
			a = nil
		}
		return s.SendMsg(a)
	}))...)
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)
	return l.Addr().String(), g.Stop
}

// none are no packages.
type none struct{}

func (none) Backends() bool                  { return false }
func (none) Backend(string) (Backend, error) { return nil, fault.NotFoundf("no plugin") }

func gateway(t *testing.T, list ...Address) *Gateway {
	t.Helper()
	g, err := New(Config{Addresses: list, Packages: none{}, Metrics: obs.NewMetrics(), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return g
}

func find(t *testing.T, g *Gateway) Backend {
	t.Helper()
	b, err := g.Find("x")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Plugins that misbehave: each of their calls is Unavailable, within its time,
// and the public text has nothing of what they said.
func TestAddress_BearsWhatPluginsDo(t *testing.T) {
	text := func(number protowire.Number, s string) []byte {
		return protowire.AppendString(protowire.AppendTag(nil, number, protowire.BytesType), s)
	}
	for name, answer := range map[string]rude{
		"another message": func(context.Context, string) ([]byte, error) { return text(1, "canary"), nil },
		"no message":      func(context.Context, string) ([]byte, error) { return []byte{0xff}, nil },
		"an error":        func(context.Context, string) ([]byte, error) { return nil, status.Error(codes.Unknown, "canary") },
		"twice":           func(context.Context, string) ([]byte, error) { return []byte(twice), nil },
		"never":           func(ctx context.Context, _ string) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() },
		"too much":        func(context.Context, string) ([]byte, error) { return text(9, strings.Repeat("c", 5<<20)), nil },
		"no such method":  func(context.Context, string) ([]byte, error) { return nil, status.Error(codes.Unimplemented, "canary") },
		"a long complaint": func(context.Context, string) ([]byte, error) {
			return nil, status.Error(codes.Internal, strings.Repeat("canary", 20<<10))
		},
		"its own exhausted": func(context.Context, string) ([]byte, error) {
			return nil, status.Error(codes.ResourceExhausted, "canary")
		},
	} {
		t.Run(name, func(t *testing.T) {
			at, _ := answer.serve(t, "127.0.0.1:0")
			b := find(t, gateway(t, Address{Name: "x", Endpoint: "http://" + at, Timeout: 300 * time.Millisecond}))
			_, no := b.NeedsEncryption(t.Context(), Request{Method: "GET"})
			_, yes := b.ValidateAuth(t.Context(), Request{Method: "GET"})
			_, handled := b.Handle(t.Context(), Request{Method: "GET"})
			if name == "another message" {
				handled = no // a text in field 1 is what Handle answers
			}
			for _, err := range []error{no, yes, handled} {
				if !fault.Is(err, fault.Unavailable) || strings.Contains(fault.Public(err), "canary") {
					t.Errorf("got %v", err)
				}
			}
		})
	}
}

func TestAddress_ReadsStatusesAsTheyAre(t *testing.T) {
	for code, success := range map[int64]bool{0: true, 200: true, 299: true, 300: false, 404: false, 99: false, 1000: false, -1: false} {
		at, _ := rude(func(context.Context, string) ([]byte, error) {
			return protowire.AppendVarint(protowire.AppendTag(nil, 2, protowire.VarintType), uint64(code)), nil
		}).serve(t, "127.0.0.1:0")
		a, err := find(t, gateway(t, Address{Name: "x", Endpoint: "http://" + at})).Handle(t.Context(), Request{})
		if err != nil || a.Success() != success || int64(a.Status) != code {
			t.Errorf("%d: %+v %v", code, a, err)
		}
	}
}

// A plugin that is down does not stop the start, and is found when it comes, goes
// and comes again.
func TestAddress_Reconnects(t *testing.T) {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().String()
	_ = l.Close()
	b := find(t, gateway(t, Address{Name: "x", Endpoint: "http://" + at}))
	if _, err := b.ValidateAuth(t.Context(), Request{}); !fault.Is(err, fault.Unavailable) {
		t.Fatalf("nobody is there: %v", err)
	}
	for range 2 {
		_, stop := rude(func(context.Context, string) ([]byte, error) { return []byte{8, 1}, nil }).serve(t, at)
		until(t, func() bool { yes, err := b.ValidateAuth(t.Context(), Request{}); return yes && err == nil })
		stop()
		until(t, func() bool { _, err := b.ValidateAuth(t.Context(), Request{}); return fault.Is(err, fault.Unavailable) })
	}
}

func until(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not happen")
		}
	}
}

// One plugin's slow calls take none of another's places.
func TestAddress_HasItsOwnPlaces(t *testing.T) {
	hanging := make(chan struct{})
	slow, _ := rude(func(ctx context.Context, _ string) ([]byte, error) {
		hanging <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}).serve(t, "127.0.0.1:0")
	quick, _ := rude(func(context.Context, string) ([]byte, error) { return nil, nil }).serve(t, "127.0.0.1:0")
	g := gateway(t, Address{Name: "x", Endpoint: "http://" + slow, Concurrency: 1, Timeout: 20 * time.Second}, Address{Name: "y", Endpoint: "http://" + quick})
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() { _, err := find(t, g).Handle(ctx, Request{}); first <- err }()
	<-hanging
	short, end := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer end()
	if _, err := find(t, g).Handle(short, Request{}); !fault.Is(err, fault.Exhausted) {
		t.Errorf("the second call: %v", err)
	}
	y, err := g.Find("y")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := y.Handle(t.Context(), Request{}); err != nil {
		t.Errorf("another plugin: %v", err)
	}
	cancel()
	if err := <-first; !fault.Is(err, fault.Unavailable) {
		t.Errorf("the first call: %v", err)
	}
}

func TestAddress_SendsTheFourFieldsAndNothingElse(t *testing.T) {
	var got metadata.MD
	at, _ := rude(func(ctx context.Context, _ string) ([]byte, error) {
		got, _ = metadata.FromIncomingContext(ctx)
		return nil, nil
	}).serve(t, "127.0.0.1:0")
	b := find(t, gateway(t, Address{Name: "x", Endpoint: "http://" + at}))
	if _, err := b.Handle(t.Context(), Request{Method: "GET"}); err != nil {
		t.Fatal(err)
	}
	const context = "a.b.c"
	defer func() {
		if _, err := b.Handle(t.Context(), Request{Method: "GET", Context: context}); err != nil || strings.Join(got.Get(pluginv1.ContextKey), " ") != context {
			t.Errorf("with a context it got %v, %v", got, err)
		}
		if _, err := b.NeedsEncryption(t.Context(), Request{Method: "GET", Context: context}); err != nil || len(got.Get(pluginv1.ContextKey)) > 0 {
			t.Errorf("another call got %v, %v", got, err)
		}
	}()
	for name := range got {
		switch name {
		case ":authority", "content-type", "user-agent", "grpc-accept-encoding":
		default:
			t.Errorf("it got metadata %s", name)
		}
	}
}

func TestNew_RefusesWhatCannotWork(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad.pem")
	if err := os.WriteFile(bad, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, a := range map[string]Address{
		"a socket":         {Endpoint: "unix:///run/plugin"},
		"no scheme":        {Endpoint: "127.0.0.1:50051"},
		"another scheme":   {Endpoint: "grpc://127.0.0.1:50051"},
		"a path":           {Endpoint: "http://127.0.0.1:50051/x"},
		"a user":           {Endpoint: "http://u:p@127.0.0.1:50051"},
		"no authorities":   {Endpoint: "https://127.0.0.1:50051"},
		"bad authorities":  {Endpoint: "https://127.0.0.1:50051", CA: bad},
		"no such file":     {Endpoint: "https://127.0.0.1:50051", CA: bad + "x"},
		"plain with a CA":  {Endpoint: "http://127.0.0.1:50051", CA: bad},
		"half a key":       {Endpoint: "https://127.0.0.1:50051", CA: bad, Key: bad},
		"nothing":          {},
		"no host":          {Endpoint: "https://:50051", CA: bad},
		"a bad port, even": {Endpoint: "http://127.0.0.1:x"},
	} {
		a.Name = "x"
		_, err := New(Config{Addresses: []Address{a}, Packages: none{}, Metrics: obs.NewMetrics(), Now: time.Now})
		if !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRequest_MustBeText(t *testing.T) {
	for _, r := range []Request{{Path: []string{"\xff"}}, {Query: map[string]string{"\xff": "x"}}, {Query: map[string]string{"x": "\xff"}}} {
		if err := r.Check(); !fault.Is(err, fault.Invalid) {
			t.Errorf("%+v: %v", r, err)
		}
	}
	if err := (Request{Path: []string{"ü", ""}, Body: []byte{0xff}}).Check(); err != nil {
		t.Error(errors.Unwrap(err))
	}
}
