// Command opaque is a plugin for the stories: it makes values that nobody but
// a person can take back.
package main

import (
	"context"
	"crypto/rand"

	"github.com/sallyport-project/sallyport/sdk/plugin"
)

// version is replaced by the story of upgrades.
var version = "1.0.0"

func main() {
	about := plugin.About{Name: "opaque", Version: version, Kinds: []string{"opaque-token"}}
	plugin.Serve(about, plugin.Vender{
		Issue: func(_ context.Context, r plugin.Request) (plugin.Issued, error) {
			place, _ := r.Scope.Params["place"].(string) // the story of a revocation that fails has one
			return plugin.Issued{Scope: r.Scope, Value: []byte("opaque-" + rand.Text()), Handle: place}, nil
		},
	})
}
