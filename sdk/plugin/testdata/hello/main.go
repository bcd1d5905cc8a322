// Command hello is the smallest plugin: it issues a greeting as a credential.
package main

import (
	"context"
	"time"

	"github.com/sallyport-project/sallyport/sdk/plugin"
)

func main() {
	about := plugin.About{Name: "hello", Version: "1.0.0", Kinds: []string{"greeting"}}
	plugin.Serve(about, plugin.Vender{
		Issue: func(_ context.Context, r plugin.Request) (plugin.Issued, error) {
			name, ok := r.Scope.Params["name"].(string)
			if !ok || name == "" {
				return plugin.Issued{}, plugin.Invalidf("name must say whom to greet")
			}
			if allowed, bounded := r.Bounds.MaxParams["name"]; bounded && allowed != name {
				return plugin.Issued{}, plugin.Deniedf("policy lets nobody greet %s", name)
			}
			r.Scope.TTL = min(r.Scope.TTL, r.Bounds.MaxTTL)
			return plugin.Issued{
				Scope: r.Scope, Value: []byte("hello, " + name), ExpiresAt: time.Now().Add(r.Scope.TTL),
			}, nil
		},
	})
}
