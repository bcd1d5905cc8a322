package flow

import (
	"context"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// WitnessInterpreter records which interpreter runs a plugin: no signature covers
// it, so that the ledger says what it was. The host calls it before the first
// start on each node, and whenever path or digest have changed since.
func (g *Gate) WitnessInterpreter(ctx context.Context, name string, i plugin.Interpreter) error {
	return g.commit(ctx, unit.Unit{Record: audit.Record{
		Type: "plugin.interpreter", Actor: audit.Actor{Kind: "system"}, Target: name,
		Data: map[string]string{"interpreter": i.Name, "path": i.Path, "sha256": i.SHA256},
	}})
}
