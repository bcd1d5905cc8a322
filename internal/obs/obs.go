// Package obs is how the house is watched: one form of log, one id per request,
// and metrics with bounded labels.
//
// Log messages are constant; what differs goes into attributes, whose shared
// keys are the constants below. Libraries take a *slog.Logger in their Config
// and never a global one. Metric labels are bounded when the metric is made, so
// that no caller can grow the registry. The package does not trace, and it does
// not audit: a log line may be lost, a record may not (package audit).
package obs

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// The attribute keys that several packages share. Other keys are snake_case.
const (
	KeyRequest  = "request"  // id of the request; added from the context
	KeySubject  = "subject"  // id of a subject
	KeyGrant    = "grant"    // id of a grant
	KeyPlugin   = "plugin"   // name of a plugin
	KeyPolicy   = "policy"   // name@version of a document
	KeyDecision = "decision" // allow or deny, with the verb
	KeyEvent    = "event"    // type of an event
	KeyErr      = "err"      // text of an error, for operators only
	KeyKind     = "kind"     // kind of the fault behind err
)

// Format is the form of the log.
type Format string

// The forms of the log. Text is slog's logfmt.
const (
	Text Format = "text"
	JSON Format = "json"
)

// LogConfig says where the log goes.
type LogConfig struct {
	Writer io.Writer    // required
	Format Format       // empty means Text
	Level  slog.Leveler // nil means Info
}

// NewLogger makes a logger that adds the request id of the context to every
// line. An unknown format is an Invalid fault. The logger may be used
// concurrently.
func NewLogger(cfg LogConfig) (*slog.Logger, error) {
	if cfg.Writer == nil {
		return nil, fault.Internalf("a log needs a writer")
	}
	opts := &slog.HandlerOptions{Level: cfg.Level}
	switch cfg.Format {
	case Text, "":
		return slog.New(handler{slog.NewTextHandler(cfg.Writer, opts)}), nil
	case JSON:
		return slog.New(handler{slog.NewJSONHandler(cfg.Writer, opts)}), nil
	}
	return nil, fault.Invalidf("log format %q is not known: use %s or %s", string(cfg.Format), Text, JSON)
}

// ParseLevel reads debug, info, warn or error in any case; empty means info.
// Everything else is an Invalid fault.
func ParseLevel(name string) (slog.Level, error) {
	var l slog.Level
	if name == "" {
		return l, nil
	}
	if err := l.UnmarshalText([]byte(name)); err != nil {
		return 0, fault.Invalidf("log level %q is not known: use debug, info, warn or error", name)
	}
	return l, nil
}

// Err is the attribute of an error: its whole text and the kind of its fault.
// It belongs into the log alone, never into an answer.
func Err(err error) slog.Attr {
	if err == nil {
		return slog.String(KeyErr, "")
	}
	return slog.Attr{Value: slog.GroupValue(
		slog.String(KeyErr, err.Error()),
		slog.String(KeyKind, fault.KindOf(err).String()),
	)}
}

// handler adds what the context knows.
type handler struct{ next slog.Handler }

var _ slog.Handler = handler{}

// Enabled reports whether a line of this level is written.
func (h handler) Enabled(ctx context.Context, l slog.Level) bool { return h.next.Enabled(ctx, l) }

// Handle writes a line.
func (h handler) Handle(ctx context.Context, r slog.Record) error {
	if id := Request(ctx); id != "" {
		r = r.Clone()
		r.AddAttrs(slog.String(KeyRequest, id))
	}
	if err := h.next.Handle(ctx, r); err != nil {
		return fmt.Errorf("write log line: %w", err)
	}
	return nil
}

// WithAttrs gives a handler that adds attributes to every line.
func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler { return handler{h.next.WithAttrs(attrs)} }

// WithGroup gives a handler that puts later attributes into a group.
func (h handler) WithGroup(name string) slog.Handler { return handler{h.next.WithGroup(name)} }
