package flow

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/notify"
	"github.com/sallyport-project/sallyport/internal/signal"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// The tags that a signal leaves on a grant, by which the three ways it can end
// are told apart later.
const (
	TagExpired = "detected_after_expiry"  // it was dead already; nobody was called
	TagRevoked = "revoked_on_detection"   // it was live and is taken back by us
	TagManual  = "manual_revoke_required" // it is live and only a person can take it back
)

// reporterRole is the one role whose bare fingerprints count. Whoever reports
// a digest need not have seen the value, so this is no matter of policy.
const reporterRole = "reporter"

// Reaction is what was done about one signal.
type Reaction struct {
	Record  string // id of the record of the report
	Matches []Match
}

// Match is what became of one candidate grant.
type Match struct {
	Grant   string
	Subject string
	Kind    string
	State   grant.State
	Tag     string // how it ended; empty while its revocation is under way, which may fail
	Repeat  bool   // an earlier report had done it already
	Address string // where to revoke by hand, for TagManual
	Failed  string // why the provider did not revoke; it is tried again
}

// Report takes a signal about a leaked value, finds every grant it may concern
// and takes each back once, however many reports arrive at a time.
//
// A report that is repeated under its key is the same report: it has one record,
// and whatever of it was left undone is done now.
//
// A failed revocation is an entry with Failed set, not an error: it is
// recorded, repeated by the sweeper and escalated.
func (g *Gate) Report(ctx context.Context, c Caller, s signal.Signal) (Reaction, error) {
	sum, err := s.Sum()
	if err != nil {
		return Reaction{}, err
	}
	if err := s.Validate(); err != nil {
		return Reaction{}, err
	}
	record := audit.Record{Type: "leak.reported", Actor: c.actor(), Subject: c.actor().Subject, Target: c.plugin, Data: map[string]string{
		"source": s.Source, "location": s.Location, "reason": s.Reason, "bare": strconv.FormatBool(s.Bare()),
	}}
	if s.Bare() && c.Subject.Role != reporterRole {
		return Reaction{}, g.refuse(ctx, record, "a bare fingerprint counts only from a subject with the role "+reporterRole+"; report the value itself")
	}
	var reaction Reaction
	var candidates []grant.Grant
	c.keyed("leak.reported", plainAnswer[string]{to: &reaction.Record},
		string(sum[:]), s.Source, s.Location, s.Reason, strconv.FormatInt(unit.Micros(s.Seen), 10))
	err = g.decide(ctx, nil, g.underKey(ctx, c.call, func() (unit.Unit, error) {
		_, err := g.allowed(ctx, c, "respond", record, input{action: "report", target: target("leak", "")})
		told, again := errors.AsType[*repeatedError](err)
		if err != nil && !again {
			return unit.Unit{}, err
		}
		if candidates, err = g.Store.GrantsByFingerprint(ctx, g.Pepper.Candidates(sum)); err != nil {
			return unit.Unit{}, fault.Wrap(err, "look up fingerprint")
		}
		// A report that takes nothing back waits like everything else: anybody who may
		// report can make as many as they like.
		urgent := slices.ContainsFunc(candidates, func(held grant.Grant) bool { return held.State == grant.Active })
		if again {
			told.unit.Urgent = urgent // the first may have left something to take back
			return unit.Unit{}, told
		}
		record.Data["matches"] = strconv.Itoa(len(candidates))
		reaction.Record = newID()
		u := unit.Unit{Record: record, Urgent: urgent, Writes: c.once()}
		u.Record.ID = reaction.Record
		return u, nil
	}))
	if err != nil {
		return Reaction{}, err
	}
	// What was reported is dealt with to its end, whether or not the reporter
	// still listens, and whatever goes wrong with one of the candidates.
	ctx = context.WithoutCancel(ctx)
	var failed error
	for _, candidate := range candidates {
		m, err := g.react(ctx, c.actor(), candidate.ID, cause{reason: byLeak, text: s.Source})
		if err != nil {
			g.Log.ErrorContext(ctx, "a reported grant could not be dealt with", slog.Any("grant", candidate.ID), slog.Any("reason", fault.Public(err)))
			failed = fault.Wrap(err, "respond for grant %s", candidate.ID)
			continue
		}
		reaction.Matches = append(reaction.Matches, m)
	}
	return reaction, failed
}

// The reasons that a grant which was taken back bears.
const (
	byLeak      = "revoked-leak"         // a signal
	byHand      = "revoked-by-hand"      // its holder, or an operator
	withSubject = "revoked-with-subject" // its holder was revoked, or locked
)

// cause is why a grant is taken back.
type cause struct {
	reason string       // byLeak, byHand or withSubject
	text   string       // the signal's source, or the reason given
	proof  []unit.Write // uses up the caller's proof of possession
}

// told reports whether people hear of a grant by itself. Of what was taken back
// with its subject they hear in one notification, but for what waits for them.
func told(reason string, ended grant.Grant) bool {
	return reason != withSubject || ended.State == grant.Manual
}

// react brings one grant to its end. It decides on the row as it is now and
// commits by compare-and-set: of ten reports at a time one finds the grant
// active, the others find what that one made of it.
func (g *Gate) react(ctx context.Context, actor audit.Actor, grantID string, why cause) (Match, error) {
	ctx = context.WithoutCancel(ctx) // a caller who goes away stops no revocation
	var m Match
	var revoke *grant.Grant
	err := g.decide(ctx, nil, func() (unit.Unit, error) {
		revoke = nil
		old, err := g.Store.Grant(ctx, grantID)
		if err != nil {
			return unit.Unit{}, err
		}
		next, kind, err := g.verdict(ctx, old, why)
		if err != nil {
			return unit.Unit{}, err
		}
		m = Match{Grant: old.ID, Subject: old.Subject, Kind: old.Kind, State: next.State, Tag: endTag(next), Repeat: next.Version == old.Version}
		if next.State == grant.Manual {
			m.Address = old.Source.Address
		}
		record := audit.Record{
			Type: kind, Actor: actor, Subject: old.Subject, Grant: old.ID,
			Data: map[string]string{"kind": old.Kind, "source": why.text, "tag": lastTag(next)},
		}
		if m.Repeat {
			record.Type = "grant.reported"
			record.Data["repeat"] = "true"
			return unit.Unit{Record: record, Writes: why.proof}, nil // nothing is taken away: it can be said again and again
		}
		if next.State == grant.Revoking {
			revoke = &next
		}
		u := unit.Unit{Record: record, Urgent: true, Writes: append(slices.Clone(why.proof), unit.Update(next))}
		if next.State != grant.Revoking && told(why.reason, next) { // else when the provider has answered
			u.Writes = append(u.Writes, g.tell(next, why.text)...)
		}
		return u, nil
	})
	if err != nil || revoke == nil {
		return m, err
	}
	ended, failure, err := g.revokeAtProvider(ctx, actor, *revoke)
	if err != nil {
		g.Log.ErrorContext(ctx, "the outcome of a revocation could not be recorded; it is repeated", slog.Any("grant", grantID), slog.Any("reason", fault.Public(err)))
	}
	m.State, m.Tag, m.Failed = ended.State, endTag(ended), failure
	if ended.State == grant.Manual {
		m.Address = ended.Source.Address
	}
	return m, nil
}

// verdict is the three-branch decision about a reported grant, and the type of
// the record that tells of it.
func (g *Gate) verdict(ctx context.Context, old grant.Grant, why cause) (grant.Grant, string, error) {
	now, reason, tag := g.Now(), why.reason, grant.Grant.Tagged
	if reason != byLeak {
		tag = func(next grant.Grant, _ string) grant.Grant { return next }
	}
	switch {
	case old.State == grant.Intent || old.State == grant.Void:
		return old, "grant.reported", nil // nothing was ever released under it
	case old.State == grant.Revoking || old.State == grant.Manual && now.Before(old.ExpiresAt):
		return old, "grant.reported", nil // under way already
	case old.State == grant.Active && !now.Before(old.ExpiresAt):
		next, err := old.To(grant.Expired, "expired", now)
		return tag(next, TagExpired), "grant.expired", err
	case old.State == grant.Active && g.signedHere(old.Kind):
		next, err := old.To(grant.Revoked, reason, now)
		return tag(next, TagRevoked), "grant.revoked", err
	case old.State == grant.Active && g.revocable(ctx, old):
		next, err := old.To(grant.Revoking, reason, now)
		next.DueAt = now.Add(revocationWindow)
		return tag(next, TagRevoked), "grant.revoking", err
	case old.State == grant.Active:
		next, err := old.To(grant.Manual, reason, now)
		next.DueAt = old.ExpiresAt
		return tag(next, TagManual), "grant.manual", err
	case tagged(old) || reason != byLeak:
		return old, "grant.reported", nil // ended already
	default: // ended for another reason, first time reported
		next := old.Tagged(TagExpired)
		next.Version++
		return next, "grant.reported", nil
	}
}

// signedHere reports whether the host itself makes a kind invalid: its
// signature is taken back by a list that it publishes.
func (g *Gate) signedHere(kind string) bool { _, ok := g.Signers[kind]; return ok }

// revocable reports whether somebody can take a grant back. Who is there now
// counts, not who was there when it was made. What cannot be known now is tried:
// a failure is repeated, and people hear of it.
func (g *Gate) revocable(ctx context.Context, old grant.Grant) bool {
	r, err := g.Providers.Revoker(old.Kind)
	if err != nil {
		return !fault.Is(err, fault.NotFound)
	}
	ctx, cancel := context.WithTimeout(ctx, providerWindow)
	defer cancel()
	supports, err := r.Supports(ctx)
	return supports || err != nil
}

func tagged(g grant.Grant) bool { return lastTag(g) != "" }

func lastTag(g grant.Grant) string {
	for i := len(g.Tags) - 1; i >= 0; i-- {
		switch g.Tags[i] {
		case TagExpired, TagRevoked, TagManual:
			return g.Tags[i]
		}
	}
	return ""
}

// TagsOf are the tags of a grant that others are shown: none says that it was
// revoked before it is.
func TagsOf(g grant.Grant) []string {
	if g.State != grant.Revoking {
		return g.Tags
	}
	return slices.DeleteFunc(slices.Clone(g.Tags), func(tag string) bool { return tag == TagRevoked })
}

// endTag is the one of them that a report shows.
func endTag(g grant.Grant) string {
	g.Tags = TagsOf(g)
	return lastTag(g)
}

// tell returns the writes that put a notification about a grant on its way.
func (g *Gate) tell(ended grant.Grant, source string) []unit.Write {
	n := notify.Notification{
		ID: newID(), Type: "grant." + string(ended.State), At: g.Now().UTC().Truncate(time.Microsecond),
		Subject: ended.Subject, Grant: ended.ID, Tags: ended.Tags,
		Data: map[string]string{"kind": ended.Kind, "source": source, "state": string(ended.State)},
	}
	found := "a leaked " + ended.Kind
	switch {
	case ended.Reason == withSubject:
		found = "a " + ended.Kind + " of somebody who was revoked or locked"
	case lastTag(ended) == "":
		found = "a returned " + ended.Kind
	}
	switch ended.State {
	case grant.Manual:
		n.Urgency, n.Title, n.Address = notify.High, found+" is live and must be revoked by hand", ended.Source.Address
	case grant.Revoked:
		n.Urgency, n.Title = notify.Elevated, found+" was revoked"
	default:
		n.Urgency, n.Title = notify.Low, found+" was dead before it was found"
	}
	return g.deliver(n)
}

// channels are those that are there now.
func (g *Gate) channels() []notify.Channel {
	if g.Notifiers == nil {
		return g.Channels
	}
	return append(slices.Clip(g.Channels), g.Notifiers()...)
}

// deliver returns the writes of one delivery per channel.
func (g *Gate) deliver(n notify.Notification) []unit.Write {
	var writes []unit.Write
	for _, channel := range g.channels() {
		writes = append(writes, unit.Insert(notify.Delivery{
			ID: strings.Join([]string{n.ID, channel.Name()}, "/"), Version: 1,
			Channel: channel.Name(), Message: n, Due: g.Now(),
		}))
	}
	return writes
}
