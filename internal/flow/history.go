package flow

import (
	"context"
	"strconv"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/resource"
	"github.com/sallyport-project/sallyport/internal/secret"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// What stood at a path before is kept, for operators alone: a guest gets the
// newest value, whatever it asks for, because a secret that was replaced is one
// that nobody should be given any more.

// ReadResource gives a stored secret to an operator, in the clear: the value of a
// version, or for 0 the present one. It is the one way out of a secret but for
// attested guests, so that the policy of a new installation allows it to nobody,
// and each time is recorded before the value leaves. What never was, was deleted
// or erased is NotFound.
func (g *Gate) ReadResource(ctx context.Context, c Caller, segments []string, number int64) (resource.Version, secret.Bytes, error) {
	path, err := resource.ParsePath(segments)
	if err != nil {
		return resource.Version{}, secret.Bytes{}, err
	}
	var was resource.Version
	var plain secret.Bytes
	err = g.decide(ctx, &c, func() (unit.Unit, error) {
		record := audit.Record{Type: "resource.read", Actor: c.actor(), Target: path}
		d, err := g.administered(ctx, c, "read", record, "resource", path)
		if err != nil {
			return unit.Unit{}, err
		}
		if was, err = g.version(ctx, path, number); err != nil {
			return unit.Unit{}, err
		}
		plain.Wipe()
		// Kept as it was sealed, which is as the resource of that version.
		if plain, err = g.Envelope.Open(resource.Resource{}.Table(), path, was.Number, was.Sealed); err != nil {
			return unit.Unit{}, fault.Wrap(err, "open resource")
		}
		was.Sealed = nil
		record.Policy, record.Data = d.Documents, map[string]string{"version": strconv.FormatInt(was.Number, 10)}
		return unit.Unit{Record: record, Writes: g.still(c, d.under)}, nil
	})
	if err != nil {
		plain.Wipe()
		return resource.Version{}, secret.Bytes{}, err
	}
	return was, plain, nil
}

// version reads a version whose value is there: 0 is the present one.
func (g *Gate) version(ctx context.Context, path string, number int64) (resource.Version, error) {
	last, err := g.Store.LastResource(ctx, path)
	if err != nil {
		return resource.Version{}, err
	}
	was := last.Past(true)
	if number == 0 && was.Deleted {
		return was, fault.NotFoundf("this resource is deleted; its versions may still be there")
	}
	if number != 0 && number != last.Version {
		if was, err = g.Store.ResourceVersion(ctx, path, number); err != nil {
			return was, err
		}
	}
	switch {
	case was.Deleted:
		return was, fault.NotFoundf("version %d is a deletion, there is no value", was.Number)
	case len(was.Sealed) == 0:
		return was, fault.NotFoundf("the value of version %d is not kept any more", was.Number)
	}
	return was, nil
}

// ResourceVersions lists what is and was at a path, the newest first, without
// values: versions below before, all if it is 0. A path at which nothing ever was
// is NotFound.
func (g *Gate) ResourceVersions(ctx context.Context, c Caller, segments []string, before int64, limit int) ([]resource.Version, error) {
	path, err := resource.ParsePath(segments)
	if err != nil {
		return nil, err
	}
	record := audit.Record{Type: "resource.listed", Actor: c.actor(), Target: path}
	if _, err := g.inspected(ctx, c, "list", record, "resource", path); err != nil {
		return nil, err
	}
	last, err := g.Store.LastResource(ctx, path)
	if err != nil {
		return nil, err
	}
	limit = page(limit)
	var out []resource.Version
	if before == 0 || before > last.Version {
		out, before = append(out, last.Past(true)), last.Version
	}
	if limit > len(out) {
		past, err := g.Store.ResourceVersions(ctx, path, before, limit-len(out))
		if err != nil {
			return nil, err
		}
		out = append(out, past...)
	}
	return out, nil
}

// archive is what becomes of a version when the next one is written: it is kept, and
// what is older than the operator wants to keep loses its value.
func (g *Gate) archive(old resource.Resource) []unit.Write {
	if old.Version == 0 {
		return nil
	}
	writes := []unit.Write{unit.Insert(old.Past(g.KeepVersions > 0))}
	if n := old.Version - int64(g.KeepVersions); n > 0 && g.KeepVersions > 0 {
		writes = append(writes, erase(old.ID, n, n))
	}
	return writes
}

// erase takes the values of versions away. That they were, stays.
func erase(path string, from, to int64) unit.Write {
	return unit.Do("resource_versions.erase", unit.AnyRows, "", resource.VersionID(path, from), resource.VersionID(path, to))
}

// DeleteResource removes a secret: guests do not get it any more. What stood there
// is kept like every older version, or, to erase, no value of the path is: that
// is for good, and possible later too. The numbers go on in either case.
func (g *Gate) DeleteResource(ctx context.Context, c Caller, segments []string, erasing bool) error {
	path, err := resource.ParsePath(segments)
	if err != nil {
		return err
	}
	c.keyed("resource.deleted", happened(), path, strconv.FormatBool(erasing))
	return g.decide(ctx, &c, func() (unit.Unit, error) {
		record := audit.Record{Type: "resource.deleted", Actor: c.actor(), Target: path}
		d, err := g.administered(ctx, c, "delete", record, "resource", path)
		if err != nil {
			return unit.Unit{}, err
		}
		old, err := g.Store.LastResource(ctx, path)
		if err != nil {
			return unit.Unit{}, err
		}
		writes := g.still(c, d.under)
		left := old
		if old.Deleted.IsZero() {
			left = old.Delete(c.Subject.ID, g.Now().UTC())
			writes = append(writes, unit.Update(left))
			if erasing {
				writes = append(writes, unit.Insert(old.Past(false)))
			} else {
				writes = append(writes, g.archive(old)...)
			}
		} else if !erasing {
			return unit.Unit{}, fault.NotFoundf("this resource is deleted already")
		}
		record.Policy, record.Data = d.Documents, map[string]string{"version": strconv.FormatInt(left.Version, 10)}
		if erasing {
			record.Data["erased"] = "true"
			if left.Version == old.Version { // nobody must put anything meanwhile that this would miss
				writes = append(writes, unit.Check(old.Table(), old.ID, old.Version))
			}
			writes = append(writes, erase(path, 0, left.Version))
		}
		return unit.Unit{Record: record, Writes: writes}, nil
	})
}
