package plugin

import (
	"context"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	own "github.com/sallyport-project/sallyport/api/sallyport/plugin/v1"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/grant"
)

// Revoker returns what takes credentials of a kind back, NotFound if no installed
// plugin does. The value stays good over restarts, upgrades and removals: each call
// goes to what is in place at that moment.
func (h *Host) Revoker(kind string) (grant.Revoker, error) {
	if _, err := h.role(manifest.RoleRevoker, kind); err != nil {
		return nil, err
	}
	return revoker{h, kind}, nil
}

// revoker is the adapter of role revoker. Its calls may be repeated: the contract
// says so.
type revoker struct {
	host *Host
	kind string
}

var _ grant.Revoker = revoker{}

func (r revoker) find() (*route, error) { return r.host.role(manifest.RoleRevoker, r.kind) }

// Supports asks the plugin whether the kind can be taken back; see [grant.Revoker].
func (r revoker) Supports(ctx context.Context) (bool, error) {
	return call(ctx, r.host, r.find, true, func(ctx context.Context, i *instance) (bool, error) {
		a, err := own.NewRevokerClient(i.conn).SupportsRevocation(ctx, &own.SupportsRevocationRequest{Kind: r.kind})
		return a.GetSupported(), err
	})
}

// Revoke takes one credential back; see [grant.Revoker]. The plugin gets what its
// manifest says that it needs, and not more.
func (r revoker) Revoke(ctx context.Context, which grant.Revocation) error {
	_, err := call(ctx, r.host, r.find, true, func(ctx context.Context, i *instance) (struct{}, error) {
		q := &own.RevokeRequest{Kind: r.kind, Handle: which.Handle, Reason: which.Reason, IdempotencyId: which.ID}
		if i.m.Revocation.Needs == manifest.NeedsValue {
			q.Value = which.Value.Reveal()
		}
		a, err := own.NewRevokerClient(i.conn).Revoke(ctx, q)
		switch no := a.GetRefusal(); {
		case err != nil:
			return struct{}{}, err
		case no.GetCode() == own.Code_CODE_UNIMPLEMENTED && no != nil:
			return struct{}{}, fault.Unavailablef("plugin %s cannot revoke this: %s", i.m.Name, clip(no.GetReason(), maxReason)).Because(grant.ErrByHand)
		case no != nil:
			return struct{}{}, refusal(i.m.Name, no)
		}
		return struct{}{}, nil
	})
	return err
}

// takesBack reports what a credential of a kind that is made now will need to be
// taken back: whether there is a revoker, and whether it, or the vender, needs the
// value for that.
func (h *Host) takesBack(vender manifest.Manifest, kind string) (revocable, keep bool) {
	r, err := h.role(manifest.RoleRevoker, kind)
	if err != nil {
		return false, false
	}
	return true, r.entry.Manifest.Revocation.Needs == manifest.NeedsValue || vender.Revocation.Needs == manifest.NeedsValue
}
