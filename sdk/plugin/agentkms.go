package plugin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	akms "github.com/sallyport-project/sallyport/api/agentkms/plugin/v1"
)

// AgentKMS offers the services of agentkms.plugin.v1 for one kind. A nil function
// leaves its service out; Validate and Narrow belong together. An error made by
// [Invalidf] and its siblings travels as the contract's error text; every other
// error is logged and fails the call without its text.
type AgentKMS struct {
	Kind string
	// Validate checks a scope, before and after it was narrowed.
	Validate func(ctx context.Context, s Scope) error
	// Narrow returns the part of a scope that lies within bounds.
	Narrow func(ctx context.Context, s Scope, b Bounds) (Scope, error)
	// Analyze looks for what is unusual.
	Analyze func(ctx context.Context, s Scope) ([]Anomaly, error)
	// Serialize turns a scope into the provider's format.
	Serialize func(ctx context.Context, s Scope) ([]byte, error)
	// Vend makes the credential. Issued.Scope is ignored, Issued.Handle is the
	// contract's uuid.
	Vend func(ctx context.Context, s Scope) (Issued, error)
}

// ServeAgentKMS runs the plugin until the host ends it. It does not return. The
// same binary works under AgentKMS itself.
func ServeAgentKMS(a AgentKMS) {
	services, err := a.services()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	set := goplugin.PluginSet{}
	for name, register := range services {
		set[name] = registrar{register: register}
	}
	serve(&goplugin.ServeConfig{
		HandshakeConfig: goplugin.HandshakeConfig{
			ProtocolVersion: akms.ProtocolVersion, MagicCookieKey: akms.CookieKey, MagicCookieValue: akms.CookieValue,
		},
		Plugins:    set,
		GRPCServer: newGRPC,
		Logger:     hclog.New(&hclog.LoggerOptions{Level: hclog.Error, Output: os.Stderr}),
	})
}

// NewAgentKMSServer is what [ServeAgentKMS] serves, for who calls it otherwise than a
// host does: the tests of sdk/plugintest.
func NewAgentKMSServer(a AgentKMS) (*grpc.Server, error) {
	services, err := a.services()
	if err != nil {
		return nil, err
	}
	g := newGRPC(nil)
	for _, register := range services {
		register(g)
	}
	return g, nil
}

// services are those that there are functions for, by go-plugin's names.
func (a AgentKMS) services() (map[string]func(*grpc.Server), error) {
	if a.Kind == "" || (a.Validate == nil) != (a.Narrow == nil) {
		return nil, errors.New("a plugin needs a Kind, and Validate and Narrow together")
	}
	set := map[string]func(*grpc.Server){}
	if a.Validate != nil {
		set[akms.SetScopeValidator] = func(g *grpc.Server) { akms.RegisterScopeValidatorServiceServer(g, validator{a: a}) }
	}
	if a.Analyze != nil {
		set[akms.SetScopeAnalyzer] = func(g *grpc.Server) { akms.RegisterScopeAnalyzerServiceServer(g, analyzer{a: a}) }
	}
	if a.Serialize != nil {
		set[akms.SetScopeSerializer] = func(g *grpc.Server) { akms.RegisterScopeSerializerServiceServer(g, serializer{a: a}) }
	}
	if a.Vend != nil {
		set[akms.SetCredentialVender] = func(g *grpc.Server) { akms.RegisterCredentialVenderServiceServer(g, vender{a: a}) }
	}
	return set, nil
}

type validator struct {
	akms.UnimplementedScopeValidatorServiceServer
	a AgentKMS
}

func (v validator) Kind(context.Context, *akms.KindRequest) (*akms.KindResponse, error) {
	return &akms.KindResponse{Kind: v.a.Kind}, nil
}

func (v validator) Validate(ctx context.Context, q *akms.ValidateRequest) (*akms.ValidateResponse, error) {
	text, err := outcome(ctx, v.a.Validate(ctx, fromWire(q.GetScope())))
	return &akms.ValidateResponse{Error: text}, err
}

func (v validator) Narrow(ctx context.Context, q *akms.NarrowRequest) (*akms.NarrowResponse, error) {
	b := q.GetBounds()
	s, err := v.a.Narrow(ctx, fromWire(q.GetRequested()), Bounds{
		Kind: b.GetKind(), MaxParams: b.GetMaxParams().AsMap(), MaxTTL: time.Duration(b.GetMaxTtlSeconds()) * time.Second,
	})
	text, err := outcome(ctx, err)
	if err != nil || text != "" {
		return &akms.NarrowResponse{Error: text}, err
	}
	params, err := structpb.NewStruct(s.Params)
	if err != nil {
		_, err = outcome(ctx, fmt.Errorf("encode narrowed parameters: %w", err))
		return nil, err
	}
	return &akms.NarrowResponse{NarrowedScope: &akms.Scope{Kind: s.Kind, Params: params, TtlSeconds: int64(s.TTL / time.Second)}}, nil
}

type analyzer struct {
	akms.UnimplementedScopeAnalyzerServiceServer
	a AgentKMS
}

func (v analyzer) Kind(context.Context, *akms.KindRequest) (*akms.KindResponse, error) {
	return &akms.KindResponse{Kind: v.a.Kind}, nil
}

func (v analyzer) Analyze(ctx context.Context, q *akms.AnalyzeRequest) (*akms.AnalyzeResponse, error) {
	found, err := v.a.Analyze(ctx, fromWire(q.GetScope()))
	if err != nil {
		_, err = outcome(ctx, fmt.Errorf("analyze: %w", err))
		return nil, err
	}
	out := &akms.AnalyzeResponse{}
	for _, a := range found {
		out.Anomalies = append(out.Anomalies, &akms.ScopeAnomaly{Level: akms.AnomalyLevel(a.Level), Code: a.Code, Message: a.Message})
	}
	return out, nil
}

type serializer struct {
	akms.UnimplementedScopeSerializerServiceServer
	a AgentKMS
}

func (v serializer) Kind(context.Context, *akms.KindRequest) (*akms.KindResponse, error) {
	return &akms.KindResponse{Kind: v.a.Kind}, nil
}

func (v serializer) Serialize(ctx context.Context, q *akms.SerializeRequest) (*akms.SerializeResponse, error) {
	b, err := v.a.Serialize(ctx, fromWire(q.GetScope()))
	text, err := outcome(ctx, err)
	return &akms.SerializeResponse{ProviderBytes: b, Error: text}, err
}

type vender struct {
	akms.UnimplementedCredentialVenderServiceServer
	a AgentKMS
}

func (v vender) Kind(context.Context, *akms.KindRequest) (*akms.KindResponse, error) {
	return &akms.KindResponse{Kind: v.a.Kind}, nil
}

func (v vender) Vend(ctx context.Context, q *akms.VendRequest) (*akms.VendResponse, error) {
	c, err := v.a.Vend(ctx, fromWire(q.GetScope()))
	text, err := outcome(ctx, err)
	if err != nil || text != "" {
		return &akms.VendResponse{Error: text}, err
	}
	out := &akms.VendedCredential{ApiKey: c.Value, Uuid: c.Handle}
	if !c.ExpiresAt.IsZero() {
		out.ExpiresAt = timestamppb.New(c.ExpiresAt)
	}
	return &akms.VendResponse{Credential: out}, nil
}

// outcome parts the contract's error text, for the caller, from a failure, which
// is logged here and travels without its text.
func outcome(ctx context.Context, err error) (string, error) {
	if err == nil {
		return "", nil
	}
	if r, ok := errors.AsType[*refusal](err); ok {
		return r.reason, nil
	}
	logger().LogAttrs(ctx, slog.LevelError, "call failed", slog.Any("err", err))
	return "", status.Error(codes.Internal, "the plugin failed")
}

func fromWire(s *akms.Scope) Scope {
	return Scope{Kind: s.GetKind(), Params: s.GetParams().AsMap(), TTL: time.Duration(s.GetTtlSeconds()) * time.Second}
}
