package fetch_test

import (
	"context"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/reference/fetch"
)

// maker is a service over TLS that counts what it is asked.
type maker struct {
	*httptest.Server
	asked atomic.Int64
	clock atomic.Int64 // nanoseconds that have passed
}

func newMaker(t *testing.T, serve http.HandlerFunc) (*maker, *fetch.Client) {
	t.Helper()
	m := &maker{}
	m.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.asked.Add(1)
		serve(w, r)
	}))
	t.Cleanup(m.Close)
	roots := x509.NewCertPool()
	roots.AddCert(m.Certificate())
	begin := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	return m, fetch.New(fetch.Config{
		Hosts: []string{strings.TrimPrefix(m.URL, "https://")}, Roots: roots, Most: 64,
		Now: func() time.Time { return begin.Add(time.Duration(m.clock.Load())) },
	})
}

func TestClient_AsksOnceAMinuteForOneThing(t *testing.T) {
	m, c := newMaker(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/none" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Chain", "x")
		_, _ = w.Write([]byte(r.URL.RawQuery))
	})
	var tasks sync.WaitGroup
	for range 20 {
		tasks.Go(func() {
			body, header, err := c.Get(context.Background(), m.URL+"/a?q=1")
			if err != nil || string(body) != "q=1" || header.Get("Chain") != "x" {
				t.Errorf("got %q, %v, %v", body, header, err)
			}
		})
	}
	tasks.Wait()
	for range 3 { // a failure too
		if _, _, err := c.Get(context.Background(), m.URL+"/none"); !fault.Is(err, fault.NotFound) {
			t.Errorf("what is not there: %v", err)
		}
	}
	if n := m.asked.Load(); n != 2 {
		t.Errorf("asked %d times", n)
	}
	m.clock.Add(int64(time.Minute))
	if _, _, err := c.Get(context.Background(), m.URL+"/a?q=1"); err != nil || m.asked.Load() != 3 {
		t.Errorf("a minute later: %d, %v", m.asked.Load(), err)
	}
}

func TestClient_AsksNobodyElse(t *testing.T) {
	other, _ := newMaker(t, func(http.ResponseWriter, *http.Request) {})
	m, c := newMaker(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL, http.StatusFound) })
	for _, address := range []string{
		other.URL, "http" + strings.TrimPrefix(m.URL, "https"), "https://u:p@" + strings.TrimPrefix(m.URL, "https://"), m.URL + ".example", "", "file:///etc/passwd", m.URL + "\x00",
	} {
		if _, _, err := c.Get(context.Background(), address); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", address, err)
		}
	}
	if _, _, err := c.Get(context.Background(), m.URL); !fault.Is(err, fault.Unavailable) {
		t.Errorf("a redirect: %v", err)
	}
	if other.asked.Load() != 0 || m.asked.Load() != 1 {
		t.Error("somebody else was asked")
	}
}

func TestClient_IsBounded(t *testing.T) {
	m, c := newMaker(t, func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(make([]byte, 65)) })
	if _, _, err := c.Get(context.Background(), m.URL); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "larger") {
		t.Errorf("a large answer: %v", err)
	}
	exhausted := 0
	for i := range 100 {
		if _, _, err := c.Get(context.Background(), m.URL+"/"+strings.Repeat("x", i+1)); fault.Is(err, fault.Exhausted) {
			exhausted++
		}
	}
	if exhausted != 41 || m.asked.Load() != 60 {
		t.Errorf("%d refused, %d asked", exhausted, m.asked.Load())
	}
	m.clock.Add(int64(time.Minute))
	if _, _, err := c.Get(context.Background(), m.URL); fault.Is(err, fault.Exhausted) {
		t.Errorf("in the next minute: %v", err)
	}
}

func TestClient_BelievesNoOtherAuthority(t *testing.T) {
	m, _ := newMaker(t, func(http.ResponseWriter, *http.Request) {})
	c := fetch.New(fetch.Config{Hosts: []string{strings.TrimPrefix(m.URL, "https://")}, Roots: x509.NewCertPool(), Most: 64, Now: time.Now})
	if _, _, err := c.Get(context.Background(), m.URL); !fault.Is(err, fault.Unavailable) || m.asked.Load() != 0 {
		t.Errorf("another authority: %v", err)
	}
}

func TestClient_LeavesTheRequestToOthers(t *testing.T) {
	enter, answer := make(chan bool), make(chan bool)
	m, c := newMaker(t, func(http.ResponseWriter, *http.Request) { enter <- true; <-answer })
	ctx, cancel := context.WithCancel(context.Background())
	failed := make(chan error, 1)
	go func() { _, _, err := c.Get(ctx, m.URL); failed <- err }()
	<-enter
	cancel()
	if err := <-failed; !fault.Is(err, fault.Unavailable) {
		t.Errorf("who went away: %v", err)
	}
	close(answer)
	if _, _, err := c.Get(context.Background(), m.URL); err != nil || m.asked.Load() != 1 {
		t.Errorf("who waited: %v", err)
	}
}
