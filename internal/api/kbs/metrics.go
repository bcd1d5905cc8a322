package kbs

import (
	"io"
	"net/http"
	"time"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/obs"
)

// mostPaths bounds the label resource_path; further paths count as other.
const mostPaths = 100

// counts are the metrics of this door under the names that dashboards of key
// brokers know. Labels are bounded, and sizes of answers are in their own
// histogram.
type counts struct {
	requests, auths, authSuccesses, authErrors                  *obs.Counter
	attestations, attestSuccesses, attestFailures, attestErrors *obs.Counter
	evaluations, approvals, violations, evaluationErrors        *obs.Counter
	reads, writes, deletes                                      *obs.Counter
	duration, requestSize, responseSize                         *obs.Histogram
	active                                                      *obs.Gauge
}

func newCounts(door Config) *counts {
	m := door.Metrics
	tee := func() obs.Label { return obs.OneOf("tee_type", evidence.TEENames()...) }
	path := func() obs.Label { return obs.AtMost("resource_path", mostPaths) }
	sizes := []float64{32, 128, 512, 2048, 8192}
	c := &counts{
		requests:         m.Counter("kbs_http_requests_total", "Requests below /kbs."),
		duration:         m.Histogram("kbs_http_request_duration_seconds", "Time to answer a request below /kbs.", []float64{.0005, .001, .005, .01, .05, .5, 1}),
		requestSize:      m.Histogram("kbs_http_request_size_bytes", "Sizes of the bodies of requests below /kbs.", sizes),
		responseSize:     m.Histogram("kbs_http_response_size_bytes", "Sizes of the bodies of answers below /kbs.", sizes),
		active:           m.Gauge("kbs_http_active_connections", "Requests below /kbs that are being answered."),
		reads:            m.Counter("kbs_resource_reads_total", "Resources that were released.", path()),
		writes:           m.Counter("kbs_resource_writes_total", "Resources that were stored.", path()),
		deletes:          m.Counter("kbs_resource_deletes_total", "Resources that were deleted.", path()),
		evaluations:      m.Counter("kbs_policy_evaluations_total", "Decisions of the resource policy."),
		approvals:        m.Counter("kbs_policy_approvals_total", "Decisions of the resource policy that allowed."),
		violations:       m.Counter("kbs_policy_violations_total", "Decisions of the resource policy that denied."),
		evaluationErrors: m.Counter("kbs_policy_errors_total", "Resource policies that could not be evaluated."),
		attestations:     m.Counter("kbs_attestation_requests_total", "Attestations that were sent."),
		attestSuccesses:  m.Counter("kbs_attestation_successes_total", "Attestations that were accepted.", tee()),
		attestFailures:   m.Counter("kbs_attestation_failures_total", "Attestations that were refused.", tee()),
		attestErrors:     m.Counter("kbs_attestation_errors_total", "Attestations that could not be judged."),
		auths:            m.Counter("kbs_auth_requests_total", "Handshakes that were begun."),
		authSuccesses:    m.Counter("kbs_auth_successes_total", "Challenges that were handed out."),
		authErrors:       m.Counter("kbs_auth_errors_total", "Requests for a challenge that were refused."),
	}
	m.Gauge("kbs_build_info", "What runs here; always 1.",
		obs.AtMost("version", 1), obs.AtMost("git_hash", 1), obs.AtMost("build_date", 1)).Set(1, door.Version, door.Commit, door.Built)
	return c
}

// authentication counts one request for a challenge.
func (c *counts) authentication(err error) {
	c.auths.Inc()
	if err != nil {
		c.authErrors.Inc()
		return
	}
	c.authSuccesses.Inc()
}

// attestation counts one attestation.
func (c *counts) attestation(tee evidence.TEE, err error) {
	c.attestations.Inc()
	switch {
	case err == nil:
		c.attestSuccesses.Inc(string(tee))
	case broke(err):
		c.attestErrors.Inc()
	default:
		c.attestFailures.Inc(string(tee))
	}
}

// decision counts one decision of the resource policy, by what came of it: a
// resource that is not there was allowed.
func (c *counts) decision(err error) {
	c.evaluations.Inc()
	switch {
	case fault.Is(err, fault.Denied):
		c.violations.Inc()
	case broke(err):
		c.evaluationErrors.Inc()
	default:
		c.approvals.Inc()
	}
}

func broke(err error) bool { return fault.Is(err, fault.Unavailable) || fault.Is(err, fault.Internal) }

// counted is a request on its way. It measures what is read and written.
type counted struct {
	http.ResponseWriter
	counts     *counts
	began      time.Time
	read, sent int64
	body       io.ReadCloser
}

func (c *counts) begin(w http.ResponseWriter, r *http.Request, now time.Time) *counted {
	c.requests.Inc()
	c.active.Add(1)
	out := &counted{ResponseWriter: w, counts: c, began: now, body: r.Body}
	r.Body = countedBody{out}
	return out
}

func (c *counted) end(now time.Time) {
	c.counts.active.Add(-1)
	c.counts.duration.Since(c.began, now)
	c.counts.requestSize.Observe(float64(c.read))
	c.counts.responseSize.Observe(float64(c.sent))
}

// Write counts what is sent.
func (c *counted) Write(b []byte) (int, error) {
	n, err := c.ResponseWriter.Write(b)
	c.sent += int64(n)
	return n, err
}

// Unwrap gives net/http its own writer, which closes the connection of a body
// that is too large.
func (c *counted) Unwrap() http.ResponseWriter { return c.ResponseWriter }

type countedBody struct{ c *counted }

func (b countedBody) Read(p []byte) (int, error) {
	n, err := b.c.body.Read(p)
	b.c.read += int64(n)
	return n, err
}

func (b countedBody) Close() error { return b.c.body.Close() }
