package flow

import (
	"context"
	"strconv"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/secret"
	"github.com/sallyport-project/sallyport/internal/subject"
	"github.com/sallyport-project/sallyport/internal/token"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// EnrolRequest is what a newcomer brings.
type EnrolRequest struct {
	Secret  secret.Bytes // the one-time secret of the join token
	CSR     []byte       // certificate request, PEM or DER; only its key counts
	Name    string       // wished for; the invitation's name wins
	Address string       // network address without the port
	Via     string
	Key     *Key // the request's Idempotency-Key, nil for none
}

// MaxCSR is the largest certificate request, in bytes.
const MaxCSR = 16 << 10

// Enrolled is a new subject and its certificate.
type Enrolled struct {
	Subject subject.Subject
	Leaf    Leaf
}

// Enrol admits a newcomer who knows the secret of an open invitation, and
// certifies its key. The invitation is used up by compare-and-set in the same
// unit: of two who come with it one gets in. Whatever is wrong with invitation
// or secret is Unauthenticated in the same words. Who comes once more with the
// same key, because the answer was lost, gets the first one.
func (g *Gate) Enrol(ctx context.Context, r EnrolRequest) (Enrolled, error) {
	if len(r.CSR) == 0 || len(r.CSR) > MaxCSR {
		return Enrolled{}, fault.Invalidf("send a certificate request of at most %d bytes", MaxCSR)
	}
	if err := g.Clock.CheckClock(ctx); err != nil {
		return Enrolled{}, err
	}
	var out Enrolled
	call := r.keyed(&out)
	err := g.decide(ctx, nil, g.underKey(ctx, call, func() (unit.Unit, error) {
		if err := g.enrolledBefore(ctx, r, call); err != nil {
			return unit.Unit{}, err
		}
		invited, author, err := g.invitation(ctx, r)
		if err != nil {
			return unit.Unit{}, err
		}
		now := g.Now().UTC().Truncate(time.Microsecond)
		name := invited.Name
		if name == "" {
			name = r.Name
		}
		newcomer := subject.Subject{
			ID: newID(), Version: 1, Kind: invited.Kind, State: subject.Registered, Role: invited.Role, Team: invited.Team,
			Name: name, Created: now, Changed: now,
		}
		if err := newcomer.Validate(); err != nil {
			return unit.Unit{}, err
		}
		if err := g.nameFree(ctx, newcomer); err != nil {
			return unit.Unit{}, err
		}
		who := Caller{Subject: newcomer, Via: r.Via, Address: r.Address}
		record := audit.Record{
			Type: "subject.enrolled", Actor: who.actor(), Subject: newcomer.ID, Serial: "1", Target: invited.ID,
			Data: map[string]string{"kind": string(newcomer.Kind), "role": newcomer.Role, "name": newcomer.Name, "invited_by": invited.Author},
		}
		d, err := g.allowed(ctx, who, "admit", record, enrolment(invited.Role))
		if err != nil {
			return unit.Unit{}, err
		}
		leaf, err := g.Authority.Issue(r.CSR, newcomer.Kind, newcomer.ID, g.leafLife(newcomer.Kind))
		if err != nil {
			return unit.Unit{}, err
		}
		out = Enrolled{Subject: newcomer, Leaf: leaf}
		invited.Version++
		invited.Used, invited.By = now, newcomer.ID
		record.Policy = d.Documents
		record.Data["certificate"], record.Data["serial"] = leaf.Fingerprint, leaf.Serial
		return unit.Unit{Record: record, Writes: []unit.Write{
			unit.Do("generations.check", 1, "the policies have changed, try again", "policy", d.under.generation),
			unit.Check("subjects", author.ID, author.Version),
			unit.Update(invited), unit.Insert(newcomer), unit.Insert(certificateOf(newcomer.ID, leaf)),
		}}, nil
	}))
	if err != nil {
		return Enrolled{}, err
	}
	return out, nil
}

func (g *Gate) leafLife(k subject.Kind) time.Duration {
	if k == subject.Operator {
		return g.OperatorLife
	}
	return g.LeafLife
}

func certificateOf(subjectID string, leaf Leaf) subject.Certificate {
	return subject.Certificate{ID: leaf.Fingerprint, Version: 1, Subject: subjectID, Serial: leaf.Serial, NotAfter: leaf.NotAfter}
}

// invitation finds the open invitation that a secret belongs to, and who
// invited: an invitation ends with its author's standing, so that a stolen
// credential leaves no back door behind. The secret has 256 random bits, so
// looking up its digest tells nothing by its timing.
func (g *Gate) invitation(ctx context.Context, r EnrolRequest) (subject.Invitation, subject.Subject, error) {
	row, err := g.Store.Invitation(ctx, r.invitation())
	if err != nil && !fault.Is(err, fault.NotFound) {
		return row, subject.Subject{}, fault.Wrap(err, "read invitation")
	}
	open := err == nil && row.Used.IsZero() && g.Now().Before(row.Expires)
	var author subject.Subject
	if open {
		author, err = g.Store.Subject(ctx, row.Author)
		if err != nil && !fault.Is(err, fault.NotFound) {
			return row, author, fault.Wrap(err, "read author of invitation")
		}
		open = err == nil && author.Active()
	}
	if !open {
		g.strangers.add(r.Address)
		return row, author, fault.Unauthenticatedf("the join token is not valid: it is wrong, was used already or has expired; ask for a new one")
	}
	return row, author, nil
}

// nameFree refuses a name that another living subject of the kind has.
func (g *Gate) nameFree(ctx context.Context, s subject.Subject) error {
	_, err := g.Store.SubjectByName(ctx, s.Kind, s.Name)
	switch {
	case fault.Is(err, fault.NotFound):
		return nil
	case err != nil:
		return fault.Wrap(err, "read subject by name")
	}
	return fault.Conflictf("an %s with the name %s exists already; choose another name, or revoke that one first", s.Kind, s.Name)
}

// Renew certifies a fresh key of a subject that shows a certificate which is
// still good. The old certificate runs out by itself.
func (g *Gate) Renew(ctx context.Context, c Caller, csr []byte) (Leaf, error) {
	if len(csr) == 0 || len(csr) > MaxCSR {
		return Leaf{}, fault.Invalidf("send a certificate request of at most %d bytes", MaxCSR)
	}
	if c.Certificate == nil || c.Session.Delegated() {
		return Leaf{}, fault.Unauthenticatedf("present the certificate that is to be renewed")
	}
	if err := g.Clock.CheckClock(ctx); err != nil {
		return Leaf{}, err
	}
	var leaf Leaf
	c.keyed("certificate.renewed", certified(&leaf, func(l Leaf) Leaf { return l }), requestedKey(csr))
	err := g.decide(ctx, &c, func() (unit.Unit, error) {
		record := audit.Record{Type: "certificate.renewed", Actor: c.actor(), Subject: c.Subject.ID, Data: map[string]string{}}
		d, err := g.admitted(ctx, c, record, "renew")
		if err != nil {
			return unit.Unit{}, err
		}
		if leaf, err = g.Authority.Issue(csr, c.Subject.Kind, c.Subject.ID, g.leafLife(c.Subject.Kind)); err != nil {
			return unit.Unit{}, err
		}
		record.Policy, record.Target, record.Data["serial"] = d.Documents, leaf.Fingerprint, leaf.Serial
		return unit.Unit{Record: record, Writes: append(g.still(c, d.under), unit.Insert(certificateOf(c.Subject.ID, leaf)))}, nil
	})
	if err != nil {
		return Leaf{}, err
	}
	return leaf, nil
}

// Opened is a session token with what it says.
type Opened struct {
	Token   secret.Bytes
	Session token.Session
}

// everything is the scope of a session that was not narrowed. Policy still
// decides each act.
var everything = token.Scopes{"*:**"}

// OpenSession gives a session token, bound to the certificate that is shown,
// for at most 15 minutes. Scopes narrow it; none means that policy alone does.
func (g *Gate) OpenSession(ctx context.Context, c Caller, scopes token.Scopes) (Opened, error) {
	if c.Session.ID != "" || c.Certificate == nil {
		return Opened{}, fault.Unauthenticatedf("open a session with a client certificate alone; a session token opens none")
	}
	if len(scopes) == 0 {
		scopes = everything
	}
	return g.open(ctx, c, "session.opened", "session", func() (token.Issued, error) {
		return g.Sessions.Open(token.Opening{Subject: c.Subject.ID, Certificate: c.Certificate, Scopes: scopes, Life: g.SessionLife})
	}, nil, scopes.Strings()...)
}

// refreshed is why a session ended that lives on in another one.
const refreshed = "refreshed"

// RefreshSession exchanges a session for a fresh one with the same scopes and
// ends the old one in the same unit. Delegated sessions cannot be refreshed.
func (g *Gate) RefreshSession(ctx context.Context, c Caller) (Opened, error) {
	if c.Session.ID == "" {
		return Opened{}, fault.Unauthenticatedf("send the session token that is to be refreshed")
	}
	return g.open(ctx, c, "session.refreshed", "refresh", func() (token.Issued, error) {
		return g.Sessions.Refresh(c.Session)
	}, func() ([]unit.Write, error) {
		old, err := g.Store.Session(ctx, c.Session.ID)
		if err != nil {
			return nil, unknown(err, "read session")
		}
		if !old.Good(g.Now()) {
			return nil, fault.Unauthenticatedf("the session was revoked, or has expired: open a session")
		}
		return []unit.Write{unit.Update(old.End(refreshed, g.Now().UTC()))}, nil
	})
}

// Delegate gives a narrower session to somebody with a key of its own. It can
// open, refresh and delegate nothing, and ends with its parent.
func (g *Gate) Delegate(ctx context.Context, c Caller, to token.Delegation) (Opened, error) {
	if c.Session.ID == "" {
		return Opened{}, fault.Unauthenticatedf("only a session can be delegated: open one first")
	}
	return g.open(ctx, c, "session.delegated", "delegate", func() (token.Issued, error) {
		return g.Sessions.Delegate(c.Session, to)
	}, func() ([]unit.Write, error) {
		parent, err := g.Store.Session(ctx, c.Session.ID)
		if err != nil {
			return nil, unknown(err, "read session")
		}
		if !parent.Good(g.Now()) {
			return nil, fault.Unauthenticatedf("the session was revoked, or has expired: open a session")
		}
		return []unit.Write{unit.Check("sessions", parent.ID, parent.Version)}, nil
	}, append([]string{to.KeyThumb, to.Life.String()}, to.Scopes.Strings()...)...)
}

// admitted asks policy about an act of admission by a known subject. The
// subject's row is the one by which it was recognised: the unit misses its check
// when a certificate or session was taken away since.
func (g *Gate) admitted(ctx context.Context, c Caller, record audit.Record, action string) (decided, error) {
	return g.allowed(ctx, c, "admit", record, input{action: action, evidence: map[string]any{
		"kind": "certificate", "verified": true,
	}})
}

// open is what all ways to a session share. The request is what tells one from
// another by the same caller.
func (g *Gate) open(
	ctx context.Context, c Caller, recordType, action string, mint func() (token.Issued, error), further func() ([]unit.Write, error),
	request ...string,
) (Opened, error) {
	if err := g.Clock.CheckClock(ctx); err != nil {
		return Opened{}, err
	}
	var out Opened
	c.keyed(recordType+" by "+c.shown(), openedAnswer{&out}, request...)
	err := g.decide(ctx, &c, func() (unit.Unit, error) {
		record := audit.Record{Type: recordType, Actor: c.actor(), Subject: c.Subject.ID, Data: map[string]string{}}
		d, err := g.admitted(ctx, c, record, action)
		if err != nil {
			return unit.Unit{}, err
		}
		issued, err := mint()
		if err != nil {
			return unit.Unit{}, err
		}
		writes := g.still(c, d.under)
		if further != nil {
			more, err := further()
			if err != nil {
				return unit.Unit{}, err
			}
			writes = append(writes, more...)
		}
		s := issued.Session
		out = Opened{Token: issued.Token, Session: s}
		record.Target, record.Policy, record.Serial = s.ID, d.Documents, strconv.FormatInt(c.Subject.Version, 10)
		record.Data["certificate"] = c.Fingerprint
		record.Data["expires_at"] = s.Expires.UTC().Format(time.RFC3339)
		return unit.Unit{Record: record, Writes: append(writes, unit.Insert(subject.Session{
			ID: s.ID, Version: 1, Subject: s.Subject, Parent: s.Parent, Certificate: c.Fingerprint, Expires: s.Expires,
		}))}, nil
	})
	if err != nil {
		return Opened{}, err
	}
	return out, nil
}

// EndSession revokes a session of the caller's own, or as an operator anyone's,
// with all that were delegated from it.
func (g *Gate) EndSession(ctx context.Context, c Caller, sessionID, reason string) error {
	if len(reason) > 512 {
		return fault.Invalidf("a reason has at most 512 bytes")
	}
	if reason == refreshed {
		return fault.Invalidf("give another reason than %q", refreshed)
	}
	c.keyed("session.revoked", happened(), sessionID, reason)
	return g.decide(ctx, nil, g.underKey(ctx, c.call, func() (unit.Unit, error) {
		row, err := g.Store.Session(ctx, sessionID)
		if err != nil && !fault.Is(err, fault.NotFound) {
			return unit.Unit{}, err
		}
		record := audit.Record{Type: "session.revoked", Actor: c.actor(), Subject: row.Subject, Target: sessionID, Data: map[string]string{"reason": reason}}
		proof := c.once()
		if err != nil || row.Subject != c.Subject.ID || c.Session.Delegated() {
			d, denied := g.administered(ctx, c, "revoke", record, "session", sessionID)
			if denied != nil {
				return unit.Unit{}, denied
			}
			record.Policy, proof = d.Documents, g.still(c, d.under)
		} else if again := g.firstAnswer(ctx, c, decided{}); again != nil {
			return unit.Unit{}, again
		}
		if err != nil {
			return unit.Unit{}, err
		}
		if !row.Revoked.IsZero() && row.Reason == refreshed { // done is not what whoever asks must think
			return unit.Unit{}, fault.Conflictf("this session was refreshed at %s and its holder lives on in another: revoke the certificate that it is bound to, or the subject",
				row.Revoked.Format(time.RFC3339))
		}
		if !row.Revoked.IsZero() {
			return unit.Unit{}, fault.Conflictf("the session was revoked already, at %s", row.Revoked.Format(time.RFC3339))
		}
		writes, err := g.strip(ctx, row.Subject, "session revoked", &record)
		if err != nil {
			return unit.Unit{}, err
		}
		writes = append(proof, writes...)
		family, err := g.Store.SessionsOf(ctx, row.Subject)
		if err != nil {
			return unit.Unit{}, fault.Wrap(err, "read sessions")
		}
		return unit.Unit{Record: record, Urgent: true, Writes: append(writes, endFamily(row, family, reason, g.Now().UTC())...)}, nil
	}))
}

// endFamily ends a session, and every delegated one whose parent does not live
// on: its own children, and those whose parent was refreshed meanwhile.
func endFamily(row subject.Session, family []subject.Session, reason string, now time.Time) []unit.Write {
	writes := []unit.Write{unit.Update(row.End(reason, now))}
	parents := map[string]bool{}
	for _, s := range family {
		parents[s.ID] = s.ID != row.ID && s.Good(now)
	}
	for _, s := range family {
		if s.ID != row.ID && s.Parent != "" && s.Good(now) && !parents[s.Parent] {
			writes = append(writes, unit.Update(s.End("parent revoked", now)))
		}
	}
	return writes
}
