package flow

import (
	"context"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/policy"
	"github.com/sallyport-project/sallyport/internal/subject"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// Queries change nothing and write no record when they are allowed; a refused
// one is recorded like every refusal.

// inspected is [Gate.administered] for acts that end in no unit, whose check
// would notice that policies have changed.
func (g *Gate) inspected(ctx context.Context, c Caller, action string, r audit.Record, kind, name string) (decided, error) {
	if err := g.Reload(ctx); err != nil {
		return decided{}, err
	}
	return g.administered(ctx, c, action, r, kind, name)
}

// Subjects lists subjects.
func (g *Gate) Subjects(ctx context.Context, c Caller, f subject.Filter) ([]subject.Subject, error) {
	record := audit.Record{Type: "subject.listed", Actor: c.actor()}
	if _, err := g.inspected(ctx, c, "list", record, orAny(string(f.Kind)), ""); err != nil {
		return nil, err
	}
	f.Limit = page(f.Limit)
	return g.Store.Subjects(ctx, f)
}

// Detail is a subject with what it carries.
type Detail struct {
	Subject      subject.Subject
	Certificates []subject.Certificate // not expired; revoked ones too
	Sessions     []subject.Session     // live
	Live         []grant.Grant         // whose credentials may still work, the first hundred
	Grants       map[grant.State]int   // all that it was ever given, by state
}

// mostLive is how many live grants are shown with their subject.
const mostLive = 100

// Subject reads one subject with its certificates, live sessions and grants.
// Everybody may read themselves.
func (g *Gate) Subject(ctx context.Context, c Caller, id string) (Detail, error) {
	if id != c.Subject.ID || c.Session.Delegated() {
		record := audit.Record{Type: "subject.read", Actor: c.actor(), Subject: id}
		if _, err := g.inspected(ctx, c, "get", record, "subject", id); err != nil {
			return Detail{}, err
		}
	}
	var d Detail
	var err error
	if d.Subject, err = g.Store.Subject(ctx, id); err != nil {
		return Detail{}, err
	}
	if d.Certificates, err = g.Store.CertificatesOf(ctx, id); err != nil {
		return Detail{}, err
	}
	if d.Sessions, err = g.Store.SessionsOf(ctx, id); err != nil {
		return Detail{}, err
	}
	if d.Live, err = g.Store.LiveGrants(ctx, id, g.Now(), mostLive); err != nil {
		return Detail{}, err
	}
	d.Grants, err = g.Store.CountGrants(ctx, id)
	return d, err
}

// Grants lists grants: the caller's own, or as an operator anyone's.
func (g *Gate) Grants(ctx context.Context, c Caller, f grant.Filter) ([]grant.Grant, error) {
	if f.Subject != c.Subject.ID || c.Session.Delegated() {
		record := audit.Record{Type: "grant.listed", Actor: c.actor(), Subject: f.Subject}
		if _, err := g.inspected(ctx, c, "list", record, "grant", ""); err != nil {
			return nil, err
		}
	}
	f.Limit = page(f.Limit)
	return g.Store.Grants(ctx, f)
}

// Grant reads one grant: the caller's own, or as an operator anyone's. For
// everybody else a grant that exists and one that does not look the same.
func (g *Gate) Grant(ctx context.Context, c Caller, id string) (grant.Grant, error) {
	found, err := g.Store.Grant(ctx, id)
	if err == nil && found.Subject == c.Subject.ID && !c.Session.Delegated() {
		return found, nil
	}
	record := audit.Record{Type: "grant.read", Actor: c.actor(), Grant: id}
	if _, denied := g.inspected(ctx, c, "get", record, "grant", id); denied != nil {
		return grant.Grant{}, denied
	}
	return found, err
}

// RevokeGrant takes back a grant of the caller's own, or as an operator
// anyone's. It ends like a leak that was reported, without the tag.
func (g *Gate) RevokeGrant(ctx context.Context, c Caller, id, reason string) (Match, error) {
	held, err := g.Store.Grant(ctx, id)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return Match{}, err
	}
	if err != nil || held.Subject != c.Subject.ID || c.Session.Delegated() {
		record := audit.Record{Type: "grant.revoked", Actor: c.actor(), Grant: id}
		if _, denied := g.inspected(ctx, c, "revoke", record, "grant", id); denied != nil {
			return Match{}, denied
		}
	}
	if err != nil {
		return Match{}, err
	}
	if len(reason) > 512 {
		return Match{}, fault.Invalidf("a reason has at most 512 bytes")
	}
	return g.react(ctx, c.actor(), id, cause{reason: byHand, text: reason, proof: c.once()})
}

// Policies lists the documents in force.
func (g *Gate) Policies(ctx context.Context, c Caller) ([]policy.Document, error) {
	record := audit.Record{Type: "policy.listed", Actor: c.actor()}
	if _, err := g.inspected(ctx, c, "list", record, "policy", ""); err != nil {
		return nil, err
	}
	all, err := g.Store.Policies(ctx)
	return activeOnly(all, func(d policy.Document) bool { return d.State == policy.Active }), err
}

// PolicyVersions reads all versions of a document, the newest last.
func (g *Gate) PolicyVersions(ctx context.Context, c Caller, name string) ([]policy.Document, error) {
	record := audit.Record{Type: "policy.read", Actor: c.actor(), Target: name}
	if _, err := g.inspected(ctx, c, "get", record, "policy", name); err != nil {
		return nil, err
	}
	versions, err := g.Store.PolicyVersions(ctx, name)
	if err == nil && len(versions) == 0 {
		return nil, fault.NotFoundf("there is no policy %s; see: sallyport policy list", name)
	}
	return versions, err
}

// Oversee lets an operator, of whatever role, see how the server does.
func (g *Gate) Oversee(ctx context.Context, c Caller) error {
	if c.Subject.Kind == subject.Operator && !c.Session.Delegated() {
		return nil
	}
	return g.refuse(ctx, audit.Record{Type: "status.read", Actor: c.actor(), Subject: c.Subject.ID}, "the status is for operators")
}

// Audit lets an auditor read the ledger: on nil the caller may use the reader
// for records, tiles, checkpoint and proofs.
func (g *Gate) Audit(ctx context.Context, c Caller, action string) (Records, error) {
	record := audit.Record{Type: "ledger.read", Actor: c.actor(), Data: map[string]string{"action": action}}
	if _, err := g.inspected(ctx, c, action, record, "audit", ""); err != nil {
		return nil, err
	}
	if action == "export" { // the whole ledger leaves the house: that is recorded
		if err := g.commit(ctx, unit.Unit{Record: record}); err != nil {
			return nil, err
		}
	}
	return g.Store, nil
}

func orAny(kind string) string {
	if kind == "" {
		return "subject"
	}
	return kind
}
