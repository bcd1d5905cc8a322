package rest

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/id"
	"github.com/sallyport-project/sallyport/internal/subject"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

func TestDoor_LimitsStrangersByAddress(t *testing.T) {
	now := time.Now()
	h := newHouse(t, func(c *Config) { c.Rate, c.Burst, c.Now = 0.5, 3, func() time.Time { return now } })
	status := func() (int, string) {
		res, _ := h.send(t, h.plain(nil), http.MethodGet, "/v1/ca", "", nil)
		return res.StatusCode, res.Header.Get("Retry-After")
	}
	for i := range 3 {
		if s, _ := status(); s != http.StatusOK {
			t.Fatalf("request %d: status %d", i, s)
		}
	}
	if s, after := status(); s != http.StatusTooManyRequests || after != "2" {
		t.Errorf("beyond the burst: status %d, retry after %q", s, after)
	}
	now = now.Add(2 * time.Second)
	if s, _ := status(); s != http.StatusOK {
		t.Errorf("after the pause: status %d", s)
	}
}

func TestLimits_BoundTheirMemory(t *testing.T) {
	l := newLimits(1, 1, time.Now)
	for i := range 5 * mostAddresses {
		_ = l.take(fmt.Sprintf("10.%d.%d.%d", i>>16&255, i>>8&255, i&255))
	}
	if n := len(l.young) + len(l.old); n > 2*mostAddresses {
		t.Errorf("%d addresses are kept", n)
	}
	if err := l.take("2001:db8::1"); err != nil {
		t.Error(err)
	}
	if err := l.take("2001:db8::ffff:1"); !fault.Is(err, fault.Exhausted) {
		t.Errorf("another address of the same network: %v", err)
	}
}

func TestDoor_CountsByRouteAndClass(t *testing.T) {
	h := newHouse(t, nil)
	c := h.plain(nil)
	h.send(t, c, http.MethodGet, "/v1/ca", "", nil)
	h.send(t, c, http.MethodGet, "/v1/subjects/"+id.New(), "", nil)
	h.send(t, c, http.MethodGet, "/whatever/"+id.New(), "", nil)
	w := httptest.NewRecorder()
	h.metrics.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for _, want := range []string{
		`sallyport_rest_requests_total{route="GET /v1/ca",status="2xx"} 1`,
		`sallyport_rest_requests_total{route="GET /v1/subjects/{id}",status="4xx"} 1`,
		`sallyport_rest_requests_total{route="other",status="4xx"} 1`,
		`sallyport_rest_request_seconds_count{route="GET /v1/ca"} 1`,
	} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("no %s", want)
		}
	}
}

func TestStatus_IsForOperators(t *testing.T) {
	h := newHouse(t, nil)
	agent, _ := h.newcomer(t, subject.Agent)
	if _, err := agent.Status(t.Context()); !sallyport.Is(err, sallyport.Denied) {
		t.Errorf("an agent: %v", err)
	}
}

func TestChange_KnowsItsActs(t *testing.T) {
	h := newHouse(t, nil)
	_, who := h.newcomer(t, subject.Operator)
	c := h.plain(&who)
	for act, want := range acts {
		if res, _ := h.send(t, c, http.MethodPost, "/v1/subjects/x/"+act, "", nil); res.StatusCode != http.StatusOK || h.gate.last.(flow.SubjectChange).Act != want {
			t.Errorf("%s: status %d, %v", act, res.StatusCode, h.gate.last)
		}
	}
	if res, _ := h.send(t, c, http.MethodPost, "/v1/subjects/x/stripped", "", nil); res.StatusCode != http.StatusNotFound {
		t.Errorf("an act that is none: status %d", res.StatusCode)
	}
	if res, _ := h.send(t, c, http.MethodPost, "/v1/subjects/x/lock", "application/json", strings.NewReader(`{"role":"x"}`)); res.StatusCode != http.StatusBadRequest {
		t.Errorf("a role where none belongs: status %d", res.StatusCode)
	}
}

func TestNew_RefusesGaps(t *testing.T) {
	if _, err := New(Config{}); !fault.Is(err, fault.Internal) {
		t.Errorf("nothing: %v", err)
	}
	full := newHouse(t, nil).door.cfg
	for name, spoil := range map[string]func(*Config){
		"gate": func(c *Config) { c.Gate = nil }, "root": func(c *Config) { c.Root = func() []byte { return []byte("none") } }, "status": func(c *Config) { c.Status = nil },
		"join token": func(c *Config) { c.JoinToken = nil }, "version": func(c *Config) { c.Version = "" },
	} {
		c := full
		spoil(&c)
		if _, err := New(c); !fault.Is(err, fault.Internal) {
			t.Errorf("no %s: %v", name, err)
		}
	}
}

func TestTile_HasOnePath(t *testing.T) {
	for path, want := range map[string]struct {
		index uint64
		width int
	}{
		"000": {0, 256}, "999": {999, 256}, "x001/234": {1234, 256}, "x001/x234/067": {1234067, 256}, "005.p/7": {5, 7}, "x001/000.p/255": {1000, 255},
	} {
		index, width, err := parseTile(path)
		if err != nil || index != want.index || width != want.width {
			t.Errorf("%s: %d, %d, %v", path, index, width, err)
		}
	}
	for _, path := range []string{
		"", "0", "0000", "x000", "x000/001", "1/000", "x001/x234", "000.p/0", "000.p/256", "000.p/07", "000.p/", "-01", "+01", "x001//000", "000/", "/000",
		strings.Repeat("x999/", 20) + "999", "000.p/1/2", " 00", "٠٠٠",
	} {
		if _, _, err := parseTile(path); !fault.Is(err, fault.NotFound) {
			t.Errorf("%q was taken: %v", path, err)
		}
	}
}

func FuzzParseTile(f *testing.F) {
	for _, s := range []string{"000", "x001/234", "005.p/7", "x999/x999/999", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		index, width, err := parseTile(path)
		if err == nil && (tilePath(index, width) != path || width < 1 || width > 256) {
			t.Errorf("%q became %d and %d", path, index, width)
		}
	})
}

var pem1 = regexp.MustCompile(`(?s)^-----BEGIN`)

// FuzzEnrol sends any body to the one operation that strangers may call with a
// secret; the answer never repeats it.
func FuzzEnrol(f *testing.F) {
	f.Add([]byte(`{"secret":"AAAA","csr":"-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----\n"}`))
	f.Add([]byte(`{"secret":"QUJD","secret":"x"}`))
	f.Add([]byte(`{"csr":1}`))
	h := newHouse(f, func(c *Config) { c.Rate, c.Burst = 1e9, 1<<30 })
	f.Fuzz(func(t *testing.T, body []byte) {
		n, err := rand.Int(rand.Reader, big.NewInt(1<<62))
		if err != nil {
			t.Fatal(err)
		}
		canary := fmt.Sprintf("canary%019d", n)
		r := httptest.NewRequest(http.MethodPost, "https://x/v1/enrol", bytes.NewReader(append([]byte(canary), body...)))
		if pem1.Match(body) || len(body)%2 == 0 {
			r = httptest.NewRequest(http.MethodPost, "https://x/v1/enrol", bytes.NewReader(bytes.ReplaceAll(body, []byte("x"), []byte(canary))))
		}
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		h.door.ServeHTTP(w, r)
		if w.Code < 400 || w.Code >= 500 || strings.Contains(w.Body.String(), canary) {
			t.Errorf("status %d: %s", w.Code, w.Body)
		}
	})
}
