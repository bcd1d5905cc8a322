package obs_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/id"
	"github.com/sallyport-project/sallyport/internal/obs"
	"github.com/sallyport-project/sallyport/internal/secret"
)

func line(t *testing.T, f func(ctx context.Context, log *slog.Logger)) map[string]any {
	t.Helper()
	var out bytes.Buffer
	log, err := obs.NewLogger(obs.LogConfig{Writer: &out, Format: obs.JSON})
	if err != nil {
		t.Fatal(err)
	}
	ctx, _ := obs.WithRequest(t.Context(), "req-1")
	f(ctx, log)
	var m map[string]any
	if err := json.Unmarshal(out.Bytes(), &m); err != nil {
		t.Fatalf("%q: %v", out.String(), err)
	}
	return m
}

func TestLogger_AddsTheRequestOfTheContext(t *testing.T) {
	m := line(t, func(ctx context.Context, log *slog.Logger) {
		log.With(slog.String(obs.KeyPlugin, "sshcert")).InfoContext(ctx, "plugin started", slog.String(obs.KeyGrant, "g1"))
	})
	for k, want := range map[string]any{"msg": "plugin started", obs.KeyRequest: "req-1", obs.KeyPlugin: "sshcert", obs.KeyGrant: "g1"} {
		if m[k] != want {
			t.Errorf("%s = %v, want %v", k, m[k], want)
		}
	}
}

func TestLogger_RefusesUnknownFormatAndMissingWriter(t *testing.T) {
	if _, err := obs.NewLogger(obs.LogConfig{Writer: &bytes.Buffer{}, Format: "xml"}); !fault.Is(err, fault.Invalid) {
		t.Errorf("format xml: %v, want an Invalid fault", err)
	}
	if _, err := obs.NewLogger(obs.LogConfig{}); err == nil {
		t.Error("no writer: no error")
	}
}

func TestLogger_KeepsToTheLevel(t *testing.T) {
	var out bytes.Buffer
	log, err := obs.NewLogger(obs.LogConfig{Writer: &out})
	if err != nil {
		t.Fatal(err)
	}
	log.DebugContext(t.Context(), "hidden")
	if out.Len() != 0 {
		t.Errorf("debug line at the default level: %q", out.String())
	}
	log.InfoContext(t.Context(), "shown")
	if !strings.Contains(out.String(), "msg=shown") {
		t.Errorf("default form is not logfmt: %q", out.String())
	}
}

func TestErr_NamesTextAndKindAndNoSecret(t *testing.T) {
	cause := fmt.Errorf("open %v", secret.FromString("hunter2"))
	m := line(t, func(ctx context.Context, log *slog.Logger) {
		log.ErrorContext(ctx, "store is not there", obs.Err(fault.Unavailablef("try again").Because(cause)))
	})
	if m[obs.KeyKind] != "unavailable" {
		t.Errorf("kind = %v", m[obs.KeyKind])
	}
	if text := fmt.Sprint(m[obs.KeyErr]); text != "try again: open "+secret.Redacted {
		t.Errorf("err = %q", text)
	}
	m = line(t, func(ctx context.Context, log *slog.Logger) {
		log.ErrorContext(ctx, "odd", obs.Err(errors.New("foreign")))
	})
	if m[obs.KeyKind] != "internal" || m[obs.KeyErr] != "foreign" {
		t.Errorf("foreign error: %v", m)
	}
}

func TestParseLevel_ReadsNamesAndRefusesOthers(t *testing.T) {
	for name, want := range map[string]slog.Level{"": slog.LevelInfo, "debug": slog.LevelDebug, "WARN": slog.LevelWarn, "error": slog.LevelError} {
		if got, err := obs.ParseLevel(name); err != nil || got != want {
			t.Errorf("%q: %v, %v", name, got, err)
		}
	}
	if _, err := obs.ParseLevel("loud"); !fault.Is(err, fault.Invalid) {
		t.Errorf("loud: %v, want an Invalid fault", err)
	}
}

func TestRequest_TakesPlainIdsAndReplacesOthers(t *testing.T) {
	for _, good := range []string{"a", "7f3c-01_x.y", strings.Repeat("k", 64)} {
		ctx, got := obs.WithRequest(t.Context(), good)
		if got != good || obs.Request(ctx) != good {
			t.Errorf("%q became %q", good, got)
		}
	}
	for _, bad := range []string{"", "a b", "a\nlevel=ERROR", `a"b`, "ä", strings.Repeat("k", 65)} {
		ctx, got := obs.WithRequest(t.Context(), bad)
		if !id.Valid(got) || obs.Request(ctx) != got {
			t.Errorf("%q became %q, want a fresh id", bad, got)
		}
	}
	if got := obs.Request(t.Context()); got != "" {
		t.Errorf("context without a request has %q", got)
	}
}
