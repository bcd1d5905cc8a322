package flow

import (
	"context"
	"log/slog"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/token"
)

// gateWithin is how long all gates of one decision may take together.
const gateWithin = 2 * time.Second

// gated asks the extensions that the configuration names for a verb, after policy
// has allowed it. They can only take away: one that denies denies, and one that
// does not answer, or is not there, leaves the decision open, which is
// Unavailable.
func (g *Gate) gated(ctx context.Context, c Caller, verb string, r audit.Record, in input) error {
	asked := g.Gates[verb]
	if len(asked) == 0 {
		return nil
	}
	question, err := canon.AppendValue(nil, g.facts(c, in))
	if err != nil {
		return fault.Wrap(err, "encode question")
	}
	limited, cancel := context.WithTimeout(ctx, gateWithin)
	defer cancel()
	for _, name := range asked {
		verdict, err := g.Extensions.Ask(limited, name, verb, question)
		if err != nil {
			g.Log.ErrorContext(ctx, "a gate did not answer", slog.String("plugin", name), slog.String("gate", verb), slog.Any("err", err))
			return fault.Unavailablef("extension %s must be asked before this, and does not answer; try again, or ask the operator", name).Because(err)
		}
		if !verdict.Allow {
			reason := "extension " + name + " does not allow this"
			if verdict.Reason != "" {
				reason += ": " + verdict.Reason
			}
			r.Reasons = []string{reason}
			return g.refuse(ctx, r, reason)
		}
	}
	return nil
}

// gatedFor asks the gates of release about what a workload fetches by the resource
// policy alone: their question is that of a release, with the claims of its result.
func (g *Gate) gatedFor(ctx context.Context, c Caller, attested token.Attested, r audit.Record, kind, name string, path []string) error {
	if len(g.Gates["release"]) == 0 {
		return nil
	}
	to := target(kind, name)
	to["path"] = list(path)
	return g.gated(ctx, c, "release", r, input{action: "get", target: to, request: map[string]any{"kind": kind}, claims: attested.Claims})
}
