package plugin

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// Report is what is known about a package file. Verified is set by [Verify]
// alone.
type Report struct {
	File     string            `json:"file,omitempty"`
	Digest   string            `json:"digest"`
	Manifest manifest.Manifest `json:"manifest"`
	// Signers are the key ids that the envelope names. They prove nothing.
	Signers []string `json:"signers"`
	// Verified are the ids of the trusted keys that really signed.
	Verified []string `json:"verified_by,omitempty"`
	Reason   Reason   `json:"reason,omitempty"`
}

// Binary says where the executable of one platform lies.
type Binary struct {
	OS   string `json:"os"`
	Arch string `json:"arch"`
	File string `json:"file"` // path on this machine
	Path string `json:"path"` // name in the package; default <name>-<os>-<arch>, or <name>-<for>-<os>-<arch>
	For  string `json:"for"`  // the side that runs it; empty: both
}

// Source is one file of a package of many files. Its size and digest are those
// of what Open gives, which is called twice and must give the same.
type Source struct {
	manifest.File
	Open func() (io.ReadCloser, error)
}

// Spec is what [Build] makes a package from. Manifest.Files is ignored: it is
// filled from Binaries and Sources.
type Spec struct {
	Manifest manifest.Manifest
	Binaries []Binary
	Sources  []Source
}

// sources are all files of the package, sorted by path, without digests.
func (s Spec) sources() []Source {
	list := slices.Clone(s.Sources)
	for _, b := range s.Binaries {
		if b.Path == "" {
			b.Path = s.Manifest.Name + "-" + b.OS + "-" + b.Arch
			if b.For != "" {
				b.Path = s.Manifest.Name + "-" + b.For + "-" + b.OS + "-" + b.Arch
			}
		}
		list = append(list, Source{
			File: manifest.File{OS: b.OS, Arch: b.Arch, Path: b.Path, For: b.For},
			Open: func() (io.ReadCloser, error) { return OpenFile(b.File) },
		})
	}
	slices.SortFunc(list, func(a, b Source) int { return strings.Compare(a.Path, b.Path) })
	return list
}

// ReadSpec reads a plugin.json: a manifest without files. Faults are Invalid.
func ReadSpec(data []byte) (manifest.Manifest, error) {
	m, err := decodeManifest(data)
	if err != nil {
		return manifest.Manifest{}, err
	}
	if len(m.Files) != 0 {
		return manifest.Manifest{}, fault.Invalidf("plugin.json must not list files; they come from the binaries")
	}
	return m, nil
}

// Build writes an unsigned package to out, which must not exist. Equal input
// gives equal bytes: no times, owners or machine paths enter a package. A
// manifest that a host would refuse is Invalid.
func Build(spec Spec, out string) (Report, error) {
	m := spec.Manifest
	m.Schema = manifest.Schema
	m.Files = nil
	open := map[string]func() (io.ReadCloser, error){}
	for _, src := range spec.sources() {
		f, err := src.measured()
		if err != nil {
			return Report{}, err
		}
		m.Files = append(m.Files, f)
		open[f.Path] = src.Open
	}
	if err := m.Validate(); err != nil {
		return Report{}, fault.Invalidf("%s", err)
	}
	data, err := encodeManifest(m)
	if err != nil {
		return Report{}, err
	}
	env, err := newEnvelope(data).bytes()
	if err != nil {
		return Report{}, err
	}
	err = writePackage(out, head{data, env}, m, func(f manifest.File) (io.ReadCloser, error) { return open[f.Path]() })
	if err != nil {
		return Report{}, err
	}
	return Report{File: out, Digest: Digest(data), Manifest: m, Signers: []string{}}, nil
}

// Sign adds one signature to a package file, in place and atomically. Several
// people sign one after the other, each with their own key and offline; who
// signs again replaces the own signature. The content is checked against the
// manifest first, so that nobody signs what they have not got.
func Sign(file string, key ed25519.PrivateKey) (Report, error) {
	return sign(file, key, manifest.PayloadType)
}

// SignDevelopment signs a package for servers that accept packages of developers:
// its other signatures go, and no publisher's threshold is met by it.
func SignDevelopment(file string, key ed25519.PrivateKey) (Report, error) {
	return sign(file, key, manifest.PayloadTypeDevelopment)
}

func sign(file string, key ed25519.PrivateKey, payloadType string) (Report, error) {
	h, m, err := readWhole(file)
	if err != nil {
		return Report{}, err
	}
	e, payload, err := parseEnvelope(h.envelopeBytes)
	if err != nil {
		return Report{}, err
	}
	if !bytes.Equal(payload, h.manifestBytes) {
		return Report{}, fault.Invalidf("signature.dat belongs to another manifest; build the package again")
	}
	if e.PayloadType != payloadType {
		e = sealEnvelope(payloadType, payload)
	}
	if e, err = e.sign(key); err != nil {
		return Report{}, err
	}
	if h.envelopeBytes, err = e.bytes(); err != nil {
		return Report{}, err
	}
	temp := file + ".signing"
	_ = os.Remove(temp)
	defer func() { _ = os.Remove(temp) }()
	source, err := os.Open(filepath.Clean(file))
	if err != nil {
		return Report{}, fault.Wrap(err, "open package")
	}
	defer func() { _ = source.Close() }()
	a := &archiveReader{r: source}
	if _, err := a.readHead(); err != nil {
		return Report{}, err
	}
	if err := rewritePackage(temp, h, m, a); err != nil {
		return Report{}, err
	}
	if err := os.Rename(temp, file); err != nil {
		return Report{}, fault.Wrap(err, "replace package")
	}
	return report(file, h, m, e), nil
}

// Verify judges a package file as the host does, by the same code: archive,
// manifest, signatures and every file. The host is a server, or, for a package
// that has nothing for one, a command line. A refusal is a fault with a reason (see
// [ReasonOf]); the report is then as complete as the package allows.
func Verify(file string, trust Trust) (Report, error) {
	f, err := os.Open(filepath.Clean(file))
	if err != nil {
		return Report{}, missingFile(err, file)
	}
	defer func() { _ = f.Close() }()
	a := &archiveReader{r: f}
	h, err := a.readHead()
	if err != nil {
		return Report{File: file, Reason: ReasonIncompatible}, err
	}
	v, err := trust.verify(h.manifestBytes, h.envelopeBytes, forInstall)
	if err == nil {
		err = v.asPackage()
	}
	if err == nil {
		err = trust.admits(v.m, Digest(h.manifestBytes))
	}
	if err == nil {
		err = supportedSomewhere(v.m)
	}
	if err == nil {
		err = a.readFiles(v.m, discardFile)
	}
	r := Report{File: file, Digest: Digest(h.manifestBytes), Manifest: v.m, Verified: v.ids, Reason: ReasonOf(err)}
	if e, _, perr := parseEnvelope(h.envelopeBytes); perr == nil {
		r.Signers = e.signers()
	}
	if err != nil {
		r.Verified = nil
		if r.Reason == ReasonStart {
			r.Reason = ReasonIncompatible
		}
	}
	return r, err
}

// Inspect shows what a package says of itself, checks that it is well-formed
// and complete, and trusts nothing.
func Inspect(file string) (Report, error) {
	h, m, err := readWhole(file)
	if err != nil {
		return Report{}, err
	}
	e, _, err := parseEnvelope(h.envelopeBytes)
	if err != nil {
		return Report{}, err
	}
	return report(file, h, m, e), nil
}

func report(file string, h head, m manifest.Manifest, e envelope) Report {
	return Report{File: file, Digest: Digest(h.manifestBytes), Manifest: m, Signers: e.signers()}
}

func (e envelope) signers() []string {
	ids := make([]string, 0, len(e.Signatures))
	for _, s := range e.Signatures {
		ids = append(ids, clip(s.KeyID, 64))
	}
	return ids
}

// readWhole reads a package and checks its files against its manifest.
func readWhole(file string) (head, manifest.Manifest, error) {
	f, err := os.Open(filepath.Clean(file))
	if err != nil {
		return head{}, manifest.Manifest{}, missingFile(err, file)
	}
	defer func() { _ = f.Close() }()
	a := &archiveReader{r: f}
	h, err := a.readHead()
	if err != nil {
		return head{}, manifest.Manifest{}, err
	}
	m, err := ParseManifest(h.manifestBytes)
	if err != nil {
		return head{}, manifest.Manifest{}, err
	}
	return h, m, a.readFiles(m, discardFile)
}

func discardFile(manifest.File) (io.Writer, func(bool) error, error) {
	return io.Discard, func(bool) error { return nil }, nil
}

// OpenFile opens a file of this machine for a [Source]; NotFound names it.
func OpenFile(name string) (io.ReadCloser, error) {
	f, err := os.Open(filepath.Clean(name))
	if err != nil {
		return nil, missingFile(err, name)
	}
	return f, nil
}

func missingFile(err error, file string) error {
	if errors.Is(err, os.ErrNotExist) {
		return fault.NotFoundf("there is no file %s", file).Because(err)
	}
	return fault.Wrap(err, "open package")
}

// writePackage writes a new package file and syncs it.
func writePackage(out string, h head, m manifest.Manifest, open func(manifest.File) (io.ReadCloser, error)) error {
	return createPackage(out, h, func(w io.Writer) error {
		for _, f := range sortedFiles(m) {
			r, err := open(f)
			if err != nil {
				return fault.Wrap(err, "open %s", f.Path)
			}
			sum := sha256.New()
			err = writeEntry(w, f.Path, modeOf(m, f), f.Size, io.TeeReader(r, sum))
			_ = r.Close()
			if err == nil && !sameDigest(sum.Sum(nil), f.SHA256) {
				err = fault.Conflictf("file %s has changed while the package was made", f.Path)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// rewritePackage copies the files of a package behind a new head.
func rewritePackage(out string, h head, m manifest.Manifest, a *archiveReader) error {
	return createPackage(out, h, func(w io.Writer) error {
		return a.readFiles(m, func(f manifest.File) (io.Writer, func(bool) error, error) {
			hdr, err := header(f.Path, modeOf(m, f), f.Size)
			if err != nil {
				return nil, nil, err
			}
			if _, err := w.Write(hdr); err != nil {
				return nil, nil, fault.Wrap(err, "write package")
			}
			return w, func(bool) error {
				_, err := w.Write(make([]byte, padding(f.Size)))
				return fault.Wrap(err, "write package")
			}, nil
		})
	})
}

func createPackage(out string, h head, files func(io.Writer) error) (err error) {
	f, err := os.OpenFile(filepath.Clean(out), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) //nolint:gosec // a package is public
	if errors.Is(err, os.ErrExist) {
		return fault.Conflictf("%s exists already; remove it or choose another name", out)
	}
	if err != nil {
		return fault.Wrap(err, "create package")
	}
	defer func() {
		if err == nil {
			err = fault.Wrap(f.Sync(), "sync package")
		}
		if cerr := f.Close(); err == nil {
			err = fault.Wrap(cerr, "close package")
		}
		if err != nil {
			_ = os.Remove(out)
		}
	}()
	if err := writeEntry(f, manifestName, plainMode, int64(len(h.manifestBytes)), bytes.NewReader(h.manifestBytes)); err != nil {
		return err
	}
	if err := writeEntry(f, signatureName, plainMode, int64(len(h.envelopeBytes)), bytes.NewReader(h.envelopeBytes)); err != nil {
		return err
	}
	if err := files(f); err != nil {
		return err
	}
	return writeEnd(f)
}

func encodeManifest(m manifest.Manifest) ([]byte, error) {
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, fault.Internalf("encode manifest").Because(err)
	}
	if data = append(data, '\n'); len(data) > manifest.MaxBytes {
		return nil, fault.Invalidf("the manifest is larger than %d bytes", manifest.MaxBytes)
	}
	return data, nil
}

// measured is the file with size and digest.
func (s Source) measured() (manifest.File, error) {
	f := s.File
	r, err := s.Open()
	if err != nil {
		return f, fault.Wrap(err, "open %s", f.Path)
	}
	defer func() { _ = r.Close() }()
	h := sha256.New()
	if f.Size, err = io.Copy(h, io.LimitReader(r, manifest.MaxFileBytes+1)); err != nil {
		return f, fault.Wrap(err, "read %s", f.Path)
	}
	if f.Size > manifest.MaxFileBytes {
		return f, fault.Invalidf("%s must have at most %d bytes", f.Path, manifest.MaxFileBytes)
	}
	f.SHA256 = hex.EncodeToString(h.Sum(nil))
	return f, nil
}
