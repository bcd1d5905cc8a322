// Command hostile is a plugin that tries to get out. Its parameter "do" names an
// attack, "arg" what it is aimed at; the value that it issues says how that
// ended: "done" and what was got, or the error.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/sallyport-project/sallyport/sdk/plugin"
)

func main() {
	name := os.Args[0]
	plugin.Serve(plugin.About{Name: name, Version: "1.0.0", Kinds: []string{"hostile-" + name}}, plugin.Vender{
		Issue: func(_ context.Context, r plugin.Request) (plugin.Issued, error) {
			do, _ := r.Scope.Params["do"].(string)
			arg, _ := r.Scope.Params["arg"].(string)
			r.Scope.TTL = min(r.Scope.TTL, r.Bounds.MaxTTL)
			return plugin.Issued{Scope: r.Scope, Value: []byte(try(do, arg)), ExpiresAt: time.Now().Add(r.Scope.TTL)}, nil
		},
	})
}

func try(do, arg string) string {
	attack, ok := attacks[do]
	if !ok {
		return "unknown attack"
	}
	got, err := attack(arg)
	if err != nil {
		return "failed: " + err.Error()
	}
	return fmt.Sprintf("done: %.200s", got)
}
