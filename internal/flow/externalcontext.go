package flow

import (
	"slices"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/plugin/external"
)

// Contexts signs what an external plugin is told of who calls it, for that plugin
// alone.
type Contexts interface {
	Sign(audience string, members map[string]any) (string, error)
}

// Bounds of what is told of a guest's token, which may be of another service.
const (
	maxContextDevices = 8
	maxContextText    = 256
)

// context is what the plugin is told of who calls: where its operator has switched
// that on, signed for this plugin and this request. It has no claims of the
// evidence but names, digests and how far they are trusted, and nothing by which
// it could be taken for an attestation token.
func (x *externalCall) context() (string, error) {
	if !x.about.Rules.Rich || x.gate.Contexts == nil {
		return "", nil
	}
	members := map[string]any{"request": x.call.Request.Digest(), "caller": external.CallerAnybody}
	if x.operator != nil {
		members["caller"], members["administrator"] = external.CallerAdministrator, x.operator.Subject.Name
	}
	if x.guest != nil {
		members["caller"] = external.CallerGuest
		members["guest"] = map[string]any{
			"workload": x.guest.Subject.ID, "token": x.attested.ID, "key": x.attested.Key.Thumbprint(), "own": x.attested.Own,
			"status": x.attested.Status().String(), "devices": devicesOf(x.attested.Claims),
		}
	}
	return x.gate.Contexts.Sign(x.about.Name, members)
}

// devicesOf says of each device of a token what it is and how it was appraised.
// What is missing or too long to be what it should be is left out.
func devicesOf(claims map[string]any) []map[string]string {
	submods, _ := claims["submods"].(map[string]any)
	names := make([]string, 0, len(submods))
	for name := range submods {
		names = append(names, name)
	}
	slices.Sort(names)
	out := []map[string]string{}
	for _, name := range names[:min(len(names), maxContextDevices)] {
		submod, _ := submods[name].(map[string]any)
		annotated, _ := submod["ear.veraison.annotated-evidence"].(map[string]any)
		d := map[string]string{}
		put := func(member string, v any) {
			if s, ok := v.(string); ok && s != "" && len(s) <= maxContextText {
				d[member] = s
			}
		}
		put("name", name)
		put("status", submod["ear.status"])
		put("policy", submod["ear.appraisal-policy-id"])
		put("init_data", annotated["init_data"])
		for _, tee := range evidence.TEENames() {
			if _, there := annotated[tee]; there {
				put("tee", tee)
			}
		}
		out = append(out, d)
	}
	return out
}
