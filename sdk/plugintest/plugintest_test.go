package plugintest_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/sdk/plugin"
	"github.com/sallyport-project/sallyport/sdk/plugin/kbs"
	"github.com/sallyport-project/sallyport/sdk/plugintest"
	"github.com/sallyport-project/sallyport/sdk/plugintest/sqlite"
)

var about = plugin.About{Name: "x", Version: "1.0.0", Kinds: []string{"k"}}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// notes is an extension with all that a plugin may ask of its host.
func notes(do func(context.Context, *plugin.Host) error) plugin.Notifier {
	return plugin.Notifier{Notify: func(ctx context.Context, _ plugin.Notification) error { return do(ctx, plugin.HostFrom(ctx)) }}
}

func TestHost_RemembersWhatItWasAskedFor(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "0001_notes.sql"), []byte("CREATE TABLE extension_notes (id TEXT PRIMARY KEY, size INTEGER)"), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "0002_more.postgres.sql"), []byte("this is for another engine"), 0o600))
	c := plugintest.Config{Database: sqlite.Open(t, dir), Matches: 3}
	p := c.Start(t, about, notes(func(ctx context.Context, h *plugin.Host) error {
		if err := h.Log(ctx, plugin.LogWarn, "a line", map[string]string{"a": "b"}); err != nil {
			return err
		}
		matches, err := h.Raise(ctx, plugin.Leak{Value: []byte("v"), Idempotency: "one"})
		if err != nil || matches != 3 {
			return plugin.Invalidf("%d matches, %v", matches, err)
		}
		if _, err := h.Raise(ctx, plugin.Leak{Value: []byte("v"), Idempotency: "one"}); err != nil {
			return err
		}
		v, err := h.Vend(ctx, plugin.Scope{Kind: "other", Params: map[string]any{"a": "b"}, TTL: time.Minute}, "")
		if err != nil || len(v.Value) == 0 || v.Grant == "" || v.Scope.Params["a"] != "b" || time.Until(v.ExpiresAt) > time.Minute {
			return plugin.Invalidf("%+v, %v", v, err)
		}
		first, err := h.Put(ctx, "a", []byte("1"))
		if err != nil {
			return err
		}
		if _, err := h.Swap(ctx, "a", nil, first+1); !plugin.Conflict(err) {
			return plugin.Invalidf("a stale swap: %v", err)
		}
		if _, err := h.Exec(ctx, plugin.SQL("INSERT INTO extension_notes VALUES ($1, $2)", "n", 7), plugin.SQL("INSERT INTO nowhere VALUES (1)")); err == nil {
			return plugin.Invalidf("half of a transaction was done")
		}
		if _, err := h.Exec(ctx, plugin.SQL("INSERT INTO extension_notes VALUES ($1, $2)", "m", 8)); err != nil {
			return err
		}
		rows, err := h.Query(ctx, 0, "SELECT id, size FROM extension_notes WHERE size > $1", 1)
		if err != nil || len(rows.Rows) != 1 || rows.Rows[0][0] != "m" || rows.Rows[0][1] != int64(8) {
			return plugin.Invalidf("%+v, %v", rows, err)
		}
		return nil
	}))
	must(t, p.Notify(t.Context(), plugin.Notification{ID: "1"}))
	h := p.Host
	if l := h.Lines(); len(l) != 1 || l[0].Level != plugin.LogWarn || l[0].Fields["a"] != "b" {
		t.Errorf("lines %+v", l)
	}
	if l := h.Leaks(); len(l) != 1 || string(l[0].Value) != "v" {
		t.Errorf("leaks %+v", l)
	}
	if v := h.Vended(); len(v) != 1 || v[0].Kind != "other" {
		t.Errorf("vended %+v", v)
	}
	if string(h.Value("a")) != "1" {
		t.Errorf("kept %q", h.Value("a"))
	}
}

func TestHost_DeniesWhatWasNotGranted(t *testing.T) {
	c := plugintest.Config{Services: []string{"kv"}}
	p := c.Start(t, about, notes(func(ctx context.Context, h *plugin.Host) error {
		if ok, err := h.Grants(ctx, "log"); ok || err != nil {
			return plugin.Invalidf("granted: %v, %v", ok, err)
		}
		if err := h.Log(ctx, plugin.LogInfo, "x", nil); !plugin.Denied(err) {
			return plugin.Invalidf("log: %v", err)
		}
		_, _, err := h.Get(ctx, "x")
		return err
	}))
	must(t, p.Notify(t.Context(), plugin.Notification{ID: "1"}))
}

func TestPlugin_CallsEachRole(t *testing.T) {
	ctx := t.Context()
	p := plugintest.Start(t, about,
		plugin.Vender{
			Vet: func(_ context.Context, s plugin.Scope) error {
				return plugin.Exhaustedf("vet %v", s.Params["a"])
			},
			Issue: func(_ context.Context, r plugin.Request) (plugin.Issued, error) {
				return plugin.Issued{Scope: r.Scope, Value: []byte(r.Host["serial"]), Anomalies: []plugin.Anomaly{{Level: plugin.Alert, Code: "c"}}}, nil
			},
		},
		plugin.Revoker{
			Supports: func(_ context.Context, kind string) (bool, error) { return kind == "k", nil },
			Revoke:   func(_ context.Context, r plugin.Revocation) error { return plugin.Unimplementedf("%s", r.Handle) },
		},
		plugin.Verifier{Judge: func(_ context.Context, e plugin.Evidence) (plugin.Judgement, error) {
			j := plugin.Judgement{Class: plugin.GPU, Claims: map[string]any{"debug": false}, ReportData: e.ReportData}
			j.Checks.That(string(e.Body) == "{}", plugin.Check{Name: "form", Reason: "bad"})
			if string(e.Body) != "{}" {
				return j, plugin.Deniedf("bad")
			}
			return j, nil
		}},
	)
	if err := p.Vet(ctx, plugin.Scope{Kind: "k", Params: map[string]any{"a": "b"}}); !plugin.Exhausted(err) || err.Error() != "vet b" {
		t.Errorf("vet: %v", err)
	}
	issued, err := p.Issue(ctx, plugin.Request{Scope: plugin.Scope{Kind: "k", TTL: time.Hour}, Host: map[string]string{"serial": "7"}})
	must(t, err)
	if string(issued.Value) != "7" || issued.Scope.TTL != time.Hour || issued.Anomalies[0].Level != plugin.Alert {
		t.Errorf("%+v", issued)
	}
	if ok, err := p.Supports(ctx, "k"); !ok || err != nil {
		t.Errorf("supports: %v, %v", ok, err)
	}
	if err := p.Revoke(ctx, plugin.Revocation{Kind: "k", Handle: "h"}); err == nil || err.Error() != "h" {
		t.Errorf("revoke: %v", err)
	}
	j, err := p.Judge(ctx, plugin.Evidence{Name: "n", Body: []byte("{}"), ReportData: []byte("r")})
	must(t, err)
	if j.Class != plugin.GPU || j.Claims["debug"] != false || string(j.ReportData) != "r" || j.Checks[0].Result != plugin.Pass {
		t.Errorf("%+v", j)
	}
	j, err = p.Judge(ctx, plugin.Evidence{Name: "n", Body: []byte("x")})
	if !plugin.Denied(err) || j.Checks[0].Result != plugin.Fail {
		t.Errorf("%+v, %v", j, err)
	}
}

// Bodies larger than the credit go through, in both directions.
func TestPlugin_DoCarriesLargeBodies(t *testing.T) {
	p := plugintest.Start(t, about, plugin.Extension{Routes: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/panic":
			panic("x")
		case "/hang":
			<-r.Context().Done()
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(err)
		}
		w.WriteHeader(http.StatusAccepted)
		_, _ = w.Write(body)
	})})
	sent := bytes.Repeat([]byte("0123456789"), 200_000)
	answer, err := p.Do(httptest.NewRequest(http.MethodPost, "/echo?a=b", bytes.NewReader(sent)), plugin.Principal{})
	must(t, err)
	got, err := io.ReadAll(answer.Body)
	must(t, err)
	if answer.StatusCode != http.StatusAccepted || !bytes.Equal(sent, got) {
		t.Errorf("status %d, %d bytes of %d", answer.StatusCode, len(got), len(sent))
	}
	if _, err := p.Do(httptest.NewRequest(http.MethodGet, "/panic", nil), plugin.Principal{}); err == nil || strings.Contains(err.Error(), "x\n") {
		t.Errorf("a panic: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Do(httptest.NewRequest(http.MethodGet, "/hang", nil).WithContext(ctx), plugin.Principal{}); !errors.Is(err, context.Canceled) {
		t.Errorf("gone away: %v", err)
	}
}

func TestStartAgentKMS_CallsEachService(t *testing.T) {
	ctx, s := t.Context(), plugin.Scope{Kind: "k", Params: map[string]any{"a": "b"}, TTL: time.Hour}
	p := plugintest.StartAgentKMS(t, plugin.AgentKMS{
		Kind:     "k",
		Validate: func(_ context.Context, s plugin.Scope) error { return plugin.Invalidf("validate %v", s.Params["a"]) },
		Narrow: func(_ context.Context, s plugin.Scope, b plugin.Bounds) (plugin.Scope, error) {
			s.TTL = b.MaxTTL
			return s, nil
		},
		Analyze: func(context.Context, plugin.Scope) ([]plugin.Anomaly, error) {
			return []plugin.Anomaly{{Code: "c"}}, nil
		},
		Serialize: func(_ context.Context, s plugin.Scope) ([]byte, error) { return []byte(s.Kind), nil },
		Vend: func(context.Context, plugin.Scope) (plugin.Issued, error) {
			return plugin.Issued{Value: []byte("v"), Handle: "h", ExpiresAt: time.Unix(7, 0)}, nil
		},
	})
	if err := p.Validate(ctx, s); err == nil || err.Error() != "validate b" {
		t.Errorf("validate: %v", err)
	}
	if n, err := p.Narrow(ctx, s, plugin.Bounds{Kind: "k", MaxTTL: time.Minute}); err != nil || n.TTL != time.Minute || n.Params["a"] != "b" {
		t.Errorf("narrow: %+v, %v", n, err)
	}
	if a, err := p.Analyze(ctx, s); err != nil || a[0].Code != "c" {
		t.Errorf("analyze: %+v, %v", a, err)
	}
	if b, err := p.Serialize(ctx, s); err != nil || string(b) != "k" {
		t.Errorf("serialize: %s, %v", b, err)
	}
	if v, err := p.Vend(ctx, s); err != nil || string(v.Value) != "v" || v.Handle != "h" || v.ExpiresAt.Unix() != 7 {
		t.Errorf("vend: %+v, %v", v, err)
	}
}

func TestStartKBS_CallsEachQuestion(t *testing.T) {
	ctx := t.Context()
	k := plugintest.StartKBS(t, kbs.HandlerFunc(func(_ context.Context, r *kbs.Request) (*kbs.Response, error) {
		if r.Segment(0) == "no" {
			return nil, kbs.Refusef(http.StatusNotFound, "none")
		}
		return &kbs.Response{Body: []byte(r.Segment(0) + r.Query["q"])}, nil
	}))
	r := &kbs.Request{Method: http.MethodGet, Path: []string{"a"}, Query: map[string]string{"q": "b"}}
	if a, err := k.Handle(ctx, r); err != nil || a.Status != http.StatusOK || string(a.Body) != "ab" {
		t.Errorf("%+v, %v", a, err)
	}
	if a, err := k.Handle(ctx, &kbs.Request{Path: []string{"no"}}); err != nil || a.Status != http.StatusNotFound {
		t.Errorf("%+v, %v", a, err)
	}
	if admin, err := k.ValidateAuth(ctx, r); admin || err != nil {
		t.Errorf("admin: %v, %v", admin, err)
	}
	if sealed, err := k.NeedsEncryption(ctx, r); !sealed || err != nil {
		t.Errorf("sealed: %v, %v", sealed, err)
	}
}
