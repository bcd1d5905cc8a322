package flow

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/policy"
	"github.com/sallyport-project/sallyport/internal/secret"
	"github.com/sallyport-project/sallyport/internal/subject"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// administered asks policy whether an operator may do what the record says to
// the target, and returns the decision.
func (g *Gate) administered(ctx context.Context, c Caller, action string, r audit.Record, kind, name string) (decided, error) {
	return g.allowed(ctx, c, "administer", r, input{action: action, target: target(kind, name)})
}

// InviteRequest asks for a join token.
type InviteRequest struct {
	Kind subject.Kind
	Role string
	Team string
	Name string        // which the newcomer gets; empty lets it choose
	Life time.Duration // of the invitation: one minute to 24 hours, an hour if zero
}

// Invited is an invitation whose secret is shown this once.
type Invited struct {
	ID      string
	Secret  secret.Bytes
	Expires time.Time
}

// Invite makes a one-time secret with which a newcomer of a given kind and role
// may enrol. Only its hash is stored.
func (g *Gate) Invite(ctx context.Context, c Caller, r InviteRequest) (Invited, error) {
	if r.Life == 0 {
		r.Life = time.Hour
	}
	probe := subject.Subject{Kind: r.Kind, Role: r.Role, Team: r.Team, Name: r.Name}
	if probe.Name == "" {
		probe.Name = "newcomer"
	}
	switch {
	case r.Kind != subject.Agent && r.Kind != subject.Operator:
		return Invited{}, fault.Invalidf("only agents and operators enrol with a join token")
	case r.Life < time.Minute || r.Life > 24*time.Hour:
		return Invited{}, fault.Invalidf("an invitation lives from one minute to 24 hours")
	}
	if err := probe.Validate(); err != nil {
		return Invited{}, err
	}
	if err := g.Clock.CheckClock(ctx); err != nil {
		return Invited{}, err
	}
	raw := make([]byte, 32)
	_, _ = rand.Read(raw) // never fails (crypto/rand)
	hash := sha256.Sum256(raw)
	out := Invited{ID: hex.EncodeToString(hash[:]), Secret: secret.New(raw)}
	c.keyed("subject.invited", invitedAnswer{&out}, string(r.Kind), r.Role, r.Team, r.Name, r.Life.String())
	err := g.decide(ctx, &c, func() (unit.Unit, error) {
		record := audit.Record{
			Type: "subject.invited", Actor: c.actor(), Target: out.ID,
			Data: map[string]string{"kind": string(r.Kind), "role": r.Role, "team": r.Team},
		}
		d, err := g.administered(ctx, c, "invite", record, string(r.Kind), r.Role)
		if err != nil {
			return unit.Unit{}, err
		}
		if err := g.admits(ctx, c, d.under, probe); err != nil {
			return unit.Unit{}, err
		}
		out.Expires = g.Now().Add(r.Life).UTC().Truncate(time.Microsecond)
		record.Policy = d.Documents
		return unit.Unit{Record: record, Writes: append(g.still(c, d.under), unit.Insert(subject.Invitation{
			ID: out.ID, Version: 1, Kind: r.Kind, Role: r.Role, Team: r.Team,
			Name: r.Name, Author: c.Subject.ID, Expires: out.Expires,
		}))}, nil
	})
	if err != nil {
		return Invited{}, err
	}
	return out, nil
}

// admits refuses to invite a newcomer whom the policies would not let in: a
// role that no document knows is more often a slip than a plan.
func (g *Gate) admits(ctx context.Context, c Caller, under loaded, newcomer subject.Subject) error {
	newcomer.State = subject.Registered
	who := Caller{Subject: newcomer, Via: c.Via, Address: c.Address, Method: c.Method}
	d, err := patiently(ctx, func() (policy.Decision, error) {
		return under.set.Decide(ctx, "admit", g.facts(who, enrolment(newcomer.Role)))
	})
	if err != nil {
		return fault.Wrap(err, "decide admit")
	}
	if !d.Allow {
		return fault.Invalidf("no policy admits an %s with the role %s: set a policy that does, then invite", newcomer.Kind, newcomer.Role)
	}
	return nil
}

// enrolment is the question whether policy lets a newcomer in.
func enrolment(role string) input {
	return input{action: "enrol", evidence: map[string]any{"kind": "join-token", "verified": true, "role": role}}
}

// SubjectChange is one thing that an operator does to a subject.
type SubjectChange struct {
	Act    string // revoked, locked, unlocked, registered (approve), rejected, changed
	Role   string // new role, for changed; empty keeps it
	Team   string
	Reason string
	// Credentials says what becomes of the live credentials of a subject that is
	// revoked or locked: Revoke or Keep. Empty revokes them with a subject that is
	// revoked, and keeps them while one is locked.
	Credentials string
}

// What becomes of the credentials of a subject.
const (
	Revoke = "revoke"
	Keep   = "keep"
)

// recalls reports whether the change takes the subject's credentials back.
func (change SubjectChange) recalls() bool {
	return change.Credentials == Revoke || change.Credentials == "" && change.Act == "revoked"
}

func (change SubjectChange) validate() error {
	switch change.Act {
	case "revoked", "locked", "unlocked", "registered", "rejected", "changed":
	default: // evidence alone makes a subject attested
		return fault.Invalidf("a subject can be revoked, locked, unlocked, registered, rejected or changed")
	}
	switch {
	case len(change.Reason) > 512:
		return fault.Invalidf("a reason has at most 512 bytes")
	case change.Credentials != "" && change.Credentials != Revoke && change.Credentials != Keep:
		return fault.Invalidf("credentials are %s or %s", Revoke, Keep)
	case change.Credentials != "" && change.Act != "revoked" && change.Act != "locked":
		return fault.Invalidf("what becomes of credentials is said when a subject is revoked or locked")
	}
	return nil
}

// Changed is a subject after a change, and what became of its credentials.
type Changed struct {
	Subject  subject.Subject
	Recalled *Recalled // nil if they were kept
}

// ChangeSubject takes a subject through one step of its life. Revoking one ends
// its certificates and sessions with it, since they all ask the row, and takes
// its live credentials back: that they are to be is committed with the step, so
// that whatever this call does not bring to its end the sweeper does.
func (g *Gate) ChangeSubject(ctx context.Context, c Caller, subjectID string, change SubjectChange) (Changed, error) {
	if err := change.validate(); err != nil {
		return Changed{}, err
	}
	var next subject.Subject
	c.keyed("subject."+change.Act, plainAnswer[subject.Subject]{to: &next}, subjectID, change.Role, change.Team, change.Reason, change.Credentials)
	err := g.decide(ctx, &c, func() (unit.Unit, error) {
		old, err := g.Store.Subject(ctx, subjectID)
		if err != nil {
			return unit.Unit{}, err
		}
		record := audit.Record{Type: "subject." + change.Act, Actor: c.actor(), Subject: old.ID, Data: map[string]string{
			"kind": string(old.Kind), "role": old.Role, "name": old.Name, "reason": change.Reason,
		}}
		d, err := g.allowed(ctx, c, "administer", record, input{action: change.Act, target: target(string(old.Kind), old.ID), request: change.facts()})
		if err != nil {
			return unit.Unit{}, err
		}
		if next, err = change.apply(old, g.Now().UTC()); err != nil {
			return unit.Unit{}, err
		}
		kept, err := g.keepAdministrator(ctx, c, d.under, old, next)
		if err != nil {
			return unit.Unit{}, err
		}
		record.Policy, record.Serial = d.Documents, strconv.FormatInt(next.Version, 10)
		if change.recalls() {
			record.Data["credentials"] = Revoke
		}
		if next.Role != old.Role {
			record.Data["new_role"] = next.Role
		}
		u := unit.Unit{Record: record, Urgent: change.Act == "revoked" || change.Act == "locked"}
		u.Writes = append(append(g.still(c, d.under), kept...), unit.Update(next))
		return u, nil
	})
	if err != nil {
		return Changed{}, err
	}
	out := Changed{Subject: next}
	if next.State == subject.Revoked {
		g.endSessions(ctx, c.actor(), next.ID, "subject revoked", func(subject.Session) bool { return true })
	}
	if !change.recalls() {
		return out, nil
	}
	var recalled Recalled
	if c.Key != nil && c.Key.Replayed {
		recalled = g.recount(ctx, next.ID)
	} else { // who goes away stops no revocation
		recalled = g.recall(context.WithoutCancel(ctx), c.actor(), next.ID, recallBudget)
	}
	out.Recalled = &recalled
	return out, nil
}

// facts are what policy sees of a change: what the subject becomes by it.
func (change SubjectChange) facts() map[string]any {
	out := map[string]any{}
	if change.Role != "" {
		out["role"] = change.Role
	}
	if change.Team != "" {
		out["team"] = change.Team
	}
	return out
}

func (change SubjectChange) apply(old subject.Subject, now time.Time) (subject.Subject, error) {
	next, err := old.Step(change.Act, change.Reason, now)
	if err != nil {
		return subject.Subject{}, err
	}
	if change.recalls() {
		next.Recall = now.Add(recallWindow)
	}
	switch {
	case change.Act == "unlocked" && !old.Recall.IsZero():
		return subject.Subject{}, fault.Conflictf("the credentials of the %s are still being revoked; unlock it when that is done", old.Kind)
	case change.Act != "changed":
	case change.Role == "" && change.Team == "":
		return subject.Subject{}, fault.Invalidf("name the new role or the new team")
	default:
		if change.Role != "" {
			next.Role = change.Role
		}
		if change.Team != "" {
			next.Team = change.Team
		}
	}
	return next, next.Validate()
}

// strip returns the write that raises a subject's version because something was
// taken from it: whatever was decided on the older version does not commit. The
// record learns the version.
func (g *Gate) strip(ctx context.Context, subjectID, reason string, r *audit.Record) ([]unit.Write, error) {
	holder, err := g.Store.Subject(ctx, subjectID)
	if err != nil {
		return nil, err
	}
	next, err := holder.Step("stripped", reason, g.Now().UTC())
	if fault.Is(err, fault.Conflict) {
		return nil, nil // ended already; nothing is decided on it any more
	}
	if err != nil {
		return nil, err
	}
	r.Serial = strconv.FormatInt(next.Version, 10)
	return []unit.Write{unit.Update(next)}, nil
}
