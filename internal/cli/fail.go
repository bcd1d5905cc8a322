package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// exits are the exit codes by kind of fault (docs/cli.md).
var exits = map[fault.Kind]int{
	fault.Internal: 1, fault.Invalid: 2, fault.NotFound: 3, fault.Denied: 4, fault.Unauthenticated: 5,
	fault.Conflict: 6, fault.Unavailable: 7, fault.Exhausted: 7,
}

// failure is how an error is shown.
type failure struct {
	Kind       string `json:"kind"`
	Detail     string `json:"detail"`
	Reason     string `json:"reason,omitempty"`
	Status     int    `json:"status,omitempty"`
	RequestID  string `json:"request_id,omitempty"`
	RetryAfter int64  `json:"retry_after_seconds,omitempty"`
	Exit       int    `json:"exit_code"`
}

// describe reads a fault or an error of the SDK.
func describe(err error) failure {
	f := failure{}
	kind := fault.KindOf(err)
	if e, ok := errors.AsType[*sallyport.Error](err); ok {
		kind = fault.ParseKind(string(e.Kind))
		f.Detail, f.Reason, f.Status, f.RequestID, f.RetryAfter = e.Detail, e.Reason, e.Status, e.RequestID, int64(e.RetryAfter/time.Second)
		if cause := e.Unwrap(); cause != nil && kind != fault.Denied {
			f.Detail += ": " + cause.Error()
		}
		if next := advice(e); next != "" {
			f.Detail += "; " + next
		}
	} else {
		f.Detail, f.RetryAfter = fault.Public(err), int64(fault.RetryAfter(err)/time.Second)
		if reason, ok := plugin.Reasoned(err); ok {
			f.Reason = string(reason)
		}
		switch kind { // there is no caller to hide it from: this is the operator's own machine
		case fault.Internal:
			f.Detail = err.Error()
		case fault.Unavailable:
			if root := deepest(err).Error(); strings.HasPrefix(root, f.Detail) { // a fault has its causes in its text
				f.Detail = root
			} else if !strings.Contains(f.Detail, root) {
				f.Detail += ": " + root
			}
		}
	}
	f.Kind, f.Exit = kind.String(), exits[kind]
	return f
}

// deepest is the cause behind all others.
func deepest(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}

// advice says what to do next, where the server's own words do not.
func advice(e *sallyport.Error) string {
	switch {
	case e.Kind == sallyport.Unavailable && e.Status == 0:
		return "check --url, and that the server runs (sallyport serve)"
	case e.Kind == sallyport.Unauthenticated && strings.Contains(e.Detail, "join token"): // which says it all
	case e.Kind == sallyport.Unauthenticated && e.Status != 0:
		return "see who you are with: sallyport auth contexts"
	case e.Kind == sallyport.Unauthenticated:
		return "check the context and --ca"
	}
	return ""
}

// fail prints an error as one line, or as JSON, and gives the exit code.
func (s *shell) fail(err error) int {
	f := describe(err)
	if s.output == "json" {
		text, broken := json.Marshal(map[string]failure{"error": f})
		if broken == nil {
			_, _ = fmt.Fprintln(s.err, string(text))
			return f.Exit
		}
	}
	line := "sallyport: " + strings.Join(strings.Fields(visible(f.Detail)), " ")
	if f.Reason != "" && !strings.Contains(f.Detail, f.Reason) {
		line += " (" + visible(f.Reason) + ")"
	}
	if f.RequestID != "" {
		line += " (request " + visible(f.RequestID) + ")"
	}
	if f.RetryAfter > 0 {
		line += fmt.Sprintf(" (again in %d s)", f.RetryAfter)
	}
	_, _ = fmt.Fprintln(s.err, s.paint(s.err, red, line))
	return f.Exit
}

// warn prints a line that is no error.
func (s *shell) warn(format string, args ...any) {
	_, _ = fmt.Fprintln(s.err, s.paint(s.err, yellow, "sallyport: warning: "+visible(fmt.Sprintf(format, args...))))
}

// note prints a line for people beside the output.
func (s *shell) note(format string, args ...any) {
	_, _ = fmt.Fprintln(s.err, visible(fmt.Sprintf(format, args...)))
}
