package e2e

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/attester/guest"
	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/evidence/evidencetest"
	"github.com/sallyport-project/sallyport/internal/seal"
	"github.com/sallyport-project/sallyport/internal/verifier/tpm/tpmtest"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// quoting is a guest with a TPM in software: it quotes for each challenge.
type quoting struct{ tpm *tpmtest.TPM }

func (quoting) TEE() evidence.TEE { return evidence.Tpm }

func (q quoting) Evidence(_ context.Context, b evidence.Binding) (evidence.Evidence, error) {
	return evidence.Evidence{TEE: evidence.Tpm, Body: q.tpm.Evidence("ak", "sha256", b.ReportData[:32], nil)}, nil
}

// TestEvidence_OfATPMIsTaken runs a whole handshake with a TPM that quotes for
// the challenge, and shows what it quoted to the next one.
func TestEvidence_OfATPMIsTaken(t *testing.T) {
	p := tpmtest.New(t)
	p.EK("rsa")
	p.AK("rsa", "ak", "ecc", "sha256", "ecdsa")
	p.Extend("11:sha256=" + strings.Repeat("11", 32))
	w, url := guests(t, "tpm")
	must(t, done(w.admin.PutResource(t.Context(), "default", "key", "1", []byte("for the TPM"))))
	if got, err := fetch(t, url, quoting{p}); err == nil || !strings.Contains(err.Error(), "PolicyDeny") {
		t.Errorf("whoever can sign is given %s, %v", got, err)
	}
	must(t, Eventually(5*time.Second, func() error { // until it has its position
		out, err := w.House.Command(t.Context(), "audit", "list", "--type", "resource.released", "--output", "json", "--url", "https://"+w.Main)
		if err == nil && !strings.Contains(out, "the guest was appraised as contraindicated") {
			err = errors.New(out)
		}
		return err
	}))
	id, checks := w.findings(t, "workload.attested")
	if failed := evidencetest.Failed(checks); len(failed) > 0 || evidencetest.Result(checks, "quote-signature") != evidence.Passed || evidencetest.Result(checks, "report-data") != evidence.Passed {
		t.Errorf("checks: %+v", checks)
	}
	out, err := w.House.Command(t.Context(), "policy", "explain", "--record", id, "--url", "https://"+w.Main)
	must(t, err)
	if !strings.Contains(out, "cpu0 tpm") || !strings.Contains(out, "pcr-digest") {
		t.Errorf("explained: %s", out)
	}
	// Its key is nobody's until an operator takes it for known, from the decision.
	w.knows(t, id)
	if got, err := fetch(t, url, quoting{p}); err != nil || got != "for the TPM" {
		t.Errorf("a TPM that is known is given %q, %v", got, err)
	}
	w.attestedAs(t, "warning") // the key and what it booted are known; nobody looks at the configuration
	old := p.Evidence("ak", "sha256", []byte(strings.Repeat("x", 32)), nil)
	if err := show(t, url, replayed{evidence.Tpm, old}); err == nil || !strings.Contains(err.Error(), "report-data") {
		t.Errorf("a quote for another challenge: %v", err)
	}
	if _, checks := w.findings(t, "workload.refused"); strings.Join(evidencetest.Failed(checks), " ") != "report-data" {
		t.Errorf("failed: %v", evidencetest.Failed(checks))
	}
}

// fetch attests and asks for default/key/1.
func fetch(t *testing.T, url string, a evidence.Attester) (string, error) {
	t.Helper()
	key, err := seal.GenerateKey()
	must(t, err)
	g, err := guest.New(guest.Config{URL: url, HTTP: http.DefaultTransport, Attester: a, Key: key})
	must(t, err)
	if _, err := g.Attest(t.Context()); err != nil {
		return "", err
	}
	value, _, err := g.Resource(t.Context(), "default/key/1")
	return string(value.Reveal()), err
}

// knows records what a guest showed as what is expected.
func (w *world) knows(t *testing.T, record string) {
	t.Helper()
	out, err := w.House.Command(t.Context(), "reference", "record", "--record", record, "--yes", "--url", "https://"+w.Main)
	must(t, err)
	if !strings.Contains(out, "trusted_aks is ") || !strings.Contains(out, "tpm_pcr11 is ") {
		t.Errorf("recorded: %s", out)
	}
}

// attestedAs waits until the newest admission of a guest has this status.
func (w *world) attestedAs(t *testing.T, status string) {
	t.Helper()
	for range 500 {
		list, err := w.admin.Records(t.Context(), sallyport.RecordQuery{Type: "workload.attested", Newest: true, Limit: 1})
		must(t, err)
		r, err := audit.ParseLeaf(list.Items[0].Record)
		must(t, err)
		if r.Data["status"] == status {
			return
		}
		time.Sleep(20 * time.Millisecond) // until it has its position
	}
	t.Fatalf("no guest was attested as %s", status)
}
