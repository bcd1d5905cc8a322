package plugin

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
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
			_, err := call(t.Context(), h, find, c.repeat, func(_ context.Context, i *instance) (struct{}, error) {
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

// pretend is a host whose processes do not exist.
func pretend(t *testing.T) (*Host, func() (*route, error)) {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///nobody", grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	p := pace{healthEvery: time.Hour, checkWithin: time.Second, firstPause: time.Millisecond, maxPause: time.Millisecond, breakAfter: 9, coolDown: time.Hour, steadyAfter: time.Hour}
	h := &Host{cfg: Config{CallTimeout: 10 * time.Second, Now: time.Now}}
	h.meters = newMeters(obs.NewMetrics(), h)
	r := &route{row: Installed{Name: "pretended"}}
	r.pool = newPool("pretended", Scale{Concurrency: 1}, p, slog.New(slog.DiscardHandler), time.Now, h.meters, func(context.Context) (*instance, error) {
		return &instance{conn: conn, free: func() {}, over: make(chan struct{})}, nil
	})
	r.pool.run(false)
	t.Cleanup(func() {
		r.pool.end(context.Background())
		_ = conn.Close()
	})
	return h, func() (*route, error) { return r, nil }
}
