package plugin

import (
	"context"
	"errors"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/obs"
)

// outcome is how a call ended, as it is counted.
type outcome string

const (
	outcomeOK        outcome = "ok"
	outcomeRefused   outcome = "refused"   // the plugin said no, or the host did not accept its answer
	outcomeFailed    outcome = "failed"    // the plugin answered that it could not
	outcomeLost      outcome = "lost"      // its process went, and the call could not be repeated
	outcomeLate      outcome = "late"      // no answer in time
	outcomeAbandoned outcome = "abandoned" // the caller went away
	outcomeBusy      outcome = "busy"      // too many calls in flight
	outcomeDown      outcome = "down"      // no process to serve it
)

// maxNames bounds the names of plugins that are counted by themselves.
const maxNames = 256

// meters is what the host counts. Names of plugins are those that are installed.
type meters struct {
	starts, crashes, calls *obs.Counter
	took                   *obs.Histogram
	often                  sync.Map // name of a plugin -> *oftenCounted
}

// oftenCounted is what nearly every call counts.
type oftenCounted struct {
	ok   func()
	took func(seconds float64)
}

func newMeters(m *obs.Metrics, h *Host) *meters {
	name := obs.AtMost("plugin", maxNames)
	m.Gauges("sallyport_plugin_state", "Processes of a plugin by state, with the reason; 1 for a plugin that must not run.",
		[]string{"plugin", "state", "reason"}, h.states)
	m.Gauges("sallyport_plugin_calls_in_flight", "Calls that a plugin has not answered yet.", []string{"plugin"}, h.inFlight)
	m.Gauges("sallyport_plugin_calls_waiting", "Calls that wait for their turn at a plugin.", []string{"plugin"}, h.waiting)
	return &meters{
		starts:  m.Counter("sallyport_plugin_starts_total", "Processes of a plugin that became ready.", name),
		crashes: m.Counter("sallyport_plugin_crashes_total", "Processes of a plugin that ended by themselves.", name),
		calls: m.Counter("sallyport_plugin_calls_total", "Calls of a plugin, by how they ended.", name,
			obs.OneOf("outcome", string(outcomeOK), string(outcomeRefused), string(outcomeFailed), string(outcomeLost),
				string(outcomeLate), string(outcomeAbandoned), string(outcomeBusy), string(outcomeDown))),
		took: m.Histogram("sallyport_plugin_call_duration_seconds", "Time of a call, with waiting and repetition.",
			[]float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5}, name),
	}
}

func (m *meters) called(plugin string, o outcome, took time.Duration) {
	known, ok := m.often.Load(plugin)
	if !ok {
		known, _ = m.often.LoadOrStore(plugin, &oftenCounted{m.calls.Bind(plugin, string(outcomeOK)), m.took.Bind(plugin)})
	}
	c, ok := known.(*oftenCounted)
	if !ok {
		return // unreachable
	}
	if o == outcomeOK {
		c.ok()
	} else {
		m.calls.Inc(plugin, string(o))
	}
	c.took(took.Seconds())
}

// outcomeOf says how a call ended that a process was found for, before its error
// is put into words.
func outcomeOf(ctx context.Context, err error) outcome {
	switch code := status.Code(err); {
	case err == nil:
		return outcomeOK
	case ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) || code == codes.DeadlineExceeded:
		return unanswered(ctx)
	case lost(ctx, err):
		return outcomeLost
	case fault.KindOf(err) == fault.Internal || fault.Is(err, fault.Unavailable):
		return outcomeFailed
	default:
		return outcomeRefused
	}
}

// unanswered says why nobody waits for a call any more.
func unanswered(ctx context.Context) outcome {
	if errors.Is(ctx.Err(), context.Canceled) {
		return outcomeAbandoned
	}
	return outcomeLate
}

func (h *Host) states(emit func(float64, ...string)) {
	for _, s := range h.Status() {
		for _, i := range s.Instances {
			emit(1, s.Name, string(i.State), string(i.Reason))
		}
		if len(s.Instances) == 0 {
			emit(1, s.Name, string(s.State), string(s.Reason))
		}
	}
}

func (h *Host) inFlight(emit func(float64, ...string)) {
	for _, s := range h.Status() {
		emit(float64(s.InFlight), s.Name)
	}
}

func (h *Host) waiting(emit func(float64, ...string)) {
	for _, s := range h.Status() {
		emit(float64(s.Waiting), s.Name)
	}
}
