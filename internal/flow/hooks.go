package flow

import (
	"context"
	"log/slog"
	"strconv"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/event"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/notify"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// Hooks tell extensions of what has happened. Each extension follows the ledger at
// its own pace, from a place that is kept with the rows: what it has not taken it
// is told again, by whichever replica, and what one does harms no other.

// Relay hands records to subscribers, in the order of their positions and at least
// once.
type Relay interface {
	// Follow makes names the subscribers, in place of those before.
	Follow(names []string, f func(ctx context.Context, name string, position uint64, r audit.Record) error)
}

const (
	// HookWithin is how long an extension may take for one event.
	HookWithin = 10 * time.Second
	// hookAttempts is how often it is told of one event before that is set aside.
	hookAttempts = 8
	// downPause is how long an extension that does not run is waited for, again and
	// again; nothing is set aside for that.
	downPause = 2 * time.Second
)

// followHooks makes the extensions that want events the followers.
func (g *Gate) followHooks() {
	if g.Extensions == nil || g.Relay == nil {
		return
	}
	var names []string
	for _, e := range g.Extensions.Extensions() {
		if len(e.Hooks) > 0 {
			names = append(names, hookName(e.Plugin))
		}
	}
	g.Relay.Follow(names, func(ctx context.Context, name string, position uint64, r audit.Record) error {
		return g.hook(ctx, pluginOfHook(name), position, r)
	})
}

// eventOf is the event that a record is; denials are none.
func eventOf(position uint64, r audit.Record) (event.Event, bool) {
	if r.Outcome == audit.Denied || !event.Public(r.Type) {
		return event.Event{}, false
	}
	facts := map[string]string{}
	for k, v := range r.Data {
		facts[k] = v
	}
	for k, v := range map[string]string{
		"grant": r.Grant, "target": r.Target, "actor": r.Actor.Subject, "actor_kind": r.Actor.Kind, "serial": r.Serial, "outcome": string(r.Outcome),
	} {
		if v != "" {
			facts[k] = v
		}
	}
	return event.Event{ID: r.ID, Position: position, Type: r.Type, Subject: r.Subject, At: r.At, Facts: facts}, true
}

// asked reports whether a record is of what an extension has asked for itself. It
// knows that, and would answer to it for ever. What followed, a revocation for
// example, it is told.
func asked(name string, r audit.Record) bool {
	switch r.Type {
	case "plugin.event", "leak.reported", "grant.issued", "grant.replayed":
		return r.Actor.Via == audit.Plugin(name).Via
	}
	return false
}

// hook tells one extension of one record, until it has taken it or it is set aside.
// It ends early, with an error, only with its context.
func (g *Gate) hook(ctx context.Context, name string, position uint64, r audit.Record) error {
	e, ok := eventOf(position, r)
	if !ok || asked(name, r) {
		return nil
	}
	for attempt := 1; ; {
		if !g.wants(name, e.Type) {
			return nil
		}
		err := g.tellOnce(ctx, name, e)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case plugin.Down(err):
			if err := g.rest(ctx, downPause); err != nil {
				return err
			}
			continue
		}
		g.Log.WarnContext(ctx, "a hook failed", slog.String("plugin", name), slog.String("event", e.Type), slog.Uint64("position", position),
			slog.Int("attempt", attempt), slog.Any("err", err))
		if attempt == hookAttempts {
			return g.setAside(ctx, name, e, err)
		}
		if err := g.rest(ctx, g.HookPause<<(attempt-1)); err != nil {
			return err
		}
		attempt++
	}
}

func (g *Gate) tellOnce(ctx context.Context, name string, e event.Event) error {
	ctx, cancel := context.WithTimeout(ctx, HookWithin)
	defer cancel()
	return g.Extensions.Hook(ctx, name, e)
}

// wants reports whether the version that runs now wants events of a type.
func (g *Gate) wants(name, eventType string) bool {
	for _, x := range g.Extensions.Extensions() {
		if x.Plugin == name {
			return event.Matches(x.Hooks, eventType)
		}
	}
	return false
}

// rest waits, no longer than the context.
func (g *Gate) rest(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// setAside records that an extension did not take an event, tells people, and lets
// it go on with the next.
func (g *Gate) setAside(ctx context.Context, name string, e event.Event, cause error) error {
	data := map[string]string{
		"event": e.ID, "type": e.Type, "position": strconv.FormatUint(e.Position, 10), "attempts": strconv.Itoa(hookAttempts),
	}
	return g.commit(ctx, unit.Unit{
		Record: audit.Record{
			Type: "hook.set_aside", Outcome: audit.Failed, Actor: audit.System("hooks"), Target: name, Subject: e.Subject,
			Reasons: []string{fault.Public(cause)}, Data: data,
		},
		Writes: g.deliver(notify.Notification{
			ID: newID(), Type: "hook.set_aside", At: g.Now().UTC(), Urgency: notify.High, Subject: e.Subject,
			Title: "extension " + name + " did not take an event, and goes on without it", Data: data,
		}),
	})
}
