package webhook_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-project/sallyport/internal/channel/webhook"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/notify"
	"github.com/sallyport-project/sallyport/internal/secret"
)

const key = "0123456789abcdef0123456789abcdef"

var message = notify.Notification{
	ID: "01J000000000000000000000NN", Type: "grant.manual", At: time.Unix(1700000000, 0).UTC(), Urgency: notify.High,
	Title: "a leaked github-pat is live", Grant: "G1", Tags: []string{"manual_revoke_required"}, Data: map[string]string{"kind": "github-pat"},
}

func open(t *testing.T, s *httptest.Server, change func(*webhook.Config)) *webhook.Channel {
	t.Helper()
	c := webhook.Config{Name: "soc", URL: s.URL + "/in?token=CANARY", Secret: secret.FromString(key), Client: s.Client().Transport}
	if change != nil {
		change(&c)
	}
	channel, err := webhook.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return channel
}

// verify is what docs/api.md tells a receiver to do, written apart from the
// sender.
func verify(t *testing.T, h http.Header, body []byte, key string, now time.Time) bool {
	t.Helper()
	at, err := strconv.ParseInt(h.Get("webhook-timestamp"), 10, 64)
	if err != nil || now.Sub(time.Unix(at, 0)).Abs() > 5*time.Minute {
		return false
	}
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(h.Get("webhook-id") + "." + h.Get("webhook-timestamp") + "." + string(body)))
	for _, s := range strings.Fields(h.Get("webhook-signature")) {
		version, text, _ := strings.Cut(s, ",")
		got, err := base64.StdEncoding.DecodeString(text)
		if version == "v1" && err == nil && hmac.Equal(got, mac.Sum(nil)) {
			return true
		}
	}
	return false
}

func TestChannel_DeliversSigned(t *testing.T) {
	type delivery struct {
		header http.Header
		body   []byte
	}
	got := make(chan delivery, 1)
	s := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got <- delivery{r.Header, body}
	}))
	defer s.Close()
	if err := open(t, s, nil).Notify(t.Context(), message); err != nil {
		t.Fatal(err)
	}
	d := <-got
	if !verify(t, d.header, d.body, key, time.Now()) {
		t.Errorf("the signature does not verify: %v", d.header)
	}
	if verify(t, d.header, d.body, key+"x", time.Now()) || verify(t, d.header, append(d.body, ' '), key, time.Now()) {
		t.Error("the signature verifies for another key or body")
	}
	if d.header.Get("webhook-id") != message.ID || d.header.Get("Content-Type") != "application/json" {
		t.Errorf("headers: %v", d.header)
	}
	var back notify.Notification
	if err := json.Unmarshal(d.body, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(message, back); diff != "" {
		t.Error(diff)
	}
}

// The receiver of these tests is itself checked against the vector that the
// specification publishes, so that it can judge what the channel signs.
func TestReceiver_VerifiesThePublishedVector(t *testing.T) {
	const id, at, body = "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", `{"test": 2432232314}`
	raw, err := base64.StdEncoding.DecodeString("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		t.Fatal(err)
	}
	h := http.Header{}
	h.Set("webhook-id", id)
	h.Set("webhook-timestamp", at)
	h.Set("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")
	if !verify(t, h, []byte(body), string(raw), time.Unix(1614265330, 0)) {
		t.Error("the receiver of these tests does not verify the published vector")
	}
}

func TestChannel_TakesTheTextFormOfASecret(t *testing.T) {
	raw := bytes.Repeat([]byte{0xfe}, 32)
	ok := make(chan bool, 1)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		ok <- verify(t, r.Header, body, string(raw), time.Now())
	}))
	defer s.Close()
	c := open(t, s, func(c *webhook.Config) {
		c.Secret = secret.FromString("whsec_" + base64.StdEncoding.EncodeToString(raw))
	})
	if err := c.Notify(t.Context(), message); err != nil {
		t.Fatal(err)
	}
	if !<-ok {
		t.Error("not signed with the decoded key")
	}
}

func TestChannel_SortsAnswers(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	for _, c := range []struct {
		status int
		retry  string
		ok     bool
		kind   fault.Kind
		after  time.Duration
	}{
		{status: 200, ok: true},
		{status: 204, ok: true},
		{status: 301, kind: fault.Unavailable},
		{status: 400, kind: fault.Invalid},
		{status: 401, kind: fault.Invalid},
		{status: 404, kind: fault.Invalid},
		{status: 408, kind: fault.Unavailable},
		{status: 410, kind: fault.Invalid},
		{status: 425, kind: fault.Unavailable},
		{status: 429, retry: "17", kind: fault.Unavailable, after: 17 * time.Second},
		{status: 500, kind: fault.Unavailable},
		{status: 503, retry: now.Add(time.Minute).UTC().Format(http.TimeFormat), kind: fault.Unavailable, after: time.Minute},
		{status: 503, retry: "-5", kind: fault.Unavailable},
		{status: 503, retry: "99999999", kind: fault.Unavailable, after: 24 * time.Hour},
		{status: 503, retry: "soon", kind: fault.Unavailable},
	} {
		t.Run(strconv.Itoa(c.status)+" "+c.retry, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if c.retry != "" {
					w.Header().Set("Retry-After", c.retry)
				}
				w.WriteHeader(c.status)
			}))
			defer s.Close()
			err := open(t, s, func(cfg *webhook.Config) { cfg.Now = func() time.Time { return now } }).Notify(t.Context(), message)
			if c.ok {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !fault.Is(err, c.kind) || fault.RetryAfter(err) != c.after {
				t.Errorf("%v, kind %v, after %v", err, fault.KindOf(err), fault.RetryAfter(err))
			}
		})
	}
}

func TestChannel_FollowsNoRedirect(t *testing.T) {
	var reached atomic.Bool
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Store(true) }))
	defer other.Close()
	s := httptest.NewServer(http.RedirectHandler(other.URL, http.StatusTemporaryRedirect))
	defer s.Close()
	if err := open(t, s, nil).Notify(t.Context(), message); !fault.Is(err, fault.Unavailable) {
		t.Errorf("redirect: %v", err)
	}
	if reached.Load() {
		t.Error("the redirect was followed")
	}
}

func TestChannel_GivesUpInTime(t *testing.T) {
	stop := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		select {
		case <-stop:
		case <-r.Context().Done():
		}
	}))
	defer s.Close()
	defer close(stop)
	err := open(t, s, func(c *webhook.Config) { c.Timeout = 50 * time.Millisecond }).Notify(t.Context(), message)
	if !fault.Is(err, fault.Unavailable) {
		t.Errorf("slow receiver: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := open(t, s, nil).Notify(ctx, message); !fault.Is(err, fault.Unavailable) {
		t.Errorf("ended context: %v", err)
	}
}

// An endless answer must cost neither memory nor time.
func TestChannel_IgnoresALongAnswer(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for block := bytes.Repeat([]byte("x"), 1<<16); ; {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	}))
	defer s.Close()
	if err := open(t, s, func(c *webhook.Config) { c.Timeout = 5 * time.Second }).Notify(t.Context(), message); err != nil {
		t.Error(err)
	}
}

func TestChannel_NeverShowsURLOrSecretInFaults(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	s.Close() // nobody answers any more
	err := open(t, s, nil).Notify(t.Context(), message)
	if !fault.Is(err, fault.Unavailable) {
		t.Fatalf("closed receiver: %v", err)
	}
	if text := err.Error(); strings.Contains(text, "CANARY") || strings.Contains(text, key) {
		t.Errorf("the fault shows too much: %s", text)
	}
}

func TestNew_RefusesWhatIsUnsafe(t *testing.T) {
	for name, change := range map[string]func(*webhook.Config){
		"no name":           func(c *webhook.Config) { c.Name = "" },
		"slash in the name": func(c *webhook.Config) { c.Name = "a/b" },
		"plain http":        func(c *webhook.Config) { c.URL = "http://example.com/CANARY" },
		"http look-alike":   func(c *webhook.Config) { c.URL = "http://localhost.example.com/CANARY" },
		"other scheme":      func(c *webhook.Config) { c.URL = "file:///CANARY" },
		"user in the URL":   func(c *webhook.Config) { c.URL = "https://u:CANARY@example.com/" },
		"malformed URL":     func(c *webhook.Config) { c.URL = "https://exa mple/CANARY" },
		"no URL":            func(c *webhook.Config) { c.URL = "" },
		"short secret":      func(c *webhook.Config) { c.Secret = secret.FromString("CANARY") },
		"broken secret":     func(c *webhook.Config) { c.Secret = secret.FromString("whsec_CANARY!!!") },
		"no secret":         func(c *webhook.Config) { c.Secret = secret.Bytes{} },
	} {
		t.Run(name, func(t *testing.T) {
			c := webhook.Config{Name: "soc", URL: "https://example.com/", Secret: secret.FromString(key)}
			change(&c)
			_, err := webhook.New(c)
			if !fault.Is(err, fault.Invalid) {
				t.Fatalf("taken, or %v", err)
			}
			if strings.Contains(err.Error(), "CANARY") {
				t.Errorf("the fault repeats the configuration: %v", err)
			}
		})
	}
	for _, good := range []string{"https://10.0.0.7/x", "http://127.0.0.1:9/x", "http://[::1]:9/x", "http://localhost/x"} {
		if _, err := webhook.New(webhook.Config{Name: "soc", URL: good, Secret: secret.FromString(key)}); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
}
