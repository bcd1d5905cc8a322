package conformance

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/structpb"

	akms "github.com/sallyport-project/sallyport/api/agentkms/plugin/v1"
	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	own "github.com/sallyport-project/sallyport/api/sallyport/plugin/v1"
	"github.com/sallyport-project/sallyport/internal/grant"
)

// refused is a plugin's refusal, with its text.
type refused struct{ text string }

func (r refused) Error() string { return "refused: " + r.text }

// issued is what a plugin answered. Scope is the zero value where the contract
// has no scope in this answer.
type issued struct {
	scope   grant.Scope
	value   []byte
	expires time.Time
}

// wire speaks a contract with a plugin, and believes nothing: answers are handed
// on as they came. A refusal is an error of type refused.
type wire interface {
	// vet checks a scope, if the contract asks for that separately.
	vet(ctx context.Context, s grant.Scope) error
	// narrow asks for the part of a scope that lies within bounds; ok is false if
	// the package has no role that does.
	narrow(ctx context.Context, s grant.Scope, b grant.Bounds) (out grant.Scope, ok bool, err error)
	// issue asks for a credential; ok is false if the package has no role that
	// makes one.
	issue(ctx context.Context, s grant.Scope, b grant.Bounds) (out issued, ok bool, err error)
}

func (r *run) wire(conn grpc.ClientConnInterface) wire {
	if r.m.Contract == manifest.ContractAgentKMS {
		return foreignWire{r.m, conn}
	}
	return ownWire{r.m, own.NewPluginClient(conn)}
}

// ownWire speaks sallyport.plugin.v1: one stream for each call.
type ownWire struct {
	m      manifest.Manifest
	client own.PluginClient
}

func (w ownWire) vet(context.Context, grant.Scope) error { return nil }

func (w ownWire) narrow(ctx context.Context, s grant.Scope, b grant.Bounds) (grant.Scope, bool, error) {
	out, ok, err := w.issue(ctx, s, b)
	return out.scope, ok, err
}

func (w ownWire) issue(ctx context.Context, s grant.Scope, b grant.Bounds) (issued, bool, error) {
	frame, err := w.question(s, b)
	if err != nil {
		return issued{}, true, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := w.client.Calls(ctx)
	if err != nil {
		return issued{}, true, err
	}
	if err := stream.Send(&own.HostFrames{Frames: []*own.HostFrame{frame}}); err != nil {
		return issued{}, true, err
	}
	batch, err := stream.Recv()
	if err != nil {
		return issued{}, true, err
	}
	if len(batch.GetFrames()) != 1 {
		return issued{}, true, fmt.Errorf("%d answers come to one question", len(batch.GetFrames()))
	}
	a := batch.GetFrames()[0]
	if r := a.GetRefusal(); r != nil {
		return issued{}, true, refused{r.GetReason()}
	}
	if a.GetIssue() == nil || a.GetId() != frame.GetId() {
		return issued{}, true, fmt.Errorf("the answer does not belong to the question")
	}
	params, err := own.DecodeParams(a.GetIssue().GetScope().GetParams())
	if err != nil {
		return issued{}, true, fmt.Errorf("the granted parameters are no JSON object")
	}
	got := a.GetIssue()
	out := issued{value: got.GetValue(), scope: grant.Scope{
		Kind: got.GetScope().GetKind(), Params: params, TTL: time.Duration(got.GetScope().GetTtlSeconds()) * time.Second,
	}}
	if t := got.GetExpiresAtUnix(); t != 0 {
		out.expires = time.Unix(t, 0)
	}
	return out, true, nil
}

// question is the frame of a request, with defaults filled in as the host does.
func (w ownWire) question(s grant.Scope, b grant.Bounds) (*own.HostFrame, error) {
	asked, err := own.EncodeParams(w.m.Params[s.Kind].Fill(s.Params))
	if err != nil {
		return nil, err
	}
	limits, err := own.EncodeParams(b.MaxParams)
	if err != nil {
		return nil, err
	}
	return &own.HostFrame{Id: 7, TimeoutMs: 5000, Body: &own.HostFrame_Issue{Issue: &own.IssueRequest{
		Requested: &own.Scope{Kind: s.Kind, Params: asked, TtlSeconds: int64(s.TTL / time.Second)},
		Bounds:    &own.Bounds{Kind: b.Kind, MaxParams: limits, MaxTtlSeconds: int64(b.MaxTTL / time.Second)},
	}}}, nil
}

// foreignWire speaks agentkms.plugin.v1, as far as the package has its roles.
type foreignWire struct {
	m    manifest.Manifest
	conn grpc.ClientConnInterface
}

func (w foreignWire) vet(ctx context.Context, s grant.Scope) error {
	if !w.m.Has(manifest.RoleValidator) {
		return nil
	}
	scope, err := structScope(s)
	if err != nil {
		return err
	}
	a, err := akms.NewScopeValidatorServiceClient(w.conn).Validate(ctx, &akms.ValidateRequest{Scope: scope})
	return answered(a.GetError(), err)
}

func (w foreignWire) narrow(ctx context.Context, s grant.Scope, b grant.Bounds) (grant.Scope, bool, error) {
	if !w.m.Has(manifest.RoleValidator) {
		return grant.Scope{}, false, nil
	}
	scope, err := structScope(s)
	if err != nil {
		return grant.Scope{}, true, err
	}
	limits, err := structpb.NewStruct(b.MaxParams)
	if err != nil {
		return grant.Scope{}, true, err
	}
	a, err := akms.NewScopeValidatorServiceClient(w.conn).Narrow(ctx, &akms.NarrowRequest{
		Requested: scope, Bounds: &akms.ScopeBounds{Kind: b.Kind, MaxParams: limits, MaxTtlSeconds: int64(b.MaxTTL / time.Second)},
	})
	if err := answered(a.GetError(), err); err != nil {
		return grant.Scope{}, true, err
	}
	n := a.GetNarrowedScope()
	return grant.Scope{Kind: n.GetKind(), Params: n.GetParams().AsMap(), TTL: time.Duration(n.GetTtlSeconds()) * time.Second}, true, nil
}

// issue runs the stages that the package has.
func (w foreignWire) issue(ctx context.Context, s grant.Scope, b grant.Bounds) (issued, bool, error) {
	if err := w.vet(ctx, s); err != nil {
		return issued{}, true, err
	}
	out := issued{}
	narrowed, ok, err := w.narrow(ctx, s, b)
	if err != nil {
		return issued{}, true, err
	}
	if ok {
		out.scope, s = narrowed, narrowed
	}
	scope, err := structScope(s)
	if err != nil {
		return issued{}, true, err
	}
	if w.m.Has(manifest.RoleAnalyzer) {
		if _, err := akms.NewScopeAnalyzerServiceClient(w.conn).Analyze(ctx, &akms.AnalyzeRequest{Scope: scope}); err != nil {
			return issued{}, true, err
		}
	}
	if w.m.Has(manifest.RoleSerializer) {
		a, err := akms.NewScopeSerializerServiceClient(w.conn).Serialize(ctx, &akms.SerializeRequest{Scope: scope})
		if err := answered(a.GetError(), err); err != nil {
			return issued{}, true, err
		}
	}
	if !w.m.Has(manifest.RoleVender) {
		return out, false, nil
	}
	a, err := akms.NewCredentialVenderServiceClient(w.conn).Vend(ctx, &akms.VendRequest{Scope: scope})
	if err := answered(a.GetError(), err); err != nil {
		return issued{}, true, err
	}
	out.value = a.GetCredential().GetApiKey()
	if t := a.GetCredential().GetExpiresAt(); t.IsValid() && t.GetSeconds() > 0 {
		out.expires = t.AsTime()
	}
	return out, true, nil
}

// answered parts the contract's refusals from failures.
func answered(text string, err error) error {
	if err == nil && text != "" {
		return refused{text}
	}
	return err
}

func structScope(s grant.Scope) (*akms.Scope, error) {
	params, err := structpb.NewStruct(s.Params)
	if err != nil {
		return nil, err
	}
	return &akms.Scope{Kind: s.Kind, Params: params, TtlSeconds: int64(s.TTL / time.Second)}, nil
}
