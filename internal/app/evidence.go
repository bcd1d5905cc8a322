package app

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/verifier/azure"
	"github.com/sallyport-project/sallyport/internal/verifier/sample"
	"github.com/sallyport-project/sallyport/internal/verifier/snp"
	"github.com/sallyport-project/sallyport/internal/verifier/tdx"
	"github.com/sallyport-project/sallyport/internal/verifier/tpm"
)

// hardware makes the verifier of each kind of real evidence.
var hardware = map[evidence.TEE]func(evidence.Endorsements) (evidence.Verifier, error){
	evidence.Snp: func(from evidence.Endorsements) (evidence.Verifier, error) {
		return snp.New(snp.Config{Endorsements: from})
	},
	evidence.Tdx: func(from evidence.Endorsements) (evidence.Verifier, error) {
		return tdx.New(tdx.Config{Endorsements: from})
	},
	evidence.AzSnpVtpm: func(from evidence.Endorsements) (evidence.Verifier, error) {
		v, err := snp.New(snp.Config{Endorsements: from})
		if err != nil {
			return nil, err
		}
		return azure.New(azure.Config{SNP: v})
	},
	evidence.AzTdxVtpm: func(from evidence.Endorsements) (evidence.Verifier, error) {
		v, err := tdx.New(tdx.Config{Endorsements: from})
		if err != nil {
			return nil, err
		}
		return azure.New(azure.Config{TDX: v})
	},
	evidence.Tpm: func(evidence.Endorsements) (evidence.Verifier, error) { return tpm.Verifier{}, nil },
}

// recognisers read reference material, each that of its kinds of evidence.
var recognisers = []func([]byte) ([]evidence.Endorsement, error){snp.Recognise, tdx.Recognise}

// validate refuses kinds that nobody verifies.
func (v Verifiers) validate() error {
	for i, name := range v.Enabled {
		tee := evidence.TEE(name)
		if hardware[tee] == nil {
			return fault.Invalidf("verifiers.enabled: there is no verifier for %q", name)
		}
		if slices.Contains(v.Enabled[:i], name) {
			return fault.Invalidf("verifiers.enabled names %s twice", name)
		}
	}
	return nil
}

// open makes the verifiers that are switched on. weak says which of them weaken
// the server; stale names reference material whose time is over.
func (v Verifiers) open(at time.Time) (on evidence.Verifiers, weak, stale []string, err error) {
	on = evidence.Verifiers{}
	if v.Sample.Insecure {
		for _, tee := range []evidence.TEE{evidence.Sample, evidence.SampleDevice} {
			if on[tee], err = sample.New(sample.Config{Insecure: true, TEE: tee}); err != nil {
				return nil, nil, nil, err
			}
		}
		weak = append(weak, sample.Banner)
	}
	shelf := evidence.Shelf{}
	if v.Endorsements != "" {
		if err := LoadEndorsements(shelf, v.Endorsements); err != nil {
			return nil, nil, nil, fault.Wrap(err, "load verifiers.endorsements")
		}
		for _, e := range shelf.All() {
			if !e.NotAfter.IsZero() && at.After(e.NotAfter) {
				stale = append(stale, strings.TrimSpace(e.Kind+" "+e.Key))
			}
		}
	}
	for _, name := range v.Enabled {
		tee := evidence.TEE(name)
		if on[tee], err = hardware[tee](shelf); err != nil {
			return nil, nil, nil, err
		}
	}
	return on, weak, stale, nil
}

// OfflineVerifier makes the verifier of one kind of evidence for somebody who
// looks at a file, with the reference material at some paths. It needs no
// configuration and asks no network. A kind that nobody verifies is Invalid.
func OfflineVerifier(tee evidence.TEE, endorsements ...string) (evidence.Verifier, error) {
	shelf := evidence.Shelf{}
	for _, path := range endorsements {
		if err := LoadEndorsements(shelf, path); err != nil {
			return nil, err
		}
	}
	if open := hardware[tee]; open != nil {
		return open(shelf)
	}
	all, _, _, err := Verifiers{Sample: Sample{Insecure: true}}.open(time.Time{})
	if err != nil {
		return nil, err
	}
	if all[tee] == nil {
		return nil, fault.Invalidf("evidence of kind %s cannot be verified by this version", tee)
	}
	return all[tee], nil
}

// WrapEvidence gives evidence the form in which guests send it: a raw TDX quote,
// or a raw SNP report with the certificate of its signer, which may be nil. Other
// evidence stays as it is.
func WrapEvidence(tee evidence.TEE, body, signer []byte) (json.RawMessage, error) {
	raw := !bytes.HasPrefix(bytes.TrimSpace(body), []byte("{"))
	switch {
	case raw && tee == evidence.Snp && len(body) == snp.ReportSize:
		return snp.Wrap(body, signer, false)
	case raw && tee == evidence.Tdx && signer == nil:
		return tdx.Wrap(body)
	case signer != nil:
		return nil, fault.Invalidf("a signer's certificate goes with a raw SNP report of %d bytes", snp.ReportSize)
	}
	return body, nil
}

// maxEndorsement bounds a file of reference material, in bytes.
const maxEndorsement = 2 << 20

// LoadEndorsements reads a file of reference material, or all files of a folder
// and those below it, onto a shelf. A file that no verifier understands, or that
// its maker did not sign, is Invalid: what is silently left out is missed when
// it is needed.
func LoadEndorsements(shelf evidence.Shelf, path string) error {
	return filepath.WalkDir(path, func(name string, d os.DirEntry, err error) error {
		if err != nil {
			return fault.NotFoundf("the reference material at %s cannot be read", name).Because(err)
		}
		if d.IsDir() {
			return nil
		}
		info, err := d.Info()
		if err != nil || !info.Mode().IsRegular() || info.Size() > maxEndorsement {
			return fault.Invalidf("%s is no file of at most %d bytes", name, maxEndorsement).Because(err)
		}
		data, err := os.ReadFile(name) //nolint:gosec // the operator names it
		if err != nil {
			return fault.Unavailablef("%s cannot be read", name).Because(err)
		}
		list, err := Recognise(data)
		if err != nil {
			return fault.Invalidf("%s: %s", name, fault.Public(err)).Because(err)
		}
		for _, e := range list {
			shelf.Put(e)
		}
		return nil
	})
}

// Recognise reads reference material of any kind; Invalid if it is none.
func Recognise(data []byte) ([]evidence.Endorsement, error) {
	for _, read := range recognisers {
		if list, err := read(data); err != nil || len(list) > 0 {
			return list, err
		}
	}
	return nil, fault.Invalidf("this is no reference material that is known")
}

// JudgeEK judges the certificate of a TPM's endorsement key by bundles of its
// manufacturers. Files that are not what they should be are Invalid.
func JudgeEK(certificate []byte, bundles [][]byte, at time.Time) (evidence.Checks, error) {
	authorities, err := tpm.NewAuthorities(bundles...)
	if err != nil {
		return nil, err
	}
	ek, err := tpm.ParseEK(certificate)
	if err != nil {
		return nil, err
	}
	var c evidence.Checks
	ek.Judge(&c, authorities, at)
	return c, nil
}
