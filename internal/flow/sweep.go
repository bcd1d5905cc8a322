package flow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/notify"
	"github.com/sallyport-project/sallyport/internal/secret"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// The sweeper and the deliverer are the parts of respond that time starts.
// They run under a lease, on one replica at a time; should two run by chance,
// compare-and-set leaves one winner per grant.

const (
	sweepPage      = 1024
	sweepWorkers   = 64 // concurrent units, so that they share a commit
	providerWindow = 10 * time.Second
	// revocationWindow is when a revocation that is under way counts as lost: a
	// slow provider is not called twice at a time.
	revocationWindow = 2 * providerWindow
)

// Sweep ends what is due: expired leases, revocations to repeat, intents that
// never became active. It returns how many grants it looked at; call again at
// once while that is not zero.
func (g *Gate) Sweep(ctx context.Context) (int, error) {
	due, err := g.Store.GrantsDue(ctx, g.Now(), sweepPage)
	if err != nil {
		return 0, fault.Wrap(err, "read grants that are due")
	}
	return len(due), each(due, func(old grant.Grant) error { return g.sweepOne(ctx, old) })
}

// each runs do for all items, several at a time, and returns the first error.
func each[T any](items []T, do func(T) error) error {
	var (
		wg    sync.WaitGroup
		once  sync.Once
		first error
		slots = make(chan struct{}, sweepWorkers)
	)
	for _, item := range items {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := whole(item, do); err != nil && !fault.Is(err, fault.Conflict) { // a conflict: somebody else was faster
				once.Do(func() { first = err })
			}
		})
	}
	wg.Wait()
	return first
}

// whole runs do and turns a panic into an error: one row that breaks an adapter
// must not end the process again and again.
func whole[T any](item T, do func(T) error) (err error) {
	defer func() {
		if broken := recover(); broken != nil {
			err = fault.Internalf("work on one row panicked").Because(fmt.Errorf("%T", broken))
		}
	}()
	return do(item)
}

func (g *Gate) sweepOne(ctx context.Context, old grant.Grant) error {
	now, actor := g.Now(), audit.System("sweeper")
	switch {
	case old.State == grant.Intent:
		return g.reap(ctx, old, "never activated", false)
	case !now.Before(old.ExpiresAt):
		next, err := old.To(grant.Expired, "expired", now)
		if err != nil {
			return err
		}
		return g.commit(ctx, unit.Unit{Writes: []unit.Write{unit.Update(next)}, Record: audit.Record{
			Type: "grant.expired", Actor: actor, Subject: old.Subject, Grant: old.ID,
			Data: map[string]string{"kind": old.Kind, "from": string(old.State)},
		}})
	case old.State == grant.Revoking:
		_, _, err := g.revokeAtProvider(ctx, actor, old)
		return err
	}
	return nil
}

// reap ends an intent whose activation never came: what the provider may have
// made is revoked, and where nobody can, a person is told. If the provider said
// itself that it refused, there is nothing to take back.
func (g *Gate) reap(ctx context.Context, old grant.Grant, reason string, refused bool) error {
	actor := audit.System("reaper")
	record := audit.Record{
		Type: "grant.voided", Actor: actor, Subject: old.Subject, Grant: old.ID,
		Data: map[string]string{"kind": old.Kind, "reason": reason, "refused": strconv.FormatBool(refused)},
	}
	made := !refused && g.Now().Before(old.ExpiresAt) // what has expired needs no revoking
	revocable := made && g.revocable(ctx, old)
	if revocable {
		// The intent is taken first: an activation that is still on its way
		// misses its row, and nothing that was handed out is revoked.
		claimed := old
		claimed.Version++
		claimed.DueAt = g.Now().Add(revocationWindow)
		err := g.commit(ctx, unit.Unit{Urgent: true, Writes: []unit.Write{unit.Update(claimed)}, Record: audit.Record{
			Type: "grant.reaping", Actor: actor, Subject: old.Subject, Grant: old.ID, Data: map[string]string{"kind": old.Kind, "reason": reason},
		}})
		if err != nil {
			return err
		}
		switch err := g.callRevoker(ctx, claimed, reason); {
		case errors.Is(err, grant.ErrByHand):
			revocable = false
		case err != nil:
			return g.revocationFailed(ctx, actor, claimed, err)
		}
		old = claimed
	}
	next, err := old.To(grant.Void, reason, g.Now())
	if err != nil {
		return err
	}
	u := unit.Unit{Record: record, Urgent: true, Writes: []unit.Write{unit.Update(next)}}
	if made && !revocable {
		u.Writes = append(u.Writes, g.deliver(notify.Notification{
			ID: newID(), Type: "grant.voided", At: g.Now().UTC(), Urgency: notify.High, Subject: old.Subject, Grant: old.ID,
			Title:   "a " + old.Kind + " may have been made and was never handed out; revoke it by hand",
			Address: old.Source.Address,
		})...)
	}
	return g.commit(ctx, u)
}

// revokeAtProvider calls the provider for a grant in state revoking and
// records how it went. It returns the grant as it is afterwards, and why the
// provider did not revoke, empty if it did. An error means that the outcome could
// not be recorded, so that it is repeated.
func (g *Gate) revokeAtProvider(ctx context.Context, actor audit.Actor, revoking grant.Grant) (grant.Grant, string, error) {
	err := g.callRevoker(ctx, revoking, revoking.Reason)
	if errors.Is(err, grant.ErrByHand) {
		return g.leaveToHand(ctx, actor, revoking, err)
	}
	if err != nil {
		return revoking, fault.Public(err), g.revocationFailed(ctx, actor, revoking, err)
	}
	next, err := revoking.To(grant.Revoked, revoking.Reason, g.Now())
	if err == nil {
		writes := []unit.Write{unit.Update(next)}
		if told(next.Reason, next) {
			writes = append(writes, g.tell(next, "provider")...)
		}
		err = g.commit(ctx, unit.Unit{
			Urgent: true,
			Writes: writes,
			Record: audit.Record{Type: "grant.revoked", Actor: actor, Subject: next.Subject, Grant: next.ID, Data: map[string]string{"kind": next.Kind}},
		})
	}
	if err != nil {
		return revoking, "revoked at the provider, but not recorded yet; it is repeated", err
	}
	return next, "", nil
}

// leaveToHand gives a grant that was to be revoked to people: who should have
// revoked it cannot, whatever is repeated.
func (g *Gate) leaveToHand(ctx context.Context, actor audit.Actor, revoking grant.Grant, why error) (grant.Grant, string, error) {
	next, err := revoking.To(grant.Manual, revoking.Reason, g.Now())
	if err != nil {
		return revoking, fault.Public(why), err
	}
	if n := slices.Index(next.Tags, TagRevoked); n >= 0 {
		next.Tags = slices.Clone(next.Tags)
		next.Tags[n] = TagManual
	}
	next.DueAt = next.ExpiresAt
	err = g.commit(ctx, unit.Unit{
		Urgent: true,
		Writes: append([]unit.Write{unit.Update(next)}, g.tell(next, "provider")...),
		Record: audit.Record{
			Type: "grant.manual", Actor: actor, Subject: next.Subject, Grant: next.ID, Reasons: []string{fault.Public(why)},
			Data: map[string]string{"kind": next.Kind, "tag": lastTag(next)},
		},
	})
	if err != nil {
		return revoking, fault.Public(why), err
	}
	return next, fault.Public(why), nil
}

// callRevoker asks for a grant to be taken back, within providerWindow.
func (g *Gate) callRevoker(ctx context.Context, old grant.Grant, reason string) error {
	ctx, cancel := context.WithTimeout(ctx, providerWindow)
	defer cancel()
	r, err := g.Providers.Revoker(old.Kind)
	if fault.Is(err, fault.NotFound) {
		return fault.Unavailablef("no installed plugin revokes %s any more", old.Kind).Because(grant.ErrByHand)
	}
	if err != nil {
		return err
	}
	var value secret.Bytes
	if len(old.Sealed) > 0 {
		if value, err = g.Envelope.Open("grant-values", old.ID, 1, old.Sealed); err != nil {
			return fault.Wrap(err, "open the value of grant %s", old.ID)
		}
		defer value.Wipe()
	}
	handle := old.Handle
	if handle == "" {
		handle = old.ID // an intent: the provider knows it by the grant's id
	}
	return r.Revoke(ctx, grant.Revocation{ID: old.ID, Handle: handle, Value: value, Reason: reason})
}

// revocationFailed records a failure, sets the time of the next try and tells
// people at the first failure and at each eighth after it.
func (g *Gate) revocationFailed(ctx context.Context, actor audit.Actor, old grant.Grant, cause error) error {
	next := old
	next.Version++
	next.Attempts++
	next.DueAt = g.Now().Add(notify.Backoff(next.Attempts))
	u := unit.Unit{Urgent: true, Writes: []unit.Write{unit.Update(next)}, Record: audit.Record{
		Type: "grant.revocation_failed", Outcome: audit.Failed, Actor: actor, Subject: old.Subject, Grant: old.ID,
		Reasons: []string{fault.Public(cause)},
		Data:    map[string]string{"kind": old.Kind, "attempts": strconv.FormatInt(next.Attempts, 10)},
	}}
	if next.Attempts%8 == 1 {
		u.Writes = append(u.Writes, g.deliver(notify.Notification{
			ID: newID(), Type: "grant.revocation_failed", At: g.Now().UTC(), Urgency: notify.High,
			Subject: old.Subject, Grant: old.ID, Tags: TagsOf(old), Address: old.Source.Address,
			Title: "revoking a " + old.Kind + " failed and is tried again; it is still live",
			Data:  map[string]string{"kind": old.Kind, "attempts": strconv.FormatInt(next.Attempts, 10)},
		})...)
	}
	g.Log.ErrorContext(ctx, "a revocation failed and will be repeated", slog.Any("grant", old.ID), slog.Any("reason", fault.Public(cause)))
	return g.commit(ctx, u)
}

// Deliver sends the notifications that are due, once each, and returns how
// many it tried.
func (g *Gate) Deliver(ctx context.Context) (int, error) {
	due, err := g.Store.DeliveriesDue(ctx, g.Now(), sweepPage)
	if err != nil {
		return 0, fault.Wrap(err, "read deliveries that are due")
	}
	return len(due), each(due, func(d notify.Delivery) error { return g.deliverOne(ctx, d) })
}

func (g *Gate) deliverOne(ctx context.Context, d notify.Delivery) error {
	err := error(fault.Invalidf("the channel %s is not configured any more", d.Channel))
	for _, channel := range g.channels() {
		if channel.Name() == d.Channel {
			err = g.notify(ctx, channel, d.Message)
		}
	}
	record := audit.Record{
		Type: "notification.delivered", Actor: audit.System("notifier"), Grant: d.Message.Grant, Target: d.ID,
		Data: map[string]string{"channel": d.Channel, "attempts": strconv.FormatInt(d.Attempts+1, 10)},
	}
	d.Version++
	d.Attempts++
	d.Due, d.Error = time.Time{}, ""
	switch {
	case err == nil:
		d.Done = g.Now()
	case fault.Is(err, fault.Invalid) || d.Attempts >= mostAttempts:
		record.Type, record.Outcome, d.Error = "notification.dropped", audit.Failed, fault.Public(err)
	default:
		record.Type, record.Outcome, d.Error = "notification.delayed", audit.Failed, fault.Public(err)
		d.Due = g.Now().Add(notify.Backoff(d.Attempts))
	}
	if err != nil {
		g.Log.WarnContext(ctx, "a notification did not arrive", slog.Any("channel", d.Channel), slog.Any("notification", d.Message.ID), slog.Any("reason", fault.Public(err)))
	}
	return g.commit(ctx, unit.Unit{Writes: []unit.Write{unit.Update(d)}, Record: record})
}

// notify gives a channel no more time than a provider: a receiver that hangs
// keeps no slot.
func (g *Gate) notify(ctx context.Context, channel notify.Channel, n notify.Notification) error {
	ctx, cancel := context.WithTimeout(ctx, providerWindow)
	defer cancel()
	return channel.Notify(ctx, n)
}

// mostAttempts gives a receiver about a day before a notification is dropped.
const mostAttempts = 100

// keepExpired is how long sessions, invitations, upload tokens and notifications
// stay readable after they have ended. Attestation results come and go faster, and are large.
const (
	keepExpired = 7 * 24 * time.Hour
	keepResults = time.Hour
)

// Housekeep removes what has expired and decides nothing any more. It changes
// nobody's state and so leaves no record: what these rows did stands in the
// ledger.
//
// Units take little at a time: others are to be served between them, also after an
// hour in which a hundred thousand guests came up.
func (g *Gate) Housekeep(ctx context.Context) error {
	now := g.Now()
	until := map[string]time.Time{
		"outcomes": now, "nonces": now, "passports": now.Add(-keepResults),
		"sessions": now.Add(-keepExpired), "invitations": now.Add(-keepExpired), "upload_tokens": now.Add(-keepExpired), "deliveries": now.Add(-keepExpired),
	}
	writes := make([]unit.Write, 0, len(until))
	for _, table := range slices.Sorted(maps.Keys(until)) {
		writes = append(writes, unit.Do(table+".expire", unit.AnyRows, "", unit.Micros(until[table])))
	}
	for more := true; more; {
		if err := g.Ledger.Commit(ctx, unit.Unit{Writes: writes}); err != nil {
			return err
		}
		var err error
		if more, err = g.Store.Expired(ctx, until); err != nil {
			return fault.Wrap(err, "look for what has expired")
		}
	}
	return nil
}
