package external

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sallyport-project/sallyport/internal/obs"
)

// The three calls, as they are counted.
const (
	callValidateAuth    = "ValidateAuth"
	callHandle          = "Handle"
	callNeedsEncryption = "NeedsEncryption"
)

const (
	outcomeOK      = "ok"
	outcomeRefused = "refused" // Handle answered with a status that is no success
	outcomeFailed  = "failed"
	outcomeLate    = "late"
	outcomeBusy    = "busy" // too many calls in flight
)

// maxNames bounds the names of backends that are counted by themselves.
const maxNames = 256

// meters are those of existing brokers, under their names, and ours.
type meters struct {
	requests, errors, calls *obs.Counter
	took                    *obs.Histogram
}

func newMeters(m *obs.Metrics, up func(emit func(float64, ...string))) meters {
	name := obs.AtMost("plugin_name", maxNames)
	m.Gauges("sallyport_kbs_backend_up", "Whether an external address is connected.", []string{"plugin_name"}, up)
	return meters{
		requests: m.Counter("kbs_plugin_requests_total", "Requests that external plugins have handled.", name),
		errors:   m.Counter("kbs_plugin_errors_total", "Calls of external plugins that failed in transport.", name),
		took: m.Histogram("kbs_plugin_request_duration_seconds", "Time in which external plugins have handled requests.",
			[]float64{.001, .005, .01, .05, .1, .5, 1}, name),
		calls: m.Counter("sallyport_kbs_backend_calls_total", "Calls of external plugins, by how they ended.", name,
			obs.OneOf("call", callValidateAuth, callHandle, callNeedsEncryption),
			obs.OneOf("outcome", outcomeOK, outcomeRefused, outcomeFailed, outcomeLate, outcomeBusy)),
	}
}

// count counts one call. Existing brokers count what Handle did, whatever its
// status, and the errors of all three.
func (m meters) count(name, call, outcome string, took time.Duration) {
	m.calls.Inc(name, call, outcome)
	if call == callHandle {
		m.requests.Inc(name)
		m.took.Observe(took.Seconds(), name)
	}
	if outcome != outcomeOK && outcome != outcomeRefused {
		m.errors.Inc(name)
	}
}

// late reports whether an error is that of a deadline.
func late(err error) bool {
	return status.Code(err) == codes.DeadlineExceeded || errors.Is(err, context.DeadlineExceeded)
}
