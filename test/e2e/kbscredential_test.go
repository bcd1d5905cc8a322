package e2e

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/seal"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

const guestsMayAsk = `package policy

applies_to := "external/credentials/ssh-user-cert"

allow if {
	data.method == "GET"
	input.submods.cpu0["ear.veraison.annotated-evidence"].sample
}
`

const guestsMayLogIn = `package sallyport

release := {
	"allow": true,
	"bounds": {"kind": "ssh-user-cert", "max_params": {"principals": ["deploy"]}, "max_ttl_seconds": 120},
	"reasons": ["an attested guest may log in to deploy"],
} if {
	input.subject.kind == "workload"
	input.request.kind == "ssh-user-cert"
	some submod in input.claims.submods
	submod["ear.status"] != "affirming"
}
`

// TestKBS_VendsCredentials gives an attested guest a certificate, sealed to its
// key, within two policies, and takes it back with the workload.
func TestKBS_VendsCredentials(t *testing.T) {
	w := start(t, found(t, Options{Further: guestDoor(), Config: map[string]any{"verifiers": believesSamples()}}))
	must(t, w.Equip(t.Context()))
	url := "http://" + w.Bound["guests"]
	g, key := newGuest(t, url, nil)
	token, err := g.Attest(t.Context())
	must(t, err)
	get := func(path, token string) reply {
		header := map[string]string{}
		if token != "" {
			header["Authorization"] = "Bearer " + token
		}
		return plainly(t, "GET", url+"/kbs/v0/external/credentials/"+path, "", header)
	}
	const asked = "ssh-user-cert?principals[]=deploy&ttl=600"
	refused := func(what, path, token, variant string) {
		t.Helper()
		if got := get(path, token); got.status != 401 || !strings.Contains(got.body, "errors/"+variant) {
			t.Errorf("%s: %d %s", what, got.status, got.body)
		}
	}
	refused("no resource policy for it", asked, token, "PolicyDeny")
	_, err = w.admin.SetPolicy(t.Context(), "guests", "kbs-resource", guestsMayAsk)
	must(t, err)
	refused("no release policy for it", asked, token, "PolicyDeny")
	_, err = w.admin.SetPolicy(t.Context(), "guests-ssh", "sallyport", guestsMayLogIn)
	must(t, err)
	refused("a stranger", asked, "", "TokenNotFound")
	refused("another principal", "ssh-user-cert?principals[]=root", token, "PolicyDeny")
	refused("a parameter of the host", "ssh-user-cert?principals[]=deploy&host.serial=1", token, "PluginInternalError")
	refused("a lifetime in words", "ssh-user-cert?ttl=long", token, "PluginInternalError")
	refused("a kind that no policy is for", "gold", token, "PolicyDeny")
	refused("a longer path", "ssh-user-cert/more", token, "PluginInternalError")

	got := get(asked, token)
	if got.status != 200 || got.header.Get("Content-Type") != "application/json" || strings.Contains(got.body, "ssh-") {
		t.Fatalf("the credential is answered %d %s", got.status, got.body)
	}
	sealed, err := seal.ParseJWE([]byte(got.body))
	must(t, err)
	plain, err := seal.Open(key, sealed)
	must(t, err)
	var credential struct {
		Grant, Value string
		PrivateKey   string    `json:"private_key"`
		IssuedAt     time.Time `json:"issued_at"`
		ExpiresAt    time.Time `json:"expires_at"`
	}
	must(t, json.Unmarshal(plain.Reveal(), &credential))
	if !strings.HasPrefix(credential.Value, "ssh-") || credential.PrivateKey == "" || credential.ExpiresAt.Sub(credential.IssuedAt) > 2*time.Minute {
		t.Errorf("the credential lives %s and begins with %.10s", credential.ExpiresAt.Sub(credential.IssuedAt), credential.Value)
	}

	// The workload is revoked: its credential goes with it, and its token counts no more.
	grant, err := w.admin.Grant(t.Context(), credential.Grant)
	must(t, err)
	_, err = w.admin.ChangeSubject(t.Context(), grant.Subject, sallyport.SubjectChange{Act: "revoke", Reason: "a test"})
	must(t, err)
	refused("a revoked workload", asked, token, "TokenVerifierError")
	if grant, err = w.admin.Grant(t.Context(), credential.Grant); err != nil || grant.State != "revoked" {
		t.Errorf("the credential of a revoked workload is %s: %v", grant.State, err)
	}
}
