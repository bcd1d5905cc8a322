package flow

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/policy"
	"github.com/sallyport-project/sallyport/internal/resource"
	"github.com/sallyport-project/sallyport/internal/seal"
	"github.com/sallyport-project/sallyport/internal/secret"
	"github.com/sallyport-project/sallyport/internal/token"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// ReleaseResource gives a secret to an attested workload, sealed to its key.
// The caller and its result come from [Gate.Guest]. A resource that does not
// exist is NotFound only for who may read it.
func (g *Gate) ReleaseResource(
	ctx context.Context, c Caller, attested token.Attested, segments []string, query map[string]string,
) (seal.JWE, error) {
	path, err := resource.ParsePath(segments)
	if err != nil {
		return seal.JWE{}, err
	}
	if err := g.Clock.CheckClock(ctx); err != nil {
		return seal.JWE{}, err
	}
	var out seal.JWE
	tried := false
	err = g.decide(ctx, nil, func() (unit.Unit, error) {
		under, err := g.policies.now()
		if err != nil {
			return unit.Unit{}, err
		}
		if tried { // the unit has missed a check: the workload may have changed since it was recognised
			if c.Subject, err = g.Store.Subject(ctx, c.Subject.ID); err != nil {
				return unit.Unit{}, unknown(err, "read workload")
			}
		}
		if tried = true; !c.Subject.Active() {
			return unit.Unit{}, fault.Unauthenticatedf("the workload is %s", c.Subject.State)
		}
		record := audit.Record{
			Type: "resource.released", Actor: c.actor(), Subject: c.Subject.ID, Target: path, Data: map[string]string{"token": attested.ID},
		}
		d, err := patiently(ctx, func() (policy.Decision, error) {
			return under.set.ResourceAllowed(ctx, policy.ResourceRequest{Plugin: "resource", Path: segments, Query: query, Method: c.Method}, policy.Claims{Token: attested.ID, Members: attested.Claims})
		})
		if err != nil {
			return unit.Unit{}, fault.Wrap(err, "decide resource")
		}
		record.Policy, record.Reasons = d.Documents, d.Reasons
		if !d.Allow {
			record.Reasons = appraised(d, attested)
			return unit.Unit{}, g.refuse(ctx, record, "policy does not allow this workload to read the resource")
		}
		if err := g.gatedFor(ctx, c, attested, record, "resource", path, segments); err != nil {
			return unit.Unit{}, err
		}
		row, err := g.Store.Resource(ctx, path)
		if err != nil {
			return unit.Unit{}, err
		}
		plain, err := g.Envelope.Open(row.Table(), row.ID, row.Version, row.Sealed)
		if err != nil {
			return unit.Unit{}, fault.Wrap(err, "open resource")
		}
		defer plain.Wipe()
		if out, err = g.sealTo(attested.Key, plain); err != nil {
			return unit.Unit{}, err
		}
		record.Data["version"] = strconv.FormatInt(row.Version, 10)
		// What was deleted or replaced meanwhile does not leave, and has no record
		// behind that of its deletion.
		return unit.Unit{Record: record, Writes: append(g.still(c, under), unit.Check(row.Table(), row.ID, row.Version))}, nil
	})
	if err != nil {
		return seal.JWE{}, err
	}
	return out, nil
}

// PutResource stores a secret at a path, in place of what was there, which is kept
// as an older version. Versions of a path only grow, also over a deletion. The
// answer has no value, sealed or not.
func (g *Gate) PutResource(ctx context.Context, c Caller, segments []string, value secret.Bytes) (resource.Resource, error) {
	path, err := resource.ParsePath(segments)
	if err != nil {
		return resource.Resource{}, err
	}
	if value.Len() == 0 || value.Len() > resource.MaxValue {
		return resource.Resource{}, fault.Invalidf("a resource has 1 to %d bytes", resource.MaxValue)
	}
	var next resource.Resource
	sum := value.SHA256()
	c.keyed("resource.stored", plainAnswer[resource.Resource]{&next, deleted}, path, string(sum[:]))
	err = g.decide(ctx, &c, func() (unit.Unit, error) {
		record := audit.Record{Type: "resource.stored", Actor: c.actor(), Target: path, Data: map[string]string{"bytes": strconv.Itoa(value.Len())}}
		d, err := g.administered(ctx, c, "put", record, "resource", path)
		if err != nil {
			return unit.Unit{}, err
		}
		now := g.Now().UTC()
		old, err := g.Store.LastResource(ctx, path)
		if err != nil && !fault.Is(err, fault.NotFound) {
			return unit.Unit{}, fault.Wrap(err, "read resource")
		}
		next = resource.Resource{ID: path, Version: old.Version + 1, Bytes: int64(value.Len()), Author: c.Subject.ID, Created: old.Created, Changed: now}
		write := unit.Update
		if old.Version == 0 {
			write = unit.Insert
		}
		if old.Version == 0 || !old.Deleted.IsZero() {
			next.Created = now
		}
		if next.Sealed, err = g.Envelope.Seal(next.Table(), next.ID, next.Version, value); err != nil {
			return unit.Unit{}, fault.Wrap(err, "seal resource")
		}
		record.Policy, record.Serial = d.Documents, ""
		record.Data["version"] = strconv.FormatInt(next.Version, 10)
		u := unit.Unit{Record: record, Writes: append(append(g.still(c, d.under), write(next)), g.archive(old)...)}
		next.Sealed = nil
		return u, nil
	})
	return next, err
}

// deleted refuses to say again that a resource is stored which is not any more.
func deleted(ctx context.Context, g *Gate, was resource.Resource) error {
	if _, err := g.Store.Resource(ctx, was.ID); fault.Is(err, fault.NotFound) {
		return gone("the resource was deleted")
	} else if err != nil {
		return fault.Wrap(err, "read resource of first answer")
	}
	return nil
}

// Resources lists what is stored, without values.
func (g *Gate) Resources(ctx context.Context, c Caller, prefix, after string, limit int) ([]resource.Resource, error) {
	record := audit.Record{Type: "resource.listed", Actor: c.actor(), Target: strings.TrimSuffix(prefix, "/")}
	if _, err := g.inspected(ctx, c, "list", record, "resource", prefix); err != nil {
		return nil, err
	}
	return g.Store.Resources(ctx, prefix, after, page(limit))
}

// page bounds the length of a list.
func page(limit int) int {
	const most = 1000
	if limit <= 0 || limit > most {
		return most
	}
	return limit
}

// appraised gives the reasons of a denial by the resource policy, and what the guest
// was appraised as: most policies look at that, and none says so.
func appraised(d policy.Decision, a token.Attested) []string {
	return append(slices.Clone(d.Reasons), "the guest was appraised as "+a.Status().String())
}
