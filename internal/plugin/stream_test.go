package plugin

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	own "github.com/sallyport-project/sallyport/api/sallyport/plugin/v1"
)

// stuck is a plugin that takes the first frame and reads no other one, until it
// breaks its stream.
type stuck struct {
	own.PluginClient
	grpc.BidiStreamingClient[own.HostFrames, own.PluginFrames]
	ctx   context.Context
	first chan any
	end   chan error
}

func newStuck() *stuck {
	return &stuck{first: make(chan any, 1), end: make(chan error, 1)}
}

func (s *stuck) Calls(ctx context.Context, _ ...grpc.CallOption) (grpc.BidiStreamingClient[own.HostFrames, own.PluginFrames], error) {
	s.ctx = ctx
	return s, nil
}

func (s *stuck) SendMsg(batch any) error {
	select {
	case s.first <- batch:
		return nil
	case <-s.ctx.Done():
		return io.EOF
	}
}

func (s *stuck) RecvMsg(any) error {
	select {
	case err := <-s.end:
		return err
	case <-s.ctx.Done():
		return status.FromContextError(s.ctx.Err()).Err()
	}
}

// What was handed to the transport may have been done; what still waited in the
// queue certainly was not, and may go to the next process whatever its effects.
func TestStream_KnowsWhatWasNeverSent(t *testing.T) {
	for name, c := range map[string]struct {
		end  error
		want error
		fail int
	}{
		"broken":    {status.Error(codes.Unavailable, "gone"), errLost, 1},
		"ended":     {io.EOF, errLost, 1},
		"too large": {status.Error(codes.ResourceExhausted, "8 MiB"), errTooLarge, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				plugin, fails := newStuck(), 0
				s := newStream(plugin, func() { fails++ })
				defer s.close()
				const calls = 5
				results := make(chan error, calls)
				for range calls {
					go func() {
						_, err := s.call(t.Context(), &own.HostFrame{})
						results <- err
					}()
					synctest.Wait()
				}
				plugin.end <- c.end
				unsent := 0
				for range calls {
					err := <-results
					if !errors.Is(err, c.want) {
						t.Fatalf("got %v", err)
					}
					if errors.Is(err, errUnsent) {
						unsent++
					}
				}
				// The first went out, the second was in the hands of the transport.
				if unsent != calls-2 {
					t.Fatalf("%d of %d calls were never sent", unsent, calls)
				}
				if fails != c.fail {
					t.Fatalf("taken out of service %d times", fails)
				}
			})
		})
	}
}

// mute is a plugin that never lets a stream be opened.
type mute struct{ own.PluginClient }

func (mute) Calls(ctx context.Context, _ ...grpc.CallOption) (grpc.BidiStreamingClient[own.HostFrames, own.PluginFrames], error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// Who comes while a stream is being opened waits for that no longer than for anything
// else: once, callers waited for each other, each for its whole time.
func TestStream_OpensForNobodyLongerThanHisTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStream(mute{}, func() {})
		defer s.close()
		const calls = 20
		began, results := time.Now(), make(chan error, calls)
		for range calls {
			go func() {
				l := limited(t.Context(), time.Second)
				defer l.end()
				_, err := s.call(l, &own.HostFrame{})
				results <- err
			}()
		}
		for range calls {
			if err := <-results; !errors.Is(err, errUnsent) || !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("%d calls of one second each take %v", calls, took)
		}
	})
}

// A call that is given up before it was sent is not sent afterwards.
func TestStream_WithdrawsWhatIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		plugin := newStuck()
		s := newStream(plugin, func() {})
		defer s.close()
		for range 2 { // one is sent, one is stuck in the transport
			go func() { _, _ = s.call(t.Context(), &own.HostFrame{}) }()
			synctest.Wait()
		}
		ctx, cancel := context.WithCancel(t.Context())
		result := make(chan error)
		go func() {
			_, err := s.call(ctx, &own.HostFrame{})
			result <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-result; !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v", err)
		}
		for range 2 {
			<-plugin.first
			synctest.Wait()
		}
		select {
		case f := <-plugin.first:
			t.Fatalf("sent %v", f)
		default:
		}
	})
}
