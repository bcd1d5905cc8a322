package plugin

import (
	"bytes"
	"context"
	"encoding/hex"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	own "github.com/sallyport-project/sallyport/api/sallyport/plugin/v1"
	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// maxChecks is how many checks of one piece of evidence are kept.
const maxChecks = 64

// Verifiers are those of the installed plugins with role verifier, by the kind of
// evidence that they judge. A manifest names none that the host judges itself.
func (h *Host) Verifiers() evidence.Verifiers {
	out := evidence.Verifiers{}
	for _, r := range h.table.Load().routes {
		if !contains(r.row.Offer.Roles, manifest.RoleVerifier) {
			continue
		}
		for _, name := range r.row.Offer.Evidence {
			out[evidence.TEE(name)] = verifier{h, name}
		}
	}
	return out
}

// verifier is the adapter of role verifier.
type verifier struct {
	host *Host
	name string
}

var _ evidence.Verifier = verifier{}

func (v verifier) find() (*route, error) { return v.host.role(manifest.RoleVerifier, v.name) }

// Verify lets the plugin judge, and then compares what it says the evidence is
// bound to with what it must be bound to; see [evidence.Verifier].
func (v verifier) Verify(ctx context.Context, e evidence.Evidence, b evidence.Binding, at time.Time) (evidence.Claims, error) {
	q := &own.JudgeRequest{
		Name: v.name, Evidence: e.Body, ReportData: b.ReportData, InitData: b.InitData, Unbound: b.Unknown, AtUnixMs: at.UnixMilli(),
	}
	return call(ctx, v.host, v.find, true, func(ctx context.Context, i *instance) (evidence.Claims, error) {
		a, err := own.NewVerifierClient(i.conn).Judge(ctx, q)
		if err != nil {
			return evidence.Claims{}, err
		}
		return appraised(i.m.Name, e.TEE, b, a)
	})
}

// appraised is what a plugin's answer comes to.
func appraised(plugin string, tee evidence.TEE, b evidence.Binding, a *own.JudgeResponse) (evidence.Claims, error) {
	checks := readChecks(a.GetChecks())
	if no := a.GetRefusal(); no != nil {
		cause := refusal(plugin, no)
		if fault.Is(cause, fault.Exhausted) {
			cause = fault.Unavailablef("plugin %s: %s", plugin, clip(no.GetReason(), maxReason))
		}
		return evidence.Claims{}, evidence.Refuse(tee, checks, cause)
	}
	if len(checks) == 0 {
		return evidence.Claims{}, fault.Unavailablef("plugin %s judged %s evidence without a check", plugin, tee)
	}
	if err := checks.Err(tee); err != nil {
		return evidence.Claims{}, err
	}
	checks.Bound(b, len(b.ReportData) > 0 && bytes.Equal(a.GetReportData(), b.ReportData), evidence.Check{
		Name: "host-report-data", Expected: hex.EncodeToString(b.ReportData), Seen: hex.EncodeToString(a.GetReportData()),
		Reason: "the plugin says that the evidence was made for something else",
	})
	if len(a.GetInitData()) > 0 {
		checks.Bound(b, bytes.Equal(a.GetInitData(), b.InitData), evidence.Check{
			Name: "host-init-data", Expected: hex.EncodeToString(b.InitData), Seen: hex.EncodeToString(a.GetInitData()),
			Reason: "the plugin says that the evidence was made with other init-data",
		})
	}
	if err := checks.Err(tee); err != nil {
		return evidence.Claims{}, err
	}
	out := evidence.Claims{Checks: checks, ReportData: hex.EncodeToString(a.GetReportData()), InitData: hex.EncodeToString(a.GetInitData())}
	switch a.GetDeviceClass() {
	case own.Class_CLASS_CPU:
		out.Class = evidence.CPU
	case own.Class_CLASS_GPU:
		out.Class = evidence.GPU
	case own.Class_CLASS_SWITCH:
		out.Class = evidence.Switch
	default:
		return evidence.Claims{}, fault.Unavailablef("plugin %s does not say what kind of device the evidence is of", plugin)
	}
	if err := canon.Strict(a.GetClaims(), maxParams, paramsDepth, &out.Values); err != nil {
		return evidence.Claims{}, fault.Unavailablef("plugin %s reports claims that are no JSON object", plugin).Because(err)
	}
	return out, nil
}

// readChecks takes over a plugin's checks. What it does not call passed or skipped
// has failed; if there are too many, those that are left out must not hide one that
// failed.
func readChecks(list []*own.Check) evidence.Checks {
	var out evidence.Checks
	for n, k := range list {
		check := evidence.Check{
			Name: clip(k.GetName(), 64), Expected: clip(k.GetExpected(), maxReason), Seen: clip(k.GetSeen(), maxReason),
			Reason: clip(k.GetReason(), maxReason), Section: clip(k.GetSection(), maxReason),
		}
		failed := k.GetResult() != own.Result_RESULT_PASS && k.GetResult() != own.Result_RESULT_SKIP
		if n >= maxChecks && !failed {
			continue
		}
		if k.GetResult() == own.Result_RESULT_SKIP {
			out.Skip(check)
		} else {
			out.That(!failed, check)
		}
		if failed {
			return out
		}
	}
	return out
}
