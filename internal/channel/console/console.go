// Package console tells people by a line on a writer, usually standard error:
// one line of logfmt per notification, which journald and every log collector
// reads. It is the channel that is always there.
package console

import (
	"context"
	"io"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/notify"
)

// Channel writes notifications. Safe for concurrent use: lines never mix.
type Channel struct {
	mu  sync.Mutex
	out io.Writer
}

var _ notify.Channel = (*Channel)(nil)

// New makes the channel on a writer.
func New(out io.Writer) *Channel { return &Channel{out: out} }

// Name is console.
func (*Channel) Name() string { return "console" }

// Notify writes one line. A writer that does not take it is Unavailable.
func (c *Channel) Notify(ctx context.Context, n notify.Notification) error {
	if err := ctx.Err(); err != nil {
		return fault.Wrap(err, "write notification")
	}
	line := format(n)
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := io.WriteString(c.out, line); err != nil {
		return fault.Unavailablef("the console does not take the notification").Because(err)
	}
	return nil
}

// level is the urgency in the words of logs.
func level(u notify.Urgency) string {
	if u == notify.High || u == notify.Elevated {
		return "warn"
	}
	return "info"
}

// format is the whole line. Members that are empty are left out.
func format(n notify.Notification) string {
	var b strings.Builder
	pair(&b, "time", n.At.UTC().Format(time.RFC3339Nano))
	pair(&b, "level", level(n.Urgency))
	pair(&b, "msg", "notification")
	pair(&b, "event", n.Type)
	pair(&b, "notification", n.ID)
	pair(&b, "grant", n.Grant)
	pair(&b, "urgency", string(n.Urgency))
	pair(&b, "title", n.Title)
	pair(&b, "subject", n.Subject)
	pair(&b, "address", n.Address)
	pair(&b, "tags", strings.Join(n.Tags, ","))
	names := make([]string, 0, len(n.Data))
	for name := range n.Data {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		pair(&b, "data."+key(name), n.Data[name])
	}
	b.WriteByte('\n')
	return b.String()
}

// longest bounds one value, so that a line stays one that collectors take.
const longest = 1024

func pair(b *strings.Builder, name, value string) {
	if value == "" {
		return
	}
	if len(value) > longest {
		value = strings.ToValidUTF8(value[:longest], "") + "..."
	}
	if b.Len() > 0 {
		b.WriteByte(' ')
	}
	b.WriteString(name)
	b.WriteByte('=')
	if bare(value) {
		b.WriteString(value)
		return
	}
	// ASCII alone: what cannot be seen, or turns the direction of text, is
	// escaped.
	b.WriteString(strconv.QuoteToASCII(value))
}

// bare reports whether a value needs no quotes.
func bare(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c >= utf8.RuneSelf || c == '"' || c == '=' || c == '\\' || c == 0x7f {
			return false
		}
	}
	return true
}

// key makes a name safe: whatever is not a letter, digit, dot, dash or
// underscore becomes an underscore.
func key(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '.', r == '-', r == '_':
			return r
		}
		return '_'
	}, s)
}
