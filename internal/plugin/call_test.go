package plugin

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/obs"
)

// A call that broke is repeated once and only where its process is gone; one that
// was never sent is repeated until it is.
func TestCall_RepeatsOnlyWithTheNextProcess(t *testing.T) {
	broken := status.Error(codes.Unavailable, "broken")
	for name, c := range map[string]struct {
		repeat bool
		deaths int   // calls whose process ends under them
		err    error // of those calls; of all if there are no deaths
		calls  int
		text   string // of the refusal; empty if the call succeeds
	}{
		"lost once":                {true, 1, broken, 2, ""},
		"lost once, stream":        {true, 1, errLost, 2, ""},
		"lost twice":               {true, 2, broken, 2, "is failing"},
		"lost, with effects":       {false, 1, errLost, 1, "not known"},
		"refused by what lives":    {true, 0, broken, 1, "is failing"},
		"never sent, with effects": {false, 3, errUnsent, 4, ""},
	} {
		t.Run(name, func(t *testing.T) {
			h, find := pretend(t)
			seen := map[*instance]bool{}
			calls := 0
			_, err := call(t.Context(), h.Host, find, c.repeat, func(_ context.Context, i *instance) (struct{}, error) {
				calls++
				if seen[i] {
					t.Error("a call met the same process again")
				}
				seen[i] = true
				if calls <= c.deaths {
					i.fail()
				} else if c.deaths > 0 {
					return struct{}{}, nil
				}
				return struct{}{}, c.err
			})
			if calls != c.calls || (err == nil) != (c.text == "") || !strings.Contains(fault.Public(err), c.text) {
				t.Fatalf("%d calls: %v", calls, err)
			}
		})
	}
}

// A process whose connection broke and that cannot be reached again is out of service,
// though nobody has seen it end; one that can be reached again lives.
func TestCall_JudgesByTheConnection(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*nobody)
		calls  int
	}{
		"gone":    {(*nobody).leave, 2},
		"is back": {(*nobody).hangUp, 1},
	} {
		t.Run(name, func(t *testing.T) {
			h, find := pretend(t)
			calls := 0
			_, err := call(t.Context(), h.Host, find, true, func(ctx context.Context, i *instance) (struct{}, error) {
				if calls++; calls > 1 {
					return struct{}{}, nil
				}
				c.change(h.run(i))
				for i.conn.GetState() == connectivity.Ready && i.conn.WaitForStateChange(ctx, connectivity.Ready) {
				}
				return struct{}{}, status.Error(codes.Unavailable, "broken")
			})
			if calls != c.calls || (err == nil) != (calls == 2) {
				t.Fatalf("%d calls: %v", calls, err)
			}
		})
	}
}

// nobody is what is at the other end of the connection of a process that does not
// exist.
type nobody struct {
	net.Listener
	mu     sync.Mutex
	server *grpc.Server
	conns  []net.Conn
}

// Accept implements net.Listener.
func (n *nobody) Accept() (net.Conn, error) {
	c, err := n.Listener.Accept()
	if err == nil {
		n.mu.Lock()
		n.conns = append(n.conns, c)
		n.mu.Unlock()
	}
	return c, err
}

// leave ends all connections and takes no others.
func (n *nobody) leave() { n.server.Stop() }

// hangUp ends all connections.
func (n *nobody) hangUp() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.conns {
		_ = c.Close()
	}
}

// pretended is a host whose processes do not exist.
type pretended struct {
	*Host
	mu     sync.Mutex
	behind map[*instance]*nobody
}

func (p *pretended) run(i *instance) *nobody {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.behind[i]
}

func pretend(t *testing.T) (*pretended, func() (*route, error)) {
	t.Helper()
	p := pace{healthEvery: time.Hour, checkWithin: time.Second, firstPause: time.Millisecond, maxPause: time.Millisecond, breakAfter: 9, coolDown: time.Hour, steadyAfter: time.Hour}
	h := &pretended{Host: &Host{cfg: Config{CallTimeout: 10 * time.Second, Now: time.Now}}, behind: map[*instance]*nobody{}}
	h.meters = newMeters(obs.NewMetrics(), h.Host)
	dir := t.TempDir() // removed after the pool has ended
	var started atomic.Int64
	r := &route{row: Installed{Name: "pretended"}}
	r.pool = newPool("pretended", Scale{Concurrency: 1}, p, slog.New(slog.DiscardHandler), time.Now, h.meters, func(ctx context.Context) (*instance, error) {
		l, err := net.Listen("unix", filepath.Join(dir, strconv.FormatInt(started.Add(1), 10)))
		if err != nil {
			return nil, err
		}
		n := &nobody{Listener: l, server: grpc.NewServer()}
		served := make(chan error, 1)
		go func() { served <- n.server.Serve(n) }()
		conn, err := grpc.NewClient("unix:"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return nil, err
		}
		conn.Connect()
		for s := conn.GetState(); s != connectivity.Ready && conn.WaitForStateChange(ctx, s); s = conn.GetState() {
		}
		i := &instance{conn: conn, over: make(chan struct{})}
		i.free = func() {
			_ = conn.Close()
			n.server.Stop()
			<-served
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.behind[i] = n
		return i, nil
	})
	r.pool.run(false)
	t.Cleanup(func() { r.pool.end(context.Background()) })
	return h, func() (*route, error) { return r, nil }
}
