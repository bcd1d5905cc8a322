package plugin

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"io"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// The names of the first two entries of a package, in this order.
const (
	manifestName  = "manifest.json"
	signatureName = "signature.dat"
	tarBlock      = 512
)

// A package is an uncompressed USTAR archive that can be written in one way
// only: manifest.json, signature.dat, then the manifest's files sorted by path,
// each a regular file with mode 0644, executables 0755, owner 0, time 0. Folders
// have no entries: the paths imply them. The reader makes the header that it
// expects and compares bytes, so that links, extensions, duplicates and tricks
// that two tar readers understand differently have no way in, and nothing is
// unpacked before it is verified.

const (
	plainMode      = 0o644
	executableMode = 0o755
)

// modeOf is the mode that a file of a package has.
func modeOf(m manifest.Manifest, f manifest.File) int64 {
	if m.IsExecutable(f) {
		return executableMode
	}
	return plainMode
}

// header returns the one header block of an entry.
func header(name string, mode, size int64) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err := w.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: name, Size: size, Mode: mode,
		ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR,
	})
	if err != nil || b.Len() != tarBlock {
		return nil, fault.Invalidf("file %q cannot be an entry of a package", name).Because(err)
	}
	return b.Bytes(), nil
}

// writeEntry writes header, size bytes of r, and padding.
func writeEntry(w io.Writer, name string, mode, size int64, r io.Reader) error {
	h, err := header(name, mode, size)
	if err != nil {
		return err
	}
	if _, err := w.Write(h); err != nil {
		return fault.Wrap(err, "write package")
	}
	n, err := io.Copy(w, io.LimitReader(r, size))
	if err != nil {
		return fault.Wrap(err, "write package")
	}
	if n != size {
		return fault.Invalidf("file %s has changed its size while the package was made", name)
	}
	if pad := padding(size); pad > 0 {
		_, err = w.Write(make([]byte, pad))
	}
	return fault.Wrap(err, "write package")
}

// writeEnd writes the two empty blocks that close an archive.
func writeEnd(w io.Writer) error {
	_, err := w.Write(make([]byte, 2*tarBlock))
	return fault.Wrap(err, "write package")
}

func padding(size int64) int64 { return (tarBlock - size%tarBlock) % tarBlock }

// archiveReader walks a package strictly in order.
type archiveReader struct {
	r    io.Reader
	next []byte // header block that was read and not yet used
}

// peek reads the next header block.
func (a *archiveReader) peek() ([]byte, error) {
	if a.next == nil {
		block := make([]byte, tarBlock)
		if _, err := io.ReadFull(a.r, block); err != nil {
			return nil, truncated(err)
		}
		a.next = block
	}
	return a.next, nil
}

// entry demands that the next entry is name, with this mode and a size of at most
// limit, and returns its size. exact < 0 leaves the size open.
func (a *archiveReader) entry(name string, mode, exact, limit int64) (int64, error) {
	block, err := a.peek()
	if err != nil {
		return 0, err
	}
	size, err := strconv.ParseInt(strings.Trim(string(block[124:136]), " \x00"), 8, 64)
	if err != nil || size < 0 {
		return 0, fault.Invalidf("the package is malformed: an entry has no valid size")
	}
	if size > limit {
		return 0, fault.Invalidf("%s in the package is larger than the %d bytes allowed", name, limit)
	}
	want, err := header(name, mode, size)
	if err != nil {
		return 0, err
	}
	if !bytes.Equal(block, want) {
		return 0, explainHeader(block, name)
	}
	if exact >= 0 && size != exact {
		return 0, &reasoned{fault.Deniedf("%s in the package has another size than the manifest says", name), ReasonDigest}
	}
	a.next = nil
	return size, nil
}

// explainHeader says in which way a header is not the expected one.
func explainHeader(block []byte, want string) error {
	switch block[156] {
	case tar.TypeReg:
	case tar.TypeSymlink, tar.TypeLink:
		return fault.Invalidf("the package has a link; only regular files are allowed")
	default:
		return fault.Invalidf("the package has an entry that is not a plain regular file, or ends early")
	}
	name, _, _ := strings.Cut(string(block[:100]), "\x00")
	if prefix, _, _ := strings.Cut(string(block[345:500]), "\x00"); prefix != "" {
		name = prefix + "/" + name
	}
	if name != want {
		return fault.Invalidf("the package has entry %q where %s must stand", clip(name, 64), want)
	}
	return fault.Invalidf("the header of %s is not the one that `plugin build` writes; rebuild the package", want)
}

// copyEntry copies the content of an entry and skips its padding, which must be
// zero.
func (a *archiveReader) copyEntry(w io.Writer, size int64) error {
	if _, err := io.CopyN(w, a.r, size); err != nil {
		return truncated(err)
	}
	pad := make([]byte, padding(size))
	if _, err := io.ReadFull(a.r, pad); err != nil {
		return truncated(err)
	}
	for _, b := range pad {
		if b != 0 {
			return fault.Invalidf("the package has data between its entries")
		}
	}
	return nil
}

// end demands the two closing blocks and nothing after them.
func (a *archiveReader) end() error {
	block, err := a.peek()
	if err != nil {
		return err
	}
	second := make([]byte, tarBlock)
	if _, err := io.ReadFull(a.r, second); err != nil {
		return truncated(err)
	}
	for _, b := range append(block, second...) {
		if b != 0 {
			return fault.Invalidf("the package has an entry that the manifest does not name")
		}
	}
	if n, err := io.ReadFull(a.r, make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		return fault.Invalidf("the package has data after its end")
	}
	return nil
}

func truncated(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fault.Invalidf("the package ends too early; fetch or build it again")
	}
	return fault.Wrap(err, "read package")
}

// head is the part of a package that decides about the rest.
type head struct {
	manifestBytes []byte
	envelopeBytes []byte
}

// readHead reads manifest and envelope, and nothing else.
func (a *archiveReader) readHead() (head, error) {
	var h head
	for _, part := range []struct {
		name  string
		limit int64
		into  *[]byte
	}{
		{manifestName, manifest.MaxBytes, &h.manifestBytes},
		{signatureName, maxEnvelopeBytes, &h.envelopeBytes},
	} {
		size, err := a.entry(part.name, plainMode, -1, part.limit)
		if err != nil {
			return head{}, err
		}
		var b bytes.Buffer
		if err := a.copyEntry(&b, size); err != nil {
			return head{}, err
		}
		*part.into = b.Bytes()
	}
	return h, nil
}

// readFiles hands every file of the manifest to sink, in order, and compares
// size and digest; sink returns the writer for one file and is told by commit
// whether the content was right.
func (a *archiveReader) readFiles(m manifest.Manifest, sink func(f manifest.File) (w io.Writer, commit func(ok bool) error, err error)) error {
	for _, f := range sortedFiles(m) {
		if _, err := a.entry(f.Path, modeOf(m, f), f.Size, manifest.MaxFileBytes); err != nil {
			return err
		}
		w, commit, err := sink(f)
		if err != nil {
			return err
		}
		h := sha256.New()
		err = a.copyEntry(io.MultiWriter(w, h), f.Size)
		if err == nil && !sameDigest(h.Sum(nil), f.SHA256) {
			err = &reasoned{fault.Deniedf("%s in the package is not the file that was signed", f.Path), ReasonDigest}
		}
		if cerr := commit(err == nil); err == nil {
			err = cerr
		}
		if err != nil {
			return err
		}
	}
	return a.end()
}

// sameDigest compares in constant time.
func sameDigest(sum []byte, hexWant string) bool {
	want, err := hex.DecodeString(hexWant)
	return err == nil && subtle.ConstantTimeCompare(sum, want) == 1
}

func sortedFiles(m manifest.Manifest) []manifest.File {
	files := append([]manifest.File(nil), m.Files...)
	sort.Slice(files, func(i, j int) bool { return files[i].Path < files[j].Path })
	return files
}

// clip shortens foreign text for a message.
func clip(s string, limit int) string {
	out := make([]rune, 0, limit)
	for _, r := range s {
		if len(out) == limit {
			return string(out) + "..."
		}
		if r < ' ' || r == 0x7f || r == 0xfffd || r == 0x2028 || r == 0x2029 {
			r = ' '
		}
		out = append(out, r)
	}
	return string(out)
}
