package plugin

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// Interpreter is the program that runs an interpreted plugin. It is the
// operator's trusted base: no signature covers it, so that its digest is taken at
// every start, shown and recorded.
type Interpreter struct {
	Name   string `json:"name"` // as the manifest names it
	Path   string `json:"path"` // without links
	SHA256 string `json:"sha256"`
}

// pythonName are the interpreters that are found without configuration.
var pythonName = regexp.MustCompile(`^python3(\.[0-9]{1,2})?$`)

// systemFolders are where they are looked for. What a user's PATH says does not
// count.
var systemFolders = []string{"/usr/bin", "/usr/local/bin"}

// isPython reports whether an interpreter takes Python's options.
func isPython(name string) bool { return pythonName.MatchString(name) }

// openInterpreter finds the program for a name and takes its digest from the
// descriptor that will be executed. It must be a plain file that only root or
// this user can change, on a way that only they can change.
func openInterpreter(name string, configured map[string]string) (*os.File, Interpreter, error) {
	path, err := findInterpreter(name, configured)
	if err != nil {
		return nil, Interpreter{}, err
	}
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, Interpreter{}, noInterpreter(name, err)
	}
	for _, p := range []string{path, target} {
		if err := checkParents(p); err != nil {
			return nil, Interpreter{}, err
		}
	}
	f, err := openProgram(target)
	if err != nil {
		return nil, Interpreter{}, err
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		_ = f.Close()
		return nil, Interpreter{}, fault.Wrap(err, "read interpreter %s", name)
	}
	return f, Interpreter{Name: name, Path: target, SHA256: hex.EncodeToString(h.Sum(nil))}, nil
}

func findInterpreter(name string, configured map[string]string) (string, error) {
	if path, ok := configured[name]; ok {
		if !filepath.IsAbs(path) {
			return "", noInterpreter(name, nil)
		}
		return path, nil
	}
	if isPython(name) {
		for _, dir := range systemFolders {
			path := filepath.Join(dir, name)
			if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
				return path, nil
			}
		}
	}
	return "", noInterpreter(name, nil)
}

func noInterpreter(name string, cause error) error {
	return &reasoned{fault.Deniedf("this machine has no interpreter %s: install it, or say where it is with plugins.interpreters in the configuration", name).Because(cause), ReasonIncompatible}
}

// command is what an interpreted plugin's process gets to see: arguments and
// environment.
func (i Interpreter) command(run manifest.Run, dir string) (args, env []string, err error) {
	script := filepath.Join(dir, filepath.FromSlash(run.Command))
	if !isPython(i.Name) {
		if len(run.SearchPath) > 0 {
			return nil, nil, refuse(ReasonIncompatible, "a search path is known for Python alone, and the interpreter is %s", i.Name)
		}
		return append([]string{i.Path, script}, run.Args...), nil, nil
	}
	var search []string
	for _, folder := range run.SearchPath {
		search = append(search, filepath.Join(dir, filepath.FromSlash(folder)))
	}
	// No site (-S) means no site-packages of the machine, no .pth files, no
	// sitecustomize; no user site (-s); nothing written (-B); output at once (-u).
	args = append([]string{i.Path, "-s", "-S", "-B", "-u", script}, run.Args...)
	if len(search) > 0 {
		if strings.Contains(dir, string(filepath.ListSeparator)) {
			return nil, nil, fault.Invalidf("the plugin store must not lie below a folder with %q in its name", filepath.ListSeparator)
		}
		env = []string{"PYTHONPATH=" + strings.Join(search, string(filepath.ListSeparator))}
	}
	return args, env, nil
}
