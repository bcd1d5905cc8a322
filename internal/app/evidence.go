package app

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/reference"
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

// open makes the verifiers that are switched on.
func (v Verifiers) open(from evidence.Shelf) (evidence.Verifiers, error) {
	on := evidence.Verifiers{}
	var err error
	if v.Sample.Insecure {
		for _, tee := range []evidence.TEE{evidence.Sample, evidence.SampleDevice} {
			if on[tee], err = sample.New(sample.Config{Insecure: true, TEE: tee}); err != nil {
				return nil, err
			}
		}
	}
	for _, name := range v.Enabled {
		tee := evidence.TEE(name)
		if on[tee], err = hardware[tee](from); err != nil {
			return nil, err
		}
	}
	return on, nil
}

// OfflineVerifier makes the verifier of one kind of evidence for somebody who
// looks at a file, with the reference material at some paths. It needs no
// configuration and asks no network. A kind that nobody verifies is Invalid.
func OfflineVerifier(tee evidence.TEE, material ...string) (evidence.Verifier, error) {
	shelf, err := OfflineShelf(material...)
	if err != nil {
		return nil, err
	}
	if open := hardware[tee]; open != nil {
		return open(shelf)
	}
	all, err := Verifiers{Sample: Sample{Insecure: true}}.open(shelf)
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

// OfflineShelf reads the reference material at some paths, and verifies it as an
// import does.
func OfflineShelf(material ...string) (evidence.Shelf, error) {
	files, err := MaterialFiles(material...)
	if err != nil {
		return nil, err
	}
	found, err := readMaterial(files, "", nil)
	if err != nil {
		return nil, err
	}
	shelf := evidence.Shelf{}
	for _, f := range found {
		shelf.Put(f.Endorsement)
	}
	return shelf, nil
}

// MaterialFiles reads files of reference material, and all files of folders and
// those below them. What is silently left out is missed when it is needed, so
// that a file which cannot be read is a fault.
func MaterialFiles(material ...string) ([]reference.File, error) {
	var files []reference.File
	for _, path := range material {
		err := filepath.WalkDir(path, func(name string, d os.DirEntry, err error) error {
			if err != nil {
				return fault.NotFoundf("the reference material at %s cannot be read", name).Because(err)
			}
			if d.IsDir() {
				return nil
			}
			info, err := d.Info()
			if err != nil || !info.Mode().IsRegular() || info.Size() > reference.MaxFile {
				return fault.Invalidf("%s is no file of at most %d bytes", name, reference.MaxFile).Because(err)
			}
			data, err := os.ReadFile(name) //nolint:gosec // the operator names it
			if err != nil {
				return fault.Unavailablef("%s cannot be read", name).Because(err)
			}
			files = append(files, reference.File{Name: filepath.ToSlash(name), Data: data})
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return files, nil
}

// JudgeEK judges the certificate of a TPM's endorsement key by bundles of its
// manufacturers, and by revocation lists among the reference material. Files that
// are not what they should be are Invalid.
func JudgeEK(certificate []byte, bundles []reference.File, material []string, at time.Time) (evidence.Checks, error) {
	shelf := evidence.Shelf{}
	trusted, err := readMaterial(bundles, tpm.KindAuthorities, nil)
	if err != nil {
		return nil, err
	}
	for _, f := range trusted {
		f.Key = f.File // two folders may have files of one name
		shelf.Put(f.Endorsement)
	}
	files, err := MaterialFiles(material...)
	if err != nil {
		return nil, err
	}
	found, err := readMaterial(files, "", shelf)
	if err != nil {
		return nil, err
	}
	for _, f := range found {
		shelf.Put(f.Endorsement)
	}
	authorities, err := tpm.Bundles(shelf)
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
