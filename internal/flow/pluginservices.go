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
		Type: "plugin.event", Actor: audit.Plugin(name), Target: name, Data: data,
	}})
}

// Raise is [Gate.Report] by a plugin, to which the service was granted. For policy
// the plugin is an agent with the role of reporters, whose name begins with
// plugin:, as no subject's does; in the ledger the actor is the plugin, and no
// subject. It returns the record of the report, and how many grants matched.
//
// A report that is repeated under its key is the same report, as at the other
// doors. Without a key it is recorded again, and revokes nothing twice.
func (g *Gate) Raise(ctx context.Context, name string, s signal.Signal, key string) (string, int, error) {
	c := Caller{Via: "plugin", plugin: name, Subject: subject.Subject{
		ID: "plugin:" + name, Kind: subject.Agent, Name: "plugin:" + name, Role: reporterRole, State: subject.Attested,
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
