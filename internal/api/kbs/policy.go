package kbs

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/policy"
)

// maxPolicyBody bounds an uploaded policy: base64 of the longest document, and
// the JSON around it.
const maxPolicyBody = policy.MaxSource*4/3 + 4096

// policyBody is what operators of existing brokers upload.
type policyBody struct {
	ID     string          `json:"policy_id"`
	Policy string          `json:"policy"` // base64url without padding
	Type   json.RawMessage `json:"type"`   // ignored, as in existing brokers
}

// readPolicy says under which name and kind a body is stored.
type readPolicy func(policyBody) (name string, kind policy.Kind, err error)

// resourcePolicy is the one policy of all resources.
func resourcePolicy(b policyBody) (string, policy.Kind, error) {
	if b.ID != "" {
		return "", "", fault.Invalidf("there is one resource policy: leave policy_id out")
	}
	return policy.ResourceName, policy.KBSResource, nil
}

// attestationPolicy is one for each class of device; an id without a class is
// that of the CPU, as existing clients mean it.
func attestationPolicy(b policyBody) (string, policy.Kind, error) {
	name := b.ID
	if name == "" {
		return "", "", fault.Invalidf("name the policy in policy_id, for example default_cpu")
	}
	if !strings.Contains(name, "_") {
		name += "_cpu"
	}
	return name, policy.KBSAttestation, nil
}

// setPolicy stores an uploaded policy for an operator.
func (d door) setPolicy(w http.ResponseWriter, r *http.Request, read readPolicy) {
	caller, ok := d.operator(w, r)
	if !ok {
		return
	}
	body, ok := d.body(w, r, maxPolicyBody)
	if !ok {
		return
	}
	var b policyBody
	if err := canon.Strict(body, maxPolicyBody, 8, &b); err != nil {
		d.fail(w, r, failure{evidence.SerdeError, "send an object with policy, and policy_id for an attestation policy", err})
		return
	}
	source, err := base64.RawURLEncoding.Strict().DecodeString(strings.TrimRight(b.Policy, "="))
	if err != nil {
		d.fail(w, r, refused(evidence.ParsePolicyError, "policy must be the Rego text in base64url"))
		return
	}
	name, kind, err := read(b)
	if err == nil {
		_, err = d.Gate.SetPolicy(r.Context(), caller, name, kind, string(source))
	}
	switch {
	case err == nil:
		w.Header().Set("Content-Type", "text/xml")
	case fault.Is(err, fault.Invalid):
		d.fail(w, r, because(evidence.ParsePolicyError, err))
	default:
		d.fail(w, r, administer(err))
	}
}

// listPolicies answers the names of the resource policies in force.
func (d door) listPolicies(w http.ResponseWriter, r *http.Request) {
	caller, ok := d.operator(w, r)
	if !ok {
		return
	}
	all, err := d.Gate.Policies(r.Context(), caller)
	if err != nil {
		d.fail(w, r, administer(err))
		return
	}
	names := []string{}
	for _, document := range all {
		if document.Kind == policy.KBSResource {
			names = append(names, document.Name)
		}
	}
	d.answer(w, r, names)
}
