package plugin

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// The limits of what a plugin may write into our log.
const (
	maxLine       = 4 << 10
	linesPerBurst = 200
	linesPerSec   = 50
	bytesPerSec   = 16 << 20
)

// brake slows down who writes more than bytesPerSec: it waits in its own write,
// and the host does not spend its processor on reading what it drops. Safe for
// concurrent use.
type brake struct {
	exited <-chan struct{} // nobody writes any more

	mu    sync.Mutex
	since time.Time
	spent int
}

// spend counts n bytes and waits until the second is over in which they are too
// many.
func (b *brake) spend(n int) {
	b.mu.Lock()
	now := time.Now()
	if now.Sub(b.since) >= time.Second {
		b.since, b.spent = now, 0
	}
	b.spent += n
	wait := time.Duration(0)
	if b.spent > bytesPerSec {
		wait = time.Second - now.Sub(b.since)
	}
	b.mu.Unlock()
	if wait <= 0 {
		return
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-b.exited:
	}
}

// Write throws away, at the pace that is allowed.
func (b *brake) Write(p []byte) (int, error) {
	b.spend(len(p))
	return len(p), nil
}

// output turns what a plugin writes into log records with its name, clipped and
// limited in rate: a flood costs the flood's reader and nothing else. It is an
// io.Writer for whole or partial lines. Safe for concurrent use.
type output struct {
	log   *slog.Logger
	now   func() time.Time
	brake *brake

	mu      sync.Mutex
	part    []byte
	over    bool // the current line was too long; skip to its end
	tokens  float64
	last    time.Time
	dropped int
}

func newOutput(log *slog.Logger, plugin, stream string, now func() time.Time, b *brake) *output {
	return &output{brake: b, log: log.With(slog.String("plugin", plugin), slog.String("stream", stream)), now: now, tokens: linesPerBurst, last: now()}
}

// Write takes any piece of output and never fails.
func (o *output) Write(p []byte) (int, error) {
	o.take(p)
	o.brake.spend(len(p))
	return len(p), nil
}

func (o *output) take(p []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(p) > 0 {
		line, rest, complete := bytes.Cut(p, []byte{'\n'})
		room := min(maxLine-len(o.part), len(line))
		o.part, o.over = append(o.part, line[:room]...), o.over || room < len(line)
		if complete {
			o.flush()
		}
		p = rest
	}
}

// Close logs what is left.
func (o *output) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.flush()
	if o.dropped > 0 {
		o.log.WarnContext(context.Background(), "plugin output was dropped", slog.Int("lines", o.dropped))
		o.dropped = 0
	}
	return nil
}

// flush ends a line; o.mu is held.
func (o *output) flush() {
	if len(o.part) == 0 {
		return
	}
	line, over := clip(string(o.part), maxLine), o.over
	o.part, o.over = o.part[:0], false
	now := o.now()
	o.tokens = min(linesPerBurst, o.tokens+now.Sub(o.last).Seconds()*linesPerSec)
	o.last = now
	if o.tokens < 1 {
		o.dropped++
		return
	}
	o.tokens--
	ctx := context.Background()
	if o.dropped > 0 {
		o.log.WarnContext(ctx, "plugin output was dropped", slog.Int("lines", o.dropped))
		o.dropped = 0
	}
	o.log.InfoContext(ctx, "plugin output", slog.String("line", line), slog.Bool("clipped", over))
}

// firstLine copies the handshake line of a plugin, at most maxLine bytes, to w
// and throws the rest of its output away, so that it never waits for a reader. It
// returns how much that was.
func firstLine(r io.Reader, w *io.PipeWriter, rest *brake) (thrown int64) {
	b := bufio.NewReaderSize(r, maxLine)
	line, err := b.ReadSlice('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		_ = w.CloseWithError(io.ErrUnexpectedEOF)
	} else if _, err := w.Write(line); err == nil {
		_ = w.Close()
	}
	thrown, _ = io.Copy(rest, b)
	return thrown
}

// quiet is the logger that the plugin library gets: its records go to ours, all
// as attributes of constant messages, no louder than debug, because what
// matters is logged by this package itself.
type quiet struct {
	log  *slog.Logger
	name string
	args []any
}

var _ hclog.Logger = quiet{}

func (q quiet) Log(_ hclog.Level, msg string, args ...any) {
	q.log.DebugContext(context.Background(), "plugin library", slog.String("note", msg), slog.Any("details", args))
}

func (q quiet) Trace(string, ...any)             {}
func (q quiet) Debug(msg string, args ...any)    { q.Log(hclog.Debug, msg, args...) }
func (q quiet) Info(msg string, args ...any)     { q.Log(hclog.Info, msg, args...) }
func (q quiet) Warn(msg string, args ...any)     { q.Log(hclog.Warn, msg, args...) }
func (q quiet) Error(msg string, args ...any)    { q.Log(hclog.Error, msg, args...) }
func (q quiet) IsTrace() bool                    { return false }
func (q quiet) IsDebug() bool                    { return true }
func (q quiet) IsInfo() bool                     { return true }
func (q quiet) IsWarn() bool                     { return true }
func (q quiet) IsError() bool                    { return true }
func (q quiet) ImpliedArgs() []any               { return q.args }
func (q quiet) Name() string                     { return q.name }
func (q quiet) SetLevel(hclog.Level)             {}
func (q quiet) GetLevel() hclog.Level            { return hclog.Debug }
func (q quiet) Named(name string) hclog.Logger   { q.name = name; return q }
func (q quiet) ResetNamed(n string) hclog.Logger { q.name = n; return q }

// With keeps the arguments for ImpliedArgs.
func (q quiet) With(args ...any) hclog.Logger {
	q.args = append(append([]any(nil), q.args...), args...)
	return q
}

// StandardLogger discards: nothing of ours writes there.
func (q quiet) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return log.New(io.Discard, "", 0)
}

// StandardWriter discards: nothing of ours writes there.
func (q quiet) StandardWriter(*hclog.StandardLoggerOptions) io.Writer { return io.Discard }
