package repository

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
)

// A bundle is a repository's metadata, and packages from it, in one archive:
// what the command line sends to a server, and what is carried to a site that
// has no network. It proves nothing by itself; its metadata is judged like that
// of any repository, by the pinned root and the time of day.
//
// It is an uncompressed USTAR archive of regular files: the metadata, under its
// names in a repository, then packages as packages/SHA256, in any order.
const (
	packagesDir    = "packages/"
	maxBundleFiles = maxRotations + maxDelegated + 8
	maxBundleBytes = 24 << 20 // of metadata
	maxPackages    = 64
)

// Packed is a package that goes into a bundle.
type Packed struct {
	Release plugin.Release
	Open    func() (io.ReadCloser, error)
}

// WriteBundle writes a bundle.
func WriteBundle(w io.Writer, files []File, packages []Packed) error {
	out := tar.NewWriter(w)
	for _, f := range files {
		if err := out.WriteHeader(entry(f.Name, int64(len(f.Data)))); err != nil {
			return fault.Wrap(err, "write bundle")
		}
		if _, err := out.Write(f.Data); err != nil {
			return fault.Wrap(err, "write bundle")
		}
	}
	for _, p := range packages {
		if err := writePacked(out, p); err != nil {
			return err
		}
	}
	return fault.Wrap(out.Close(), "write bundle")
}

func writePacked(out *tar.Writer, p Packed) error {
	in, err := p.Open()
	if err != nil {
		return fault.Wrap(err, "open package")
	}
	defer func() { _ = in.Close() }()
	if err := out.WriteHeader(entry(packagesDir+p.Release.SHA256, p.Release.Size)); err != nil {
		return fault.Wrap(err, "write bundle")
	}
	_, err = io.Copy(out, Check(in, p.Release))
	return fault.Wrap(err, "write bundle")
}

func entry(name string, size int64) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR}
}

// Bundle is a bundle that is being read. It is not safe for concurrent use.
type Bundle struct {
	tar   *tar.Reader
	under io.Reader
	files map[string][]byte
	next  *tar.Header // the first package, read already
	count int
	seen  map[string]bool
}

// OpenBundle reads the metadata of a bundle. Everything that is malformed is
// Invalid. Nothing is judged yet: see [Bundle.Get] and [Walk].
func OpenBundle(r io.Reader) (*Bundle, error) {
	b := &Bundle{tar: tar.NewReader(r), under: r, files: map[string][]byte{}, seen: map[string]bool{}}
	var total int64
	for {
		h, err := b.header()
		if errors.Is(err, io.EOF) {
			return b.begun()
		}
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(h.Name, packagesDir) {
			b.next = h
			return b.begun()
		}
		if total += h.Size; !servedMetadata.MatchString(h.Name) || b.files[h.Name] != nil || len(b.files) == maxBundleFiles || h.Size > maxTargets || total > maxBundleBytes {
			return nil, fault.Invalidf("the bundle has a file that does not belong into one, or too much metadata")
		}
		data, err := bounded(b.tar, h.Name, h.Size)
		if err != nil {
			return nil, fault.Invalidf("the bundle ends too early").Because(err)
		}
		b.files[h.Name] = data
	}
}

// begun refuses a bundle without metadata.
func (b *Bundle) begun() (*Bundle, error) {
	if len(b.files) == 0 {
		return nil, fault.Invalidf("the bundle has no metadata, or is none")
	}
	return b, nil
}

// header reads the next entry, which must be a regular file. At the end there
// must be nothing more.
func (b *Bundle) header() (*tar.Header, error) {
	h, err := b.tar.Next()
	if errors.Is(err, io.EOF) {
		if n, _ := io.CopyN(io.Discard, b.under, 1); n > 0 {
			return nil, fault.Invalidf("the bundle has data after its end")
		}
		return nil, io.EOF
	}
	if err != nil {
		if fault.KindOf(err) != fault.Internal {
			return nil, err
		}
		return nil, fault.Invalidf("the bundle is not an archive that can be read, or ends too early").Because(err)
	}
	if h.Typeflag != tar.TypeReg || h.Format != tar.FormatUSTAR || h.Size < 0 || len(h.PAXRecords) > 0 {
		return nil, fault.Invalidf("the bundle has an entry that is not a plain regular file")
	}
	return h, nil
}

// Get is the [Getter] of the bundle's metadata.
func (b *Bundle) Get(_ context.Context, name string, limit int64) ([]byte, error) {
	data, ok := b.files[name]
	if !ok {
		return nil, fault.NotFoundf("the bundle has no file %s", name)
	}
	if int64(len(data)) > limit {
		return nil, plugin.Refuse(plugin.ReasonDigest, "%s in the bundle is longer than the %d bytes that it may have", name, limit)
	}
	return data, nil
}

// Walk is [Walk] over the bundle's metadata.
func (b *Bundle) Walk(ctx context.Context, seen plugin.Seen, now time.Time) (plugin.View, error) {
	v, err := Walk(ctx, seen, b.Get, now)
	return v.View, err
}

// Package goes to the next package, which must be one that the releases
// describe. What it returns must be read to its end, where it says whether the
// content was right. io.EOF is the end of the bundle.
func (b *Bundle) Package(all []plugin.Release) (plugin.Release, *Checked, error) {
	h := b.next
	b.next = nil
	if h == nil {
		var err error
		if h, err = b.header(); err != nil {
			return plugin.Release{}, nil, err
		}
	}
	sum, ok := strings.CutPrefix(h.Name, packagesDir)
	if b.count++; !ok || !digestPattern.MatchString(sum) || b.seen[sum] || b.count > maxPackages {
		return plugin.Release{}, nil, fault.Invalidf("the bundle has an entry that is no package, a package twice, or too many")
	}
	b.seen[sum] = true
	for _, r := range all {
		if r.SHA256 == sum && r.Size == h.Size {
			return r, Check(b.tar, r), nil
		}
	}
	return plugin.Release{}, nil, plugin.Refuse(plugin.ReasonDigest, "the bundle has a package that its repository does not offer")
}

// History is the metadata of a view with every root from the first on, so that a
// client judges it by whichever root it has pinned.
func History(ctx context.Context, s Source, v View) ([]File, error) {
	have := map[string]bool{}
	for _, f := range v.Files {
		have[f.Name] = true
	}
	var out []File
	get := From(s)
	for n := max(int64(1), v.Versions[RoleRoot]-maxRotations+1); n <= v.Versions[RoleRoot]; n++ {
		name := metadataName(RoleRoot, n)
		if have[name] {
			continue
		}
		data, err := get(ctx, name, maxRoot)
		if fault.Is(err, fault.NotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, File{name, data})
	}
	return append(out, v.Files...), nil
}
