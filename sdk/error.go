package sallyport

import (
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Kind says what a caller can do about an error.
type Kind string

// The kinds, as the server names them.
const (
	Invalid         Kind = "invalid"         // the request is wrong; do not repeat it
	Unauthenticated Kind = "unauthenticated" // who is calling is not known
	Denied          Kind = "denied"          // known, and not allowed
	NotFound        Kind = "not_found"
	Conflict        Kind = "conflict"    // the state changed, or exists already
	Exhausted       Kind = "exhausted"   // a limit was reached, see RetryAfter
	Unavailable     Kind = "unavailable" // the server, or a part of it, is not there; the outcome may be unknown
	Internal        Kind = "internal"
)

// Error is every error of this package but those of a context that ended
// before anything was sent.
type Error struct {
	Kind       Kind
	Status     int           // HTTP status; zero if there was no answer
	Detail     string        // for people, and says what to do next
	Reason     string        // why a plugin, package or repository was refused, as METADATA_STALE; empty for other errors
	RequestID  string        // by which the operator finds it in the log
	RetryAfter time.Duration // zero if the server does not say
	cause      error
}

// Error is one line without secrets.
func (e *Error) Error() string {
	text := e.Detail
	if text == "" {
		text = string(e.Kind)
	}
	if e.cause != nil {
		text += ": " + e.cause.Error()
	}
	if e.RequestID != "" {
		text += " (request " + e.RequestID + ")"
	}
	return text
}

// Unwrap is the error of the network or the parser, if one is behind it.
func (e *Error) Unwrap() error { return e.cause }

// KindOf is the kind of an error of this package, [Internal] for any other and
// empty for nil.
func KindOf(err error) Kind {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Internal
}

// Is reports whether err is of kind k.
func Is(err error, k Kind) bool { return err != nil && KindOf(err) == k }

func invalid(format string, args ...any) *Error {
	return &Error{Kind: Invalid, Detail: fmt.Sprintf(format, args...)}
}

// unreachable is an attempt that got no answer.
func unreachable(cause error) *Error {
	return &Error{Kind: Unavailable, Detail: "the server does not answer", cause: cause}
}

// unreadable is an answer that does not have the promised form.
func unreadable(status int, id string, cause error) *Error {
	return &Error{Kind: Internal, Status: status, RequestID: id, Detail: "the server's answer has an unknown form", cause: cause}
}

// kindOfStatus is for answers whose body does not tell, such as a proxy's.
func kindOfStatus(status int) Kind {
	switch status {
	case http.StatusUnauthorized:
		return Unauthenticated
	case http.StatusForbidden:
		return Denied
	case http.StatusNotFound, http.StatusGone:
		return NotFound
	case http.StatusConflict, http.StatusPreconditionFailed:
		return Conflict
	case http.StatusTooManyRequests:
		return Exhausted
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return Unavailable
	}
	if status >= 400 && status < 500 {
		return Invalid
	}
	return Internal
}

func knownKind(k Kind) bool {
	switch k {
	case Invalid, Unauthenticated, Denied, NotFound, Conflict, Exhausted, Unavailable, Internal:
		return true
	}
	return false
}
