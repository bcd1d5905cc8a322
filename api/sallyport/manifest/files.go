package manifest

import (
	"fmt"
	"strings"
)

// File is one file of the package.
type File struct {
	// OS and Arch are the platform that the file is for, as Go writes it; both
	// empty: every platform.
	OS   string `json:"os,omitempty"`
	Arch string `json:"arch,omitempty"`
	// Path is relative and written with slashes; see [ValidPath].
	Path string `json:"path"`
	// For is the side that needs the file, [ForServer] or [ForCLI]; empty: both.
	For string `json:"for,omitempty"`
	// Executable gives a file of a package with [Run] mode 0755.
	Executable bool   `json:"executable,omitempty"`
	Size       int64  `json:"size"`
	SHA256     string `json:"sha256"` // lower-case hex
}

// Run says how a package of many files runs: in a private folder with the
// package's files and nothing else, which the process cannot write.
type Run struct {
	// Interpreter is a name such as python3 that the operator's configuration
	// maps to a program; empty: Command is an executable of the package.
	Interpreter string `json:"interpreter,omitempty"`
	// Command is a path in the package; a package that has nothing but entry
	// points has none.
	Command string   `json:"command,omitempty"`
	Args    []string `json:"args,omitempty"`
	// SearchPath are folders of the package in which the interpreter looks for
	// modules; a dot is the package itself.
	SearchPath []string `json:"search_path,omitempty"`
}

const (
	maxPath  = 200 // bytes
	maxDepth = 12  // names in a path
	// USTAR has 155 bytes for folders and 100 for the rest.
	ustarName   = 100
	ustarPrefix = 155
)

var (
	segmentPattern     = expression{text: `^[A-Za-z0-9_][A-Za-z0-9._+-]*$`}
	interpreterPattern = expression{text: `^[a-z][a-z0-9.+-]{0,31}$`}
	digestPattern      = expression{text: `^[0-9a-f]{64}$`}
)

// ValidPath reports whether s may be the path of a file in a package: names of
// letters, digits and ._+- that begin with a letter, digit or underscore, do not
// end with a dot and have no two dots in a row, joined by slashes; at most 12
// names and 200 bytes, and over 100 bytes only if it can be cut at a slash into
// 155 and 100. It neither leaves the package nor means the same as another path
// on any system, apart from case.
func ValidPath(s string) bool {
	if len(s) > maxPath || strings.Contains(s, "..") || strings.EqualFold(s, "manifest.json") || strings.EqualFold(s, "signature.dat") {
		return false
	}
	names := strings.Split(s, "/")
	for _, n := range names {
		if !segmentPattern.MatchString(n) || strings.HasSuffix(n, ".") {
			return false
		}
	}
	if len(s) <= ustarName {
		return len(names) <= maxDepth
	}
	cut := strings.LastIndexByte(s[:min(len(s)-1, ustarPrefix+1)], '/')
	return len(names) <= maxDepth && cut > 0 && len(s)-cut-1 <= ustarName
}

// For returns the executable of a platform that a server runs, of a package
// without [Run].
func (m Manifest) For(goos, goarch string) (File, bool) { return m.Executable(goos, goarch, ForServer) }

// Executable returns the executable of a platform and side, of a package without
// [Run].
func (m Manifest) Executable(goos, goarch, side string) (File, bool) {
	for _, f := range m.Files {
		if m.Run == nil && f.OS == goos && f.Arch == goarch && (f.For == "" || f.For == side) {
			return f, true
		}
	}
	return File{}, false
}

// Tree lists what one side, [ForServer] or [ForCLI], needs on a platform.
func (m Manifest) Tree(goos, goarch, side string) []File {
	var out []File
	for _, f := range m.Files {
		if (f.OS == "" || f.OS == goos && f.Arch == goarch) && (f.For == "" || f.For == side) {
			out = append(out, f)
		}
	}
	return out
}

// Runs reports whether one side of the package can run on a platform: for a
// package with [Run] whether its files name this platform or none at all.
func (m Manifest) Runs(goos, goarch, side string) bool {
	if m.Run == nil {
		_, ok := m.Executable(goos, goarch, side)
		return ok
	}
	every := true
	for _, f := range m.Files {
		if f.For != "" && f.For != side {
			continue
		}
		if f.OS == goos && f.Arch == goarch {
			return true
		}
		every = every && f.OS == ""
	}
	return every
}

// IsExecutable reports whether a file of this package has mode 0755; all others
// have 0644.
func (m Manifest) IsExecutable(f File) bool { return f.Executable || m.Run == nil && f.OS != "" }

func (m Manifest) validateFiles() error {
	if len(m.Files) == 0 || len(m.Files) > MaxFiles {
		return fmt.Errorf("files must name between 1 and %d files", MaxFiles)
	}
	var total int64
	seen := names{}
	platforms := map[string]bool{}
	for _, f := range m.Files {
		if err := m.validateFile(f); err != nil {
			return err
		}
		if err := seen.add(f.Path); err != nil {
			return err
		}
		if m.Run == nil && f.OS != "" {
			for _, side := range []string{ForServer, ForCLI} {
				platform := f.OS + "/" + f.Arch + " " + side
				if f.For != "" && f.For != side {
					continue
				}
				if platforms[platform] {
					return fmt.Errorf("file %q: a platform may have only one executable", f.Path)
				}
				platforms[platform] = true
			}
		}
		if total += f.Size; total > MaxTotal {
			return fmt.Errorf("files must not be larger than %d bytes together", MaxTotal)
		}
	}
	return nil
}

func (m Manifest) validateFile(f File) error {
	least := int64(0)
	if m.IsExecutable(f) {
		least = 1
	}
	switch {
	case !ValidPath(f.Path):
		return fmt.Errorf("file %s must have a plain path: names of letters, digits and ._+-, at most %d names and %d bytes", clip(f.Path), maxDepth, maxPath)
	case !digestPattern.MatchString(f.SHA256):
		return fmt.Errorf("file %q: sha256 must be 64 lower-case hex digits", f.Path)
	case f.Size < least || f.Size > MaxFileBytes:
		return fmt.Errorf("file %q: size must be between %d and %d bytes", f.Path, least, MaxFileBytes)
	case f.OS+f.Arch != "" && (!ValidName(f.OS) || !ValidName(f.Arch)):
		return fmt.Errorf("file %q: os and arch must be given as Go writes them, or neither", f.Path)
	case f.OS == "" && m.Run == nil:
		return fmt.Errorf("file %q: os and arch must be given in a package without run", f.Path)
	case f.For != "" && f.For != ForServer && f.For != ForCLI:
		return fmt.Errorf("file %q: for must be %s, %s or absent", f.Path, ForServer, ForCLI)
	}
	return nil
}

// names finds paths that cannot stand side by side on every system: the same
// twice, the same but for case, a file where another path has a folder. It maps
// each path and its folders, in lower case, to how it was written; folders end
// with a slash.
type names map[string]string

func (n names) add(path string) error {
	for i, r := range path + "/" {
		if r != '/' {
			continue
		}
		spelt := path[:i]
		if i < len(path) {
			spelt += "/"
		}
		key := strings.ToLower(path[:i])
		if before, ok := n[key]; ok && (before != spelt || i == len(path)) {
			return fmt.Errorf("file %q: the name %q stands already, or differs from one only by case or by being a folder", path, path[:i])
		}
		n[key] = spelt
	}
	return nil
}

func (m Manifest) validateRun() error {
	r := m.Run
	if r == nil {
		return nil
	}
	if r.Interpreter != "" && !interpreterPattern.MatchString(r.Interpreter) {
		return fmt.Errorf("run.interpreter must be a name such as python3, not a path")
	}
	if len(r.Args) > maxList || len(r.SearchPath) > maxList {
		return fmt.Errorf("run.args and run.search_path must have at most %d entries", maxList)
	}
	for _, a := range r.Args {
		if !plain(a) {
			return fmt.Errorf("run.args must be printable text of at most %d bytes each", maxText)
		}
	}
	for _, folder := range r.SearchPath {
		if folder != "." && !m.hasFolder(folder) {
			return fmt.Errorf("run.search_path: the package has no folder %s", clip(folder))
		}
	}
	if r.Command == "" && len(m.EntryPoints) > 0 {
		return nil // what loads them comes with the host
	}
	for _, f := range m.Files {
		if f.Path != r.Command {
			continue
		}
		if r.Interpreter == "" && !f.Executable {
			return fmt.Errorf("run.command %q must be an executable file, or run.interpreter must be given", r.Command)
		}
		return nil
	}
	return fmt.Errorf("run.command must be a file of the package")
}

func (m Manifest) hasFolder(folder string) bool {
	for _, f := range m.Files {
		if strings.HasPrefix(f.Path, folder+"/") {
			return true
		}
	}
	return false
}
