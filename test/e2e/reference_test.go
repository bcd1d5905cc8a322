package e2e

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/evidence/evidencetest"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// genoa is real evidence of SNP without the certificate in it, and the
// certificate.
func genoa(t *testing.T) (body json.RawMessage, vcek []byte) {
	t.Helper()
	var w map[string]json.RawMessage
	must(t, json.Unmarshal(evidencetest.Vector(t, "snp/genoa-v3-evidence.json"), &w))
	var chain []struct {
		Data []int `json:"data"`
	}
	must(t, json.Unmarshal(w["cert_chain"], &chain))
	for _, n := range chain[0].Data {
		vcek = append(vcek, byte(n))
	}
	w["cert_chain"] = json.RawMessage("null")
	body, err := json.Marshal(w)
	must(t, err)
	return body, vcek
}

// TestReference_WhatIsImportedCounts shows evidence that lacks its certificate:
// it cannot be judged until an operator imports the certificate, and is then
// refused by its old challenge alone.
func TestReference_WhatIsImportedCounts(t *testing.T) {
	w, url := guests(t, "snp")
	body, vcek := genoa(t)
	err := show(t, url, replayed{evidence.Snp, body})
	if err == nil || !strings.Contains(err.Error(), "import it from https://kdsintf.amd.com/vcek/v1/Genoa/") {
		t.Fatalf("without the certificate: %v", err)
	}
	broken := append([]byte{}, vcek...)
	broken[len(broken)-1] ^= 1
	if _, err := w.admin.ImportEndorsements(t.Context(), []sallyport.ReferenceFile{{Name: "vcek.der", Data: broken}}, ""); !sallyport.Is(err, sallyport.Invalid) {
		t.Errorf("a certificate that AMD did not sign: %v", err)
	}
	list, err := w.admin.ImportEndorsements(t.Context(), []sallyport.ReferenceFile{{Name: "vcek.der", Data: vcek}}, "")
	must(t, err)
	if err := show(t, url, replayed{evidence.Snp, body}); err == nil || !strings.Contains(err.Error(), "report-data") {
		t.Errorf("with the certificate: %v", err)
	}
	if _, checks := w.refusal(t, evidence.Snp, "report-data"); evidencetest.Result(checks, "endorsement-chain") != evidence.Passed {
		t.Errorf("checks %v", checks)
	}
	status, err := w.admin.Status(t.Context())
	must(t, err)
	if len(status.Reference) > 0 { // a certificate of years
		t.Errorf("status %v", status.Reference)
	}
	must(t, w.admin.RemoveEndorsement(t.Context(), list[0].ID))
	if err := show(t, url, replayed{evidence.Snp, body}); err == nil || !strings.Contains(err.Error(), "import it from") {
		t.Errorf("after it was removed: %v", err)
	}
}

// TestReference_ValuesComeInTheFormOfTrustee uses the key broker's own paths, as
// its tools do.
func TestReference_ValuesComeInTheFormOfTrustee(t *testing.T) {
	w, _ := guests(t, "tpm")
	payload := base64.StdEncoding.EncodeToString([]byte(`{"svn":["1"],"a/b":{"c":1}}`))
	message := fmt.Sprintf(`{"version":"0.1.0","type":"sample","payload":%q}`, payload)
	post := shown{method: "POST", path: "/kbs/v0/reference-value", body: message}
	if got := w.send(post); got.status != 401 || !strings.Contains(got.body, "AdminAuthAccess") {
		t.Errorf("a stranger sets: %d %s", got.status, got.body)
	}
	post.certificate = &w.House.Operator
	if got := w.send(post); got.status != 200 || got.body != "" || got.header.Get("Content-Type") != "application/json" {
		t.Errorf("an operator sets: %d %q %v", got.status, got.body, got.header)
	}
	for path, want := range map[string]string{"svn": `["1"]`, "a/b": `{"c":1}`} {
		get := shown{method: "GET", path: "/kbs/v0/reference-value/" + path, certificate: &w.House.Operator}
		if got := w.send(get); got.status != 200 || got.body != want {
			t.Errorf("%s: %d %s", path, got.status, got.body)
		}
		get.certificate = nil
		if got := w.send(get); got.status != 401 || strings.Contains(got.body, want) {
			t.Errorf("a stranger reads %s: %d %s", path, got.status, got.body)
		}
	}
	for _, bad := range []shown{
		{method: "GET", path: "/kbs/v0/reference-value/nothing"},
		{method: "POST", path: "/kbs/v0/reference-value", body: "{}"},
		{method: "POST", path: "/kbs/v0/reference-value", body: strings.Replace(message, "sample", "corim", 1)},
	} {
		bad.certificate = &w.House.Operator
		if got := w.send(bad); got.status != 401 || !strings.Contains(got.body, "/RvpsError") {
			t.Errorf("%s %s: %d %s", bad.method, bad.path, got.status, got.body)
		}
	}
	for _, foreign := range []shown{{method: "GET", path: "/kbs/v0/reference-value"}, {method: "DELETE", path: "/kbs/v0/reference-value/svn"}} {
		foreign.certificate = &w.House.Operator
		if got := w.send(foreign); got.status != 404 {
			t.Errorf("%s %s: %d %s", foreign.method, foreign.path, got.status, got.body)
		}
	}
}

// TestReference_ExpiryIsToldOf sets a value that ends soon, and looks where an
// operator would.
func TestReference_ExpiryIsToldOf(t *testing.T) {
	w, _ := guests(t, "tpm")
	_, err := w.admin.SetReferenceValues(t.Context(), []sallyport.ReferenceSetting{{Name: "x", Value: json.RawMessage("1"), Expires: time.Now().Add(time.Hour)}}, "")
	must(t, err)
	status, err := w.admin.Status(t.Context())
	must(t, err)
	if len(status.Reference) != 1 || !strings.HasPrefix(status.Reference[0], "reference value x expires on ") {
		t.Errorf("status %v", status.Reference)
	}
	_, vcek := genoa(t)
	must(t, second(w.admin.ImportEndorsements(t.Context(), []sallyport.ReferenceFile{{Name: "vcek.der", Data: vcek}}, "")))
	r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+w.Bound["operations"]+"/metrics", http.NoBody)
	must(t, err)
	answer, err := http.DefaultClient.Do(r)
	must(t, err)
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	must(t, err)
	if !strings.Contains(string(text), `sallyport_reference_expires_timestamp_seconds{kind="snp-vcek"} `) {
		t.Error("the metric is missing")
	}
}

func second[T any](_ T, err error) error { return err }
