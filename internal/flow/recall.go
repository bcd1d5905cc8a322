package flow

import (
	"context"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/notify"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// Recalling takes back all live credentials of a subject that was revoked, or
// locked. The mark on the subject's row is committed with that step, and no
// grant commits after it, so the active ones are all there are. Each is brought
// to its end like one that leaked, by compare-and-set, and leaves the state
// active by it: whoever goes on after a crash finds those that are left.

const (
	// recallBudget is how long the call that revokes a subject works on its
	// credentials before it answers; what is left is the sweeper's.
	recallBudget = 8 * time.Second
	// recallWindow is when the sweeper takes over from a call that never ended: a
	// page may have to wait for its providers.
	recallWindow = recallBudget + revocationWindow
	recallPage   = 1000
)

// Recalled counts what became of the live credentials of a subject.
type Recalled struct {
	Revoked    int  // taken back
	Expired    int  // dead already
	Manual     int  // only a person can take them back; people were told
	Failed     int  // the provider did not take them back yet; it is asked again
	Unfinished bool // not all were looked at yet; the server goes on
}

// recall ends the active grants of a subject, at most for a while if budget is
// not zero, and says how far it came. It stops between pages when the context
// ends. Whatever goes wrong leaves the mark, and so the rest, to the sweeper.
func (g *Gate) recall(ctx context.Context, actor audit.Actor, subjectID string, budget time.Duration) Recalled {
	out, begun := Recalled{}, g.Now()
	err := g.recallAll(ctx, actor, subjectID, &out, func() bool {
		return ctx.Err() != nil || budget > 0 && g.Now().Sub(begun) > budget
	})
	if err == nil {
		err = g.recalled(ctx, actor, subjectID, &out)
	}
	if err != nil {
		out.Unfinished = true
		g.Log.ErrorContext(ctx, "revoking the credentials of a subject is not finished and goes on", slog.Any("subject", subjectID), slog.Any("reason", fault.Public(err)))
	}
	return out
}

// recallAll goes through the active grants once, many at a time.
func (g *Gate) recallAll(ctx context.Context, actor audit.Actor, subjectID string, out *Recalled, late func() bool) error {
	var mu sync.Mutex
	for after := ""; ; {
		page, err := g.Store.GrantsToRecall(ctx, subjectID, after, recallPage)
		if err != nil {
			return fault.Wrap(err, "read grants of subject")
		}
		if len(page) == 0 {
			return nil
		}
		for some := range slices.Chunk(page, sweepWorkers) {
			if out.Unfinished = late(); out.Unfinished {
				return nil
			}
			// One that cannot be dealt with stays active, and is found by the count.
			err := each(some, func(held grant.Grant) error {
				m, err := g.react(ctx, actor, held.ID, cause{reason: withSubject, text: "subject"})
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					out.count(m.State)
				}
				return err
			})
			if err != nil {
				g.Log.ErrorContext(ctx, "a grant of a revoked subject could not be dealt with", slog.Any("subject", subjectID), slog.Any("reason", fault.Public(err)))
			}
		}
		after = page[len(page)-1].ID
	}
}

// recount says of a call that is repeated under its key how far the first one has
// come by now, by the grants themselves.
func (g *Gate) recount(ctx context.Context, subjectID string) Recalled {
	out := Recalled{Unfinished: true}
	for after := ""; ; {
		page, err := g.Store.Grants(ctx, grant.Filter{Subject: subjectID, After: after, Limit: recallPage})
		if err != nil { // an altered row for example: more is not known
			return out
		}
		for _, held := range page {
			if held.Reason == withSubject {
				out.count(held.State)
			}
			after = held.ID
		}
		if len(page) < recallPage {
			break
		}
	}
	s, err := g.Store.Subject(ctx, subjectID)
	out.Unfinished = err != nil || !s.Recall.IsZero()
	return out
}

func (r *Recalled) count(ended grant.State) {
	switch ended {
	case grant.Revoked:
		r.Revoked++
	case grant.Manual:
		r.Manual++
	case grant.Revoking:
		r.Failed++
	default:
		r.Expired++
	}
}

// recalled records how far a pass came. The mark is taken away when no grant of
// the subject is active any more; grants that a provider has not taken back yet
// have marks of their own. People hear of the end in one notification.
func (g *Gate) recalled(ctx context.Context, actor audit.Actor, subjectID string, out *Recalled) error {
	counts, err := g.Store.CountGrants(ctx, subjectID)
	if err != nil {
		return fault.Wrap(err, "count grants of subject")
	}
	left, late := counts[grant.Active], out.Unfinished
	out.Unfinished = left > 0
	return g.decide(ctx, nil, func() (unit.Unit, error) {
		s, err := g.Store.Subject(ctx, subjectID)
		if err != nil {
			return unit.Unit{}, fault.Wrap(err, "read subject")
		}
		now := g.Now().UTC()
		u := unit.Unit{Urgent: true, Record: audit.Record{
			Type: "credentials.recalled", Actor: actor, Subject: s.ID, Serial: strconv.FormatInt(s.Version+1, 10), Data: out.data(left),
		}}
		s.Version++
		switch {
		case left == 0:
			s.Recall = time.Time{}
			u.Writes = g.tellRecalled(s.ID, s.Name, out)
		case late:
			s.Recall = now
		default: // some cannot be dealt with, a damaged row for example
			u.Record.Outcome = audit.Failed
			s.Recall = now.Add(min(max(now.Sub(s.Changed), recallWindow), time.Hour))
		}
		u.Writes = append(u.Writes, unit.Update(s))
		return u, nil
	})
}

func (r *Recalled) data(left int) map[string]string {
	return map[string]string{
		"revoked": strconv.Itoa(r.Revoked), "expired": strconv.Itoa(r.Expired), "manual": strconv.Itoa(r.Manual),
		"failed": strconv.Itoa(r.Failed), "left": strconv.Itoa(left),
	}
}

func (g *Gate) tellRecalled(subjectID, name string, out *Recalled) []unit.Write {
	if out.Revoked+out.Manual+out.Failed == 0 {
		return nil
	}
	n := notify.Notification{
		ID: newID(), Type: "credentials.recalled", At: g.Now().UTC().Truncate(time.Microsecond), Urgency: notify.Elevated,
		Subject: subjectID, Title: "the credentials of " + name + " were revoked with it", Data: out.data(0),
	}
	if out.Manual+out.Failed > 0 {
		n.Urgency, n.Title = notify.High, "credentials of "+name+" are live: some must be revoked by hand, or their provider is asked again"
	}
	return g.deliver(n)
}

// Recall goes on with what revoked subjects have left, and returns with how many
// of them it is done; call again at once while that is not zero.
func (g *Gate) Recall(ctx context.Context) (int, error) {
	due, err := g.Store.SubjectsToRecall(ctx, g.Now(), sweepPage)
	if err != nil {
		return 0, fault.Wrap(err, "read subjects whose credentials are to be revoked")
	}
	finished := 0
	for _, s := range due {
		if ctx.Err() != nil {
			return finished, fault.Unavailablef("the server stops, or another one has taken over").Because(ctx.Err())
		}
		if !g.recall(ctx, audit.System("sweeper"), s.ID, 0).Unfinished {
			finished++
		}
	}
	return finished, nil
}
