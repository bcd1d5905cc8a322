package plugin

import (
	"context"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	own "github.com/sallyport-project/sallyport/api/sallyport/plugin/v1"
	"github.com/sallyport-project/sallyport/internal/event"
	"github.com/sallyport-project/sallyport/internal/fault"
)

var _ Extensions = (*Host)(nil)

// Extension implements [Extensions].
func (h *Host) Extension(prefix string) (Extension, error) {
	t := h.table.Load()
	if t.closed {
		return Extension{}, fault.Unavailablef("the plugin host has stopped")
	}
	for _, r := range t.routes {
		if r.row.Offer.Prefix != prefix || prefix == "" {
			continue
		}
		if r.pool == nil {
			return Extension{}, &downError{fault.Unavailablef("plugin %s, which serves /api/v1/%s, must not run here (%s)", r.row.Name, prefix, r.reason)}
		}
		return r.extension(), nil
	}
	return Extension{}, fault.NotFoundf("no installed extension serves /api/v1/%s; see: sallyport plugin list", clip(prefix, 64))
}

// Extensions implements [Extensions].
func (h *Host) Extensions() []Extension {
	var out []Extension
	for _, r := range h.table.Load().routes {
		if contains(r.row.Offer.Roles, manifest.RoleExtension) {
			out = append(out, r.extension())
		}
	}
	return out
}

func (r *route) extension() Extension {
	m := r.entry.Manifest
	e := Extension{Plugin: r.row.Name, Version: r.row.Package, Summary: m.Summary, Digest: r.row.Digest, Reason: ReasonOK}
	if m.Extension != nil {
		e.Extension = *m.Extension
	}
	if r.pool == nil {
		e.Reason, e.Detail = r.reason, r.detail
		return e
	}
	var s Status
	r.pool.describe(&s, func(*instance) int { return 0 })
	e.Reason, e.Detail = s.Reason, s.Detail
	return e
}

// extensionNamed finds the route of an extension by its name.
func (h *Host) extensionNamed(name string) func() (*route, error) {
	return func() (*route, error) {
		t := h.table.Load()
		for _, r := range t.routes {
			if r.row.Name != name || !contains(r.row.Offer.Roles, manifest.RoleExtension) {
				continue
			}
			if r.pool == nil {
				return nil, &downError{fault.Unavailablef("plugin %s must not run here (%s)", name, r.reason)}
			}
			return r, nil
		}
		return nil, &downError{fault.Unavailablef("plugin %s is not installed", name)}
	}
}

// Hook implements [Extensions].
func (h *Host) Hook(ctx context.Context, name string, e event.Event) error {
	within := h.cfg.CallTimeout
	if deadline, ok := ctx.Deadline(); ok {
		within = time.Until(deadline)
	}
	_, err := callWithin(ctx, h, within, h.extensionNamed(name), false, func(ctx context.Context, i *instance) (struct{}, error) {
		a, err := i.calls.call(ctx, &own.HostFrame{Body: &own.HostFrame_Hook{Hook: &own.HookRequest{
			Id: e.ID, Position: e.Position, Type: e.Type, Subject: e.Subject, AtUnixMs: e.At.UnixMilli(), Data: e.Data(),
		}}})
		switch {
		case err != nil:
			return struct{}{}, err
		case a.GetRefusal() != nil:
			return struct{}{}, refusal(name, a.GetRefusal())
		case a.GetHook() == nil:
			return struct{}{}, strange(name)
		}
		return struct{}{}, nil
	})
	return err
}

// gateOf finds an extension that can be asked by a gate.
func (h *Host) gateOf(name, gate string) func() (*route, error) {
	find := h.extensionNamed(name)
	return func() (*route, error) {
		r, err := find()
		if err == nil && !contains(r.extension().Gates, gate) {
			err = fault.Unavailablef("plugin %s has no gate %s", name, gate)
		}
		return r, err
	}
}

// Gate reports why an extension cannot be asked by a gate; nil if it can. Whether
// its process answers is in its status.
func (h *Host) Gate(name, gate string) error {
	_, err := h.gateOf(name, gate)()
	return err
}

// Ask implements [Extensions].
func (h *Host) Ask(ctx context.Context, name, gate string, question []byte) (Verdict, error) {
	return call(ctx, h, h.gateOf(name, gate), true, func(ctx context.Context, i *instance) (Verdict, error) {
		a, err := i.calls.call(ctx, &own.HostFrame{Body: &own.HostFrame_Gate{Gate: &own.GateRequest{Gate: gate, Question: question}}})
		switch {
		case err != nil:
			return Verdict{}, err
		case a.GetRefusal() != nil:
			return Verdict{}, refusal(name, a.GetRefusal())
		case a.GetGate() == nil:
			return Verdict{}, strange(name)
		}
		return Verdict{Allow: a.GetGate().GetAllow(), Reason: clip(a.GetGate().GetReason(), maxReason)}, nil
	})
}

// migrate brings the schema of an extension up to date before its first process
// starts.
func (h *Host) migrate(ctx context.Context, m manifest.Manifest) error {
	if m.Extension == nil || len(m.Extension.Migrations) == 0 {
		return nil
	}
	if h.cfg.Databases == nil {
		return refuse(ReasonMigration, "plugin %s has tables, and this host keeps none", m.Name)
	}
	err := h.cfg.Databases.Migrate(ctx, m)
	switch {
	case err == nil:
		return nil
	case fault.Is(err, fault.Unavailable): // it may be better the next time
		return &reasoned{fault.Unavailablef("the tables of plugin %s cannot be made ready: %s", m.Name, fault.Public(err)).Because(err), ReasonMigration}
	}
	return &reasoned{fault.Deniedf("the tables of plugin %s cannot be made ready: %s", m.Name, fault.Public(err)).Because(err), ReasonMigration}
}

// startExtension tells a process that all is ready.
func (i *instance) startExtension(ctx context.Context) error {
	if !i.m.Has(manifest.RoleExtension) {
		return nil
	}
	answer, err := own.NewExtensionClient(i.conn).Start(ctx, &own.StartRequest{})
	switch {
	case unimplemented(err):
		return nil
	case err != nil:
		return &reasoned{fault.Unavailablef("plugin %s did not start", i.m.Name).Because(err), ReasonStart}
	case answer.GetError() != "":
		return &reasoned{fault.Unavailablef("plugin %s says that it cannot start: %s", i.m.Name, clip(answer.GetError(), maxReason)), ReasonStart}
	}
	return nil
}

// stopExtension tells a process that it is going to end in good order.
func (i *instance) stopExtension() {
	if !i.m.Has(manifest.RoleExtension) || i.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), gracePeriod)
	defer cancel()
	_, _ = own.NewExtensionClient(i.conn).Stop(ctx, &own.StopRequest{}) // it ends whatever it says
}
