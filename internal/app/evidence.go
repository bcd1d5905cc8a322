package app

import (
	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/verifier/sample"
)

// openVerifiers makes the verifiers that are switched on. weak says which of
// them weaken the server.
func (v Verifiers) open() (on evidence.Verifiers, weak []string, err error) {
	on = evidence.Verifiers{}
	if v.Sample.Insecure {
		for _, tee := range []evidence.TEE{evidence.Sample, evidence.SampleDevice} {
			if on[tee], err = sample.New(sample.Config{Insecure: true, TEE: tee}); err != nil {
				return nil, nil, err
			}
		}
		weak = append(weak, sample.Banner)
	}
	return on, weak, nil
}

// OfflineVerifier makes the verifier of one kind of evidence for somebody who
// looks at a file. It needs no configuration and asks no network; a kind that
// nobody verifies is Invalid.
func OfflineVerifier(tee evidence.TEE) (evidence.Verifier, error) {
	all, _, err := Verifiers{Sample: Sample{Insecure: true}}.open()
	if err != nil {
		return nil, err
	}
	if all[tee] == nil {
		return nil, fault.Invalidf("evidence of kind %s cannot be verified by this version", tee)
	}
	return all[tee], nil
}
