package kbs

import (
	"encoding/json"
	"net/http"
)

// list answers the paths of all resources to an operator, as a JSON array. It is
// written page by page: there may be a million.
func (d door) list(w http.ResponseWriter, r *http.Request) {
	caller, ok := d.operator(w, r)
	if !ok {
		return
	}
	page, err := d.Gate.Resources(r.Context(), caller, "", "", 0)
	if err != nil {
		d.fail(w, r, administer(err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	next := "["
	for len(page) > 0 {
		for _, one := range page {
			text, err := json.Marshal(one.ID)
			if err != nil {
				panic(http.ErrAbortHandler)
			}
			_, _ = w.Write(append([]byte(next), text...))
			next = ","
		}
		if page, err = d.Gate.Resources(r.Context(), caller, "", page[len(page)-1].ID, 0); err != nil {
			// The answer has begun: it must not look whole.
			panic(http.ErrAbortHandler)
		}
	}
	if next == "[" {
		_, _ = w.Write([]byte("["))
	}
	_, _ = w.Write([]byte("]"))
}
