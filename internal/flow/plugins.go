package flow

import (
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// TrustPublisher lets a publisher's key sign packages whose names match the
// patterns; none means all of its packages.
func (g *Gate) TrustPublisher(ctx context.Context, c Caller, publisher string, public ed25519.PublicKey, names []string) (plugin.Key, error) {
	var next plugin.Key
	c.keyed("publisher.trusted", plainAnswer[plugin.Key]{&next, distrusted}, append([]string{publisher, string(public)}, names...)...)
	err := g.decide(ctx, &c, func() (unit.Unit, error) {
		fresh, err := plugin.NewKey(public, publisher, names, c.Subject.ID, g.Now().UTC())
		if err != nil {
			return unit.Unit{}, err
		}
		record := audit.Record{Type: "publisher.trusted", Actor: c.actor(), Target: fresh.ID, Data: map[string]string{
			"publisher": publisher, "names": strings.Join(fresh.Names, " "),
		}}
		d, err := g.administered(ctx, c, "trust", record, "publisher", publisher)
		if err != nil {
			return unit.Unit{}, err
		}
		old, known, err := g.publisherKey(ctx, fresh.ID)
		if err != nil {
			return unit.Unit{}, err
		}
		write := unit.Insert
		if known {
			if old.State == plugin.Active {
				return unit.Unit{}, fault.Conflictf("this key is trusted already, for publisher %s", old.Publisher)
			}
			fresh.Version, write = old.Version+1, unit.Update
		}
		next, record.Policy = fresh, d.Documents
		return unit.Unit{Record: record, Writes: append(g.still(c, d.under), write(fresh), g.bumped("trust"))}, nil
	})
	if err != nil {
		return plugin.Key{}, err
	}
	return next, g.ApplyPlugins(ctx)
}

// DistrustPublisher takes a key out of trust. Plugins that only it has signed
// stop.
func (g *Gate) DistrustPublisher(ctx context.Context, c Caller, keyID string) error {
	c.keyed("publisher.distrusted", happened(), keyID)
	err := g.decide(ctx, &c, func() (unit.Unit, error) {
		record := audit.Record{Type: "publisher.distrusted", Actor: c.actor(), Target: keyID}
		d, err := g.administered(ctx, c, "distrust", record, "publisher", keyID)
		if err != nil {
			return unit.Unit{}, err
		}
		old, known, err := g.publisherKey(ctx, keyID)
		if err != nil {
			return unit.Unit{}, err
		}
		if !known {
			return unit.Unit{}, fault.NotFoundf("there is no trusted key %s; see: sallyport plugin trust list", keyID)
		}
		next, err := old.Remove(c.Subject.ID, g.Now().UTC())
		if err != nil {
			return unit.Unit{}, err
		}
		record.Policy = d.Documents
		return unit.Unit{Record: record, Urgent: true, Writes: append(g.still(c, d.under), unit.Update(next), g.bumped("trust"))}, nil
	})
	if err != nil {
		return err
	}
	return g.ApplyPlugins(ctx)
}

// distrusted refuses to say again that a key is trusted which is not any more.
func distrusted(ctx context.Context, g *Gate, was plugin.Key) error {
	now, known, err := g.publisherKey(ctx, was.ID)
	if err == nil && (!known || now.State != plugin.Active) {
		return gone("the key was taken out of trust")
	}
	return err
}

func (g *Gate) publisherKey(ctx context.Context, keyID string) (plugin.Key, bool, error) {
	keys, err := g.Store.Trust(ctx)
	if err != nil {
		return plugin.Key{}, false, fault.Wrap(err, "read trusted keys")
	}
	for _, k := range keys {
		if k.ID == keyID {
			return k, true, nil
		}
	}
	return plugin.Key{}, false, nil
}

// Publishers lists the trusted keys.
func (g *Gate) Publishers(ctx context.Context, c Caller) ([]plugin.Key, error) {
	record := audit.Record{Type: "publisher.listed", Actor: c.actor()}
	if _, err := g.inspected(ctx, c, "list", record, "publisher", ""); err != nil {
		return nil, err
	}
	keys, err := g.Store.Trust(ctx)
	return activeOnly(keys, func(k plugin.Key) bool { return k.State == plugin.Active }), err
}

// InstallPlugin verifies a package against the trusted publishers, stores it
// and starts it. A package whose role and kind are served by another plugin is
// refused with both names. Installing what is installed gives this node the files
// and changes nothing else.
func (g *Gate) InstallPlugin(ctx context.Context, c Caller, pack io.Reader) (plugin.Installed, error) {
	return g.installFrom(ctx, c, pack, origin{})
}

func (g *Gate) installFrom(ctx context.Context, c Caller, pack io.Reader, from origin) (plugin.Installed, error) {
	record := audit.Record{Type: "plugin.installed", Actor: c.actor(), Data: map[string]string{}}
	if _, err := g.inspected(ctx, c, "install", record, "plugin", ""); err != nil {
		return plugin.Installed{}, err
	}
	trusted, err := g.Store.Generation(ctx, "trust")
	if err != nil {
		return plugin.Installed{}, fault.Wrap(err, "read trust generation")
	}
	trust, err := g.trust(ctx)
	if err != nil {
		return plugin.Installed{}, err
	}
	entry, err := g.Packages.Install(pack, trust)
	if content, ok := pack.(Content); ok && err != nil && content.Err() != nil {
		err = content.Err()
	}
	if err == nil && from.accept != nil {
		err = from.accept(entry)
	}
	if err != nil {
		return plugin.Installed{}, g.refusedPackage(ctx, record, err)
	}
	var next plugin.Installed
	c.keyed("plugin.installed", plainAnswer[plugin.Installed]{&next, uninstalled}, entry.Digest)
	err = g.decide(ctx, &c, func() (unit.Unit, error) {
		record.Target = entry.Manifest.Name
		d, err := g.administered(ctx, c, "install", record, "plugin", entry.Manifest.Name)
		if err != nil {
			return unit.Unit{}, err
		}
		installed, err := g.Store.Generation(ctx, "plugins")
		if err != nil {
			return unit.Unit{}, fault.Wrap(err, "read plugins generation")
		}
		all, err := g.Store.Plugins(ctx)
		if err != nil {
			return unit.Unit{}, fault.Wrap(err, "read installed plugins")
		}
		old := installedAs(all, entry.Manifest.Name)
		if old != nil && old.State == plugin.Active && old.Digest == entry.Digest {
			next = *old
			return unit.Unit{}, errInstalled
		}
		if next, err = plugin.NewInstalled(entry, old, c.Subject.ID, g.Now().UTC()); err != nil {
			return unit.Unit{}, err
		}
		if err := plugin.CheckRoles(all, next.Name, next.Offer); err != nil {
			return unit.Unit{}, err
		}
		memory, err := g.remembered(ctx, next, from.repository)
		if err != nil {
			return unit.Unit{}, err
		}
		record.Policy, record.Data = d.Documents, describe(next)
		if from.repository != "" {
			record.Data["repository"] = from.repository
		}
		write := unit.Insert
		if old != nil {
			write = unit.Update
		}
		return unit.Unit{Record: record, Writes: append(g.still(c, d.under), write(next), memory,
			unit.Do("generations.check", 1, "the trusted publishers have changed, try again", "trust", trusted),
			unit.Do("generations.bump", 1, "the plugins have changed, try again", "plugins", installed))}, nil
	})
	if err != nil && !errors.Is(err, errInstalled) {
		return plugin.Installed{}, err
	}
	return next, g.ApplyPlugins(ctx)
}

// uninstalled refuses to say again that a package is installed which is not any
// more.
func uninstalled(ctx context.Context, g *Gate, was plugin.Installed) error {
	all, err := g.Store.Plugins(ctx)
	if err != nil {
		return fault.Wrap(err, "read installed plugins")
	}
	if now := installedAs(all, was.Name); now == nil || now.Digest != was.Digest || now.State != plugin.Active {
		return gone("the package was removed or replaced")
	}
	return nil
}

// installedAs is the row of a name, nil if there is none.
func installedAs(all []plugin.Installed, name string) *plugin.Installed {
	for _, row := range all {
		if row.Name == name {
			return &row
		}
	}
	return nil
}

// errInstalled ends an installation that was decided before, on this node or on
// another: its files are in the store of this node now, and there is nothing to
// decide.
var errInstalled = errors.New("installed already")

// describe is what a record says of an installed package.
func describe(p plugin.Installed) map[string]string {
	return map[string]string{
		"version": p.Package, "digest": p.Digest, "publisher": p.Publisher, "keys": strings.Join(p.KeyIDs, " "),
		"kinds": strings.Join(p.Offer.Kinds, " "), "roles": strings.Join(p.Offer.Roles, " "),
	}
}

// refusedPackage records that a package was refused, since somebody tried to
// run code here, and returns why.
func (g *Gate) refusedPackage(ctx context.Context, record audit.Record, cause error) error {
	record.Type, record.Outcome, record.Reasons = "plugin.refused", audit.Denied, []string{fault.Public(cause)}
	record.Data["reason"] = string(plugin.ReasonOf(cause))
	if err := g.commit(ctx, unit.Unit{Record: record}); err != nil {
		return fault.Unavailablef("the refusal of this package could not be recorded, try again").Because(err)
	}
	return cause
}

// RemovePlugin stops a plugin. Grants that it made live on until they end.
func (g *Gate) RemovePlugin(ctx context.Context, c Caller, name string) error {
	c.keyed("plugin.removed", happened(), name)
	err := g.decide(ctx, &c, func() (unit.Unit, error) {
		record := audit.Record{Type: "plugin.removed", Actor: c.actor(), Target: name}
		d, err := g.administered(ctx, c, "remove", record, "plugin", name)
		if err != nil {
			return unit.Unit{}, err
		}
		all, err := g.Store.Plugins(ctx)
		if err != nil {
			return unit.Unit{}, fault.Wrap(err, "read installed plugins")
		}
		for _, row := range all {
			if row.Name != name {
				continue
			}
			next, err := row.Remove(c.Subject.ID, g.Now().UTC())
			if err != nil {
				return unit.Unit{}, err
			}
			record.Policy, record.Data = d.Documents, map[string]string{"version": row.Package, "digest": row.Digest}
			return unit.Unit{Record: record, Writes: append(g.still(c, d.under), unit.Update(next), g.bumped("plugins"))}, nil
		}
		return unit.Unit{}, fault.NotFoundf("plugin %s is not installed; see: sallyport plugin list", name)
	})
	if err != nil {
		return err
	}
	return g.ApplyPlugins(ctx)
}

// bumped is the write that tells every replica that a table has changed.
func (g *Gate) bumped(table string) unit.Write { return unit.Do("generations.next", 1, "", table) }

// Plugins lists what is installed and how it does.
func (g *Gate) Plugins(ctx context.Context, c Caller) ([]plugin.Installed, []plugin.Status, error) {
	record := audit.Record{Type: "plugin.listed", Actor: c.actor()}
	if _, err := g.inspected(ctx, c, "list", record, "plugin", ""); err != nil {
		return nil, nil, err
	}
	all, err := g.Store.Plugins(ctx)
	return activeOnly(all, func(i plugin.Installed) bool { return i.State == plugin.Active }), g.Packages.Status(), err
}

func (g *Gate) trust(ctx context.Context) (plugin.Trust, error) {
	keys, err := g.Store.Trust(ctx)
	if err != nil {
		return plugin.Trust{}, fault.Wrap(err, "read trusted keys")
	}
	return plugin.Trust{Keys: activeOnly(keys, func(k plugin.Key) bool { return k.State == plugin.Active })}, nil
}

// ApplyPlugins makes this replica run what is installed and trusted. It is
// called at start, after each change, and when another replica has changed it.
func (g *Gate) ApplyPlugins(ctx context.Context) error {
	trust, err := g.trust(ctx)
	if err != nil {
		return err
	}
	all, err := g.Store.Plugins(ctx)
	if err != nil {
		return fault.Wrap(err, "read installed plugins")
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	return g.Packages.Apply(ctx, activeOnly(all, func(i plugin.Installed) bool { return i.State == plugin.Active }), trust)
}

func activeOnly[T any](all []T, active func(T) bool) []T {
	out := make([]T, 0, len(all))
	for _, item := range all {
		if active(item) {
			out = append(out, item)
		}
	}
	return out
}
