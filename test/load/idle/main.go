// Command idle is a plugin by sallyport.plugin.v1 that does next to nothing, for
// measuring what the host and the channel cost.
package main

import (
	"context"

	"github.com/sallyport-project/sallyport/sdk/plugin"
)

func main() {
	about := plugin.About{Name: "load-idle", Version: "0.1.0", Kinds: []string{"load-idle", "load-vet"}}
	plugin.Serve(about, plugin.Vender{
		Issue: func(_ context.Context, r plugin.Request) (plugin.Issued, error) {
			return plugin.Issued{Scope: r.Scope, Value: []byte("idle")}, nil
		},
	})
}
