package plugin

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	own "github.com/sallyport-project/sallyport/api/sallyport/plugin/v1"
)

// A limit does what context.WithTimeout does, whether anybody asks for Done before,
// after or never.
func TestLimit_IsATimeout(t *testing.T) {
	asked := map[string]func(*limit){"unasked": func(*limit) {}, "asked": func(l *limit) { l.Done() }}
	for name, ask := range asked {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				parent, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				l := limited(parent, time.Second)
				ask(l)
				if at, ok := l.Deadline(); !ok || time.Until(at) != time.Second || l.Err() != nil {
					t.Fatalf("%v %v %v", at, ok, l.Err())
				}
				child, stop := context.WithCancel(l)
				defer stop()
				time.Sleep(time.Second)
				synctest.Wait()
				if !errors.Is(l.Err(), context.DeadlineExceeded) || !errors.Is(child.Err(), context.DeadlineExceeded) {
					t.Errorf("%v %v", l.Err(), child.Err())
				}
				<-l.Done()

				given := limited(parent, time.Hour)
				ask(given)
				if at, _ := given.Deadline(); time.Until(at) != 59*time.Second {
					t.Errorf("the caller's earlier deadline is forgotten: %v", at)
				}
				cancel()
				synctest.Wait()
				if !errors.Is(given.Err(), context.Canceled) {
					t.Error(given.Err())
				}

				over := limited(t.Context(), time.Hour)
				ask(over)
				over.end()
				if <-over.Done(); !errors.Is(over.Err(), context.Canceled) {
					t.Error(over.Err())
				}
			})
		})
	}
}

// A call that nobody answers ends with its time, and with its caller; no timer is left.
func TestStream_EndsWithItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		plugin := newStuck()
		s := newStream(plugin, func() {})
		defer s.close()
		begin, l := time.Now(), limited(t.Context(), 5*time.Second)
		defer l.end()
		if _, err := s.call(l, &own.HostFrame{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(begin); took < 5*time.Second || took > 5*time.Second+2*watchEvery {
			t.Errorf("it took %v", took)
		}
		ctx, cancel := context.WithCancel(t.Context())
		given := limited(ctx, time.Hour)
		defer given.end()
		time.AfterFunc(time.Second, cancel)
		if _, err := s.call(given, &own.HostFrame{}); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if n := len(s.live.waiting); n != 0 {
			t.Errorf("%d calls are still waited for", n)
		}
	})
}
