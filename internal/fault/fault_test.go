package fault_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
)

var kinds = []fault.Kind{
	fault.Internal, fault.Invalid, fault.Unauthenticated, fault.Denied, fault.NotFound, fault.Conflict, fault.Exhausted, fault.Unavailable,
}

func TestKind_NamesComeBack(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range kinds {
		name := k.String()
		if fault.ParseKind(name) != k || seen[name] || name != strings.ToLower(name) {
			t.Errorf("%d is called %q", k, name)
		}
		seen[name] = true
	}
	for _, name := range []string{"", "Invalid", "no such kind"} {
		if fault.ParseKind(name) != fault.Internal {
			t.Errorf("%q is no kind", name)
		}
	}
	for _, k := range []fault.Kind{-1, 99} {
		if k.String() != "internal" {
			t.Errorf("kind %d is called %q", k, k)
		}
	}
}

func TestConstructors_MakeTheKindInTheirName(t *testing.T) {
	for want, make := range map[fault.Kind]func(string, ...any) *fault.Error{
		fault.Invalid: fault.Invalidf, fault.Unauthenticated: fault.Unauthenticatedf, fault.Denied: fault.Deniedf, fault.NotFound: fault.NotFoundf,
		fault.Conflict: fault.Conflictf, fault.Exhausted: fault.Exhaustedf, fault.Unavailable: fault.Unavailablef, fault.Internal: fault.Internalf,
	} {
		if e := make("a %s", "text"); e.Kind != want || e.Public != "a text" || !fault.Is(e, want) {
			t.Errorf("%v made %+v", want, e)
		}
	}
}

func TestPublic_ShowsNothingOfCausesOrInternals(t *testing.T) {
	secret := errors.New("dial tcp 10.0.0.1: password hunter2")
	for name, err := range map[string]error{
		"cause":            fault.Deniedf("not for you").Because(secret),
		"wrapped":          fault.Wrap(fault.Invalidf("name it").Because(secret), "read %s", "hunter2"),
		"foreign":          secret,
		"wrapped foreign":  fault.Wrap(secret, "read"),
		"internal":         fault.Internalf("hunter2 is broken").Because(secret),
		"internal outside": fault.Internalf("outer").Because(fault.Deniedf("inner hunter2")),
		"no text":          &fault.Error{Kind: fault.Denied},
		"context":          fmt.Errorf("hunter2: %w", context.DeadlineExceeded),
		"joined":           errors.Join(fault.NotFoundf("there is none"), secret),
	} {
		if text := fault.Public(err); strings.Contains(text, "hunter2") || text == "" {
			t.Errorf("%s: shows %q", name, text)
		}
	}
	if e := fault.Deniedf("x").Because(secret); !errors.Is(e, secret) || !strings.Contains(e.Error(), "hunter2") {
		t.Error("the log would not see the cause")
	}
}

func TestKindOf_IsThatOfTheOutermostFault(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want fault.Kind
	}{
		"plain":     {errors.New("x"), fault.Internal},
		"cancelled": {fmt.Errorf("x: %w", context.Canceled), fault.Unavailable},
		"deadline":  {context.DeadlineExceeded, fault.Unavailable},
		"fault":     {fault.Wrap(fault.Wrap(fault.Conflictf("x"), "a"), "b"), fault.Conflict},
		"covered":   {fault.Unavailablef("x").Because(fault.Deniedf("y")), fault.Unavailable},
		"zero":      {&fault.Error{}, fault.Internal},
	} {
		if got := fault.KindOf(c.err); got != c.want {
			t.Errorf("%s: got %v", name, got)
		}
	}
	for _, k := range kinds {
		if fault.Is(nil, k) {
			t.Errorf("no error is a fault of kind %v", k)
		}
	}
	if fault.Wrap(nil, "x") != nil {
		t.Error("wrapping nothing made an error")
	}
}

func TestAfterAndBecause_LeaveTheOriginalAlone(t *testing.T) {
	e := fault.Exhaustedf("slow down")
	later := e.After(time.Minute)
	_ = e.Because(errors.New("x"))
	if e.RetryAfter != 0 || e.Unwrap() != nil || fault.RetryAfter(fault.Wrap(later, "x")) != time.Minute || fault.RetryAfter(errors.New("x")) != 0 {
		t.Error("the original changed, or the copy did not")
	}
}
