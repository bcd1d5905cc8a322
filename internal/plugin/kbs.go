package plugin

import (
	"context"
	"errors"
	"net/http"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	kbsplugin "github.com/sallyport-project/sallyport/api/kbs/plugin/v1"
	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin/external"
)

// backend is the adapter of kbs.plugin.v1 for a package that runs here.
type backend struct {
	host *Host
	name string
	r    *route // of the moment when it was looked up
}

var (
	_ external.Backend  = backend{}
	_ external.Packages = (*Host)(nil)
)

// Backend finds the installed package that answers below a name; see
// [external.Packages].
func (h *Host) Backend(name string) (external.Backend, error) {
	r, err := h.kbs(name)
	if err != nil {
		return nil, err
	}
	return backend{h, name, r}, nil
}

// Backends reports whether any package has role kbs.
func (h *Host) Backends() bool {
	for _, r := range h.table.Load().routes {
		if contains(r.row.Offer.Roles, manifest.RoleKBS) {
			return true
		}
	}
	return false
}

// kbs finds the package of a name, if it has role kbs.
func (h *Host) kbs(name string) (*route, error) {
	t := h.table.Load()
	if t.closed {
		return nil, fault.Unavailablef("the plugin host has stopped")
	}
	for _, r := range t.routes {
		switch {
		case r.name() != name || !contains(r.row.Offer.Roles, manifest.RoleKBS):
		case r.pool == nil:
			return nil, fault.Unavailablef("plugin %s must not run here (%s)", name, r.reason)
		default:
			return r, nil
		}
	}
	return nil, fault.NotFoundf("no plugin answers below this name")
}

// About says which package it is.
func (b backend) About() external.About {
	m := b.r.entry.Manifest
	return external.About{Name: b.name, Source: m.Name + " " + m.Version + " " + b.r.entry.Digest, Rules: external.Rules{Declared: m.KBS}}
}

// find is the package that was looked up, as long as it is in place: what is asked
// of the caller comes from its manifest, so that no other may answer.
func (b backend) find() (*route, error) {
	r, err := b.host.kbs(b.name)
	if err == nil && r.row.Digest != b.r.row.Digest {
		err = fault.Unavailablef("plugin %s was replaced meanwhile, try again", b.name).Because(external.ErrReplaced)
	}
	return r, err
}

// inquire makes one call.
func inquire[T any](ctx context.Context, b backend, repeat bool, f func(context.Context, external.Wire) (T, error)) (T, error) {
	return call(ctx, b.host, b.find, repeat, func(ctx context.Context, i *instance) (T, error) {
		return f(ctx, external.Wire{ClientConnInterface: i.conn})
	})
}

// ValidateAuth asks; see [external.Backend].
func (b backend) ValidateAuth(ctx context.Context, r external.Request) (bool, error) {
	return inquire(ctx, b, true, func(ctx context.Context, w external.Wire) (bool, error) { return w.ValidateAuth(ctx, r) })
}

// Handle asks; see [external.Backend]. Only a GET is repeated when its process
// was lost.
func (b backend) Handle(ctx context.Context, r external.Request) (external.Response, error) {
	return inquire(ctx, b, r.Method == http.MethodGet, func(ctx context.Context, w external.Wire) (external.Response, error) {
		return w.Handle(ctx, r)
	})
}

// NeedsEncryption asks; see [external.Backend].
func (b backend) NeedsEncryption(ctx context.Context, r external.Request) (bool, error) {
	return inquire(ctx, b, true, func(ctx context.Context, w external.Wire) (bool, error) { return w.NeedsEncryption(ctx, r) })
}

// answers demands that a process which has just started speaks gRPC at all. The
// contract has no question by which a plugin says who it is.
func (i *instance) answers(ctx context.Context) error {
	if err := i.healthy(ctx); err != nil {
		return &reasoned{fault.Unavailablef("plugin %s does not answer", i.m.Name).Because(err), ReasonStart}
	}
	return nil
}

// healthy asks grpc.health. A plugin without that service, as most are, has no
// opinion; that it says so shows that it lives.
func (i *instance) healthy(ctx context.Context) error {
	r, err := grpc_health_v1.NewHealthClient(i.conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: kbsplugin.Service})
	switch status.Code(err) {
	case codes.Unimplemented, codes.NotFound:
		return nil
	case codes.OK:
		if r.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
			return errors.New("the health service says that it does not serve")
		}
		return nil
	default:
		return err
	}
}
