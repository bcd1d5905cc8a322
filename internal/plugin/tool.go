package plugin

import (
	"path/filepath"
	"strings"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
)

// OpenToolStore opens the store of a command line, as [OpenStore] does that of a
// server: of each package it has what is for the command line.
func OpenToolStore(dir string) (*Store, error) { return openStore(dir, manifest.ForCLI) }

// SupportedTool reports why this command line does not serve a package; nil if it
// does. The fault is Denied and carries a [Reason].
func SupportedTool(m manifest.Manifest) error {
	if err := served(m); err != nil {
		return err
	}
	if !m.Has(manifest.RoleCLI) {
		return refuse(ReasonIncompatible, "package %s has nothing for the command line; install it at a server: --for server", m.Name)
	}
	if m.Run == nil {
		return nil
	}
	switch loaded := len(m.EntryPoints[manifest.GroupCLI]) > 0; {
	case loaded && !isPython(m.Run.Interpreter):
		return refuse(ReasonIncompatible, "package %s has entry points for Python, and runs by %q", m.Name, clip(m.Run.Interpreter, 32))
	case loaded && !hasLoader(m):
		return refuse(ReasonIncompatible, "package %s has entry points of %s and not what loads them: add sallyport_sdk to its requirements.lock", m.Name, manifest.GroupCLI)
	case !loaded && m.Run.Command == "":
		return refuse(ReasonIncompatible, "package %s says for the command line neither a command nor entry points of %s", m.Name, manifest.GroupCLI)
	}
	return nil
}

func supportedSomewhere(m manifest.Manifest) error {
	if len(m.RolesFor(manifest.ForServer)) == 0 {
		return SupportedTool(m)
	}
	return Supported(m)
}

// Tool is a verified program of role cli, ready to start. Close gives back what
// it needs, after the process has ended.
type Tool struct {
	Manifest manifest.Manifest
	// Path is what to execute: valid in this process, and in a child until it
	// executes.
	Path string
	// Args are the arguments before those that the user has typed, the program's
	// name included.
	Args []string
	Env  []string // variables that the program itself needs
	// Tree is the folder from which a package of many files runs; empty: it is
	// one executable.
	Tree        string
	Interpreter *Interpreter

	program program
	image   *image
}

// Tool judges an installed package and makes its program: everything is checked
// again, from the signatures to the content of each file, and nothing of it has
// run. An interpreter is one of the system's. Faults are Denied with a reason, or
// Unavailable.
func (s *Store) Tool(digest string, trust Trust) (_ *Tool, err error) {
	e, err := s.judge(digest, trust)
	if err != nil {
		return nil, err
	}
	t := &Tool{Manifest: e.Manifest}
	if t.image, err = s.image(e); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			t.Close()
		}
	}()
	run := e.Manifest.Run
	if run == nil {
		t.Path, t.Args = t.image.path(), []string{e.Manifest.Name}
		return t, nil
	}
	if err := s.sweepTrees(); err != nil { // of command lines that were killed
		return nil, err
	}
	if t.program.planted, err = s.plant(t.image); err != nil {
		return nil, err
	}
	t.Tree = t.program.planted.dir
	if run.Interpreter == "" {
		t.Path = filepath.Join(t.Tree, filepath.FromSlash(run.Command))
		t.Args = append([]string{t.Path}, run.Args...)
		return t, nil
	}
	var found Interpreter
	if t.program.opened, found, err = openInterpreter(run.Interpreter, nil); err != nil {
		return nil, err
	}
	t.Interpreter, t.Path = &found, descriptorPath(t.program.opened)
	t.Args, t.Env, err = found.command(*run, t.Tree)
	if len(e.Manifest.EntryPoints[manifest.GroupCLI]) > 0 {
		t.Args = loading(found.Path)
	}
	return t, err
}

// loader is the module that runs the entry points of a CLI plugin in Python. It
// is in the package.
const loader = "sallyport_sdk.cli"

// loading starts the loader as python -m does, but without the working folder on
// the search path, where anybody may have put modules.
func loading(python string) []string {
	return []string{
		python, "-s", "-S", "-B", "-u", "-c",
		"import sys; sys.path[:] = [p for p in sys.path if p]; import runpy; runpy.run_module('" + loader + "', run_name='__main__', alter_sys=True)",
	}
}

// Unchanged reports, Denied with [ReasonDigest], that what the program runs from
// is no longer what was verified.
func (t *Tool) Unchanged() error { return t.program.unchanged() }

// Close gives back the memory and the folder. It may be called more than once.
func (t *Tool) Close() {
	t.program.close()
	t.program = program{}
	if t.image != nil {
		_ = t.image.Close()
		t.image = nil
	}
}

// hasLoader reports whether a package with entry points brings what loads them.
func hasLoader(m manifest.Manifest) bool {
	module := strings.ReplaceAll(loader, ".", "/")
	for _, f := range m.Tree("", "", manifest.ForCLI) {
		if strings.HasSuffix(f.Path, module+".py") || strings.HasSuffix(f.Path, module+"/__main__.py") {
			return true
		}
	}
	return false
}
