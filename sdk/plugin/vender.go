package plugin

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	own "github.com/sallyport-project/sallyport/api/sallyport/plugin/v1"
)

// Vender issues credentials: one call does all stages. Role credential-vender.
type Vender struct {
	// Issue validates, narrows and makes a credential. Required. Return
	// [Invalidf] or [Deniedf] to refuse with a reason that the caller may read;
	// any other error is logged and reaches the caller without its text.
	Issue func(ctx context.Context, r Request) (Issued, error)
	// Vet checks a scope before policy sees it. Optional. It is not called for
	// kinds whose parameters the manifest describes: the host checks those.
	Vet func(ctx context.Context, s Scope) error
}

// Scope is what a credential may do. Params holds JSON values: string, float64,
// bool, nil, []any, map[string]any; 64-bit integers are decimal strings.
type Scope struct {
	Kind   string
	Params map[string]any
	TTL    time.Duration
}

// Bounds is the widest scope that policy allows. A parameter that MaxParams does
// not name is not restricted by policy.
type Bounds struct {
	Kind      string
	MaxParams map[string]any
	MaxTTL    time.Duration
}

// Request asks for a credential: narrow Scope to Bounds, or refuse. Parameters
// that the host itself adds have been taken out of Scope into Host, without the
// prefix "host.".
type Request struct {
	Scope  Scope
	Bounds Bounds
	Host   map[string]string
}

// Issued is a credential.
type Issued struct {
	// Scope is what was granted. The host refuses it unless it lies within the
	// request and the bounds; start from the request's and narrow it.
	Scope     Scope
	Value     []byte
	ExpiresAt time.Time // zero if not known
	Handle    string    // what a revocation needs; not secret
	Anomalies []Anomaly
}

// Anomaly is something unusual about a scope. It is recorded and blocks nothing.
type Anomaly struct {
	Level   Level
	Code    string
	Message string
}

// Level grades an anomaly.
type Level int32

// The levels.
const (
	Info  Level = 1
	Warn  Level = 2
	Alert Level = 3
)

func (v Vender) role(s *server) error {
	switch {
	case v.Issue == nil:
		return fmt.Errorf("a Vender needs Issue")
	case len(s.about.Kinds) == 0:
		return fmt.Errorf("a Vender needs About.Kinds")
	case s.vender != nil:
		return errTwice("Vender")
	}
	s.vender = &v
	s.roles = append(s.roles, manifest.RoleVender)
	return nil
}

func (v *Vender) vet(ctx context.Context, q *own.VetRequest) error {
	if v.Vet == nil {
		return nil
	}
	scope, _, err := readScope(q.GetScope())
	if err != nil {
		return err
	}
	return v.Vet(ctx, scope)
}

func (v *Vender) issue(ctx context.Context, q *own.IssueRequest) (*own.IssueResponse, error) {
	scope, host, err := readScope(q.GetRequested())
	if err != nil {
		return nil, err
	}
	limits, err := readParams(q.GetBounds().GetMaxParams())
	if err != nil {
		return nil, err
	}
	bounds := Bounds{Kind: q.GetBounds().GetKind(), MaxParams: limits, MaxTTL: time.Duration(q.GetBounds().GetMaxTtlSeconds()) * time.Second}
	issued, err := v.Issue(ctx, Request{Scope: scope, Bounds: bounds, Host: host})
	if err != nil {
		return nil, err
	}
	params, err := own.EncodeParams(issued.Scope.Params)
	if err != nil {
		return nil, fmt.Errorf("encode granted parameters: %w", err)
	}
	r := &own.IssueResponse{
		Scope:  &own.Scope{Kind: issued.Scope.Kind, Params: params, TtlSeconds: int64(issued.Scope.TTL / time.Second)},
		Value:  issued.Value,
		Handle: issued.Handle,
	}
	if !issued.ExpiresAt.IsZero() {
		r.ExpiresAtUnix = issued.ExpiresAt.Unix()
	}
	for _, a := range issued.Anomalies {
		r.Anomalies = append(r.Anomalies, &own.Anomaly{Level: own.Level(a.Level), Code: a.Code, Message: a.Message})
	}
	return r, nil
}

// readScope parts the caller's parameters from the host's.
func readScope(s *own.Scope) (Scope, map[string]string, error) {
	all, err := readParams(s.GetParams())
	if err != nil {
		return Scope{}, nil, err
	}
	host := map[string]string{}
	for name, v := range all {
		if short, ok := strings.CutPrefix(name, own.HostPrefix); ok {
			text, isText := v.(string)
			if !isText {
				return Scope{}, nil, Invalidf("the host's parameter %s must be a string", short)
			}
			host[short] = text
			delete(all, name)
		}
	}
	return Scope{Kind: s.GetKind(), Params: all, TTL: time.Duration(s.GetTtlSeconds()) * time.Second}, host, nil
}

func readParams(b []byte) (map[string]any, error) {
	params, err := own.DecodeParams(b)
	if err != nil {
		return nil, Invalidf("the parameters are no JSON object")
	}
	return params, nil
}
