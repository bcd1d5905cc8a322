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
// plugin.event: the target is the plugin, and the datum event its type. It changes
// nothing else.
func (g *Gate) Emit(ctx context.Context, name string, e plugin.Event) error {
	data := map[string]string{}
	maps.Copy(data, e.Data)
	data["event"] = e.Type
	return g.commit(ctx, unit.Unit{Record: audit.Record{
		Type: "plugin.event", Actor: audit.System("plugin:" + name), Subject: e.Subject, Target: name, Data: data,
	}})
}

// Raise is [Gate.Report] by a plugin, to which the service was granted. For policy
// the plugin is an agent with the role of reporters, whose name begins with
// plugin:. It returns the record of the report, and how many grants matched. A
// repeated report is recorded again and revokes nothing twice.
func (g *Gate) Raise(ctx context.Context, name string, s signal.Signal) (string, int, error) {
	c := Caller{Via: "plugin", Subject: subject.Subject{
		ID: "plugin:" + name, Kind: subject.Agent, Name: "plugin:" + name, Role: reporterRole, State: subject.Attested,
	}}
	r, err := g.Report(ctx, c, s)
	return r.Record, len(r.Matches), err
}
