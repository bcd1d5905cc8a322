package cli

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport-project/sallyport/internal/app"
	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/fault"
)

func newEvidence(s *shell) *cobra.Command {
	return group("evidence", "Look at attestation evidence, offline",
		"Judge evidence of a workload or a machine, check by check (docs/evidence.md). No server is asked.",
		"  sallyport evidence verify evidence.json\n  sallyport evidence ek ek.crt --ca tpm-roots.pem",
		evidenceVerify(s), evidenceEK(s))
}

// evidenceOptions are what evidence is judged by.
type evidenceOptions struct {
	kind, at             string
	reportData, initData string
	signer               string
	reference            []string
}

func evidenceVerify(s *shell) *cobra.Command {
	var o evidenceOptions
	c := &cobra.Command{
		Use: "verify FILE", Short: "Judge evidence, check by check", Args: cobra.ExactArgs(1),
		Long: `Judge the evidence in a file, as a server would, and say of each check what had to
be, what was seen, and which specification demands it. FILE is the evidence as a
guest sends it (the member primary_evidence of its attestation), or a raw SNP
report or TDX quote.

Without --report-data nobody knows what the evidence should be bound to: that
check is left out, and what remains says that it is genuine, not that it is
fresh. The exit code is 4 when the evidence is refused.`,
		Example: `  sallyport evidence verify evidence.json
  sallyport evidence verify evidence.json --kind snp --at 2026-01-02T15:04:05Z --report-data 7e73...
  sallyport evidence verify report.bin --kind snp --signer vcek.der --output json`,
		RunE: func(c *cobra.Command, args []string) error { return s.verifyEvidence(c.Context(), args[0], o) },
	}
	f := c.Flags()
	f.StringVar(&o.kind, "kind", "", "kind of evidence (default: told by its members)")
	f.StringVar(&o.at, "at", "", "judge as of this time, RFC 3339 (default: now)")
	f.StringVar(&o.reportData, "report-data", "", "what it must be bound to, in hex: the digest of nonce and key")
	f.StringVar(&o.signer, "signer", "", "FILE is a raw SNP report; this file has the certificate of its signer (DER)")
	f.StringArrayVar(&o.reference, "reference", nil, "file or folder with reference material; may be given several times")
	f.StringVar(&o.initData, "init-data", "", "digest of the init-data that it must be bound to, in hex")
	return c
}

// judgement is what verify prints.
type judgement struct {
	Kind    evidence.TEE    `json:"kind"`
	At      time.Time       `json:"at"`
	Verdict string          `json:"verdict"` // accepted or refused
	Bound   bool            `json:"bound"`   // the binding was among the checks
	Checks  evidence.Checks `json:"checks"`
	Claims  map[string]any  `json:"claims,omitempty"`
}

func (s *shell) verifyEvidence(ctx context.Context, path string, o evidenceOptions) error {
	j, refused, err := s.judge(ctx, path, o)
	if err != nil {
		return err
	}
	if err := s.print(j, func() error { return s.showJudgement(j) }); err != nil {
		return err
	}
	if refused != nil { // whatever was wrong with it: this is the answer, not a wrong command line
		return fault.Deniedf("%s", fault.Public(refused)).Because(refused)
	}
	return nil
}

// judge verifies the evidence in a file. refused says why it is not accepted; err
// that it could not be looked at.
func (s *shell) judge(ctx context.Context, path string, o evidenceOptions) (j judgement, refused, err error) {
	body, err := s.readFile(path, evidence.MaxAttestation)
	if err != nil {
		return j, nil, err
	}
	tee, err := kindOf(body, o.kind)
	if err != nil {
		return j, nil, err
	}
	at := s.Now()
	if o.at != "" {
		if at, err = time.Parse(time.RFC3339, o.at); err != nil {
			return j, nil, fault.Invalidf("--at is a time like 2026-01-02T15:04:05Z")
		}
	}
	b, err := o.binding()
	if err != nil {
		return j, nil, err
	}
	if body, err = s.wrapped(tee, body, o.signer); err != nil {
		return j, nil, err
	}
	verifier, err := app.OfflineVerifier(tee, o.reference...)
	if err != nil {
		return j, nil, err
	}
	claims, refused := verifier.Verify(ctx, evidence.Evidence{TEE: tee, Body: body}, b, at)
	j = judgement{Kind: tee, At: at.UTC(), Verdict: "accepted", Bound: !b.Unknown, Checks: claims.Checks, Claims: claims.Values}
	if refused != nil {
		r, ok := errors.AsType[*evidence.RefusedError](refused)
		if !ok {
			return j, nil, refused
		}
		j.Verdict, j.Checks = "refused", r.Checks
	}
	return j, refused, nil
}

// wrapped gives raw evidence the form of a guest's.
func (s *shell) wrapped(tee evidence.TEE, body []byte, signer string) ([]byte, error) {
	var der []byte
	if signer != "" {
		var err error
		if der, err = s.readFile(signer, maxSecret); err != nil {
			return nil, err
		}
	}
	return app.WrapEvidence(tee, body, der)
}

func (o evidenceOptions) binding() (evidence.Binding, error) {
	if o.reportData == "" {
		if o.initData != "" {
			return evidence.Binding{}, fault.Invalidf("--init-data goes with --report-data")
		}
		return evidence.Binding{Unknown: true}, nil
	}
	report, err := hex.DecodeString(o.reportData)
	if err != nil || len(report) == 0 || len(report) > 64 {
		return evidence.Binding{}, fault.Invalidf("--report-data is 1 to 64 bytes in hex")
	}
	b := evidence.Binding{ReportData: report}
	if o.initData != "" {
		if b.InitData, err = hex.DecodeString(o.initData); err != nil || len(b.InitData) < 32 || len(b.InitData) > 64 {
			return evidence.Binding{}, fault.Invalidf("--init-data is a digest of 32 to 64 bytes in hex")
		}
	}
	return b, nil
}

// kindOf is the kind that was named, or what the members of the evidence say.
func kindOf(body []byte, named string) (evidence.TEE, error) {
	if named != "" {
		return evidence.ParseTEE(named)
	}
	var members map[string]json.RawMessage
	if bytes.HasPrefix(bytes.TrimSpace(body), []byte("{")) {
		if err := canon.Lenient(body, evidence.MaxAttestation, 32, &members); err != nil {
			return "", fault.Invalidf("the evidence is no JSON object: %s", fault.Public(err)).Because(err)
		}
	}
	has := func(name string) bool { return members[name] != nil }
	switch {
	case has("attestation_report"):
		return evidence.Snp, nil
	case has("hcl_report") && has("td_quote"):
		return evidence.AzTdxVtpm, nil
	case has("hcl_report"):
		return evidence.AzSnpVtpm, nil
	case has("ak_public"):
		return evidence.Tpm, nil
	case has("quote"):
		return evidence.Tdx, nil
	case has("svn") && has("report_data"):
		return evidence.Sample, nil
	}
	return "", fault.Invalidf("what kind of evidence this is cannot be told: name it with --kind")
}

func (s *shell) showJudgement(j judgement) error {
	if err := s.showChecks(j.Checks); err != nil {
		return err
	}
	c, text := green, "accepted: "+meaning(j.Kind)
	switch {
	case j.Verdict != "accepted":
		c, text = red, "refused"
	case j.Bound:
		text += ", bound to the report data given"
	default:
		text += "; to what it is bound was not checked"
	}
	_, err := io.WriteString(s.out, s.paint(s.out, c, text+" (as of "+when(j.At)+")")+"\n")
	return written(err)
}

// meaning says what accepted evidence of a kind is, and no more.
func meaning(kind evidence.TEE) string {
	switch kind {
	case evidence.Tpm:
		return "a quote by the key that it shows; that the key is in a TPM was not checked"
	case evidence.Sample, evidence.SampleDevice:
		return "well-formed " + string(kind) + " evidence, which proves nothing"
	}
	return "genuine " + string(kind) + " evidence"
}

func (s *shell) showChecks(list evidence.Checks) error {
	var rows [][]string
	for _, k := range list {
		rows = append(rows, []string{string(k.Result), k.Name, middle(k.Expected), middle(k.Seen), k.Reason, k.Section})
	}
	return s.rows([]string{"RESULT", "CHECK", "EXPECTED", "SEEN", "REASON", "SECTION"}, rows)
}

// middle leaves out the middle of a long digest: the table is for eyes, JSON has
// all of it.
func middle(text string) string {
	const most = 40
	if len(text) <= most || strings.Contains(text, " ") {
		return text
	}
	return text[:most/2] + "..." + text[len(text)-8:]
}

// explainRecord says how a decision of the ledger came about.
func (s *shell) explainRecord(ctx context.Context, id string) error {
	client, err := s.client(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	raw, err := s.proof(ctx, client, id)
	if err != nil {
		return err
	}
	p, err := audit.ParseProof(raw)
	if err != nil {
		return fault.Wrap(err, "read proof")
	}
	r, err := audit.ParseLeaf([]byte(p.Leaf))
	if err != nil {
		return fault.Wrap(err, "read record")
	}
	out := struct {
		Record   json.RawMessage    `json:"record"`
		Findings []evidence.Finding `json:"findings"`
	}{Record: json.RawMessage(p.Leaf), Findings: []evidence.Finding{}}
	if text := r.Data["checks"]; text != "" {
		if out.Findings, err = evidence.ParseFindings(text); err != nil {
			return err
		}
	}
	return s.print(out, func() error {
		appraised := ""
		if strings.HasPrefix(r.Type, "workload.") {
			appraised = r.Data["status"]
		}
		err := s.facts("record", r.ID, "at", when(r.At), "type", r.Type, "outcome", string(r.Outcome), "appraised", appraised,
			"policies", strings.Join(r.Policy, ", "), "reasons", strings.Join(r.Reasons, "; "))
		for _, f := range out.Findings {
			if err == nil {
				err = s.line("%s", strings.TrimSpace(f.Device+" "+string(f.TEE)))
			}
			if err == nil {
				err = s.showChecks(f.Checks)
			}
		}
		return err
	})
}
