package flow

import (
	"context"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// RemovePlugin stops a plugin. Grants that it made live on until they end; those
// that were made for it are revoked.
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
			if err := row.Readable(); err != nil {
				return unit.Unit{}, err
			}
			next, err := row.Remove(c.Subject.ID, g.Now().UTC())
			if err != nil {
				return unit.Unit{}, err
			}
			record.Policy, record.Data = d.Documents, map[string]string{"version": row.Package, "digest": row.Digest}
			ended, err := g.disembodied(ctx, name, "its plugin was removed", &record)
			if err != nil {
				return unit.Unit{}, err
			}
			writes := append(g.still(c, d.under), unit.Update(next), unplaced(name), g.bumped("plugins"))
			return unit.Unit{Record: record, Writes: append(writes, ended...)}, nil
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
	return activeOnly(all, plugin.Installed.Stands), g.Packages.Status(), err
}

// ApplyPlugins makes this replica run what is installed and trusted. It is
// called at start, after each change, and when another replica has changed it. It
// waits for no start of a plugin: a revocation must not stand behind one. Of two at
// the same time the one that read last also applies last.
func (g *Gate) ApplyPlugins(ctx context.Context) error {
	g.applying.Lock()
	defer g.applying.Unlock()
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
	if err := g.Packages.Apply(ctx, activeOnly(all, plugin.Installed.Stands), trust); err != nil {
		return err
	}
	g.disown(ctx)
	g.followHooks()
	return nil
}

// applyVersion is ApplyPlugins after a change of versions: it returns when a new
// version has taken over.
func (g *Gate) applyVersion(ctx context.Context) error {
	if err := g.ApplyPlugins(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	g.Packages.Settle(ctx)
	return nil
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
