package flow

import (
	"context"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// Call is one request for a route of an extension.
type Call struct {
	Extension plugin.Extension
	Route     plugin.Route // the one that Extension.Find gave
	Segments  []string     // of the path below the prefix, decoded
	Request   plugin.RouteRequest
}

// writes reports whether the call may change something.
func (c Call) writes() bool { return !c.Request.Safe() }

// FindExtension finds what answers below /api/v1/<prefix>/.
func (g *Gate) FindExtension(prefix string) (plugin.Extension, error) {
	if g.Extensions == nil {
		return plugin.Extension{}, fault.NotFoundf("this server has no extensions")
	}
	return g.Extensions.Extension(prefix)
}

// CallExtension asks policy whether the caller may use the route, and gives the
// request to the extension. A call that may change something is recorded before
// it is made, in a unit that misses if the caller was revoked meanwhile: its
// outcome is the extension's, and not known here. A denial is recorded as
// everywhere.
func (g *Gate) CallExtension(ctx context.Context, c Caller, call Call) (*plugin.RouteAnswer, error) {
	if err := needSession(c); err != nil {
		return nil, err
	}
	if call.writes() || c.Session.Proof.Use != "" {
		if err := g.decide(ctx, &c, func() (unit.Unit, error) {
			d, record, err := g.mayCall(ctx, c, call)
			record.Policy = d.Documents
			return unit.Unit{Record: record, Writes: g.still(c, d.under)}, err
		}); err != nil {
			return nil, err
		}
	} else {
		if err := g.Reload(ctx); err != nil {
			return nil, err
		}
		if _, _, err := g.mayCall(ctx, c, call); err != nil {
			return nil, err
		}
	}
	call.Request.Principal = plugin.Principal{ID: c.Subject.ID, Kind: string(c.Subject.Kind), Name: c.Subject.Name, Role: c.Subject.Role}
	return g.Extensions.Route(ctx, call.Extension.Plugin, call.Request)
}

// mayCall asks policy. The record has the route, never the path or the query, which
// may hold anything.
func (g *Gate) mayCall(ctx context.Context, c Caller, call Call) (decided, audit.Record, error) {
	e := call.Extension
	record := audit.Record{Type: "extension.called", Actor: c.actor(), Target: e.Plugin, Data: map[string]string{
		"prefix": e.Prefix, "route": call.Route.Path, "method": call.Request.Method, "version": e.Version,
	}}
	action := "read"
	if call.writes() {
		action = "write"
	}
	to := target("extension", e.Prefix)
	to["path"] = list(call.Segments)
	d, err := g.allowed(ctx, c, "call", record, input{action: action, target: to, request: map[string]any{
		"method": call.Request.Method, "route": call.Route.Path,
	}})
	return d, record, err
}

// ListExtensions lists the extensions for who may list plugins.
func (g *Gate) ListExtensions(ctx context.Context, c Caller) ([]plugin.Extension, error) {
	if _, err := g.inspected(ctx, c, "list", audit.Record{Type: "plugin.listed", Actor: c.actor()}, "plugin", ""); err != nil {
		return nil, err
	}
	if g.Extensions == nil {
		return nil, nil
	}
	return g.Extensions.Extensions(), nil
}

// purgeWithin is how long the tables of an extension may take to go.
const purgeWithin = time.Minute

// PurgePlugin removes what a plugin that is not installed any more has left: what
// it has kept, in one with the record, and then the tables of an extension, which
// no unit can hold. Until these are gone nothing of the name is installed, so that
// no new table goes with the old ones. It can be repeated, and must be if it was
// interrupted; while it goes on a second one on this node is Unavailable, and one on
// another node waits.
func (g *Gate) PurgePlugin(ctx context.Context, c Caller, name string) error {
	if _, busy := g.purging.LoadOrStore(name, true); busy {
		return fault.Unavailablef("plugin %s is being purged at this moment; try again", name).After(5 * time.Second)
	}
	defer g.purging.Delete(name)
	c.keyed("plugin.purged", happened(), name)
	var purging plugin.Installed
	err := g.decide(ctx, &c, func() (unit.Unit, error) {
		record := audit.Record{Type: "plugin.purged", Actor: c.actor(), Target: name}
		d, err := g.administered(ctx, c, "purge", record, "plugin", name)
		if err != nil {
			return unit.Unit{}, err
		}
		row, err := g.installedRow(ctx, name)
		if err != nil {
			return unit.Unit{}, err
		}
		if purging, err = row.Purge(c.Subject.ID, g.Now().UTC()); err != nil {
			return unit.Unit{}, err
		}
		record.Policy = d.Documents
		return unit.Unit{Record: record, Writes: append(g.still(c, d.under), unit.Update(purging), g.bumped("plugins"), plugin.PurgeValues(name))}, nil
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), purgeWithin)
	defer cancel()
	now, err := g.installedRow(ctx, name)
	if err != nil || now.State != plugin.Purging {
		return err // of a repeated call: all may be done, and more since
	}
	if c.Key != nil && c.Key.Replayed { // the first call was interrupted
		purging = now
	}
	if g.Databases != nil {
		still := func(ctx context.Context) (bool, error) { // another replica may purge as well, and end it
			now, err := g.installedRow(ctx, name)
			return err == nil && now.State == plugin.Purging && now.Version == purging.Version, err
		}
		if err := g.Databases.Purge(ctx, name, still); err != nil {
			return err
		}
	}
	err = g.commit(ctx, unit.Unit{
		Record: audit.Record{Type: "plugin.forgotten", Actor: c.actor(), Target: name},
		Writes: []unit.Write{unit.Update(purging.Purged()), g.bumped("plugins")},
	})
	if fault.Is(err, fault.Conflict) { // another replica purges as well, and ends it
		return nil
	}
	return err
}

// PluginInstalled refuses a plugin that is not installed at this moment, or of
// another publisher: Unavailable, because who asks may not have heard of it yet.
func (g *Gate) PluginInstalled(ctx context.Context, name, publisher string) error {
	row, err := g.installedRow(ctx, name)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	if err != nil || row.State != plugin.Active || row.Publisher != publisher {
		return fault.Unavailablef("plugin %s of publisher %s is not installed any more", name, publisher)
	}
	return nil
}

// installedRow is the row of a plugin that is or was installed.
func (g *Gate) installedRow(ctx context.Context, name string) (plugin.Installed, error) {
	all, err := g.Store.Plugins(ctx)
	if err != nil {
		return plugin.Installed{}, fault.Wrap(err, "read installed plugins")
	}
	row, err := installedAs(all, name)
	if err != nil {
		return plugin.Installed{}, err
	}
	if row == nil {
		return plugin.Installed{}, fault.NotFoundf("no plugin %s was ever installed here", name)
	}
	return *row, nil
}

// hookName is the name under which the place of an extension in the ledger is kept.
func hookName(pluginName string) string { return hookPrefix + pluginName }

const hookPrefix = "hook/"

// placed are the writes for the hooks of a package that is installed: they begin
// with what comes after, unless there is a place already.
func (g *Gate) placed(ctx context.Context, e plugin.Entry) ([]unit.Write, error) {
	m := e.Manifest
	if m.Extension == nil || len(m.Extension.Hooks) == 0 {
		return nil, nil
	}
	head, err := g.Store.Head(ctx)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return nil, fault.Wrap(err, "read head of ledger")
	}
	return []unit.Write{unit.Do("cursors.start", unit.AnyRows, "", hookName(m.Name), int64(head.Size))}, nil //nolint:gosec // far from the end of int64
}

// unplaced is the write that forgets the place of a plugin that is removed.
func unplaced(name string) unit.Write {
	return unit.Do("cursors.end", unit.AnyRows, "", hookName(name))
}

// pluginOfHook is the plugin of a name under which a place is kept.
func pluginOfHook(name string) string { return strings.TrimPrefix(name, hookPrefix) }
