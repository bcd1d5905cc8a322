package kbs

import (
	"net/http"
	"strings"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/reference"
)

// reference sets and reads reference values for an operator (RVPS).
func (d door) reference(w http.ResponseWriter, r *http.Request, name []string) {
	caller, ok := d.operator(w, r)
	if !ok {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if r.Method == http.MethodPost {
		message, ok := d.body(w, r, reference.MaxMessage)
		if !ok {
			return
		}
		if err := d.Gate.RegisterReferenceValues(r.Context(), caller, message); err != nil {
			d.fail(w, r, rvps(err))
		}
		return
	}
	v, err := d.Gate.ReferenceValue(r.Context(), caller, strings.Join(name, "/"))
	if err != nil {
		d.fail(w, r, rvps(err))
		return
	}
	_, _ = w.Write(v.JSON)
}

// rvps is the variant of a failure about reference values; also a missing one is
// an error of that part, as in existing brokers.
func rvps(err error) failure {
	if k := fault.KindOf(err); k == fault.Denied || k == fault.Unauthenticated {
		return because(evidence.AdminAuthAccess, err)
	}
	return because(evidence.RvpsError, err)
}
