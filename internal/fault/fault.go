// Package fault is the one error type of the house: a kind that machines act
// on, a public text that a caller may read, and a cause that stays inside.
//
// Only [Public] may cross a door. Everything that is not an [Error] counts as
// [Internal], and nothing of it is shown. Wrap with lower-case context, verb
// first: fault.Wrap(err, "read subject").
package fault

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Kind says what a caller can do about a fault. The zero value is Internal, so
// that an error made without thought reveals nothing.
type Kind int

// The kinds, from "it is our doing" to "come back later".
const (
	Internal        Kind = iota // a defect or a broken invariant of ours
	Invalid                     // the request itself is wrong; do not repeat it
	Unauthenticated             // who is calling is not known
	Denied                      // known, and not allowed
	NotFound                    // no such thing, or none that the caller may see
	Conflict                    // the state changed meanwhile, or exists already
	Exhausted                   // a limit was reached; see RetryAfter
	Unavailable                 // a part needed for a safe answer is not there
)

var kinds = [...]struct{ name, stock string }{
	Internal:        {"internal", "something went wrong on our side"},
	Invalid:         {"invalid", "the request is not valid"},
	Unauthenticated: {"unauthenticated", "authentication is required"},
	Denied:          {"denied", "this is not allowed"},
	NotFound:        {"not_found", "not found"},
	Conflict:        {"conflict", "the state has changed"},
	Exhausted:       {"exhausted", "a limit was reached, try again later"},
	Unavailable:     {"unavailable", "temporarily unavailable, try again"},
}

// String gives the kind's name on the wire, in lower case with underscores.
func (k Kind) String() string {
	if k < 0 || int(k) >= len(kinds) {
		return kinds[Internal].name
	}
	return kinds[k].name
}

// ParseKind is the inverse of [Kind.String]; an unknown name is Internal.
func ParseKind(name string) Kind {
	for k, v := range kinds {
		if v.name == name {
			return Kind(k)
		}
	}
	return Internal
}

// Error is a fault. Make it with [New] or one of the functions named after the
// kinds; the zero value is an Internal fault without a text.
type Error struct {
	Kind       Kind
	Public     string        // what the caller may read; never a secret, never a foreign error's text
	RetryAfter time.Duration // for Exhausted and Unavailable, when known
	cause      error
}

// New makes a fault with a public text.
func New(k Kind, format string, args ...any) *Error {
	return &Error{Kind: k, Public: fmt.Sprintf(format, args...)}
}

// Because adds the cause, which only logs and operators see.
func (e *Error) Because(cause error) *Error {
	c := *e
	c.cause = cause
	return &c
}

// After says when to come back.
func (e *Error) After(d time.Duration) *Error {
	c := *e
	c.RetryAfter = d
	return &c
}

// Error is the whole text, for logs.
func (e *Error) Error() string {
	text := e.Public
	if text == "" {
		text = e.Kind.String()
	}
	if e.cause != nil {
		return text + ": " + e.cause.Error()
	}
	return text
}

// Unwrap gives the cause to errors.Is and errors.As.
func (e *Error) Unwrap() error { return e.cause }

// Invalidf and its siblings make a fault of the kind in their name.
func Invalidf(format string, args ...any) *Error { return New(Invalid, format, args...) }

func Unauthenticatedf(format string, args ...any) *Error {
	return New(Unauthenticated, format, args...)
}
func Deniedf(format string, args ...any) *Error      { return New(Denied, format, args...) }
func NotFoundf(format string, args ...any) *Error    { return New(NotFound, format, args...) }
func Conflictf(format string, args ...any) *Error    { return New(Conflict, format, args...) }
func Exhaustedf(format string, args ...any) *Error   { return New(Exhausted, format, args...) }
func Unavailablef(format string, args ...any) *Error { return New(Unavailable, format, args...) }
func Internalf(format string, args ...any) *Error    { return New(Internal, format, args...) }

// Wrap adds context for logs and keeps kind and public text. A nil error stays
// nil.
func Wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf(format+": %w", append(args, err)...)
}

// KindOf is the kind of the outermost fault in the chain. A context that ended
// is Unavailable; every other foreign error is Internal.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return Unavailable
	}
	return Internal
}

// Is reports whether err is a fault of kind k; false for a nil error.
func Is(err error, k Kind) bool { return err != nil && KindOf(err) == k }

// Public is the text that a caller may read. For Internal faults, and for
// foreign errors, it is the kind's stock sentence.
func Public(err error) string {
	if e, ok := errors.AsType[*Error](err); ok && e.Kind != Internal && e.Public != "" {
		return e.Public
	}
	return kinds[KindOf(err)].stock
}

// RetryAfter is when to come back, zero if the fault does not say.
func RetryAfter(err error) time.Duration {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.RetryAfter
	}
	return 0
}
