package e2e

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/attester/guest"
	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/evidence/evidencetest"
	"github.com/sallyport-project/sallyport/internal/seal"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// replayed is a guest that shows evidence of somebody else's handshake.
type replayed struct {
	tee  evidence.TEE
	body json.RawMessage
}

func (r replayed) TEE() evidence.TEE { return r.tee }

func (r replayed) Evidence(context.Context, evidence.Binding) (evidence.Evidence, error) {
	return evidence.Evidence{TEE: r.tee, Body: r.body}, nil
}

// guests is a house that takes real evidence on a listener of its own.
func guests(t *testing.T, kinds ...string) (*world, string) {
	t.Helper()
	verifiers := map[string]any{"enabled": kinds}
	w := start(t, found(t, Options{
		Further: []any{map[string]any{"name": "guests", "address": "127.0.0.1:0", "doors": []string{"kbs"}, "plain": true}},
		Config:  map[string]any{"verifiers": verifiers},
	}))
	return w, "http://" + w.Bound["guests"]
}

func show(t *testing.T, url string, a evidence.Attester) error {
	t.Helper()
	key, err := seal.GenerateKey()
	must(t, err)
	g, err := guest.New(guest.Config{URL: url, HTTP: http.DefaultTransport, Attester: a, Key: key})
	must(t, err)
	_, err = g.Attest(t.Context())
	return err
}

// findings waits for the newest record of a type and reads its checks.
func (w *world) findings(t *testing.T, kind string) (string, evidence.Checks) {
	t.Helper()
	var id string
	var checks evidence.Checks
	for id == "" {
		list, err := w.admin.Records(t.Context(), sallyport.RecordQuery{Type: kind, Newest: true, Limit: 1})
		must(t, err)
		if len(list.Items) == 0 {
			time.Sleep(20 * time.Millisecond) // until it has its position
			continue
		}
		r, err := audit.ParseLeaf(list.Items[0].Record)
		must(t, err)
		found, err := evidence.ParseFindings(r.Data["checks"])
		must(t, err)
		id, checks = r.ID, found[0].Checks
	}
	return id, checks
}

// TestKBS_KnowsOlderNames begins handshakes under the names that guests sent before
// kbs-types 0.13, and under names that nobody has switched on.
func TestKBS_KnowsOlderNames(t *testing.T) {
	_, url := guests(t, "az-snp-vtpm", "az-tdx-vtpm")
	for tee, want := range map[string]int{"az-snp-vtpm": 200, "azsnpvtpm": 200, "az-tdx-vtpm": 200, "aztdxvtpm": 200, "snp": 401, "azsnp": 401} {
		for _, version := range []string{"0.4.0", "0.2.0"} {
			got := plainly(t, "POST", url+"/kbs/v0/auth", object("version", version, "tee", tee, "extra-params", ""), nil)
			if got.status != want || want == 200 && !strings.Contains(got.body, `"nonce":"`) {
				t.Errorf("%s in %s: %d %s", tee, version, got.status, got.body)
			}
		}
	}
}

// TestEvidence_OfAnotherHandshakeIsRefused shows real evidence to the door: it is
// genuine in everything but that it was made for another nonce and key, and that
// alone refuses it.
func TestEvidence_OfAnotherHandshakeIsRefused(t *testing.T) {
	w, url := guests(t, "snp", "tdx", "tpm", "az-snp-vtpm")
	for _, c := range []struct {
		tee            evidence.TEE
		file           string
		failed, passed string
	}{
		{evidence.Snp, "snp/genoa-v3-evidence.json", "report-data", "report-signature"},
		{evidence.Tpm, "tpm/evidence-64-byte-nonce.json", "report-data", "quote-signature"},
		{evidence.AzSnpVtpm, "az-vtpm/snp-evidence-v1.json", "report-data", "report-signature"},
		{evidence.AzSnpVtpm, "az-vtpm/snp-evidence-v2.json", "report-data user-data", "report-signature"},
	} {
		err := show(t, url, replayed{c.tee, evidencetest.Vector(t, c.file)})
		if err == nil || !strings.Contains(err.Error(), "report-data") {
			t.Fatalf("%s, replayed: %v", c.file, err)
		}
		id, checks := w.refusal(t, c.tee, c.failed)
		if evidencetest.Result(checks, c.passed) != evidence.Passed {
			t.Errorf("%s: %s is %q", c.file, c.passed, evidencetest.Result(checks, c.passed))
		}
		out, err := w.House.Command(t.Context(), "policy", "explain", "--record", id, "--url", "https://"+w.Main)
		must(t, err)
		if !strings.Contains(out, c.passed) || !strings.Contains(out, "workload.refused") {
			t.Errorf("explained: %s", out)
		}
	}
	// For a quote of another handshake no collateral is looked for, or fetched.
	quote := base64.StdEncoding.EncodeToString(evidencetest.Vector(t, "tdx/quote-v4.dat"))
	if err := show(t, url, replayed{evidence.Tdx, json.RawMessage(`{"cc_eventlog":null,"quote":"` + quote + `"}`)}); err == nil || !strings.Contains(err.Error(), "report-data") {
		t.Errorf("a TDX quote, replayed: %v", err)
	}
	if _, checks := w.refusal(t, evidence.Tdx, "report-data"); evidencetest.Result(checks, "collateral") != evidence.Skipped {
		t.Errorf("collateral is %q", evidencetest.Result(checks, "collateral"))
	}
	if err := show(t, url, replayed{evidence.AzTdxVtpm, json.RawMessage("{}")}); err == nil || !strings.Contains(err.Error(), "not switched on") {
		t.Errorf("a kind that is not switched on: %v", err)
	}
}

// refusal waits for a refusal of a kind of evidence with these checks failed.
func (w *world) refusal(t *testing.T, tee evidence.TEE, failed string) (string, evidence.Checks) {
	t.Helper()
	for range 500 {
		list, err := w.admin.Records(t.Context(), sallyport.RecordQuery{Type: "workload.refused", Newest: true, Limit: 10})
		must(t, err)
		for _, item := range list.Items {
			r, err := audit.ParseLeaf(item.Record)
			must(t, err)
			found, err := evidence.ParseFindings(r.Data["checks"])
			must(t, err)
			if found[0].TEE == tee && strings.Join(evidencetest.Failed(found[0].Checks), " ") == failed {
				return r.ID, found[0].Checks
			}
		}
		time.Sleep(20 * time.Millisecond) // until it has its position
	}
	t.Fatalf("no refusal of %s by %s was recorded", tee, failed)
	return "", nil
}

// TestEvidence_IsJudgedOffline runs the program on every vector, and looks at the
// exit code and at what it says.
func TestEvidence_IsJudgedOffline(t *testing.T) {
	folder := evidencetest.Folder(t)
	h := found(t, Options{})
	collateral := t.TempDir() // without its README
	for _, name := range []string{"tcb-info-2023-06.json", "qe-identity-2023-06.json", "tcb-signing-2023.pem"} {
		data, err := os.ReadFile(filepath.Join("../../internal/verifier/tdx/testdata", name))
		must(t, err)
		must(t, os.WriteFile(filepath.Join(collateral, name), data, 0o600))
	}
	for _, c := range offline {
		args := append([]string{"evidence", "verify", filepath.Join(folder, c.file), "--output", "json", "--at", "2026-06-01T00:00:00Z"}, c.args...)
		for i, a := range args {
			args[i] = strings.NewReplacer("VECTORS", folder, "COLLATERAL", collateral).Replace(a)
		}
		out, err := h.Command(t.Context(), args...)
		if e, ok := errors.AsType[*ExitError](err); ok {
			if out = e.Stdout; e.Code != 4 {
				t.Errorf("%v: exit code %d: %s", c, e.Code, e.Stderr)
			}
		}
		var j struct {
			Verdict string          `json:"verdict"`
			Checks  evidence.Checks `json:"checks"`
		}
		if err := json.Unmarshal([]byte(out), &j); err != nil {
			t.Errorf("%v: %v in %q", c, err, out)
			continue
		}
		if got := strings.Join(evidencetest.Failed(j.Checks), " "); got != c.failed || (j.Verdict == "accepted") != (err == nil) {
			t.Errorf("%v: %s, failed %q, %v", c, j.Verdict, got, err)
		}
	}
	if err := os.WriteFile(filepath.Join(h.Dir, "unknown"), []byte("?"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := h.Command(t.Context(), "evidence", "verify", filepath.Join(folder, offline[0].file), "--reference", filepath.Join(h.Dir, "unknown"))
	if e, ok := errors.AsType[*ExitError](err); !ok || e.Code != 2 {
		t.Errorf("unknown reference material: %v", err)
	}
}

// offline is every vector of evidence with what refuses it, if anything does.
var offline = []struct {
	file   string
	args   []string
	failed string
}{
	{"snp/genoa-v3-evidence.json", nil, ""},
	{"snp/genoa-v3-evidence.json", []string{"--at", "2046-01-01T00:00:00Z"}, "endorsement-dates"},
	{"snp/genoa-v3-evidence.json", []string{"--report-data", "00"}, "report-data"},
	{"snp/milan-v2-report.bin", []string{"--kind", "snp", "--signer", "VECTORS/snp/milan-v2-vcek.der"}, "report-version"},
	{"snp/milan-v2-report.bin", []string{"--kind", "snp", "--signer", "VECTORS/snp/invalid-vcek-legacy.der"}, "report-version endorsement-chain"},
	{"tdx/quote-v4.dat", []string{"--kind", "tdx", "--at", "2023-07-01T00:00:00Z", "--reference", "COLLATERAL"}, ""},
	{"tdx/quote-v4.dat", []string{"--kind", "tdx", "--at", "2023-09-01T00:00:00Z", "--reference", "COLLATERAL"}, "collateral-dates"},
	{"tdx/quote-v5.dat", []string{"--kind", "tdx", "--reference", "COLLATERAL"}, "collateral"},
	{"az-vtpm/snp-evidence-v1.json", []string{"--report-data", "6368616c6c656e6765"}, ""},
	{"az-vtpm/snp-evidence-v1.json", []string{"--report-data", "00"}, "report-data"},
	{"az-vtpm/snp-evidence-v2.json", []string{"--report-data", "982f5c6e45df0ed3f10b6f60b02f0c8390e281300f3805e2279c16168cd6ae9aa398f647caa2338748cd0fd9f5f819ef"}, ""},
	{"az-vtpm/snp-evidence-v2.json", []string{"--report-data", "00"}, "report-data user-data"},
	{"tpm/evidence-64-byte-nonce.json", nil, ""},
	{"tpm/evidence-64-byte-nonce.json", []string{"--report-data", "00"}, "report-data"},
}
