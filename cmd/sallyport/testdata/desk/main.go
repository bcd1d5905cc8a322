// Command desk is the extension of the story about plugins that ask for credentials:
// who may call it gets a login made, and hears what was made, never the key.
package main

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/sallyport-project/sallyport/sdk/plugin"
)

func main() {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /logins/{kind}", login)
	plugin.Serve(plugin.About{Name: "desk", Version: "1.0.0"}, plugin.Extension{Routes: mux})
}

func login(w http.ResponseWriter, r *http.Request) {
	v, err := plugin.HostFrom(r.Context()).Vend(r.Context(), plugin.Scope{
		Kind: r.PathValue("kind"), TTL: time.Hour, Params: map[string]any{"principals": []any{"deploy"}},
	}, r.Header.Get("Idempotency-Key"))
	status, body := http.StatusCreated, map[string]any{"grant": v.Grant, "seconds": v.Scope.TTL.Seconds(), "key": len(v.PrivateKey) > 0}
	switch {
	case plugin.Denied(err):
		status, body = http.StatusOK, map[string]any{"refused": err.Error()}
	case err != nil:
		panic(err) // logged, and no more than "502" for the caller
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the host may have left
}
