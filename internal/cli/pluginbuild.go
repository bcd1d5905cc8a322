package cli

import (
	"context"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/plugin/project"
)

// building are the options from which a package is made.
type building struct {
	out                 string
	binaries, platforms []string
	from, entry         string
	search, leaveOut    []string
	lock, wheels        string
	python, publisher   string
	notSecret           []string
	sides               []string
}

func pluginBuild(s *shell) *cobra.Command {
	var b building
	c := &cobra.Command{
		Use: "build SPEC|DIR --out FILE", Short: "Make a package", Args: cobra.ExactArgs(1),
		Long: `Make an unsigned package from a plugin.json, or the folder that holds it. Equal
input gives equal bytes.

Executables are those given with --binary, else the files NAME-OS-ARCH beside
plugin.json, else what the Go compiler makes of the folder, for --platform.

A package that has parts for servers and for command lines may say which files are
for one side alone: plugin install then keeps only those of its side. --only names
files of the package, by a pattern of their path; NAME-cli-OS-ARCH and
NAME-server-OS-ARCH beside plugin.json, or --binary cli:OS/ARCH=FILE, are an
executable for each.

A folder with a pyproject.toml, or whose plugin.json says how it runs, is packed
with its files. Wheels that requirements.lock names, each with its hash, come
along, so that a start needs neither pip nor a network; only the build does, and
not even that with --wheels.

The migrations of an extension come from the folder migrations beside
plugin.json.

With --from, a folder is packed as it is: a foreign plugin, unchanged.

A package that would contain a secret is refused.`,
		Example: `  sallyport plugin build ./plugins/sshcert --out sshcert.spk
  sallyport plugin build plugin.json --binary linux/amd64=./build/x --binary linux/arm64=./build/y --out my.spk
  sallyport plugin build ./tags --only 'cli=src/tags/cli/*' --out tags.spk
  sallyport plugin build ./honeytoken --entry src/honeytoken/server.py --out honeytoken.spk
  sallyport plugin build plugin.json --from ./foreign --entry 'python3 plugin.py' --search-path lib --out foreign.spk`,
		RunE: func(c *cobra.Command, args []string) error {
			if b.out == "" {
				return fault.Invalidf("say where the package goes: --out FILE")
			}
			r, err := s.build(c.Context(), args[0], b)
			if err != nil {
				return err
			}
			return s.print(r, func() error { return s.showReport(r) })
		},
	}
	f := c.Flags()
	f.StringVar(&b.out, "out", "", "file to make")
	f.StringArrayVar(&b.binaries, "binary", nil, "executable as OS/ARCH=FILE, or FILE for this machine's platform; before it server: or cli: for one side alone")
	f.StringSliceVar(&b.platforms, "platform", []string{runtime.GOOS + "/" + runtime.GOARCH}, "OS/ARCH to compile for, with Go sources")
	f.StringArrayVar(&b.sides, "only", nil, "files for one side alone, as server=PATTERN or cli=PATTERN; may be given several times")
	f.StringVar(&b.from, "from", "", "folder to pack as it is")
	f.StringVar(&b.publisher, "publisher", "", "publisher of a project that has no plugin.json")
	b.flags(c)
	return c
}

// flags are those that installing from sources has too.
func (b *building) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&b.entry, "entry", "", "what runs: a file of the folder, or an interpreter and a file, then arguments")
	f.StringSliceVar(&b.search, "search-path", nil, "folders of the package where the interpreter looks for modules")
	f.StringArrayVar(&b.leaveOut, "leave-out", nil, "pattern of names or paths to leave out; may be given several times")
	f.StringVar(&b.lock, "lock", "", "locked requirements with hashes (default: requirements.lock of the project)")
	f.StringVar(&b.wheels, "wheels", "", "folder with the locked wheels, in place of downloading them")
	f.StringVar(&b.python, "python", "", "Python whose pip downloads the wheels (default: python3)")
	f.StringArrayVar(&b.notSecret, "not-secret", nil, "fingerprint of a finding that is no secret; may be given several times")
}

// build makes a package from a folder or specification.
func (s *shell) build(ctx context.Context, path string, b building) (plugin.Report, error) {
	dir, m, err := s.spec(path, b)
	if err != nil {
		return plugin.Report{}, err
	}
	content, clean, err := s.content(ctx, dir, m, b)
	if err != nil {
		return plugin.Report{}, err
	}
	defer clean()
	if err := project.Sides(&content.Spec, b.sides); err != nil {
		return plugin.Report{}, err
	}
	return s.finish(content, b)
}

// finish checks what would get into a package and writes it.
func (s *shell) finish(content project.Content, b building) (plugin.Report, error) {
	found, err := project.Secrets(content.Spec, b.notSecret)
	if err == nil {
		err = project.Refused(found)
	}
	if err != nil {
		return plugin.Report{}, err
	}
	if left := content.LeftOut; len(left) > 0 {
		const most = 8
		more := ""
		if len(left) > most {
			left, more = left[:most], ", ..."
		}
		s.note("left out %d: %s%s", len(content.LeftOut), strings.Join(left, ", "), more)
	}
	return plugin.Build(content.Spec, b.out)
}

// spec reads plugin.json, given by itself or by its folder. A project in Python
// may have none.
func (s *shell) spec(path string, b building) (dir string, m manifest.Manifest, err error) {
	dir = filepath.Dir(path)
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		dir, path = path, filepath.Join(path, "plugin.json")
	}
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) && project.IsPython(dir) {
		if b.publisher == "" {
			return "", m, fault.Invalidf("%s has no plugin.json: write one, or say at least who publishes it with --publisher", dir)
		}
		return dir, project.Undeclared(b.publisher), nil
	}
	text, err := s.readFile(path, manifest.MaxBytes)
	if err != nil {
		return "", m, err
	}
	if m, err = plugin.ReadSpec(text); err != nil {
		return "", m, err
	}
	return dir, m, project.Migrations(dir, &m)
}

// content finds or makes what goes into a package.
func (s *shell) content(ctx context.Context, dir string, m manifest.Manifest, b building) (project.Content, func(), error) {
	none := func() {}
	folder := project.Folder{Dir: dir, Manifest: m, Entry: strings.Fields(b.entry), SearchPath: b.search, LeaveOut: b.leaveOut}
	if b.from != "" {
		folder.Dir = b.from
		content, err := project.Wrap(folder)
		content.Provenance(ctx, b.from)
		return content, none, err
	}
	if project.IsPython(dir) || m.Run != nil || b.entry != "" {
		stop := s.busy("packing " + dir)
		content, err := project.Python{Folder: folder, Lock: b.lock, Wheels: b.wheels, Python: b.python}.Pack(ctx)
		stop()
		content.Provenance(ctx, dir)
		return content, none, err
	}
	list, clean, err := executables(ctx, s, dir, m.Name, b.binaries, b.platforms)
	return project.Content{Spec: plugin.Spec{Manifest: m, Binaries: list}}, clean, err
}

// executables finds or makes what goes into a package.
func executables(ctx context.Context, s *shell, dir, name string, given, platforms []string) ([]plugin.Binary, func(), error) {
	none := func() {}
	var list []plugin.Binary
	for _, b := range given {
		side := ""
		for _, one := range []string{manifest.ForServer, manifest.ForCLI} {
			if rest, ok := strings.CutPrefix(b, one+":"); ok {
				side, b = one, rest
			}
		}
		platform, file, ok := strings.Cut(b, "=")
		if !ok {
			platform, file = runtime.GOOS+"/"+runtime.GOARCH, b
		}
		system, arch, ok := strings.Cut(platform, "/")
		if !ok || file == "" {
			return nil, none, fault.Invalidf("--binary is OS/ARCH=FILE, for example linux/amd64=./build/%s", name)
		}
		list = append(list, plugin.Binary{OS: system, Arch: arch, File: file, For: side})
	}
	if len(list) > 0 {
		return list, none, nil
	}
	beside, err := filepath.Glob(filepath.Join(dir, name+"-*-*"))
	if err != nil {
		return nil, none, fault.Wrap(err, "look for executables")
	}
	for _, file := range beside {
		parts, side := strings.Split(strings.TrimPrefix(filepath.Base(file), name+"-"), "-"), ""
		if len(parts) == 3 && (parts[0] == manifest.ForServer || parts[0] == manifest.ForCLI) {
			side, parts = parts[0], parts[1:]
		}
		if len(parts) == 2 && !strings.Contains(parts[1], ".") {
			list = append(list, plugin.Binary{OS: parts[0], Arch: parts[1], File: file, For: side})
		}
	}
	if len(list) > 0 {
		return list, none, nil
	}
	if sources, _ := filepath.Glob(filepath.Join(dir, "*.go")); len(sources) == 0 {
		return nil, none, fault.Invalidf("%s has no executables (%s-OS-ARCH) and no Go sources: give --binary OS/ARCH=FILE", dir, name)
	}
	return compile(ctx, s, dir, name, platforms)
}

// compile runs the Go compiler, reproducibly, into a temporary folder.
func compile(ctx context.Context, s *shell, dir, name string, platforms []string) ([]plugin.Binary, func(), error) {
	temp, err := os.MkdirTemp("", "sallyport-build-*")
	if err != nil {
		return nil, func() {}, fault.Unavailablef("no temporary folder can be made").Because(err)
	}
	clean := func() { _ = os.RemoveAll(temp) }
	var list []plugin.Binary
	for _, p := range platforms {
		system, arch, ok := strings.Cut(p, "/")
		if !ok {
			clean()
			return nil, func() {}, fault.Invalidf("--platform is OS/ARCH, for example linux/arm64")
		}
		file := filepath.Join(temp, name+"-"+system+"-"+arch)
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -buildid=", "-o", file, ".") //nolint:gosec // fixed words and the user's platform
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+system, "GOARCH="+arch)
		cmd.Stderr = s.err
		stop := s.busy("compiling for " + p)
		err := cmd.Run()
		stop()
		if errors.Is(err, exec.ErrNotFound) {
			clean()
			return nil, func() {}, fault.Unavailablef("there is no Go compiler here: install Go, or give --binary OS/ARCH=FILE").Because(err)
		}
		if err != nil {
			clean()
			return nil, func() {}, fault.Invalidf("%s does not compile for %s", dir, p).Because(err)
		}
		list = append(list, plugin.Binary{OS: system, Arch: arch, File: file})
	}
	return list, clean, nil
}

// platforms lists what a package runs on.
func platforms(m manifest.Manifest) string {
	seen := map[string]bool{}
	for _, f := range m.Files {
		if f.OS != "" {
			seen[f.OS+"/"+f.Arch] = true
		}
	}
	if len(seen) == 0 {
		return "all"
	}
	return strings.Join(slices.Sorted(maps.Keys(seen)), " ")
}

// runLine is how a package of many files runs.
func runLine(m manifest.Manifest) string {
	if m.Run == nil {
		return ""
	}
	return strings.TrimSpace(strings.Join(append([]string{m.Run.Interpreter, m.Run.Command}, m.Run.Args...), " "))
}

func entryPoints(m manifest.Manifest) string {
	var out []string
	for _, group := range slices.Sorted(maps.Keys(m.EntryPoints)) {
		for _, name := range slices.Sorted(maps.Keys(m.EntryPoints[group])) {
			out = append(out, group+":"+name)
		}
	}
	return strings.Join(out, " ")
}
