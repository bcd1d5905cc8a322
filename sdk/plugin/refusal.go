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

// Unimplementedf says that this cannot be done at all, for example that only a
// person can revoke a credential. The text reaches the caller: no secrets.
func Unimplementedf(format string, args ...any) error {
	return &refusal{own.Code_CODE_UNIMPLEMENTED, fmt.Sprintf(format, args...)}
}

// Denied reports whether the host refused a call of [Host] because it was not
// granted or is not allowed.
func Denied(err error) bool { return isRefusal(err, own.Code_CODE_DENIED) }

// Conflict reports whether a call of [Host] rested on what has changed meanwhile.
func Conflict(err error) bool { return isRefusal(err, own.Code_CODE_CONFLICT) }

// Exhausted reports whether a limit of the host was reached.
func Exhausted(err error) bool { return isRefusal(err, own.Code_CODE_EXHAUSTED) }

func isRefusal(err error, code own.Code) bool {
	r, ok := errors.AsType[*refusal](err)
	return ok && r.code == code
}
