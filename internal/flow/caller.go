package flow

import (
	"context"
	"crypto/x509"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/subject"
	"github.com/sallyport-project/sallyport/internal/token"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// Caller is somebody who was recognised. Only [Gate.Authenticate], [Gate.Guest],
// [Gate.Deputy], [Gate.Uploader] and the services of plugins make one.
type Caller struct {
	Subject     subject.Subject
	Session     token.Session     // ID is empty for who shows a certificate alone
	Certificate *x509.Certificate // nil if none was shown
	Fingerprint string            // of the certificate, SHA-256 in lower-case hex
	Via         string
	Address     string
	Method      string
	Key         *Key // of this request; nil for none

	call       *keyedCall     // what is done under the key
	refreshing bool           // may show a session that was refreshed already
	plugin     string         // the name of the plugin that calls; no subject acts
	upload     *bringing      // the upload token that was shown in place of an identity; nil for none
	deputy     bool           // acts as the subject, which has shown nothing itself
	issuer     string         // of the token by which a deputy was let in
	bearer     string         // whom that token names
	claims     map[string]any // of the attestation token of a workload that asks for a credential
	asked      *asking        // what the resource policy has to allow it as well; nil for everybody else
}

func (c Caller) actor() audit.Actor {
	if c.plugin != "" {
		return audit.Plugin(c.plugin)
	}
	if c.Subject.Kind == subject.Plugin {
		a := audit.Plugin(c.Subject.Name)
		a.Subject = c.Subject.ID
		return a
	}
	return audit.Actor{
		Subject: c.Subject.ID, Kind: string(c.Subject.Kind), Session: c.Session.ID, Via: c.Via, Address: c.Address,
		Issuer: audit.Claimed(c.issuer), Bearer: audit.Claimed(c.bearer),
	}
}

// Authenticate finds out who is calling, from rows that say so now: a token
// must belong to a session that was not revoked, a certificate must be one that
// we issued and did not revoke, and their subject must be active and have a
// role. Everything else is Unauthenticated, is counted, and learns no more than
// what to do about it.
func (g *Gate) Authenticate(ctx context.Context, p Presented) (Caller, error) {
	c, err := g.recognise(ctx, p)
	if fault.Is(err, fault.Unauthenticated) {
		g.strangers.add(p.Address)
	}
	return c, err
}

// Deputy makes the caller who acts as a named operator: whoever was let in at a
// door by other means than this server's own certificates and sessions. What the
// operator may do bounds what is done so, and the record says by which door, and
// whom the token named that was shown there. A name that is not there is
// Unauthenticated.
func (g *Gate) Deputy(ctx context.Context, operator string, p Presented) (Caller, error) {
	holder, err := g.Store.SubjectByName(ctx, subject.Operator, operator)
	if err != nil {
		return Caller{}, unknown(err, "read operator")
	}
	c := Caller{Subject: holder, Via: p.Via, Address: p.Address, Method: p.Method, Key: p.Key, deputy: true, issuer: p.Issuer, bearer: p.Bearer}
	return c, c.standing()
}

// CountStranger counts a caller whom a door refused by itself.
func (g *Gate) CountStranger(address string) { g.strangers.add(address) }

func (g *Gate) recognise(ctx context.Context, p Presented) (Caller, error) {
	c := Caller{Via: p.Via, Address: p.Address, Method: p.Method, Key: p.Key, refreshing: p.Refreshing && p.Key != nil}
	if p.Certificate == nil && p.Token == "" {
		return Caller{}, fault.Unauthenticatedf("present a client certificate, or a session token with the certificate it is bound to")
	}
	if p.Certificate != nil {
		if err := g.recogniseCertificate(ctx, p.Certificate, &c); err != nil {
			return Caller{}, err
		}
	}
	if p.Token != "" {
		if err := g.recogniseToken(ctx, p, &c); err != nil {
			return Caller{}, err
		}
	}
	if err := c.standing(); err != nil {
		return Caller{}, err
	}
	return c, nil
}

// standing refuses a subject that may do nothing.
func (c Caller) standing() error {
	switch {
	case c.Subject.State == subject.Locked:
		return fault.Unauthenticatedf("the %s is locked, until an operator unlocks it", c.Subject.Kind)
	case !c.Subject.Active():
		return fault.Unauthenticatedf("the %s is %s", c.Subject.Kind, c.Subject.State)
	case c.Subject.Role == "":
		return fault.Unauthenticatedf("the %s has no role", c.Subject.Kind)
	}
	return nil
}

// again recognises a caller once more by the rows as they are now, when a unit
// that was decided for it has missed its check.
func (g *Gate) again(ctx context.Context, c Caller) (Caller, error) {
	if c.upload != nil {
		return g.bearer(ctx, c)
	}
	if c.deputy || c.claims != nil || c.Subject.Kind == subject.Plugin {
		holder, err := g.Store.Subject(ctx, c.Subject.ID)
		if err != nil {
			return c, unknown(err, "read caller")
		}
		c.Subject = holder
	}
	if c.Certificate != nil {
		if err := g.recogniseCertificate(ctx, c.Certificate, &c); err != nil {
			return c, err
		}
	}
	if c.Session.ID != "" {
		if err := g.recogniseSession(ctx, c.Session, &c); err != nil {
			return c, err
		}
	}
	return c, c.standing()
}

// recogniseCertificate reads the subject before its certificate. The order
// counts: whoever revokes the certificate raises the subject's version, so a
// revocation between the two reads is either seen here or missed by the check of
// this version in the unit.
func (g *Gate) recogniseCertificate(ctx context.Context, cert *x509.Certificate, c *Caller) error {
	who, err := g.Authority.Identify(cert)
	if err != nil {
		return fault.Unauthenticatedf("the client certificate is not one of ours, or has expired: enrol again").Because(err)
	}
	holder, err := g.Store.Subject(ctx, who.Subject)
	if err != nil {
		return unknown(err, "read subject of certificate")
	}
	if holder.Kind != who.Kind {
		return fault.Unauthenticatedf("the client certificate names another kind of subject")
	}
	c.Subject, c.Certificate, c.Fingerprint = holder, cert, who.Fingerprint
	row, err := g.Store.Certificate(ctx, who.Fingerprint)
	if fault.Is(err, fault.NotFound) && who.Issuer != "" {
		row, err = g.meet(ctx, *c, who)
	}
	switch {
	case fault.Is(err, fault.NotFound):
		return fault.Unauthenticatedf("the client certificate is not known here: enrol again")
	case err != nil:
		return fault.Wrap(err, "read certificate")
	case row.Subject != who.Subject || !row.Good(g.Now()):
		return fault.Unauthenticatedf("the client certificate was revoked, or has expired: enrol again")
	}
	return nil
}

func (g *Gate) recogniseToken(ctx context.Context, p Presented, c *Caller) error {
	session, err := g.Sessions.Verify(p.Token, token.Presentation{
		Certificate: p.Certificate, Proof: p.Proof, Method: p.Method, URL: p.URL,
	})
	if err != nil {
		return err // Unauthenticated, and says what to do
	}
	if p.Proof != "" && session.KeyThumb == "" {
		return fault.Unauthenticatedf("this session is bound to a certificate: send its token as Bearer, without a DPoP proof")
	}
	return g.recogniseSession(ctx, session, c)
}

func (g *Gate) recogniseSession(ctx context.Context, session token.Session, c *Caller) error {
	row, holder, err := g.Store.Caller(ctx, session.ID)
	if err != nil {
		return unknown(err, "read session")
	}
	switch {
	case row.Subject != session.Subject || !row.Good(g.Now()) && !(c.refreshing && row.Reason == refreshed):
		return fault.Unauthenticatedf("the session was revoked, or has expired: open a session")
	case c.Certificate != nil && c.Subject.ID != holder.ID && !session.Delegated():
		return fault.Unauthenticatedf("the session token and the client certificate belong to different subjects")
	case !session.Delegated() && row.Certificate != c.Fingerprint:
		return fault.Unauthenticatedf("the session is bound to another certificate: open a session")
	}
	if session.Delegated() {
		if err := g.delegatorStands(ctx, row); err != nil {
			return err
		}
	}
	c.Session = session
	if c.Certificate == nil || session.Delegated() {
		c.Subject = holder
		return nil
	}
	// The certificate was judged by the subject as it was read before it: a later
	// version must not stand for that judgement. If it has changed since, the
	// check in the unit misses and all is read again.
	return Caller{Subject: holder}.standing()
}

// delegatorStands demands of a delegated session what its parent is asked for by
// itself: that neither the parent nor the certificate behind both was revoked.
func (g *Gate) delegatorStands(ctx context.Context, row subject.Session) error {
	// The parent may have been ended while this one was made; one that was
	// refreshed lives on in another session.
	parent, err := g.Store.Session(ctx, row.Parent)
	if err != nil {
		return unknown(err, "read parent of session")
	}
	behind, err := g.Store.Certificate(ctx, row.Certificate)
	if err != nil {
		return unknown(err, "read certificate of session")
	}
	if !parent.Revoked.IsZero() && parent.Reason != refreshed || !behind.Good(g.Now()) {
		return fault.Unauthenticatedf("the session that delegated this one was revoked: ask for another")
	}
	return nil
}

// slack is how much longer than it counts a used nonce is remembered: clocks of
// replicas differ, and a token counts time in whole seconds.
const slack = 2 * time.Minute

// once returns the writes that use up the proof of possession of a delegate's
// request: it is good for one act.
func (c Caller) once() []unit.Write {
	if c.Session.Proof.Use == "" {
		return nil
	}
	return []unit.Write{unit.Do("nonces.insert", 1, "this proof of possession was used already, make a new one",
		"proof/"+c.Session.Proof.Use, unit.Micros(c.Session.Proof.Until.Add(slack)))}
}

// unknown turns "there is no such row" into "we do not know you"; a row that
// cannot be read stays what it is.
func unknown(err error, context string) error {
	if fault.Is(err, fault.NotFound) {
		return fault.Unauthenticatedf("this identity is not known here").Because(err)
	}
	return fault.Wrap(err, "%s", context)
}
