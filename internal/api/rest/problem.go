package rest

import (
	"context"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/obs"
	"github.com/sallyport-project/sallyport/internal/plugin"
)

// problem is the body of every error (RFC 9457). It repeats nothing of the
// request.
type problem struct {
	Type       string `json:"type" doc:"Always about:blank."`
	Title      string `json:"title" doc:"Text of the status."`
	Status     int    `json:"status"`
	Detail     string `json:"detail" doc:"For people; says what to do next."`
	Kind       string `json:"kind" enum:"invalid,unauthenticated,denied,not_found,conflict,exhausted,unavailable,internal" doc:"What a program can do about it."`
	Reason     string `json:"reason,omitempty" doc:"Why a plugin, a package or a repository is refused, as plugin status names it: METADATA_STALE, ROLLBACK, BAD_SIGNATURE, ..."`
	RequestID  string `json:"request_id" doc:"By which the operator finds the request in the log."`
	RetryAfter int64  `json:"retry_after_seconds,omitempty" doc:"When to come back."`
}

// StatusOf is the HTTP status of a kind of fault.
func StatusOf(k fault.Kind) int {
	switch k {
	case fault.Invalid:
		return http.StatusBadRequest
	case fault.Unauthenticated:
		return http.StatusUnauthorized
	case fault.Denied:
		return http.StatusForbidden
	case fault.NotFound:
		return http.StatusNotFound
	case fault.Conflict:
		return http.StatusConflict
	case fault.Exhausted:
		return http.StatusTooManyRequests
	case fault.Unavailable:
		return http.StatusServiceUnavailable
	case fault.Internal:
	}
	return http.StatusInternalServerError
}

// refuse answers with a fault.
func (d *Door) refuse(ctx context.Context, w http.ResponseWriter, err error) {
	d.refuseAs(ctx, w, err, StatusOf(fault.KindOf(err)))
}

// refuseAs answers with a fault under a status of its own, which only the
// protocol's own refusals need.
func (d *Door) refuseAs(ctx context.Context, w http.ResponseWriter, err error, status int) {
	Refuse(ctx, d.cfg.Log, w, err, status)
}

// Refuse answers with a problem document and tells the log what is the operator's
// to know.
func Refuse(ctx context.Context, log *slog.Logger, w http.ResponseWriter, err error, status int) {
	kind := fault.KindOf(err)
	tell(ctx, log, kind, err)
	p := problem{
		Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: fault.Public(err),
		Kind: kind.String(), RequestID: obs.Request(ctx), RetryAfter: retrySeconds(kind, fault.RetryAfter(err)),
	}
	if reason, ok := plugin.Reasoned(err); ok {
		p.Reason = string(reason)
	}
	h := w.Header()
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.FormatInt(p.RetryAfter, 10))
	}
	if status == http.StatusUnauthorized {
		h.Add("WWW-Authenticate", `Bearer error="invalid_token"`)
		h.Add("WWW-Authenticate", `DPoP algs="ES256 EdDSA"`)
	}
	data, broken := encode(p)
	if broken != nil {
		data = []byte(`{"type":"about:blank","kind":"internal","status":500}`) // unreachable: a problem is plain data
	}
	h.Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_, _ = w.Write(data) // the peer may have left
}

// tell tells the operator of what is ours to mend; what a caller did wrong is
// in the ledger, or not worth a line.
func tell(ctx context.Context, log *slog.Logger, kind fault.Kind, err error) {
	switch kind {
	case fault.Internal:
		log.ErrorContext(ctx, "request broke", obs.Err(err))
	case fault.Unavailable:
		log.WarnContext(ctx, "request not served", obs.Err(err))
	default:
		log.DebugContext(ctx, "request refused", slog.String(obs.KeyKind, kind.String()), obs.Err(err))
	}
}

// retrySeconds rounds up, and always says something where a limit was reached.
func retrySeconds(kind fault.Kind, after time.Duration) int64 {
	if kind != fault.Exhausted && kind != fault.Unavailable {
		return 0
	}
	s := int64(math.Ceil(after.Seconds()))
	if s <= 0 && kind == fault.Exhausted {
		return 1
	}
	return max(s, 0)
}
