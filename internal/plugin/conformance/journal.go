package conformance

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
)

// maxJournal bounds what is kept of a plugin's output; the host has limited its
// rate already.
const maxJournal = 8 << 20

// journal keeps the host's log, in which a plugin's output is. It is safe for
// concurrent use.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write takes one record.
func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.text.Len() < maxJournal {
		j.text.Write(p)
	}
	return len(p), nil
}

func (j *journal) logger() *slog.Logger {
	return slog.New(slog.NewJSONHandler(j, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// has reports whether a text is in the log, as it is or within JSON.
func (j *journal) has(text string) bool {
	quoted, err := json.Marshal(text)
	if err != nil {
		return false
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return bytes.Contains(j.text.Bytes(), []byte(text)) || bytes.Contains(j.text.Bytes(), bytes.Trim(quoted, `"`))
}

// said are the last lines that the plugin wrote.
func (j *journal) said(lines int) string {
	j.mu.Lock()
	defer j.mu.Unlock()
	var out []string
	for line := range bytes.Lines(j.text.Bytes()) {
		var record struct{ Msg, Line string }
		if json.Unmarshal(line, &record) == nil && record.Msg == "plugin output" {
			out = append(out, record.Line)
		}
	}
	return strings.Join(out[max(0, len(out)-lines):], "; ")
}
