package plugintest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/structpb"

	akms "github.com/sallyport-project/sallyport/api/agentkms/plugin/v1"
	kbsv1 "github.com/sallyport-project/sallyport/api/kbs/plugin/v1"
	"github.com/sallyport-project/sallyport/sdk/plugin"
	"github.com/sallyport-project/sallyport/sdk/plugin/kbs"
)

// AgentKMS is a running plugin of agentkms.plugin.v1: its functions call the plugin
// over that contract. A refusal is an error with the plugin's text; which function
// made it the contract does not carry.
type AgentKMS struct{ conn *grpc.ClientConn }

// StartAgentKMS runs such a plugin until the test ends.
func StartAgentKMS(t testing.TB, a plugin.AgentKMS) *AgentKMS {
	t.Helper()
	server, err := plugin.NewAgentKMSServer(a)
	if err != nil {
		t.Fatalf("the plugin cannot serve: %v", err)
	}
	return &AgentKMS{serve(t, server)}
}

// Validate checks a scope.
func (a *AgentKMS) Validate(ctx context.Context, s plugin.Scope) error {
	scope, err := structScope(s)
	if err != nil {
		return err
	}
	r, err := akms.NewScopeValidatorServiceClient(a.conn).Validate(ctx, &akms.ValidateRequest{Scope: scope})
	return said(r.GetError(), err)
}

// Narrow narrows a scope to bounds.
func (a *AgentKMS) Narrow(ctx context.Context, s plugin.Scope, b plugin.Bounds) (plugin.Scope, error) {
	scope, err := structScope(s)
	if err != nil {
		return plugin.Scope{}, err
	}
	limits, err := structpb.NewStruct(b.MaxParams)
	if err != nil {
		return plugin.Scope{}, fmt.Errorf("encode bounds: %w", err)
	}
	r, err := akms.NewScopeValidatorServiceClient(a.conn).Narrow(ctx, &akms.NarrowRequest{
		Requested: scope, Bounds: &akms.ScopeBounds{Kind: b.Kind, MaxParams: limits, MaxTtlSeconds: int64(b.MaxTTL / time.Second)},
	})
	n := r.GetNarrowedScope()
	return plugin.Scope{Kind: n.GetKind(), Params: n.GetParams().AsMap(), TTL: time.Duration(n.GetTtlSeconds()) * time.Second}, said(r.GetError(), err)
}

// Analyze says what is unusual about a scope.
func (a *AgentKMS) Analyze(ctx context.Context, s plugin.Scope) ([]plugin.Anomaly, error) {
	scope, err := structScope(s)
	if err != nil {
		return nil, err
	}
	r, err := akms.NewScopeAnalyzerServiceClient(a.conn).Analyze(ctx, &akms.AnalyzeRequest{Scope: scope})
	var out []plugin.Anomaly
	for _, x := range r.GetAnomalies() {
		out = append(out, plugin.Anomaly{Level: plugin.Level(x.GetLevel()), Code: x.GetCode(), Message: x.GetMessage()})
	}
	return out, err
}

// Serialize gives a scope in the provider's format.
func (a *AgentKMS) Serialize(ctx context.Context, s plugin.Scope) ([]byte, error) {
	scope, err := structScope(s)
	if err != nil {
		return nil, err
	}
	r, err := akms.NewScopeSerializerServiceClient(a.conn).Serialize(ctx, &akms.SerializeRequest{Scope: scope})
	return r.GetProviderBytes(), said(r.GetError(), err)
}

// Vend makes a credential. Its scope is the one that was asked for: the contract
// carries none.
func (a *AgentKMS) Vend(ctx context.Context, s plugin.Scope) (plugin.Issued, error) {
	scope, err := structScope(s)
	if err != nil {
		return plugin.Issued{}, err
	}
	r, err := akms.NewCredentialVenderServiceClient(a.conn).Vend(ctx, &akms.VendRequest{Scope: scope})
	if err := said(r.GetError(), err); err != nil {
		return plugin.Issued{}, err
	}
	c := r.GetCredential()
	out := plugin.Issued{Scope: s, Value: c.GetApiKey(), Handle: c.GetUuid()}
	if t := c.GetExpiresAt(); t.IsValid() && t.GetSeconds() > 0 {
		out.ExpiresAt = t.AsTime()
	}
	return out, nil
}

// said is the contract's error: a text beside the status OK.
func said(text string, err error) error {
	if err == nil && text != "" {
		err = errors.New(text)
	}
	return err
}

func structScope(s plugin.Scope) (*akms.Scope, error) {
	params, err := structpb.NewStruct(s.Params)
	if err != nil {
		return nil, fmt.Errorf("encode parameters: %w", err)
	}
	return &akms.Scope{Kind: s.Kind, Params: params, TtlSeconds: int64(s.TTL / time.Second)}, nil
}

// KBS is a running plugin of kbs.plugin.v1. It is a [kbs.Handler], whose methods call
// the plugin as a broker does.
type KBS struct{ client kbsv1.KbsPluginClient }

var _ kbs.Handler = (*KBS)(nil)

// StartKBS runs such a plugin until the test ends.
func StartKBS(t testing.TB, h kbs.Handler) *KBS {
	t.Helper()
	server := grpc.NewServer()
	kbs.NewServer(h).Register(server)
	return &KBS{kbsv1.NewKbsPluginClient(serve(t, server))}
}

func question(r *kbs.Request) *kbsv1.PluginRequest {
	return &kbsv1.PluginRequest{Method: r.Method, Path: r.Path, Query: r.Query, Body: r.Body}
}

// Handle answers a request. What [kbs.Refusef] made is an answer with its status.
func (k *KBS) Handle(ctx context.Context, r *kbs.Request) (*kbs.Response, error) {
	a, err := k.client.Handle(ctx, question(r))
	if err != nil {
		return nil, err
	}
	return &kbs.Response{Body: a.GetBody(), Status: int(a.GetStatusCode()), ContentType: a.GetContentType()}, nil
}

// ValidateAuth reports whether a request is for administrators.
func (k *KBS) ValidateAuth(ctx context.Context, r *kbs.Request) (bool, error) {
	a, err := k.client.ValidateAuth(ctx, &kbsv1.ValidateAuthRequest{Method: r.Method, Path: r.Path, Query: r.Query, Body: r.Body})
	return a.GetRequiresAdminAuth(), err
}

// NeedsEncryption reports whether the answer is sealed to the guest's key.
func (k *KBS) NeedsEncryption(ctx context.Context, r *kbs.Request) (bool, error) {
	a, err := k.client.NeedsEncryption(ctx, &kbsv1.NeedsEncryptionRequest{Method: r.Method, Path: r.Path, Query: r.Query, Body: r.Body})
	return a.GetRequiresPayloadEncryption(), err
}
