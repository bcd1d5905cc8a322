package flow

import (
	"context"
	"log/slog"
	"strconv"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/subject"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// A plugin that may ask for credentials is a subject like others: leases belong to
// it, policy knows it, operators can lock it, and its end takes back what it was
// given. It is born with the installation and ends with it, or when nobody vouches
// for the package any more.

// pluginRole is the role of subjects that are plugins, until an operator gives one
// another.
const pluginRole = "plugin"

// embodied are the writes that give an installed package a subject if it may ask
// for credentials, and end the one that it has if it may not. The record learns
// which.
func (g *Gate) embodied(ctx context.Context, e plugin.Entry, r *audit.Record) ([]unit.Write, error) {
	m := e.Manifest
	if len(m.Capabilities.Services.VendKinds()) == 0 {
		return g.disembodied(ctx, m.Name, "its package asks for no credentials any more", r)
	}
	_, err := g.Store.SubjectByName(ctx, subject.Plugin, m.Name)
	if !fault.Is(err, fault.NotFound) {
		return nil, fault.Wrap(err, "read subject of plugin")
	}
	now := g.Now().UTC()
	born := subject.Subject{
		ID: newID(), Version: 1, Kind: subject.Plugin, State: subject.Registered, Role: pluginRole, Name: m.Name, Created: now, Changed: now,
	}
	r.Subject, r.Serial = born.ID, "1"
	return []unit.Write{unit.Insert(born)}, born.Validate()
}

// disembodied are the writes that revoke the subject of a plugin, none if it has
// none. The sweeper takes back what it was given.
func (g *Gate) disembodied(ctx context.Context, name, reason string, r *audit.Record) ([]unit.Write, error) {
	old, err := g.Store.SubjectByName(ctx, subject.Plugin, name)
	if fault.Is(err, fault.NotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fault.Wrap(err, "read subject of plugin")
	}
	now := g.Now().UTC()
	next, err := old.Step("revoked", reason, now)
	if err != nil {
		return nil, err
	}
	next.Recall = now
	r.Subject, r.Serial = next.ID, strconv.FormatInt(next.Version, 10)
	if r.Data == nil {
		r.Data = map[string]string{}
	}
	r.Data["credentials"] = Revoke
	return []unit.Write{unit.Update(next)}, nil
}

// withdrawn reports whether a plugin is refused because nobody vouches for it any
// more. A date that has come, a file that is missing or what this replica alone
// demands are no word about what it was given.
func withdrawn(s plugin.Status) bool {
	switch s.Reason {
	case plugin.ReasonRevoked, plugin.ReasonBadSignature, plugin.ReasonRollback:
		return s.State == plugin.Refused && s.SignedFor != plugin.UseDevelopment
	}
	return false
}

// disown ends the subjects of plugins that are withdrawn. What cannot be done now is
// done when plugins are next put in place; such a plugin does not run meanwhile.
func (g *Gate) disown(ctx context.Context) {
	for _, s := range g.Packages.Status() {
		if !withdrawn(s) {
			continue
		}
		err := g.decide(ctx, nil, func() (unit.Unit, error) {
			reason := "its package is not trusted any more (" + string(s.Reason) + ")"
			u := unit.Unit{Urgent: true, Record: audit.Record{
				Type: "subject.revoked", Actor: audit.System("plugins"), Target: s.Name,
				Data: map[string]string{"kind": string(subject.Plugin), "name": s.Name, "reason": reason},
			}}
			var err error
			u.Writes, err = g.disembodied(ctx, s.Name, reason, &u.Record)
			if err == nil && len(u.Writes) == 0 {
				err = errNobody
			}
			return u, err
		})
		if err != nil && err != errNobody { //nolint:errorlint // it is returned as it is
			g.Log.ErrorContext(ctx, "what a plugin was given is not revoked yet", slog.String("plugin", s.Name), slog.Any("err", err))
		}
	}
}

// errNobody ends a decision about the subject of a plugin that has none.
var errNobody = fault.NotFoundf("the plugin has no subject")
