package flow

import (
	"context"
	"maps"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/signal"
	"github.com/sallyport-project/sallyport/internal/subject"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// Emit records an event of a plugin, to which the service was granted, as
// plugin.event: the target is the plugin, and the datum event its type. It changes
// nothing else.
func (g *Gate) Emit(ctx context.Context, name string, e plugin.Event) error {
	data := map[string]string{}
	maps.Copy(data, e.Data)
	data["event"] = e.Type
	return g.commit(ctx, unit.Unit{Record: audit.Record{
		Type: "plugin.event", Actor: audit.Plugin(name), Target: name, Data: data,
	}})
}

// Raise is [Gate.Report] by a plugin, to which the service was granted. For policy
// the plugin is of kind plugin and has the role of reporters; in the ledger the
// actor is the plugin, and no subject. It returns the record of the report, and how many grants matched.
//
// A report that is repeated under its key is the same report, as at the other
// doors. Without a key it is recorded again, and revokes nothing twice.
func (g *Gate) Raise(ctx context.Context, name string, s signal.Signal, key string) (string, int, error) {
	c := Caller{Via: "plugin", plugin: name, Subject: subject.Subject{
		ID: "plugin:" + name, Kind: subject.Plugin, Name: name, Role: reporterRole, State: subject.Attested,
	}}
	if key != "" {
		var err error
		if c.Key, err = NewKey(key); err != nil {
			return "", 0, err
		}
	}
	r, err := g.Report(ctx, c, s)
	return r.Record, len(r.Matches), err
}

// VendToPlugin is [Gate.Vend] for a plugin to which the service was granted for the
// kind. The plugin has a subject of its own, to which the lease belongs and which
// policy decides about like any other. A plugin whose subject an operator has
// locked or revoked is Denied. A process of another publisher than has the name now,
// which outlived a purge, is Unavailable.
func (g *Gate) VendToPlugin(ctx context.Context, name, publisher string, r VendRequest, key string) (Vended, error) {
	holder, err := g.Store.SubjectByName(ctx, subject.Plugin, name)
	switch {
	case fault.Is(err, fault.NotFound):
		return Vended{}, fault.Deniedf("the subject of plugin %s was revoked; install the package again to give it a new one", name)
	case err != nil:
		return Vended{}, fault.Wrap(err, "read subject of plugin")
	}
	// After the subject: who has the name since has another one.
	if err := g.PluginInstalled(ctx, name, publisher); err != nil {
		return Vended{}, err
	}
	c := Caller{Subject: holder, Via: "plugin"}
	if err := c.standing(); err != nil {
		return Vended{}, fault.Deniedf("%s", fault.Public(err))
	}
	if key != "" {
		if c.Key, err = NewKey(key); err != nil {
			return Vended{}, err
		}
	}
	return g.Vend(ctx, c, r)
}
