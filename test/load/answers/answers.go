// Package answers is the handler that scenario route measures: in an extension, and in
// the server itself.
package answers

import (
	"encoding/json"
	"net/http"
)

// Handler answers GET /items/{id} with a small JSON object.
func Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /items/{id}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]string{"id": r.PathValue("id"), "accept": r.Header.Get("Accept")})
	})
	return mux
}
