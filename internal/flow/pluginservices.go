package flow

import (
	"context"
	"maps"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/signal"
	"github.com/sallyport-project/sallyport/internal/subject"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// Emit records an event of a plugin, to which the service was granted, as
// plugin.NAME.TYPE. It changes nothing else.
func (g *Gate) Emit(ctx context.Context, name string, e plugin.Event) error {
	return g.commit(ctx, unit.Unit{Record: audit.Record{
		Type: "plugin." + name + "." + e.Type, Actor: audit.System("plugin:" + name), Subject: e.Subject, Target: name, Data: maps.Clone(e.Data),
	}})
}

// Raise is [Gate.Report] by a plugin, to which the service was granted. For policy
// the plugin is an agent with the role of reporters, whose name begins with
// plugin:. It returns the record of the report, and how many grants matched.
func (g *Gate) Raise(ctx context.Context, name string, s signal.Signal, key string) (string, int, error) {
	c := Caller{Via: "plugin", Subject: subject.Subject{
		ID: "plugin:" + name, Kind: subject.Agent, Name: "plugin:" + name, Role: reporterRole, State: subject.Attested,
	}}
	if key != "" {
		c.Key = &Key{Text: key}
	}
	r, err := g.Report(ctx, c, s)
	return r.Record, len(r.Matches), err
}
