// Package sample verifies evidence of the TEEs sample and sampledevice, which
// prove nothing: anyone can make such evidence. They exist to try the protocol
// without hardware.
//
// The verifier is compiled in and works only when its configuration says so by
// the word insecure (docs/decisions); the host shows the banner at start-up and
// keeps it to loopback listeners. What it checks is real all the same: nonce,
// key and init-data must be the bound ones. It never trusts by itself: a token
// is affirming only if an appraisal policy says so.
package sample

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"time"

	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// maxEvidence bounds sample evidence, in bytes.
const maxEvidence = 4 << 10

// Banner is shown wherever the sample verifier is switched on.
const Banner = "INSECURE: the sample verifier is on, anyone can pass as a workload of TEE sample; use it for trials only"

// Config switches the verifier on.
type Config struct {
	// Insecure must be true: it says that whoever configures this knows that
	// sample evidence proves nothing.
	Insecure bool
	// TEE is evidence.Sample or evidence.SampleDevice.
	TEE evidence.TEE
}

// Verifier implements evidence.Verifier for one of the two sample TEEs. Safe
// for concurrent use.
type Verifier struct {
	tee   evidence.TEE
	class evidence.Class
}

var _ evidence.Verifier = (*Verifier)(nil)

// New makes the verifier. Without Insecure it is Denied; another TEE is
// Invalid.
func New(cfg Config) (*Verifier, error) {
	if !cfg.Insecure {
		return nil, fault.Deniedf("the sample verifier proves nothing: set verifiers.sample.insecure to true if that is wanted")
	}
	switch cfg.TEE {
	case evidence.Sample:
		return &Verifier{cfg.TEE, evidence.CPU}, nil
	case evidence.SampleDevice:
		return &Verifier{cfg.TEE, evidence.GPU}, nil
	default:
		return nil, fault.Invalidf("the sample verifier is for the TEEs %s and %s", evidence.Sample, evidence.SampleDevice)
	}
}

// Banner is the text for start-up, status and doctor.
func (v *Verifier) Banner() string { return Banner }

// quote is sample evidence. Members that newer guests add are ignored.
type quote struct {
	SVN        string `json:"svn"`
	ReportData string `json:"report_data"`
	InitData   string `json:"init_data"` // of our own attester; other guests do not send it
}

// section says where the form of sample evidence is defined.
const section = "guest-components attester/src/sample"

// Verify checks that the evidence is bound to b. Init-data is reported only if
// the evidence names its digest: sent beside evidence that does not, it is no
// more than a claim of the network. Unbound evidence is Denied.
func (v *Verifier) Verify(_ context.Context, e evidence.Evidence, b evidence.Binding, _ time.Time) (evidence.Claims, error) {
	if e.TEE != v.tee {
		return evidence.Claims{}, fault.Internalf("verifier of %s got evidence of %s", v.tee, e.TEE)
	}
	var c evidence.Checks
	var q quote
	if err := canon.Lenient(e.Body, maxEvidence, 8, &q); err != nil {
		return evidence.Claims{}, c.Malformed(v.tee, section, "it must be an object with svn and report_data")
	}
	if q.SVN == "" || len(q.SVN) > 32 {
		return evidence.Claims{}, c.Malformed(v.tee, section, "it must have an svn of at most 32 characters")
	}
	c.Bound(b, carries(q.ReportData, b.ReportData), evidence.Check{
		Name: "report-data", Expected: base64.StdEncoding.EncodeToString(b.ReportData), Seen: q.ReportData,
		Reason: "it is not bound to this nonce and key", Section: section,
	})
	if q.InitData != "" {
		c.Bound(b, carries(q.InitData, b.InitData), evidence.Check{
			Name: "init-data", Expected: base64.StdEncoding.EncodeToString(b.InitData), Seen: q.InitData,
			Reason: "it is not bound to this init-data", Section: section,
		})
	}
	c.Skip(evidence.Check{Name: "signature", Reason: "sample evidence has none: it proves nothing"})
	if err := c.Err(v.tee); err != nil {
		return evidence.Claims{}, err
	}
	values := map[string]any{
		"svn": q.SVN, "report_data": q.ReportData,
		"launch_digest":    "abcde",
		"platform_version": map[string]any{"major": float64(1), "minor": float64(4)},
		"debug":            false,
	}
	if q.InitData != "" {
		values["init_data"] = q.InitData
	}
	return evidence.Claims{Class: v.class, Values: values, ReportData: q.ReportData, InitData: q.InitData, Checks: c}, nil
}

// carries reports whether text is the standard base64 of exactly want. An empty
// want never is.
func carries(text string, want []byte) bool {
	got, err := base64.StdEncoding.Strict().DecodeString(text)
	return err == nil && len(want) > 0 && subtle.ConstantTimeCompare(got, want) == 1
}
