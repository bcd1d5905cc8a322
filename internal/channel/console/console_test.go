package console_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/channel/console"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/notify"
)

func line(t *testing.T, n notify.Notification) string {
	t.Helper()
	var out bytes.Buffer
	if err := console.New(&out).Notify(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestChannel_WritesOneLineWithWhatPeopleNeed(t *testing.T) {
	got := line(t, notify.Notification{
		ID: "N1", Type: "grant.manual", At: time.Date(2026, 5, 4, 3, 2, 1, 0, time.FixedZone("", 7200)), Urgency: notify.High,
		Title: "a leaked github-pat is live", Subject: "S1", Grant: "G1", Address: "https://github.com/settings", Tags: []string{"a", "b"},
		Data: map[string]string{"source": "scanner", "kind": "github-pat"},
	})
	want := `time=2026-05-04T01:02:01Z level=warn msg=notification event=grant.manual notification=N1 grant=G1 urgency=high ` +
		`title="a leaked github-pat is live" subject=S1 address=https://github.com/settings tags=a,b data.kind=github-pat data.source=scanner` + "\n"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestChannel_KeepsForeignTextInItsPlace(t *testing.T) {
	for name, text := range map[string]string{
		"newline":          "x\nlevel=error msg=forged",
		"carriage return":  "x\rlevel=error",
		"quote":            `x" level=error y="`,
		"backslash":        `x\`,
		"equals":           "x level=error",
		"escape sequence":  "x\x1b[2J",
		"direction":        "x\u202e level=error",
		"line separator":   "x\u2028level=error",
		"invalid UTF-8":    "x\xff level=error",
		"delete character": "x\x7f",
	} {
		t.Run(name, func(t *testing.T) {
			got := line(t, notify.Notification{ID: text, Type: "t", Title: text, Tags: []string{text}, Data: map[string]string{text: text}})
			if strings.Count(got, "\n") != 1 || !strings.HasSuffix(got, "\n") {
				t.Errorf("more than one line: %q", got)
			}
			for _, c := range []byte(strings.TrimSuffix(got, "\n")) {
				if c < ' ' || c > '~' {
					t.Fatalf("byte %#x in %q", c, got)
				}
			}
			if pairs := fields(t, got); pairs["level"] != "info" || pairs["title"] == "" {
				t.Errorf("the line reads as %v", pairs)
			}
		})
	}
}

// fields reads logfmt: a name, an equals sign, and a bare or quoted value.
func fields(t *testing.T, line string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for rest := strings.TrimSpace(line); rest != ""; rest = strings.TrimPrefix(rest, " ") {
		name, after, ok := strings.Cut(rest, "=")
		if !ok || strings.ContainsAny(name, " \"") {
			t.Fatalf("no name at %q", rest)
		}
		if _, twice := out[name]; twice {
			t.Fatalf("%s stands twice in %q", name, line)
		}
		end := strings.IndexByte(after+" ", ' ')
		if strings.HasPrefix(after, `"`) {
			for end = 1; after[end] != '"'; end++ {
				if after[end] == '\\' {
					end++
				}
			}
			end++
		}
		out[name], rest = after[:end], after[end:]
	}
	return out
}

func TestChannel_BoundsALine(t *testing.T) {
	got := line(t, notify.Notification{ID: "N", Type: "t", Title: strings.Repeat("é", 1<<20)})
	if len(got) > 8<<10 {
		t.Errorf("the line has %d bytes", len(got))
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("gone") }

func TestChannel_AsksForAnotherTryWhenNotWritten(t *testing.T) {
	if err := console.New(broken{}).Notify(t.Context(), notify.Notification{}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("broken writer: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := console.New(&bytes.Buffer{}).Notify(ctx, notify.Notification{}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("ended context: %v", err)
	}
}

// pieces notes each call, so that a line in two calls shows.
type pieces struct {
	mu    sync.Mutex
	calls []string
}

func (p *pieces) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls = append(p.calls, string(b))
	return len(b), nil
}

func TestChannel_WritesALineAtOnce(t *testing.T) {
	out := &pieces{}
	c := console.New(out)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if err := c.Notify(t.Context(), notify.Notification{ID: "N", Type: "t"}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(out.calls) != 20 {
		t.Errorf("%d writes for 20 notifications", len(out.calls))
	}
}
