// Package project makes the content of plugin packages from folders and wheels:
// projects in Python with their locked dependencies, and foreign plugins as they
// are. It runs on the machine of an author or operator, never in a server.
//
// Equal input gives equal packages: no time, owner, machine path or order of a
// folder enters. Whatever cannot be packed by a rule of docs/plugins is refused
// or listed; nothing is dropped in silence.
package project

import (
	"bytes"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
)

// Content is what a package will be made from.
type Content struct {
	Spec plugin.Spec
	// LeftOut are files that rules kept out of the package, sorted.
	LeftOut []string
}

// rule decides which files of a folder belong into a package.
type rule struct {
	whole bool     // everything but caches and hidden files
	drop  []string // further patterns, for a name or a whole path
}

// never are the files that belong into no package: caches of one interpreter
// version, hidden files, and packages themselves.
var never = []string{".*", "__pycache__", "*.pyc", "*.pyo", "*.spk"}

// unneeded are the files of a project that a running plugin does not need.
var unneeded = []string{
	"plugin.json", "conformance.json", "pyproject.toml", "setup.py", "setup.cfg", "requirements*.txt", "*.lock", "*.whl", "*.pub", "*.key", "*.md",
	"tests", "test", "test_*.py", "conftest.py", "docs", "dist", "build", "*.egg-info", "plugin.proto",
	"migrations/*.sql", // the manifest has them
}

func (r rule) keeps(file string) bool {
	patterns := slices.Concat(never, r.drop)
	if !r.whole {
		patterns = append(patterns, unneeded...)
	}
	for _, p := range patterns {
		if whole, _ := path.Match(p, file); whole {
			return false
		}
		if name, _ := path.Match(p, path.Base(file)); name {
			return false
		}
	}
	return true
}

func (r rule) check() error {
	for _, p := range r.drop {
		if _, err := path.Match(p, "x"); err != nil {
			return fault.Invalidf("the pattern %q is not well-formed; use for example 'docs/*'", p)
		}
	}
	return nil
}

// walk lists the files of a folder by rule. Links and special files are refused,
// since a package has none and what they mean depends on the machine.
func walk(dir string, r rule) (files []plugin.Source, leftOut []string, err error) {
	if err := r.check(); err != nil {
		return nil, nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, nil, fault.NotFoundf("%s is no folder that can be read", dir).Because(err)
	}
	defer func() { _ = root.Close() }()
	err = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		if !r.keeps(name) || !r.whole && d.IsDir() && virtual(root, name) {
			leftOut = append(leftOut, name)
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if d.IsDir() {
			return nil
		}
		src, err := folderFile(dir, name, d)
		files = append(files, src)
		return err
	})
	return files, leftOut, fault.Wrap(err, "read folder")
}

// virtual reports whether a folder is a virtual environment of Python (PEP 405),
// in which an author tests and from which nothing is packed.
func virtual(root *os.Root, name string) bool {
	_, err := root.Lstat(path.Join(name, "pyvenv.cfg"))
	return err == nil
}

func folderFile(dir, name string, d fs.DirEntry) (plugin.Source, error) {
	if !d.Type().IsRegular() {
		return plugin.Source{}, fault.Invalidf("%s is a link or a special file; a package has only regular files: replace it, or leave it out with --leave-out", name)
	}
	if !manifest.ValidPath(name) {
		return plugin.Source{}, fault.Invalidf("%s cannot be in a package: names have letters, digits and ._+- (docs/plugins); rename it, or leave it out with --leave-out", name)
	}
	info, err := d.Info()
	if err != nil {
		return plugin.Source{}, err
	}
	full := filepath.Join(dir, filepath.FromSlash(name))
	return plugin.Source{
		File: manifest.File{Path: name, Executable: info.Mode()&0o100 != 0 && info.Size() > 0},
		Open: func() (io.ReadCloser, error) { return plugin.OpenFile(full) },
	}, nil
}

// Folder is a folder that runs as it is.
type Folder struct {
	Dir      string            // of the files
	Manifest manifest.Manifest // without files
	// Entry is the command: a file of the folder, or an interpreter and a file,
	// then arguments. Empty: Manifest.Run says it.
	Entry      []string
	SearchPath []string
	LeaveOut   []string // patterns of names or paths
}

// Wrap packs a foreign plugin unchanged: every file of its folder but hidden
// ones and caches. Faults are Invalid.
func Wrap(f Folder) (Content, error) {
	m, err := f.manifest()
	if err != nil {
		return Content{}, err
	}
	files, left, err := walk(f.Dir, rule{whole: true, drop: f.LeaveOut})
	if err != nil {
		return Content{}, err
	}
	// The specification is not part of what it describes.
	files = slices.DeleteFunc(files, func(s plugin.Source) bool { return s.Path == "plugin.json" })
	return Content{Spec: plugin.Spec{Manifest: m, Sources: files}, LeftOut: left}, nil
}

// manifest fills in how the folder runs.
func (f Folder) manifest() (manifest.Manifest, error) {
	m := f.Manifest
	run := manifest.Run{}
	if m.Run != nil {
		run = *m.Run
	}
	if words := f.Entry; len(words) > 0 {
		run.Interpreter, run.Args = "", nil
		if _, err := os.Stat(filepath.Join(f.Dir, filepath.FromSlash(words[0]))); err != nil {
			run.Interpreter, words = words[0], words[1:]
		} else if path.Ext(words[0]) == ".py" {
			run.Interpreter = "python3"
		}
		if len(words) == 0 {
			return m, fault.Invalidf("--entry must name a file of %s, if need be after an interpreter: --entry 'python3 main.py'", f.Dir)
		}
		run.Command, run.Args = words[0], words[1:]
	}
	if run.Command == "" && len(m.EntryPoints) == 0 {
		return m, fault.Invalidf("say what runs: --entry 'python3 main.py', or run.command in plugin.json")
	}
	if len(f.SearchPath) > 0 {
		run.SearchPath = f.SearchPath
	}
	m.Run = &run
	return m, nil
}

// readAll reads a file of at most limit bytes.
func readAll(open func() (io.ReadCloser, error), limit int64) ([]byte, error) {
	r, err := open()
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, fault.Wrap(err, "read file")
	}
	if int64(len(data)) > limit {
		return nil, fault.Invalidf("the file is larger than the %d bytes allowed", limit)
	}
	return data, nil
}

func readFile(name string, limit int64) ([]byte, error) {
	return readAll(func() (io.ReadCloser, error) { return plugin.OpenFile(name) }, limit)
}

// held is a file that is in memory.
func held(data []byte) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
}

// plainName is the name of a Python project as packages write it: PEP 503.
func plainName(s string) string {
	return strings.Trim(strings.Join(strings.FieldsFunc(strings.ToLower(s), func(r rune) bool { return strings.ContainsRune("-_.", r) }), "-"), "-")
}
