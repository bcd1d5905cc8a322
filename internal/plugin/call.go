package plugin

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// settle is how long a process has to say that it lives, after a call was lost.
const settle = 5 * time.Second

// errUnsent says that nothing was sent, because the connection was gone, so the
// call may be repeated whatever its effects.
var errUnsent = errors.New("the connection to the plugin is gone")

// call runs f against the current process of a plugin, within the host's time
// limit and the plugin's share of calls. A call that was lost with its process is
// repeated once, with the next process, if repeat says that it may be; else it is
// Unavailable. One that was never sent does not count.
func call[T any](ctx context.Context, h *Host, find func() (*route, error), repeat bool, f func(context.Context, *instance) (T, error)) (T, error) {
	return callWithin(ctx, h, h.cfg.CallTimeout, find, repeat, f)
}

// callWithin is call with another time limit.
func callWithin[T any](
	ctx context.Context, h *Host, within time.Duration, find func() (*route, error), repeat bool, f func(context.Context, *instance) (T, error),
) (T, error) {
	var none T
	began := h.cfg.Now()
	limited := limited(ctx, within)
	defer limited.end()
	for repeated := false; ; {
		r, err := find()
		if err != nil {
			return none, err
		}
		v, how, gone, err := once(limited, r, f)
		switch {
		case err == nil:
		case limited.Err() != nil:
			err = judge(limited, r.name(), err)
		case errors.Is(err, errGone) || errors.Is(err, errUnsent):
			continue
		case !lost(limited, err) || repeated:
			err = judge(limited, r.name(), err)
		case !repeat:
			err = fault.Unavailablef("plugin %s broke off the call; whether it was done is not known", r.name()).Because(err)
		case !gone && !errors.Is(err, errTooLarge): // what lives said so itself
			err = judge(limited, r.name(), err)
		default:
			repeated = true
			continue
		}
		h.meters.called(r.name(), how, h.cfg.Now().Sub(began))
		return v, err
	}
}

// once runs f once, and says how that ended. When the call was lost it also says
// whether its process is out of service, so that a repetition cannot meet it again.
func once[T any](ctx context.Context, r *route, f func(context.Context, *instance) (T, error)) (v T, how outcome, gone bool, err error) {
	leave, err := r.pool.enter(ctx)
	if err != nil {
		r.failed.Add(1)
		return v, outcomeBusy, false, err
	}
	defer leave()
	i, release, err := r.pool.acquire(ctx)
	if err != nil {
		r.failed.Add(1)
		if ctx.Err() != nil {
			return v, unanswered(ctx), false, &downError{err}
		}
		return v, outcomeDown, false, &downError{err}
	}
	defer release()
	r.called.Add(1)
	if i.reachable() {
		v, err = f(ctx, i)
	} else {
		err = errUnsent
	}
	if err == nil {
		return v, outcomeOK, false, nil
	}
	if fault.KindOf(err) == fault.Internal || fault.Is(err, fault.Unavailable) {
		r.failed.Add(1)
	}
	if lost(ctx, err) && !errors.Is(err, errTooLarge) {
		gone = settled(ctx, i)
	}
	return v, outcomeOf(ctx, err), gone, err
}

// downError says that no process could take a call.
type downError struct{ cause error }

// Error is the cause's text.
func (e *downError) Error() string { return e.cause.Error() }

// Unwrap keeps the fault visible.
func (e *downError) Unwrap() error { return e.cause }

// settled finds out what became of a process under a call that was lost, and
// reports whether it is out of service. A killed process closes its connection first
// and ends later, on a busy machine much later: what counts is whether it can be
// reached again.
func settled(ctx context.Context, i *instance) bool {
	if ended(i) {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	_, err := grpc_health_v1.NewHealthClient(i.conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	if lost(ctx, err) {
		i.fail()
	}
	return ended(i)
}

// lost reports whether the connection broke under a call that was still wanted.
func lost(ctx context.Context, err error) bool {
	if ctx.Err() != nil {
		return false
	}
	if errors.Is(err, errLost) || errors.Is(err, errTooLarge) || errors.Is(err, errUnsent) {
		return true
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return false
	}
	code := status.Code(err)
	return code == codes.Unavailable || code == codes.Canceled
}

// judge turns what came back into a fault. Texts of plugins stay in the cause.
func judge(ctx context.Context, plugin string, err error) error {
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return fault.Unavailablef("the request was given up").Because(err)
	}
	switch code := status.Code(err); {
	case ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) || code == codes.DeadlineExceeded:
		return fault.Unavailablef("plugin %s did not answer in time", plugin).Because(err)
	case errors.Is(err, errTooLarge) || code == codes.ResourceExhausted:
		return fault.Unavailablef("plugin %s sent a message that is larger than allowed", plugin).Because(err)
	case code == codes.Unimplemented:
		return fault.Unavailablef("plugin %s does not offer what its manifest says", plugin).Because(err)
	default:
		return fault.Unavailablef("plugin %s is failing", plugin).Because(err)
	}
}
