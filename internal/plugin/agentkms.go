package plugin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	akms "github.com/sallyport-project/sallyport/api/agentkms/plugin/v1"
	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/secret"
)

// stages is the adapter of agentkms.plugin.v1: up to six unary calls, each to
// the package that serves that role for the kind.
//
// Vet is Validate. Issue is Narrow, Validate, Analyze, Serialize, Vend. Validator
// and vender must be there; analyzer and serializer are skipped where no package
// offers them. No other stage is ever skipped, and the host compares the narrowed
// scope itself, because a plugin that narrows wrongly must not widen a grant.
type stages struct {
	host *Host
	kind string
	r    *route // the vender's
}

var _ grant.Provider = stages{}

// Source names the package that vends; see [grant.Provider].
func (p stages) Source() grant.Source { return p.host.sourceOf(p.r, p.kind) }

func (p stages) role(role string) func() (*route, error) {
	return func() (*route, error) { return p.host.role(role, p.kind) }
}

// Vet checks a requested scope; see [grant.Provider].
func (p stages) Vet(ctx context.Context, requested grant.Scope) error {
	if err := plainRequest(requested); err != nil {
		return err
	}
	r, err := p.role(manifest.RoleValidator)()
	if err != nil {
		return err
	}
	if fields, ok := r.entry.Manifest.Params[p.kind]; ok {
		if err := checkFields(fields, requested.Params); err != nil {
			return err
		}
	}
	scope, err := encodeScope(requested)
	if err != nil {
		return err
	}
	return p.validate(ctx, scope)
}

func (p stages) validate(ctx context.Context, scope encoded) error {
	_, err := call(ctx, p.host, p.role(manifest.RoleValidator), true, func(ctx context.Context, i *instance) (struct{}, error) {
		a := &akms.ValidateResponse{}
		err := i.conn.Invoke(ctx, akms.ScopeValidatorService_Validate_FullMethodName, scope, a)
		if err == nil && a.GetError() != "" {
			err = fault.Invalidf("plugin %s: %s", i.m.Name, clip(a.GetError(), maxReason))
		}
		return struct{}{}, err
	})
	return err
}

// Issue narrows, validates, analyses, serialises and vends; see
// [grant.Provider].
func (p stages) Issue(ctx context.Context, requested grant.Scope, bounds grant.Bounds) (grant.Issued, error) {
	scope, err := p.narrow(ctx, requested, bounds)
	if err != nil {
		return grant.Issued{}, err
	}
	wire, err := encodeScope(scope)
	if err != nil {
		return grant.Issued{}, err
	}
	if err := p.validate(ctx, wire); err != nil {
		return grant.Issued{}, err
	}
	anomalies, err := p.analyze(ctx, wire)
	if err != nil {
		return grant.Issued{}, err
	}
	if err := p.serialize(ctx, wire); err != nil {
		return grant.Issued{}, err
	}
	out, err := p.vend(ctx, wire)
	if err != nil {
		return grant.Issued{}, err
	}
	out.Scope = scope
	out.Scope.Params, _ = split(scope.Params)
	out.Anomalies = append(anomalies, out.Anomalies...)
	return out, nil
}

func (p stages) narrow(ctx context.Context, requested grant.Scope, bounds grant.Bounds) (grant.Scope, error) {
	asked, err := structScope(requested)
	if err != nil {
		return grant.Scope{}, err
	}
	limit, err := structpb.NewStruct(bounds.MaxParams)
	if err != nil {
		return grant.Scope{}, fault.Invalidf("the bounds have values that JSON does not know").Because(err)
	}
	q := &akms.NarrowRequest{Requested: asked, Bounds: &akms.ScopeBounds{
		Kind: bounds.Kind, MaxParams: limit, MaxTtlSeconds: int64(bounds.MaxTTL / time.Second),
	}}
	return call(ctx, p.host, p.role(manifest.RoleValidator), true, func(ctx context.Context, i *instance) (grant.Scope, error) {
		a, err := akms.NewScopeValidatorServiceClient(i.conn).Narrow(ctx, q)
		if err != nil {
			return grant.Scope{}, err
		}
		if a.GetError() != "" {
			return grant.Scope{}, fault.Deniedf("plugin %s: %s", i.m.Name, clip(a.GetError(), maxReason))
		}
		n := a.GetNarrowedScope()
		inner := grant.Scope{Kind: n.GetKind(), Params: n.GetParams().AsMap(), TTL: time.Duration(n.GetTtlSeconds()) * time.Second}
		if n.GetTtlSeconds() > int64(requested.TTL/time.Second) {
			inner.TTL = requested.TTL + 1 // also where the product would overflow
		}
		if err := grant.Within(inner, requested, bounds); err != nil {
			return grant.Scope{}, fault.Deniedf("plugin %s answers with more than it may: %s", i.m.Name, fault.Public(err)).Because(err)
		}
		return inner, nil
	})
}

// analyze asks the analyzer, if there is one. Its failure never blocks: it
// becomes an anomaly of the highest level, as in AgentKMS.
func (p stages) analyze(ctx context.Context, scope encoded) ([]grant.Anomaly, error) {
	find := p.role(manifest.RoleAnalyzer)
	if _, err := find(); fault.Is(err, fault.NotFound) {
		return nil, nil
	}
	out, err := call(ctx, p.host, find, true, func(ctx context.Context, i *instance) ([]grant.Anomaly, error) {
		a := &akms.AnalyzeResponse{}
		err := i.conn.Invoke(ctx, akms.ScopeAnalyzerService_Analyze_FullMethodName, scope, a)
		var out []grant.Anomaly
		for n, x := range a.GetAnomalies() {
			if n == maxAnomalies {
				break
			}
			out = append(out, anomaly(int32(x.GetLevel()), x.GetCode(), x.GetMessage()))
		}
		return out, err
	})
	if err != nil {
		if ctx.Err() != nil {
			return nil, err
		}
		return []grant.Anomaly{{Level: grant.Alert, Code: "plugin-rpc-error", Message: "the analyzer did not answer"}}, nil
	}
	return out, nil
}

// serialize lets the serializer refuse, if there is one. Its bytes are not used:
// vending takes the scope.
func (p stages) serialize(ctx context.Context, scope encoded) error {
	find := p.role(manifest.RoleSerializer)
	if _, err := find(); fault.Is(err, fault.NotFound) {
		return nil
	}
	_, err := call(ctx, p.host, find, true, func(ctx context.Context, i *instance) (struct{}, error) {
		a := &akms.SerializeResponse{}
		err := i.conn.Invoke(ctx, akms.ScopeSerializerService_Serialize_FullMethodName, scope, a)
		if err == nil && a.GetError() != "" {
			err = fault.Deniedf("plugin %s: %s", i.m.Name, clip(a.GetError(), maxReason))
		}
		return struct{}{}, err
	})
	return err
}

// vend makes the credential. The plugin's error text may come from a provider
// and stays inside.
func (p stages) vend(ctx context.Context, scope encoded) (grant.Issued, error) {
	repeat := p.r.entry.Manifest.Effects == manifest.EffectsNone
	find := func() (*route, error) { return standIn(p.r)(p.host.role(manifest.RoleVender, p.kind)) }
	return call(ctx, p.host, find, repeat, func(ctx context.Context, i *instance) (grant.Issued, error) {
		a := &akms.VendResponse{}
		err := i.conn.Invoke(ctx, akms.CredentialVenderService_Vend_FullMethodName, scope, a)
		if err != nil {
			return grant.Issued{}, err
		}
		if a.GetError() != "" {
			return grant.Issued{}, fault.Unavailablef("plugin %s could not make the credential", i.m.Name).Because(errText(clip(a.GetError(), maxReason)))
		}
		c := a.GetCredential()
		if n := len(c.GetApiKey()); n == 0 || n > maxValue || len(c.GetUuid()) > maxHandle {
			return grant.Issued{}, fault.Unavailablef("plugin %s answers with a credential or handle of a size that is not allowed", i.m.Name)
		}
		out := grant.Issued{Value: secret.New(c.GetApiKey()), Handle: c.GetUuid()}
		if t := c.GetExpiresAt(); t.IsValid() && t.GetSeconds() > 0 {
			out.ExpiresAt = t.AsTime()
		}
		sum := sha256.Sum256(c.GetApiKey())
		if claimed := c.GetProviderTokenHash(); claimed != "" && !strings.EqualFold(claimed, hex.EncodeToString(sum[:])) {
			out.Anomalies = []grant.Anomaly{{Level: grant.Info, Code: "token-hash-differs", Message: "the plugin's hash of the credential is not its SHA-256; the host uses its own"}}
		}
		return out, nil
	})
}

// errText is a plugin's text as a cause, for logs.
type errText string

func (e errText) Error() string { return string(e) }

func structScope(s grant.Scope) (*akms.Scope, error) {
	params, err := structpb.NewStruct(s.Params)
	if err != nil {
		return nil, fault.Invalidf("the parameters have values that JSON does not know").Because(err)
	}
	return &akms.Scope{Kind: s.Kind, Params: params, TtlSeconds: int64(s.TTL / time.Second)}, nil
}
