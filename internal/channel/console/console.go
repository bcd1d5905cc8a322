// Package console tells the operator on standard error: one logfmt line per
// notification.
package console

import (
	"context"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/notify"
)

// Channel writes lines. Safe for concurrent use: lines never mix.
type Channel struct {
	mu  sync.Mutex
	out io.Writer
}

var _ notify.Channel = (*Channel)(nil)

// New writes to out, which is standard error in a server.
func New(out io.Writer) *Channel { return &Channel{out: out} }

// Name is the channel's name in deliveries.
func (c *Channel) Name() string { return "console" }

// Notify writes one line. Every value is quoted where it must be, so that a
// value can neither begin a new line nor add a member.
func (c *Channel) Notify(_ context.Context, n notify.Notification) error {
	var b strings.Builder
	b.WriteString("time=" + n.At.UTC().Format(time.RFC3339Nano))
	for _, member := range [][2]string{
		{"level", level(n.Urgency)}, {"event", n.Type}, {"urgency", string(n.Urgency)}, {"title", n.Title}, {"grant", n.Grant},
		{"subject", n.Subject}, {"tags", strings.Join(n.Tags, ",")}, {"address", n.Address}, {"notification", n.ID},
	} {
		if member[1] != "" {
			b.WriteString(" " + member[0] + "=" + quote(member[1]))
		}
	}
	b.WriteByte('\n')
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := io.WriteString(c.out, b.String()); err != nil {
		return fault.Unavailablef("the console cannot be written").Because(err)
	}
	return nil
}

func level(u notify.Urgency) string {
	if u == notify.Low {
		return "info"
	}
	return "warn"
}

// quote leaves plain words as they are.
func quote(s string) string {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '"' || c == '=' || c == '\\' {
			return strconv.QuoteToASCII(s)
		}
	}
	return s
}
