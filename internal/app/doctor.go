package app

import (
	"context"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/reference"
	"github.com/sallyport-project/sallyport/internal/store"
)

// Clock is what a store has seen of time.
type Clock struct {
	Seen    time.Time     // the latest time that was ever seen
	Now     time.Time     // by this machine's clock
	Behind  time.Duration // how far Now stands behind Seen, zero if it does not
	Blocked bool          // whether nothing is issued because of it
}

// LookAtClock tells how the clock of this machine stands against the latest time
// that the store has seen, on a server that is not running.
func LookAtClock(ctx context.Context, c Config) (Clock, error) {
	return AcceptClock(ctx, c, "", func(Clock) bool { return false })
}

// AcceptClock is [LookAtClock], and when the clock blocks issuing and confirm
// says yes to what it is shown, the clock is taken for right. The ledger gets a
// record with both times. It needs the key file, like everything that writes.
func AcceptClock(ctx context.Context, c Config, reason string, confirm func(Clock) bool) (Clock, error) {
	st, _, err := openData(ctx, c, nil)
	if err != nil {
		return Clock{}, err
	}
	out, err := acceptClock(ctx, st, reason, confirm)
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if closed := st.Close(closing); err == nil {
		err = closed
	}
	return out, err
}

func acceptClock(ctx context.Context, st *store.Store, reason string, confirm func(Clock) bool) (Clock, error) {
	seen, now := st.LatestTime()
	out := Clock{Seen: seen, Now: now, Behind: max(0, seen.Sub(now)), Blocked: st.CheckClock(ctx) != nil}
	if !confirm(out) {
		return out, nil
	}
	if err := st.AcceptClock(ctx, audit.System("doctor"), seen, reason); err != nil {
		return out, err
	}
	return Clock{Seen: now, Now: now}, nil
}

// LookAtReferences names what of the reference material in the store has expired,
// or expires within a week, on a server that is not running.
func LookAtReferences(ctx context.Context, c Config) ([]string, error) {
	st, _, err := openData(ctx, c, nil)
	if err != nil {
		return nil, err
	}
	out := []string{}
	endorsements, err := st.Endorsements(ctx)
	if err == nil {
		var values []reference.Value
		if values, err = st.ReferenceValues(ctx); err == nil {
			out = append(out, reference.Warnings(endorsements, values, time.Now())...)
		}
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if closed := st.Close(closing); err == nil {
		err = closed
	}
	return out, err
}
