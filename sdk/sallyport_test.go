package sallyport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// serve starts a server and a client that trusts it.
func serve(t *testing.T, handle http.HandlerFunc, change func(*Config)) *Client {
	t.Helper()
	s := httptest.NewUnstartedServer(handle)
	s.TLS = &tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: tls.RequestClientCert}
	s.StartTLS()
	t.Cleanup(s.Close)
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	cfg := Config{URL: s.URL, Roots: roots}
	if change != nil {
		change(&cfg)
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func answerJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

func TestVend_RepeatsUnderOneKeyUntilTheServerIsBack(t *testing.T) {
	var keys []string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		keys = append(keys, r.Header.Get("Idempotency-Key"))
		switch len(keys) {
		case 1:
			panic(http.ErrAbortHandler) // the answer is lost
		case 2:
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			answerJSON(w, map[string]any{"grant": "G", "value": "v"})
		}
	}, nil)
	got, err := c.Vend(t.Context(), VendRequest{Kind: "k", TTL: time.Second})
	if err != nil || got.Grant != "G" {
		t.Fatalf("%+v, %v", got, err)
	}
	if len(keys) != 3 || keys[0] == "" || keys[0] != keys[1] || keys[1] != keys[2] {
		t.Errorf("keys %q", keys)
	}
	if _, err := c.Vend(t.Context(), VendRequest{Kind: "k", TTL: time.Second}); err != nil || keys[3] == keys[0] {
		t.Errorf("another call has the same key: %q, %v", keys, err)
	}
}

// Every change carries a key of its own and repeats under it; a key of the
// caller's choice is for the change, not for the session that it needs.
func TestChanges_CarryOneKeyEach(t *testing.T) {
	type change func(context.Context, *Client) error
	for name, do := range map[string]change{
		"invite":   func(ctx context.Context, c *Client) error { _, err := c.Invite(ctx, InviteRequest{}); return err },
		"renew":    func(ctx context.Context, c *Client) error { _, err := c.Renew(ctx); return err },
		"open":     func(ctx context.Context, c *Client) error { _, err := c.OpenSession(ctx, nil); return err },
		"refresh":  func(ctx context.Context, c *Client) error { _, err := c.RefreshSession(ctx); return err },
		"delegate": func(ctx context.Context, c *Client) error { _, err := c.Delegate(ctx, DelegateRequest{}); return err },
		"end":      func(ctx context.Context, c *Client) error { return c.EndSession(ctx, "S", "") },
		"change": func(ctx context.Context, c *Client) error {
			_, err := c.ChangeSubject(ctx, "S", SubjectChange{Act: "lock"})
			return err
		},
		"certificate": func(ctx context.Context, c *Client) error { _, err := c.RevokeCertificate(ctx, "1", ""); return err },
		"vend":        func(ctx context.Context, c *Client) error { _, err := c.Vend(ctx, VendRequest{}); return err },
		"leak":        func(ctx context.Context, c *Client) error { _, err := c.ReportLeak(ctx, Leak{}); return err },
		"policy":      func(ctx context.Context, c *Client) error { _, err := c.SetPolicy(ctx, "p", "k", "s"); return err },
		"no policy":   func(ctx context.Context, c *Client) error { return c.RemovePolicy(ctx, "p") },
		"resource": func(ctx context.Context, c *Client) error {
			_, err := c.PutResource(ctx, "a", "b", "c", []byte("x"))
			return err
		},
		"no resource": func(ctx context.Context, c *Client) error { return c.DeleteResource(ctx, "a", "b", "c", false) },
		"publisher": func(ctx context.Context, c *Client) error {
			_, err := c.TrustPublisher(ctx, TrustRequest{Publisher: "p"})
			return err
		},
		"no publisher": func(ctx context.Context, c *Client) error { return c.DistrustPublisher(ctx, "k") },
		"rotate":       func(ctx context.Context, c *Client) error { _, err := c.RotateKey(ctx, "token"); return err },
		"retire":       func(ctx context.Context, c *Client) error { _, err := c.RetireKey(ctx, "K", false); return err },
		"no plugin":    func(ctx context.Context, c *Client) error { return c.RemovePlugin(ctx, "p") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var keys []string
			c := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if keys = append(keys, r.Header.Get("Idempotency-Key")); len(keys) == 1 {
					panic(http.ErrAbortHandler) // the answer is lost
				}
				w.WriteHeader(http.StatusTeapot)
			}, func(c *Config) { c.Token = NewSecret("t") })
			for range 2 {
				if err := do(t.Context(), c); !Is(err, Invalid) {
					t.Fatal(err)
				}
			}
			if len(keys) != 3 || len(keys[0]) != 26 || keys[0] != keys[1] || keys[2] <= keys[1] {
				t.Errorf("the first change and its repetition, and the second one: keys %q", keys)
			}
			if err := do(WithIdempotencyKey(t.Context(), "mine"), c); !Is(err, Invalid) || keys[3] != "mine" {
				t.Errorf("a key of the caller's own: %q, %v", keys[3], err)
			}
		})
	}
}

func TestSessions_DoNotTakeTheKeyOfTheCall(t *testing.T) {
	keys := map[string]string{}
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		keys[r.URL.Path] = r.Header.Get("Idempotency-Key")
		answerJSON(w, map[string]any{"token": "t", "expires_at": time.Now().Add(time.Minute), "session": map[string]any{"id": "S", "issued_at": time.Now()}})
	}, func(c *Config) { c.Scopes = []string{"*:**"} })
	if _, err := c.Invite(WithIdempotencyKey(t.Context(), "mine"), InviteRequest{}); err != nil {
		t.Fatal(err)
	}
	if keys["/v1/invitations"] != "mine" || len(keys["/v1/sessions"]) != 26 {
		t.Errorf("keys %q", keys)
	}
}

func TestNewULID_SortsByTime(t *testing.T) {
	if got := newULID(time.UnixMilli(1_469_922_850_259)); !strings.HasPrefix(got, "01ARZ3NDEK") || len(got) != 26 { // github.com/ulid/spec
		t.Errorf("made %s", got)
	}
	if got := newULID(time.UnixMilli(1<<48 - 1)); !strings.HasPrefix(got, "7ZZZZZZZZZ") {
		t.Errorf("made %s at the end of time", got)
	}
	seen := map[string]bool{}
	for range 1000 {
		seen[newULID(time.UnixMilli(1))] = true
	}
	if len(seen) != 1000 {
		t.Errorf("1000 names are %d", len(seen))
	}
}

func TestCalls_RepeatOnlyWhatIsSafe(t *testing.T) {
	var n atomic.Int32
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		n.Add(1)
		w.WriteHeader(http.StatusServiceUnavailable)
	}, nil)
	for name, step := range map[string]struct {
		want int32
		call func() error
	}{
		"a change": {attempts, func() error { _, err := c.SetPolicy(t.Context(), "p", "sallyport", "x"); return err }},
		"an upload": {1, func() error {
			_, err := c.InstallPlugin(t.Context(), strings.NewReader("x"), InstallRequest{})
			return err
		}},
		"renewal":    {attempts, func() error { _, err := c.Renew(t.Context()); return err }},
		"a question": {attempts, func() error { _, err := c.LedgerKey(t.Context()); return err }},
	} {
		n.Store(0)
		if err := step.call(); !Is(err, Unavailable) || n.Load() != step.want {
			t.Errorf("%s was sent %d times: %v", name, n.Load(), err)
		}
	}
}

func TestCalls_EndWithTheirContext(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if _, err := c.LedgerKey(ctx); err == nil || time.Since(begin) > 2*time.Second {
		t.Errorf("%v after %v", err, time.Since(begin))
	}
}

func TestCalls_FollowNoRedirect(t *testing.T) {
	var reached atomic.Bool
	other := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Store(true) }))
	defer other.Close()
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
	},
		func(c *Config) { c.Token = NewSecret("CANARY") })
	if _, err := c.Whoami(t.Context()); err == nil || reached.Load() {
		t.Errorf("followed: %v", err)
	}
}

func TestCalls_BoundAnswers(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		block := strings.Repeat("x", 1<<16)
		for range 32 {
			if _, err := w.Write([]byte(block)); err != nil {
				return
			}
		}
	}, nil)
	if _, err := c.Whoami(t.Context()); !Is(err, Internal) || !strings.Contains(err.Error(), "larger") {
		t.Errorf("an endless answer: %v", err)
	}
}

func TestErrors_ReadProxiesAndProblems(t *testing.T) {
	for _, step := range []struct {
		status     int
		kind, body string
		want       Kind
		detail     string
	}{
		{403, "application/problem+json", `{"kind":"denied","detail":"no"}`, Denied, "no"},
		{403, "application/problem+json", `{"kind":"made-up","detail":"no"}`, Denied, "no"},
		{502, "text/html", `<html>`, Unavailable, "the server answers 502 Bad Gateway"},
		{409, "application/problem+json", `{`, Conflict, "the server answers 409 Conflict"},
		{418, "text/plain", "", Invalid, "the server answers 418 I'm a teapot"},
	} {
		c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", step.kind)
			w.Header().Set("Request-Id", "R1")
			w.WriteHeader(step.status)
			_, _ = w.Write([]byte(step.body))
		}, nil)
		_, err := c.SetPolicy(t.Context(), "p", "k", "s")
		var e *Error
		if !errors.As(err, &e) || e.Kind != step.want || e.Detail != step.detail || e.Status != step.status || e.RequestID != "R1" {
			t.Errorf("%d: %+v", step.status, err)
		}
	}
}

func TestSession_IsFreshForFourFifthsOfItsLife(t *testing.T) {
	got := time.Unix(1_700_000_000, 0)
	s := &Session{
		Token: NewSecret("t"), ObtainedAt: got, ExpiresAt: got.Add(100*time.Second + time.Hour),
		Session: SessionInfo{IssuedAt: got.Add(time.Hour)}, // the server's clock is an hour ahead
	}
	for after, want := range map[time.Duration]bool{0: true, 79 * time.Second: true, 80 * time.Second: false, time.Hour: false, -time.Second: false} {
		if s.fresh(got.Add(after)) != want {
			t.Errorf("after %v: %v", after, !want)
		}
	}
	var none *Session
	if none.fresh(got) || (&Session{}).fresh(got) {
		t.Error("no session is fresh")
	}
}

// keeper is a session cache that counts.
type keeper struct {
	kept  *Session
	loads int
	fail  error
}

func (k *keeper) Load(context.Context) (*Session, error) { k.loads++; return k.kept, k.fail }

func (k *keeper) Store(_ context.Context, s *Session) error { k.kept = s; return k.fail }

func TestSessions_OutliveAProcess(t *testing.T) {
	var opened atomic.Int32
	handle := func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/v1/sessions":
			now := time.Now()
			answerJSON(w, map[string]any{
				"token": fmt.Sprint("T", opened.Add(1)), "token_type": "Bearer", "expires_at": now.Add(time.Minute),
				"session": map[string]any{"id": "S", "issued_at": now, "expires_at": now.Add(time.Minute)},
			})
		case r.Header.Get("Authorization") == "Bearer T2" || r.Header.Get("Authorization") == "Bearer T1" && opened.Load() == 1:
			answerJSON(w, map[string]any{})
		default:
			w.WriteHeader(http.StatusUnauthorized)
		}
	}
	k := &keeper{}
	with := func(c *Config) { c.Sessions, c.Scopes = k, []string{"release:**"} }
	c := serve(t, handle, with)
	for range 2 {
		if _, err := c.Whoami(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if opened.Load() != 1 || k.kept == nil || k.loads != 1 {
		t.Errorf("%d opened, %d loads", opened.Load(), k.loads)
	}
	opened.Store(2) // T1 is good no more; the next one is T3, which is refused as well
	if _, err := serve(t, handle, with).Whoami(t.Context()); !Is(err, Unauthenticated) || opened.Load() != 3 {
		t.Errorf("replaced more than once, or never: %d, %v", opened.Load(), err)
	}
	k.fail = errors.New("disk full")
	if _, err := serve(t, handle, with).Whoami(t.Context()); !errors.Is(err, k.fail) {
		t.Errorf("a broken cache: %v", err)
	}
}

func TestSecret_PrintsNowhere(t *testing.T) {
	s := Session{Token: NewSecret("CANARY")}
	text := fmt.Sprintf("%v %+v %#v %s %q %x %d", s, s, s, s.Token, s.Token, s.Token, s.Token)
	data, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var line strings.Builder
	slog.New(slog.NewTextHandler(&line, nil)).Info("x", slog.Any("s", s.Token), slog.Any("all", s))
	if all := text + string(data) + line.String(); strings.Contains(all, "CANARY") || strings.Contains(all, fmt.Sprintf("%x", "CANARY")) {
		t.Error(all)
	}
}

func TestNew_RefusesWhatCannotWork(t *testing.T) {
	for _, bad := range []string{"", "http://x", "https://", "https://u:p@x", "https://x/path", "https://x?q=1", "x:8443", "https://x#f"} {
		if _, err := New(Config{URL: bad}); !Is(err, Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func FuzzParseJoinToken(f *testing.F) {
	f.Add("spjoin1_AWEDYTox")
	f.Add("spjoin1_")
	f.Add("spjoin1_====")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		token, err := ParseJoinToken(text)
		if err == nil && (token.Address == "" || len(token.Secret.Reveal()) != 43) {
			t.Errorf("%q was taken as %+v", text, token)
		}
		if err != nil && len(text) > 32 && strings.Contains(err.Error(), text[9:]) {
			t.Errorf("the error repeats the token: %v", err)
		}
	})
}
