package conformance

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"maps"
	"os/exec"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/plugin"
)

// The checklists of the guides for extensions and for CLI plugins, item by item.
var checkedItems = map[string][]expectation{
	manifest.RoleExtension: {
		{"extension/1", "name is snake_case and unique", "give the extension a constant name of lower-case letters, digits and underscores"},
		{"extension/2", "all table names begin with extension_<name>_", "name the tables extension_<name>_...; <name> may be written without its underscores"},
		{"extension/3", "get_models() returns every table class", "add the class to the list that get_models returns"},
		{"extension/4", "get_router() has a unique prefix /api/v1/<name>", "give the APIRouter the prefix /api/v1/<name>"},
		{"extension/5", "the extension is stateless", "keep state in the database, not in variables or attributes"},
		{"extension/6", "on_startup and on_shutdown are idempotent", "make both safe to be called twice"},
	},
	manifest.RoleCLI: {
		{"cli/1", "name is the key of the entry point, in kebab-case", "make name and the key in pyproject.toml equal"},
		{"cli/2", "register(cli) only attaches commands, no I/O at import", "move what runs into the functions of the commands"},
		{"cli/3", "AttestationClient is imported lazily", "import it inside of the function of the command"},
		{"cli/4", "all commands accept --url (ATTESTATION_API_URL) and --token", "add the options to the command"},
		{"cli/5", "a failed discovery never crashes the CLI", "let each command answer --help with exit code 0 within 5 s, without a server and within the sandbox"},
	},
}

// groups are the entry points of a role.
var groups = map[string]string{
	manifest.RoleExtension: manifest.GroupExtensions,
	manifest.RoleCLI:       manifest.GroupCLI,
}

const (
	maxSource = 1 << 20 // of one file
	judging   = 20 * time.Second
)

//go:embed checklist.py
var judge string

// sources are an entry point and the package that it is in, for checklist.py.
type sources struct {
	Key   string            `json:"key"`
	Class string            `json:"class"`
	File  string            `json:"file"`
	Files map[string]string `json:"files"`
}

// checklists judge the sources of extensions and CLI plugins. They are parsed by
// the python3 of this machine, isolated and with limits, and never run.
func (r *run) checklists(ctx context.Context) error {
	asked := map[string][]sources{}
	for role, group := range groups {
		if !r.m.Has(role) || len(r.m.EntryPoints[group]) == 0 {
			continue
		}
		files, err := plugin.Contents(r.Package, maxSource, func(f manifest.File) bool { return strings.HasSuffix(f.Path, ".py") })
		if err != nil {
			return err
		}
		for _, key := range slices.Sorted(maps.Keys(r.m.EntryPoints[group])) {
			asked[role] = append(asked[role], r.locate(key, r.m.EntryPoints[group][key], files))
		}
	}
	answers, why := judgeSources(ctx, asked)
	for _, role := range []string{manifest.RoleExtension, manifest.RoleCLI} {
		for _, e := range checkedItems[role] {
			a, ok := answers[e.id]
			switch {
			case !r.m.Has(role):
				r.add(e, Skipped, "the package does not have the role "+role)
			case e.id == "cli/5":
				r.discovery(ctx, e)
			case role == manifest.RoleCLI && asked[role] == nil:
				r.executable(e)
			case asked[role] == nil:
				r.add(e, Skipped, "needs the host's support for role "+role+": the package names no entry point of "+groups[role])
			case !ok:
				r.add(e, Skipped, why)
			default:
				r.add(e, a.Result, a.Reason)
			}
		}
	}
	return nil
}

// executable judges an item for a package whose commands are an executable.
func (r *run) executable(e expectation) {
	switch e.id {
	case "cli/1":
		r.add(e, Pass, "the manifest names the commands")
	case "cli/2":
		r.add(e, Pass, "commands are found in the manifest, and nothing of the package runs before one is called")
	default:
		r.add(e, Skipped, "the package has no CLI plugin in Python; address and token are handed over")
	}
}

// discovery lets each command say how it is used, as the command line starts it:
// verified, confined, and without a server. That nothing of a package can harm the
// command line before that, is the host's: it reads manifests alone.
func (r *run) discovery(ctx context.Context, e expectation) {
	if r.Help == nil {
		r.add(e, Skipped, "no command line was given to run it")
		return
	}
	file, public, err := r.signedCopy()
	if err != nil {
		r.add(e, Fail, text(err))
		return
	}
	key, err := plugin.NewKey(public, r.m.Publisher, nil, "", now())
	for _, c := range r.m.CommandList() {
		if err == nil {
			err = r.Help(ctx, file, key, c.Name)
		}
		if err != nil {
			r.add(e, Fail, c.Name+" --help: "+text(err))
			return
		}
	}
	r.add(e, Pass, "each command answers --help")
}

// locate finds the module of an entry point, package.module:Class, in the folders
// of the search path, and the sources of its top package.
func (r *run) locate(key, target string, files map[string][]byte) sources {
	module, class, _ := strings.Cut(target, ":")
	out := sources{Key: key, Class: class, Files: map[string]string{}}
	parts := strings.Split(module, ".")
	folders := []string{""}
	if r.m.Run != nil {
		folders = append(folders, r.m.Run.SearchPath...)
	}
	for _, folder := range folders {
		stem := path.Join(append([]string{folder}, parts...)...)
		for _, file := range []string{stem + ".py", stem + "/__init__.py"} {
			if _, ok := files[file]; ok && out.File == "" {
				out.File = file
			}
		}
		top := path.Join(folder, parts[0]) + "/"
		for name, text := range files {
			if strings.HasPrefix(name, top) || name == out.File {
				out.Files[name] = string(text)
			}
		}
	}
	return out
}

// answer is the judgement of one item.
type answer struct {
	Result Result `json:"result"`
	Reason string `json:"reason"`
}

// judgeSources asks checklist.py. Without an answer it says why.
func judgeSources(ctx context.Context, asked map[string][]sources) (map[string]answer, string) {
	if len(asked) == 0 {
		return nil, ""
	}
	question, err := json.Marshal(asked)
	if err != nil {
		return nil, "the sources are no text"
	}
	ctx, cancel := context.WithTimeout(ctx, judging)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, "python3", "-I", "-S", "-B", "-c", judge) //nolint:gosec // our own program
	cmd.Env, cmd.Stdin, cmd.Stdout = []string{}, bytes.NewReader(question), &out
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); errors.Is(err, exec.ErrNotFound) {
		return nil, "needs python3, which parses the sources"
	} else if err != nil {
		return nil, "python3 cannot judge the sources: " + err.Error()
	}
	var answers map[string]answer
	if err := json.Unmarshal(out.Bytes(), &answers); err != nil {
		return nil, "python3 gives no answer"
	}
	return answers, ""
}
