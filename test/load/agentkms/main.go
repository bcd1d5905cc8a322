// Command agentkms is a plugin by agentkms.plugin.v1 with every stage of that
// contract, for measuring the whole sequence: Validate, Narrow, Validate,
// Analyze, Serialize, Vend. Its credential is an opaque text and does nothing.
package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/sallyport-project/sallyport/sdk/plugin"
)

// kind is the credential kind that this plugin serves.
const kind = "load-token"

func main() {
	plugin.ServeAgentKMS(plugin.AgentKMS{
		Kind: kind, Validate: validate, Narrow: narrow,
		Analyze: func(context.Context, plugin.Scope) ([]plugin.Anomaly, error) { return nil, nil },
		Serialize: func(_ context.Context, s plugin.Scope) ([]byte, error) {
			return json.Marshal(map[string]any{"kind": s.Kind, "params": s.Params, "ttl": int64(s.TTL / time.Second)})
		},
		Vend: func(_ context.Context, s plugin.Scope) (plugin.Issued, error) {
			text := rand.Text()
			return plugin.Issued{Value: []byte("load-" + text), Handle: text, ExpiresAt: time.Now().Add(s.TTL)}, nil
		},
	})
}

func validate(_ context.Context, s plugin.Scope) error {
	if s.Kind != kind || s.TTL <= 0 {
		return plugin.Invalidf("this plugin serves %s with a time to live", kind)
	}
	_, err := places(s.Params)
	return err
}

func narrow(_ context.Context, s plugin.Scope, b plugin.Bounds) (plugin.Scope, error) {
	if b.Kind != kind || b.MaxTTL <= 0 {
		return s, plugin.Deniedf("policy gives no bounds for %s", kind)
	}
	asked, err := places(s.Params)
	if err != nil {
		return s, err
	}
	if _, bounded := b.MaxParams["places"]; bounded {
		allowed, err := places(b.MaxParams)
		if err != nil {
			return s, err
		}
		asked = slices.DeleteFunc(asked, func(v any) bool { return !slices.Contains(allowed, v) })
	}
	if len(asked) == 0 {
		return s, plugin.Deniedf("policy allows none of the places")
	}
	return plugin.Scope{Kind: kind, Params: map[string]any{"places": asked}, TTL: min(s.TTL, b.MaxTTL)}, nil
}

// places reads the one parameter: a list of names.
func places(params map[string]any) ([]any, error) {
	list, ok := params["places"].([]any)
	if !ok || len(params) != 1 || len(list) == 0 || len(list) > 64 {
		return nil, plugin.Invalidf("places must be a list of at most 64 names, and nothing else is known")
	}
	for _, v := range list {
		if s, ok := v.(string); !ok || s == "" {
			return nil, plugin.Invalidf("places must be a list of names: %s", fmt.Sprintf("%T is none", v))
		}
	}
	return list, nil
}
