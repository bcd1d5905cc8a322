// Package sample makes evidence of the TEEs sample and sampledevice for the
// guest client: it proves nothing and needs no hardware. A server accepts it
// only where its sample verifier is switched on by name.
package sample

import (
	"context"
	"encoding/base64"
	"encoding/json"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// Attester implements evidence.Attester. Safe for concurrent use.
type Attester struct {
	tee evidence.TEE
	svn string
}

var _ evidence.Attester = (*Attester)(nil)

// New makes the attester of evidence.Sample or evidence.SampleDevice; another
// TEE is Invalid.
func New(tee evidence.TEE) (*Attester, error) {
	switch tee {
	case evidence.Sample:
		return &Attester{tee, "1"}, nil
	case evidence.SampleDevice:
		return &Attester{tee, "2"}, nil
	default:
		return nil, fault.Invalidf("the sample attester is for the TEEs %s and %s", evidence.Sample, evidence.SampleDevice)
	}
}

// TEE is the TEE whose evidence this makes.
func (a *Attester) TEE() evidence.TEE { return a.tee }

// Evidence makes evidence that carries both digests of b. An empty report-data
// digest is Internal.
func (a *Attester) Evidence(_ context.Context, b evidence.Binding) (evidence.Evidence, error) {
	if len(b.ReportData) == 0 {
		return evidence.Evidence{}, fault.Internalf("make sample evidence that is bound to nothing")
	}
	q := map[string]string{"svn": a.svn, "report_data": base64.StdEncoding.EncodeToString(b.ReportData)}
	if len(b.InitData) > 0 {
		q["init_data"] = base64.StdEncoding.EncodeToString(b.InitData)
	}
	body, err := json.Marshal(q)
	if err != nil {
		return evidence.Evidence{}, fault.Wrap(err, "encode sample evidence")
	}
	return evidence.Evidence{TEE: a.tee, Body: body}, nil
}
