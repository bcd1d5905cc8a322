package kbs

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/flow"
)

// failure is a refusal in the protocol's terms, with its cause for the log.
type failure struct {
	variant evidence.Variant
	detail  string
	cause   error
}

func refused(v evidence.Variant, detail string) failure { return failure{variant: v, detail: detail} }

func notFound(v evidence.Variant, detail string) failure { return failure{variant: v, detail: detail} }

// because shows what a fault says in public, under one variant.
func because(v evidence.Variant, err error) failure {
	return failure{variant: v, detail: fault.Public(err), cause: err}
}

// release is the variant of a failed release. A resource that does not exist is
// an error of the plugin, as in existing brokers.
func release(err error) failure {
	switch fault.KindOf(err) {
	case fault.Denied:
		return because(evidence.PolicyDeny, err)
	case fault.Unauthenticated:
		return because(evidence.TokenVerifierError, err)
	default:
		return because(evidence.PluginInternalError, err)
	}
}

// unattested is the variant for a guest who was not recognised.
func unattested(err error) failure {
	if errors.Is(err, flow.ErrNotAttested) {
		return because(evidence.TokenNotFound, err)
	}
	return because(evidence.TokenVerifierError, err)
}

// administer is the variant of a failed change.
func administer(err error) failure {
	if k := fault.KindOf(err); k == fault.Denied || k == fault.Unauthenticated {
		return because(evidence.AdminAuthAccess, err)
	}
	return because(evidence.PluginInternalError, err)
}

// tooMany refuses an address that begins too many handshakes, or answers too many
// challenges. No existing broker answers this, so the status is the one that proxies
// know.
func (d door) tooMany(w http.ResponseWriter, r *http.Request, wait time.Duration, why string) {
	w.Header().Set("Retry-After", strconv.Itoa(int(wait/time.Second)+1))
	d.write(w, r, http.StatusTooManyRequests, refused(evidence.AttestationError, why))
}

// fail answers 404 for the variants about paths and 401 for every other.
func (d door) fail(w http.ResponseWriter, r *http.Request, f failure) {
	status := http.StatusUnauthorized
	if f.variant.NotFound() {
		status = http.StatusNotFound
	}
	d.write(w, r, status, f)
}

func (d door) write(w http.ResponseWriter, r *http.Request, status int, f failure) {
	level := d.Log.DebugContext
	if fault.Is(f.cause, fault.Internal) {
		level = d.Log.ErrorContext
	}
	level(r.Context(), "a guest's request failed", "variant", string(f.variant), "err", f.cause)
	body, err := json.Marshal(evidence.NewProblem(f.variant, f.detail))
	if err != nil {
		http.Error(w, "", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// recover turns a defect of ours into an answer instead of a broken connection.
func (d door) recover(w http.ResponseWriter, r *http.Request) {
	if v := recover(); v != nil {
		if v == http.ErrAbortHandler { //nolint:errorlint // the sentinel itself is thrown
			panic(v)
		}
		d.fail(w, r, because(evidence.PluginInternalError, fault.Internalf("panic").Because(fmt.Errorf("%v", v))))
	}
}
