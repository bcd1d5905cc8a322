package plugin

import (
	"errors"
	"fmt"

	own "github.com/sallyport-project/sallyport/api/sallyport/plugin/v1"
)

// refusal is an error whose text the caller may read.
type refusal struct {
	code   own.Code
	reason string
}

// Error is the reason.
func (r *refusal) Error() string { return r.reason }

// Invalidf refuses a request that is wrong; it should not be repeated. The text
// reaches the caller: no secrets.
func Invalidf(format string, args ...any) error {
	return &refusal{own.Code_CODE_INVALID, fmt.Sprintf(format, args...)}
}

// Deniedf refuses a request that is well-formed and not allowed. The text
// reaches the caller: no secrets.
func Deniedf(format string, args ...any) error {
	return &refusal{own.Code_CODE_DENIED, fmt.Sprintf(format, args...)}
}

// Unavailablef says that a part is missing for now; the request may be repeated.
// The text reaches the caller: no secrets.
func Unavailablef(format string, args ...any) error {
	return &refusal{own.Code_CODE_UNAVAILABLE, fmt.Sprintf(format, args...)}
}

// Exhaustedf says that a limit was reached. The text reaches the caller: no
// secrets.
func Exhaustedf(format string, args ...any) error {
	return &refusal{own.Code_CODE_EXHAUSTED, fmt.Sprintf(format, args...)}
}

// refusalOf gives what the caller may know of an error; false if it must be
// logged, because nobody will see its text otherwise.
func refusalOf(err error) (*own.Refusal, bool) {
	if r, ok := errors.AsType[*refusal](err); ok {
		return &own.Refusal{Code: r.code, Reason: r.reason}, true
	}
	return &own.Refusal{Code: own.Code_CODE_UNAVAILABLE, Reason: "the plugin failed; its log says why"}, false
}
