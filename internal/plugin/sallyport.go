package plugin

import (
	"context"
	"maps"
	"reflect"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	own "github.com/sallyport-project/sallyport/api/sallyport/plugin/v1"
	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/secret"
)

// The limits of what a plugin may answer, beside the size of a message.
const (
	maxParams    = 256 << 10
	paramsDepth  = 16
	maxValue     = 1 << 20
	maxHandle    = 4 << 10
	maxAnomalies = 32
	maxReason    = 300
)

// oneCall is the adapter of sallyport.plugin.v1: one call does all stages.
//
// The skip rule: Vet asks the plugin only if the manifest declares no form for
// the kind's parameters. Where it does, the host checks the same form itself and
// the plugin checks again within Issue, so nothing goes unchecked.
type oneCall struct {
	host *Host
	kind string
	r    *route
}

var _ grant.Provider = oneCall{}

func (p oneCall) find() (*route, error) { return standIn(p.r)(p.host.vender(p.kind)) }

// standIn passes what was found in place of a package if it stands for that.
func standIn(before *route) func(*route, error) (*route, error) {
	return func(r *route, err error) (*route, error) {
		if err == nil {
			err = r.standsFor(before)
		}
		return r, err
	}
}

// Source names the package; see [grant.Provider].
func (p oneCall) Source() grant.Source { return p.host.sourceOf(p.r, p.kind) }

// Vet checks a requested scope; see [grant.Provider].
func (p oneCall) Vet(ctx context.Context, requested grant.Scope) error {
	if err := plainRequest(requested); err != nil {
		return err
	}
	r, err := p.find()
	if err != nil {
		return err
	}
	if fields, ok := r.entry.Manifest.Params[p.kind]; ok {
		return checkFields(fields, requested.Params)
	}
	scope, err := wireScope(requested)
	if err != nil {
		return err
	}
	_, err = call(ctx, p.host, p.find, true, func(ctx context.Context, i *instance) (struct{}, error) {
		a, err := i.calls.call(ctx, &own.HostFrame{Body: &own.HostFrame_Vet{Vet: &own.VetRequest{Scope: scope}}})
		if err != nil {
			return struct{}{}, err
		}
		if r := a.GetRefusal(); r != nil {
			return struct{}{}, refusal(i.m.Name, r)
		}
		if a.GetVet() == nil {
			return struct{}{}, strange(i.m.Name)
		}
		return struct{}{}, nil
	})
	return err
}

// Issue narrows, validates and makes the credential in one call; see
// [grant.Provider]. What comes back is compared with request and bounds.
func (p oneCall) Issue(ctx context.Context, requested grant.Scope, bounds grant.Bounds) (grant.Issued, error) {
	r, err := p.find()
	if err != nil {
		return grant.Issued{}, err
	}
	asked := requested.Params
	if fields, ok := r.entry.Manifest.Params[p.kind]; ok {
		caller, host := split(requested.Params)
		if err := checkFields(fields, caller); err != nil {
			return grant.Issued{}, err
		}
		filled := fields.Fill(caller)
		maps.Copy(filled, host)
		requested.Params = filled
	}
	q := &own.IssueRequest{Bounds: &own.Bounds{Kind: bounds.Kind, MaxTtlSeconds: int64(bounds.MaxTTL / time.Second)}}
	if q.Requested, err = wireScope(requested); err != nil {
		return grant.Issued{}, err
	}
	if q.Bounds.MaxParams, err = wireParams(bounds.MaxParams); err != nil {
		return grant.Issued{}, err
	}
	repeat := r.entry.Manifest.Effects == manifest.EffectsNone
	return call(ctx, p.host, p.find, repeat, func(ctx context.Context, i *instance) (grant.Issued, error) {
		a, err := i.calls.call(ctx, &own.HostFrame{Body: &own.HostFrame_Issue{Issue: q}})
		if err != nil {
			return grant.Issued{}, err
		}
		if r := a.GetRefusal(); r != nil {
			return grant.Issued{}, refusal(i.m.Name, r)
		}
		if a.GetIssue() == nil {
			return grant.Issued{}, strange(i.m.Name)
		}
		out, err := accept(i.m.Name, a.GetIssue(), requested, bounds)
		if err != nil {
			return grant.Issued{}, err
		}
		return out, dropDefaults(out.Scope.Params, asked, requested.Params, bounds.MaxParams)
	})
}

// dropDefaults takes out of a granted scope what neither the caller nor policy
// named: it means the same without it. A plugin must not have changed it.
func dropDefaults(granted, asked, filled, bounds map[string]any) error {
	for name, v := range granted {
		_, named := asked[name]
		if _, bounded := bounds[name]; named || bounded {
			continue
		}
		if !reflect.DeepEqual(v, filled[name]) {
			return fault.Deniedf("the plugin changed %s, which nobody named", clip(name, 64))
		}
		delete(granted, name)
	}
	return nil
}

// accept judges an answer before anything is made of it.
func accept(plugin string, a *own.IssueResponse, requested grant.Scope, bounds grant.Bounds) (grant.Issued, error) {
	scope, err := readScope(plugin, a.GetScope())
	if err != nil {
		return grant.Issued{}, err
	}
	if err := grant.Within(scope, requested, bounds); err != nil {
		return grant.Issued{}, fault.Deniedf("plugin %s answers with more than it may: %s", plugin, fault.Public(err)).Because(err)
	}
	scope.Params, _ = split(scope.Params)
	if n := len(a.GetValue()); n == 0 || n > maxValue || len(a.GetHandle()) > maxHandle {
		return grant.Issued{}, fault.Unavailablef("plugin %s answers with a credential or handle of a size that is not allowed", plugin)
	}
	out := grant.Issued{Scope: scope, Value: secret.New(a.GetValue()), Handle: a.GetHandle()}
	if t := a.GetExpiresAtUnix(); t > 0 {
		out.ExpiresAt = time.Unix(t, 0).UTC()
	}
	for n, x := range a.GetAnomalies() {
		if n == maxAnomalies {
			break
		}
		out.Anomalies = append(out.Anomalies, anomaly(int32(x.GetLevel()), x.GetCode(), x.GetMessage()))
	}
	return out, nil
}

func anomaly(level int32, code, message string) grant.Anomaly {
	l := grant.AnomalyLevel(level)
	if l < grant.Unspecified || l > grant.Alert {
		l = grant.Unspecified
	}
	return grant.Anomaly{Level: l, Code: clip(code, 64), Message: clip(message, maxReason)}
}

// refusal turns a plugin's refusal into a fault. Its reason is meant for the
// caller; it is clipped and has no control characters.
func refusal(plugin string, r *own.Refusal) error {
	reason := clip(r.GetReason(), maxReason)
	switch r.GetCode() {
	case own.Code_CODE_INVALID:
		return fault.Invalidf("plugin %s: %s", plugin, reason)
	case own.Code_CODE_DENIED:
		return fault.Deniedf("plugin %s: %s", plugin, reason)
	case own.Code_CODE_EXHAUSTED:
		return fault.Exhaustedf("plugin %s: %s", plugin, reason).After(time.Second)
	default:
		return fault.Unavailablef("plugin %s: %s", plugin, reason)
	}
}

func strange(plugin string) error {
	return fault.Unavailablef("plugin %s gives an answer that does not belong to the question", plugin)
}

// plainRequest refuses parameters that only the host may set.
func plainRequest(s grant.Scope) error {
	for name := range s.Params {
		if strings.HasPrefix(name, own.HostPrefix) {
			return fault.Invalidf("parameters that begin with %s are set by the host", own.HostPrefix)
		}
	}
	return nil
}

// split parts the caller's parameters from the host's.
func split(params map[string]any) (caller, host map[string]any) {
	caller, host = map[string]any{}, map[string]any{}
	for name, v := range params {
		if strings.HasPrefix(name, own.HostPrefix) {
			host[name] = v
		} else {
			caller[name] = v
		}
	}
	return caller, host
}

func checkFields(f manifest.Fields, params map[string]any) error {
	if err := f.Check(params); err != nil {
		return fault.Invalidf("parameter %s", err)
	}
	return nil
}

func wireScope(s grant.Scope) (*own.Scope, error) {
	params, err := wireParams(s.Params)
	if err != nil {
		return nil, err
	}
	return &own.Scope{Kind: s.Kind, Params: params, TtlSeconds: int64(s.TTL / time.Second)}, nil
}

func wireParams(params map[string]any) ([]byte, error) {
	if len(params) == 0 {
		return []byte("{}"), nil
	}
	b, err := own.EncodeParams(params)
	if err != nil || len(b) > maxParams {
		return nil, fault.Invalidf("the parameters must be JSON of at most %d bytes", maxParams)
	}
	return b, nil
}

func readScope(plugin string, s *own.Scope) (grant.Scope, error) {
	out := grant.Scope{Kind: s.GetKind()}
	const most = int64(100 * 365 * 24 * time.Hour / time.Second)
	if ttl := s.GetTtlSeconds(); ttl >= 0 && ttl <= most {
		out.TTL = time.Duration(ttl) * time.Second
	}
	var err error
	if out.Params, err = readParams(s.GetParams()); err != nil {
		return grant.Scope{}, fault.Unavailablef("plugin %s answers with malformed parameters", plugin).Because(err)
	}
	return out, nil
}

// readParams is strict: what the fast way takes, a strict decoder takes too.
func readParams(data []byte) (map[string]any, error) {
	if len(data) == 0 {
		return map[string]any{}, nil
	}
	if len(data) <= maxParams {
		if params, ok := own.PlainParams(data); ok {
			return params, nil
		}
	}
	var params map[string]any
	err := canon.Strict(data, maxParams, paramsDepth, &params)
	return params, err
}
