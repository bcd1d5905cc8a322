package project

import (
	"archive/zip"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/csv"
	"io"
	"io/fs"
	"net/textproto"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
)

const (
	maxWheel       = 256 << 20 // bytes, packed and unpacked
	maxWheelRecord = 4 << 20
)

// wheelName is what the name of a wheel says: PEP 427.
type wheelName struct{ project, version, python, abi, platform string }

func parseWheelName(file string) (wheelName, error) {
	parts := strings.Split(strings.TrimSuffix(file, ".whl"), "-")
	if !strings.HasSuffix(file, ".whl") || len(parts) != 5 && len(parts) != 6 || slices.Contains(parts, "") {
		return wheelName{}, fault.Invalidf("%q is not the name of a wheel", file)
	}
	n := len(parts)
	return wheelName{parts[0], parts[1], parts[n-3], parts[n-2], parts[n-1]}, nil
}

// system gives the platform as Go names it; both empty for every platform.
func (n wheelName) system() (goos, arch string, err error) {
	if n.platform == "any" {
		return "", "", nil
	}
	for _, tag := range strings.Split(n.platform, ".") {
		switch {
		case strings.HasPrefix(tag, "manylinux"), strings.HasPrefix(tag, "musllinux"), strings.HasPrefix(tag, "linux"):
			goos = "linux"
		case strings.HasPrefix(tag, "macosx"):
			goos = "darwin"
		case strings.HasPrefix(tag, "win"):
			goos = "windows"
		}
		for suffix, name := range map[string]string{"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"} {
			if strings.HasSuffix(tag, suffix) {
				arch = name
			}
		}
	}
	if goos == "" || arch == "" {
		return "", "", fault.Invalidf("the wheel of %s is for %s, which is no platform of this house: linux, macOS or Windows, on amd64 or arm64", n.project, n.platform)
	}
	return goos, arch, nil
}

// interpreter is the only version of Python that loads the wheel, or empty.
func (n wheelName) interpreter() string {
	minor, ok := strings.CutPrefix(n.abi, "cp3")
	if _, err := strconv.ParseUint(minor, 10, 8); !ok || err != nil {
		return ""
	}
	return "python3." + minor
}

// wheel is a wheel whose files are those that its RECORD names.
type wheel struct {
	wheelName
	files map[string][]byte
	info  string // the .dist-info folder
}

// openWheel reads a wheel and checks every file against RECORD: PEP 427.
func openWheel(file string, data []byte) (*wheel, error) {
	name, err := parseWheelName(file)
	if err != nil {
		return nil, err
	}
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, fault.Invalidf("%s is no wheel", file).Because(err)
	}
	w := &wheel{wheelName: name, files: map[string][]byte{}, info: name.project + "-" + name.version + ".dist-info"}
	if len(z.File) > 4*manifest.MaxFiles {
		return nil, fault.Invalidf("%s has too many files", file)
	}
	left := int64(maxWheel)
	for _, f := range z.File {
		if strings.HasSuffix(f.Name, "/") {
			continue
		}
		if err := w.add(f, &left); err != nil {
			return nil, fault.Wrap(err, "read %s", file)
		}
	}
	return w, w.checkRecord()
}

func (w *wheel) add(f *zip.File, left *int64) error {
	switch {
	case f.Mode()&fs.ModeType != 0:
		return fault.Invalidf("the wheel of %s has a link or a special file", w.project)
	case !fs.ValidPath(f.Name) || strings.Contains(f.Name, "\\"):
		return fault.Invalidf("the wheel of %s has a file outside of its folder", w.project)
	}
	if _, twice := w.files[f.Name]; twice {
		return fault.Invalidf("the wheel of %s has a file twice", w.project)
	}
	r, err := f.Open()
	if err != nil {
		return fault.Invalidf("the wheel of %s is damaged", w.project).Because(err)
	}
	defer func() { _ = r.Close() }()
	data, err := io.ReadAll(io.LimitReader(r, *left+1))
	if err != nil {
		return fault.Invalidf("the wheel of %s is damaged", w.project).Because(err)
	}
	if *left -= int64(len(data)); *left < 0 {
		return fault.Invalidf("the wheel of %s is larger than %d bytes", w.project, int64(maxWheel))
	}
	w.files[f.Name] = data
	return nil
}

// checkRecord compares all files with RECORD, in both directions.
func (w *wheel) checkRecord() error {
	record := w.info + "/RECORD"
	text, ok := w.files[record]
	if !ok || len(text) > maxWheelRecord {
		return fault.Invalidf("the wheel of %s has no RECORD where its name says", w.project)
	}
	sums, err := parseRecord(text)
	if err != nil {
		return err
	}
	for name, data := range w.files {
		if name == record || name == record+".jws" || name == record+".p7s" {
			continue
		}
		sum := sha256.Sum256(data)
		if want, ok := sums[name]; !ok || !bytes.Equal(want, sum[:]) {
			return fault.Deniedf("the wheel of %s has %s, which is not in its RECORD or differs from it", w.project, name)
		}
		delete(sums, name)
	}
	for name, want := range sums {
		if want != nil {
			return fault.Deniedf("the wheel of %s has no %s, which its RECORD names", w.project, name)
		}
	}
	return nil
}

// parseRecord reads RECORD: path, sha256=digest in base64 for URLs, size. A path
// without a digest, as RECORD has for itself, maps to nil.
func parseRecord(text []byte) (map[string][]byte, error) {
	r := csv.NewReader(bytes.NewReader(text))
	r.FieldsPerRecord = 3
	rows, err := r.ReadAll()
	if err != nil {
		return nil, fault.Invalidf("a RECORD is not well-formed").Because(err)
	}
	out := map[string][]byte{}
	for _, row := range rows {
		if _, twice := out[row[0]]; twice {
			return nil, fault.Invalidf("a RECORD names %q twice", row[0])
		}
		if row[1] == "" {
			out[row[0]] = nil
			continue
		}
		text, ok := strings.CutPrefix(row[1], "sha256=")
		sum, err := base64.RawURLEncoding.DecodeString(text)
		if !ok || err != nil || len(sum) != sha256.Size {
			return nil, fault.Invalidf("a RECORD has for %q no SHA-256", row[0])
		}
		out[row[0]] = sum
	}
	return out, nil
}

// place says where a file of the wheel goes in a package; empty for nowhere.
func (w *wheel) place(name string) string {
	data := w.project + "-" + w.version + ".data/"
	if rest, ok := strings.CutPrefix(name, data); ok {
		scheme, file, _ := strings.Cut(rest, "/")
		if scheme != "purelib" && scheme != "platlib" {
			return "" // scripts, headers and data of an installation
		}
		name = file
	}
	base := path.Base(name)
	switch {
	case strings.HasPrefix(name, w.info+"/") && base != "METADATA" && base != "entry_points.txt" && !strings.Contains(strings.ToUpper(base), "LICEN"):
		return "" // RECORD, WHEEL and INSTALLER describe an installation
	case strings.HasSuffix(base, ".pth"), strings.HasSuffix(base, ".pyc"), strings.Contains("/"+name, "/__pycache__/"):
		return "" // never read from a search path; of one version of Python; the same
	case strings.Contains("/"+name, "/.") && !library.MatchString(base):
		return "" // no module has such a name, and in folders they are left out, too
	}
	return name
}

// library is the name of native code, which the loader finds under any name: a
// hidden one is refused rather than left out.
var library = regexp.MustCompile(`\.(so|dylib|dll)(\.|$)`)

// sources are the wheel's files for a package, below a folder.
func (w *wheel) sources(below string) (files []plugin.Source, leftOut []string, err error) {
	goos, arch, err := w.system()
	if err != nil {
		return nil, nil, err
	}
	for name, data := range w.files {
		to := w.place(name)
		if to == "" {
			leftOut = append(leftOut, path.Join(below, name))
			continue
		}
		to = path.Join(below, to)
		if !manifest.ValidPath(to) {
			return nil, nil, fault.Invalidf("the wheel of %s has the file %q, whose name no package can have; use another version, or repack it", w.project, name)
		}
		files = append(files, plugin.Source{File: manifest.File{OS: goos, Arch: arch, Path: to}, Open: held(data)})
	}
	sort.Strings(leftOut)
	return files, leftOut, nil
}

// vendor adds wheels to a package.
func (c *Content) vendor(wheels []*wheel) error {
	run := c.Spec.Manifest.Run
	for _, w := range wheels {
		files, left, err := w.sources(vendorFolder)
		if err != nil {
			return err
		}
		if only := w.interpreter(); only != "" {
			if run.Interpreter != "python3" && run.Interpreter != only {
				return fault.Invalidf("the wheel of %s is for %s alone, and the package runs by %s", w.project, only, run.Interpreter)
			}
			run.Interpreter = only
		}
		c.Spec.Sources = append(c.Spec.Sources, files...)
		c.LeftOut = append(c.LeftOut, left...)
	}
	return nil
}

// about reads what the wheel says of itself.
func (w *wheel) about() (metadata, []string, error) {
	text, ok := w.files[w.info+"/METADATA"]
	if !ok {
		return metadata{}, nil, fault.Invalidf("the wheel of %s has no METADATA", w.project)
	}
	head, err := textproto.NewReader(bufio.NewReader(io.MultiReader(bytes.NewReader(text), strings.NewReader("\r\n\r\n")))).ReadMIMEHeader()
	if err != nil {
		return metadata{}, nil, fault.Invalidf("the METADATA of %s is not well-formed", w.project).Because(err)
	}
	a := metadata{name: head.Get("Name"), version: head.Get("Version"), summary: head.Get("Summary")}
	if a.groups, err = parseEntryPoints(w.files[w.info+"/entry_points.txt"]); err != nil {
		return metadata{}, nil, err
	}
	var needs []string
	for _, r := range head["Requires-Dist"] {
		if _, marker, ok := strings.Cut(r, ";"); !ok || !strings.Contains(marker, "extra") {
			needs = append(needs, r)
		}
	}
	return a, needs, nil
}

// parseEntryPoints reads the two groups that are ours from entry_points.txt.
func parseEntryPoints(text []byte) (map[string]map[string]string, error) {
	out := map[string]map[string]string{}
	var group map[string]string
	for n, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line[0] == '#' || line[0] == ';':
		case line[0] == '[' && strings.HasSuffix(line, "]"):
			name := strings.TrimSpace(line[1 : len(line)-1])
			if group = nil; name == manifest.GroupExtensions || name == manifest.GroupCLI {
				if _, twice := out[name]; twice {
					return nil, fault.Invalidf("entry_points.txt has group %s twice", name)
				}
				group = map[string]string{}
				out[name] = group
			}
		default:
			name, ref, ok := strings.Cut(line, "=")
			if !ok {
				return nil, fault.Invalidf("entry_points.txt, line %d is not NAME = MODULE:OBJECT", n+1)
			}
			if group != nil {
				name = strings.TrimSpace(name)
				if _, twice := group[name]; twice {
					return nil, fault.Invalidf("entry_points.txt has %q twice", name)
				}
				ref, _, _ = strings.Cut(ref, "[") // extras
				group[name] = strings.ReplaceAll(ref, " ", "")
			}
		}
	}
	return out, nil
}

// Wheel packs a wheel as a plugin, with the wheels that its lock file names.
// p.Manifest is the manifest without files, for example [Undeclared]. What the
// wheel needs and the lock file does not give is Invalid, by name.
func (p Python) Wheel(ctx context.Context, file string) (Content, error) {
	data, err := readFile(file, maxWheel)
	if err != nil {
		return Content{}, err
	}
	w, err := openWheel(filepath.Base(file), data)
	if err != nil {
		return Content{}, err
	}
	about, needs, err := w.about()
	if err != nil {
		return Content{}, err
	}
	m, err := about.into(p.Manifest)
	if err != nil {
		return Content{}, err
	}
	run := manifest.Run{Interpreter: "python3"}
	if m.Run != nil {
		run = *m.Run
	}
	m.Run = &run
	if run.Command == "" && len(m.EntryPoints) == 0 {
		return Content{}, fault.Invalidf("%s has neither entry points of a plugin nor, in plugin.json, a command", filepath.Base(file))
	}
	p.Dir = filepath.Dir(file) // where an unnamed lock file would lie: beside the wheel
	locked, err := p.wheels(ctx)
	if err != nil {
		return Content{}, err
	}
	c := Content{Spec: plugin.Spec{Manifest: m}}
	if err := c.vendor(append([]*wheel{w}, locked...)); err != nil {
		return Content{}, err
	}
	carried, err := c.sdk(needs, locked)
	if err != nil {
		return Content{}, err
	}
	for _, n := range needs {
		name := plainName(strings.TrimRight(distribution.FindString(n), " "))
		if slices.Contains(carried, name) {
			continue
		}
		if !slices.ContainsFunc(locked, func(l *wheel) bool { return plainName(l.project) == name }) {
			return Content{}, fault.Invalidf("%s needs %s: name a lock file that has it, with its hash: --lock FILE", filepath.Base(file), name)
		}
	}
	if err := c.start(); err != nil {
		return Content{}, err
	}
	if len(run.SearchPath) == 0 {
		run.SearchPath = []string{vendorFolder}
	}
	return c, nil
}

// distribution is the name at the beginning of a requirement: PEP 508.
var distribution = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*`)
