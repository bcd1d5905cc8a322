package plugin

import (
	"context"
	"fmt"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	own "github.com/sallyport-project/sallyport/api/sallyport/plugin/v1"
)

// Revoker takes credentials back. Role revoker.
type Revoker struct {
	// Revoke takes one credential back. Required. The host repeats it, also with
	// another process, until it returns nil: a credential that is gone already is
	// revoked. [Unimplementedf] says that only a person can do it.
	Revoke func(ctx context.Context, r Revocation) error
	// Supports says whether credentials of a kind can be taken back at all. Optional:
	// without it those of all kinds can.
	Supports func(ctx context.Context, kind string) (bool, error)
}

// Revocation names one credential to take back, by what the manifest says under
// revocation.needs.
type Revocation struct {
	Kind string
	// Handle is what the vender answered as Issued.Handle, or the grant's id if
	// issuing was broken off before it answered.
	Handle string
	Value  []byte // the credential, only if the manifest says that it is needed
	Reason string
	// Idempotency is the same in every repetition of this revocation.
	Idempotency string
}

func (r Revoker) role(s *server) error {
	switch {
	case r.Revoke == nil:
		return fmt.Errorf("a Revoker needs Revoke")
	case len(s.about.Kinds) == 0:
		return fmt.Errorf("a Revoker needs About.Kinds")
	case s.revoker != nil:
		return errTwice("Revoker")
	}
	s.revoker = &r
	s.roles = append(s.roles, manifest.RoleRevoker)
	return nil
}

type revokerServer struct {
	own.UnimplementedRevokerServer
	r *Revoker
}

// SupportsRevocation answers for a kind.
func (v revokerServer) SupportsRevocation(ctx context.Context, q *own.SupportsRevocationRequest) (*own.SupportsRevocationResponse, error) {
	if v.r.Supports == nil {
		return &own.SupportsRevocationResponse{Supported: true}, nil
	}
	ok, err := v.r.Supports(ctx, q.GetKind())
	if err != nil {
		return nil, failed(ctx, err)
	}
	return &own.SupportsRevocationResponse{Supported: ok}, nil
}

// Revoke takes one credential back.
func (v revokerServer) Revoke(ctx context.Context, q *own.RevokeRequest) (*own.RevokeResponse, error) {
	err := v.r.Revoke(ctx, Revocation{
		Kind: q.GetKind(), Handle: q.GetHandle(), Value: q.GetValue(), Reason: q.GetReason(), Idempotency: q.GetIdempotencyId(),
	})
	if err != nil {
		return &own.RevokeResponse{Refusal: refused(ctx, err)}, nil
	}
	return &own.RevokeResponse{}, nil
}
