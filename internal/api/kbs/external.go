package kbs

import (
	"context"
	"encoding/json"
	"errors"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/plugin/external"
	"github.com/sallyport-project/sallyport/internal/token"
)

// external passes a request on to the plugin that its first segment names.
func (d door) external(w http.ResponseWriter, r *http.Request, segments []string) {
	if !slices.Contains(manifest.KBSMethods(), r.Method) {
		w.Header().Set("Allow", strings.Join(manifest.KBSMethods(), ", "))
		d.write(w, r, http.StatusMethodNotAllowed, refused(evidence.PluginInternalError, "plugins are called by "+strings.Join(manifest.KBSMethods(), ", ")))
		return
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		d.fail(w, r, notFound(evidence.InvalidRequestPath, "the query is not well-formed"))
		return
	}
	call := flow.ExternalCall{Request: external.Request{Method: r.Method, Query: map[string]string{}}}
	for name, values := range query {
		call.Request.Query[name] = values[len(values)-1] // the last one wins, as in existing brokers
	}
	if len(segments) > 0 {
		call.Name, call.Request.Path = segments[0], segments[1:]
	}
	if err := call.Request.Check(); err != nil {
		d.fail(w, r, failure{evidence.InvalidRequestPath, fault.Public(err), err})
		return
	}
	body, ok := d.body(w, r, external.MaxBody)
	if !ok {
		return
	}
	call.Request.Body = body
	cookie, bearer := sessionCookie(r), bearerToken(r)
	call.Operator = func(context.Context) (flow.Caller, error) { return d.administrator(r) }
	call.Guest = func(ctx context.Context) (flow.Caller, token.Attested, error) {
		return d.Gate.Guest(ctx, cookie, bearer, address(r), r.Method)
	}
	answer, err := d.Gate.External(r.Context(), call)
	if err != nil {
		d.failExternal(w, r, cookie != "" || bearer != "", err)
		return
	}
	if answer.Judged {
		d.counts.decision(nil)
	}
	d.answerExternal(w, r, answer)
}

// failExternal answers with the variant of the step that failed; some variants
// are not those that their names promise, but those that guests know.
func (d door) failExternal(w http.ResponseWriter, r *http.Request, shown bool, err error) {
	step, ok := errors.AsType[*flow.StepError](err)
	if !ok {
		d.fail(w, r, because(evidence.PluginInternalError, err))
		return
	}
	switch step.Step {
	case flow.StepFind:
		d.fail(w, r, because(evidence.PluginNotFound, err))
	case flow.StepOperator:
		d.fail(w, r, because(evidence.AdminAuthInitialization, err))
	case flow.StepGuest:
		if !shown {
			d.fail(w, r, refused(evidence.TokenNotFound, "attest first: neither cookie nor bearer token was sent"))
			return
		}
		d.fail(w, r, unattested(err))
	case flow.StepPolicy:
		d.counts.decision(err)
		d.fail(w, r, release(err))
	case flow.StepSeal:
		d.fail(w, r, because(evidence.JweError, err))
	default:
		f := because(evidence.PluginInternalError, err)
		if !step.Rich {
			d.fail(w, r, f)
			return
		}
		status, wait := http.StatusServiceUnavailable, fault.RetryAfter(err)
		switch fault.KindOf(err) {
		case fault.Unavailable:
		case fault.Exhausted:
			status = http.StatusTooManyRequests
		default:
			status = http.StatusBadGateway
		}
		if wait > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int((wait+time.Second-1)/time.Second)))
		}
		d.write(w, r, status, f)
	}
}

// answerExternal gives the plugin's answer: sealed as JSON, else raw as text/xml,
// with status 200; or, where the operator has switched that on, with the plugin's
// own status and content type.
func (d door) answerExternal(w http.ResponseWriter, r *http.Request, a flow.ExternalAnswer) {
	status, kind := http.StatusOK, "text/xml"
	if a.Rich {
		status = richStatus(a)
		kind = richType(a.Response.ContentType)
	}
	body := a.Response.Body
	if a.Sealed != nil {
		var err error
		if body, err = json.Marshal(a.Sealed); err != nil {
			d.fail(w, r, because(evidence.JweError, err))
			return
		}
		kind = "application/json"
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Security-Policy", "sandbox; default-src 'none'") // it is the plugin's text, below our name
	w.WriteHeader(status)
	_, _ = w.Write(body) // the guest is gone if this fails
}

// richStatus is the status of the plugin, or 200 for one that leaves no room for
// the body that there is.
func richStatus(a flow.ExternalAnswer) int {
	empty := a.Sealed == nil && len(a.Response.Body) == 0
	switch s := a.Response.Status; {
	case s == 0, s == http.StatusResetContent, s == http.StatusNoContent && !empty:
		return http.StatusOK
	default:
		return s
	}
}

// richType is the content type of the plugin, if it is one.
func richType(s string) string {
	if media, params, err := mime.ParseMediaType(s); err == nil {
		return mime.FormatMediaType(media, params)
	}
	return "application/octet-stream"
}
