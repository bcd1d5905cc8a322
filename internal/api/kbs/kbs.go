// Package kbs is the door of the Key Broker Service protocol (versions 0.4.0
// and 0.2.0) below /kbs/v0, as guests of Confidential Containers speak it.
//
// It keeps that protocol's ways: every failure is a JSON object with type and
// detail, status 404 for a path that no part serves and 401 for everything
// else, because existing guests act on exactly these. Which failure is which
// variant stands in problem.go.
package kbs

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/obs"
	"github.com/sallyport-project/sallyport/internal/resource"
	"github.com/sallyport-project/sallyport/internal/secret"
	"github.com/sallyport-project/sallyport/internal/token"
)

// Config is what the door needs. Gate, Log, Metrics and Now are required.
type Config struct {
	Gate    *flow.Gate
	Log     *slog.Logger
	Metrics *obs.Metrics
	Now     func() time.Time
	// Version, Commit and Built are of the program, for kbs_build_info. The last is the
	// time of the commit: builds of one commit are the same, whenever they are made.
	Version, Commit, Built string
	// Rate is how many handshakes an address may begin in a second, Burst how many
	// at once; and how many answers to challenges it may send, since each is judged
	// before it is known to be the second to one challenge. A rate of zero is no limit.
	Rate, Burst int
	// Admin says who may administer here; the zero value admits operators as every
	// other door does.
	Admin Admin
}

const prefix = "/kbs/v0/"

type door struct {
	Config
	begun    *limiter // handshakes
	answered *limiter // challenges
	counts   *counts
	origin   *http.CrossOriginProtection
}

// New makes the handler for everything below /kbs/v0/. Call it once: it declares
// metrics.
func New(c Config) http.Handler {
	limit := func() *limiter { return newLimiter(c.Rate, c.Burst, c.Now) }
	return door{c, limit(), limit(), newCounts(c), http.NewCrossOriginProtection()}
}

// ServeHTTP counts the request and serves it.
func (d door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	done := d.counts.begin(w, r, d.Now())
	defer func() { done.end(d.Now()) }()
	d.serve(done, r)
}

// serve routes by the first segment. It splits the path as it was sent and
// decodes each segment by itself, so that an encoded slash or dot cannot change
// which segments there are.
func (d door) serve(w http.ResponseWriter, r *http.Request) {
	defer d.recover(w, r)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	segments, ok := split(r.URL)
	switch {
	case !ok:
		d.fail(w, r, notFound(evidence.InvalidRequestPath, "the path is not well-formed"))
	case r.Method == http.MethodPost && len(segments) == 1 && segments[0] == "auth":
		d.auth(w, r)
	case r.Method == http.MethodPost && len(segments) == 1 && segments[0] == "attest":
		d.attest(w, r)
	case len(segments) == 1 && segments[0] == "resource" && r.Method == http.MethodGet:
		d.list(w, r)
	case segments[0] == "resource" && r.Method == http.MethodGet:
		d.get(w, r, segments[1:])
	case segments[0] == "resource" && r.Method == http.MethodPost:
		d.put(w, r, segments[1:])
	case segments[0] == "resource" && r.Method == http.MethodDelete:
		d.remove(w, r, segments[1:])
	case len(segments) > 1 && segments[0] == "external" && segments[1] == flow.CredentialBackend:
		d.credential(w, r, segments[2:])
	case len(segments) == 1 && segments[0] == "resource-policy" && r.Method == http.MethodPost:
		d.setPolicy(w, r, resourcePolicy)
	case len(segments) == 1 && segments[0] == "resource-policy" && r.Method == http.MethodGet:
		d.listPolicies(w, r)
	case len(segments) == 1 && segments[0] == "attestation-policy" && r.Method == http.MethodPost:
		d.setPolicy(w, r, attestationPolicy)
	case segments[0] == "external":
		d.external(w, r, segments[1:])
	case segments[0] == "reference-value" && (r.Method == http.MethodPost) == (len(segments) == 1) && (r.Method == http.MethodPost || r.Method == http.MethodGet):
		d.reference(w, r, segments[1:])
	case segments[0] == "resource":
		d.fail(w, r, refused(evidence.PluginInternalError, "resources are read, stored and deleted by GET, POST and DELETE"))
	default:
		d.fail(w, r, notFound(evidence.PluginNotFound, "no plugin serves this path"))
	}
}

func split(u *url.URL) ([]string, bool) {
	rest, ok := strings.CutPrefix(u.EscapedPath(), prefix)
	if !ok || len(rest) > 4096 {
		return nil, false
	}
	segments := strings.Split(rest, "/")
	for i, s := range segments {
		plain, err := url.PathUnescape(s)
		if err != nil {
			return nil, false
		}
		segments[i] = plain
	}
	return segments, true
}

// auth answers a Request with a Challenge, and puts what must be remembered
// into the cookie.
func (d door) auth(w http.ResponseWriter, r *http.Request) {
	if ok, wait := d.begun.take(address(r)); !ok {
		d.tooMany(w, r, wait, "this address begins too many handshakes, try again later")
		return
	}
	body, ok := d.body(w, r, evidence.MaxRequest)
	if !ok {
		return
	}
	request, err := evidence.ParseRequest(body)
	var challenge evidence.Challenge
	var cookie string
	if err == nil {
		challenge, cookie, err = d.Gate.Challenge(r.Context(), request)
	}
	d.counts.authentication(err)
	if err != nil {
		d.fail(w, r, because(evidence.AttestationError, err))
		return
	}
	setCookie(w, r, cookie)
	d.answer(w, r, challenge)
}

// attest judges the evidence of the handshake that the cookie names.
func (d door) attest(w http.ResponseWriter, r *http.Request) {
	if ok, wait := d.answered.take(address(r)); !ok {
		d.tooMany(w, r, wait, "this address answers too many challenges, try again later")
		return
	}
	body, ok := d.body(w, r, evidence.MaxAttestation)
	if !ok {
		return
	}
	cookie := sessionCookie(r)
	if cookie == "" {
		d.fail(w, r, refused(evidence.AttestationError, "the "+token.CookieName+" cookie is missing, begin with auth"))
		return
	}
	raw, err := d.Gate.Attest(r.Context(), cookie, body, address(r))
	d.counts.attestation(d.Gate.GuestTEE(cookie), err)
	if err != nil {
		d.fail(w, r, because(evidence.AttestationError, err))
		return
	}
	setCookie(w, r, cookie)
	d.answer(w, r, evidence.Response{Token: raw})
}

// get releases a resource, sealed to the workload's key.
func (d door) get(w http.ResponseWriter, r *http.Request, segments []string) {
	caller, attested, ok := d.guest(w, r)
	if !ok {
		return
	}
	sealed, err := d.Gate.ReleaseResource(r.Context(), caller, attested, segments, lastOfEach(r))
	d.counts.decision(err)
	if err != nil {
		d.fail(w, r, release(err))
		return
	}
	d.counts.reads.Inc(strings.Join(segments, "/"))
	d.answer(w, r, sealed)
}

// guest recognises an attested workload.
func (d door) guest(w http.ResponseWriter, r *http.Request) (flow.Caller, token.Attested, bool) {
	cookie, bearer := sessionCookie(r), bearerToken(r)
	if cookie == "" && bearer == "" {
		d.fail(w, r, refused(evidence.TokenNotFound, "attest first: neither cookie nor bearer token was sent"))
		return flow.Caller{}, token.Attested{}, false
	}
	caller, attested, err := d.Gate.Guest(r.Context(), cookie, bearer, address(r), r.Method)
	if err != nil {
		d.fail(w, r, unattested(err))
		return flow.Caller{}, token.Attested{}, false
	}
	return caller, attested, true
}

// lastOfEach reads the query: the last value of a name wins, as in existing
// brokers.
func lastOfEach(r *http.Request) map[string]string {
	query := map[string]string{}
	for name, values := range r.URL.Query() {
		query[name] = values[len(values)-1]
	}
	return query
}

// put stores a resource for an operator.
func (d door) put(w http.ResponseWriter, r *http.Request, segments []string) {
	caller, ok := d.operator(w, r)
	if !ok {
		return
	}
	value, ok := d.body(w, r, resource.MaxValue)
	if !ok {
		return
	}
	if _, err := d.Gate.PutResource(r.Context(), caller, segments, secret.New(value)); err != nil {
		d.fail(w, r, administer(err))
		return
	}
	d.counts.writes.Inc(strings.Join(segments, "/"))
	w.Header().Set("Content-Type", "text/xml")
}

// remove deletes a resource for an operator.
func (d door) remove(w http.ResponseWriter, r *http.Request, segments []string) {
	caller, ok := d.operator(w, r)
	if !ok {
		return
	}
	if err := d.Gate.DeleteResource(r.Context(), caller, segments, false); err != nil {
		d.fail(w, r, administer(err))
		return
	}
	d.counts.deletes.Inc(strings.Join(segments, "/"))
	w.Header().Set("Content-Type", "text/xml")
}

// body reads at most limit bytes; more is answered with 413 in plain text.
func (d door) body(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, bool) {
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		http.Error(w, "the body is too large", http.StatusRequestEntityTooLarge)
		return nil, false
	case err != nil:
		d.fail(w, r, refused(evidence.HTTPFailed, "the body could not be read"))
		return nil, false
	}
	return data, true
}

func (d door) answer(w http.ResponseWriter, r *http.Request, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		d.fail(w, r, because(evidence.SerdeError, err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body) // the guest is gone if this fails
}

// setCookie hands out the handshake. It has no Path, which guests take as
// everything below /kbs/v0, and is Secure only where the connection is.
func setCookie(w http.ResponseWriter, r *http.Request, value string) {
	http.SetCookie(w, &http.Cookie{ //nolint:gosec // Secure follows the listener: a plain one is a named choice
		Name: token.CookieName, Value: value, Expires: time.Now().Add(token.CookieLife), HttpOnly: true, Secure: r.TLS != nil,
	})
}

func sessionCookie(r *http.Request) string {
	c, err := r.Cookie(token.CookieName)
	if err != nil {
		return ""
	}
	return c.Value
}

func bearerToken(r *http.Request) string {
	raw, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return ""
	}
	return raw
}

func address(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}
