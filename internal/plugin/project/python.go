package project

import (
	"context"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/toml"
)

const maxProjectFile = 1 << 20

// vendorFolder has the dependencies, in packages that were made from projects.
const vendorFolder = "vendor"

// Python is a project in Python.
type Python struct {
	Folder
	Lock   string // file of locked requirements; empty: requirements.lock beside the project, if it is there
	Wheels string // folder with the wheels; empty: they are downloaded by pip
	Python string // the interpreter whose pip downloads; empty: python3
}

// metadata is what a project or a wheel says of itself.
type metadata struct {
	name, version, summary, source string
	needs                          []string // requirements, as the project writes them
	groups                         map[string]map[string]string
}

// IsPython reports whether a folder has a pyproject.toml.
func IsPython(dir string) bool {
	info, err := os.Stat(filepath.Join(dir, "pyproject.toml"))
	return err == nil && info.Mode().IsRegular()
}

// Pack reads the project: name, version and entry points from pyproject.toml, if
// there is one, its files, the wheels of its lock file, and our SDK if the project
// depends on it. Faults are Invalid, or Unavailable if wheels cannot be downloaded.
func (p Python) Pack(ctx context.Context) (Content, error) {
	var about metadata
	if IsPython(p.Dir) {
		text, err := readFile(filepath.Join(p.Dir, "pyproject.toml"), maxProjectFile)
		if err != nil {
			return Content{}, err
		}
		if about, err = readPyproject(text); err != nil {
			return Content{}, err
		}
		if p.Manifest, err = about.into(p.Manifest); err != nil {
			return Content{}, err
		}
	}
	m, err := p.manifest()
	if err != nil {
		return Content{}, err
	}
	files, left, err := walk(p.Dir, rule{drop: append(slices.Clone(p.LeaveOut), vendorFolder)})
	if err != nil {
		return Content{}, err
	}
	left = slices.DeleteFunc(left, func(name string) bool {
		inManifest, _ := path.Match("migrations/*.sql", name)
		return inManifest || name == "plugin.json" || name == "pyproject.toml" || name == "requirements.lock"
	})
	own := "."
	if hasFolder(files, "src") {
		own = "src"
	}
	content := Content{Spec: plugin.Spec{Manifest: m, Sources: files}, LeftOut: left}
	if m.Run.Interpreter == "" && m.Run.Command == "" {
		m.Run.Interpreter = "python3"
	}
	wheels, err := p.wheels(ctx)
	if err != nil {
		return Content{}, err
	}
	if err := content.vendor(wheels); err != nil {
		return Content{}, err
	}
	carried, err := content.sdk(about.needs, wheels)
	if err != nil {
		return Content{}, err
	}
	if err := content.start(); err != nil {
		return Content{}, err
	}
	if len(m.Run.SearchPath) == 0 {
		m.Run.SearchPath = []string{own}
		if len(wheels)+len(carried) > 0 {
			m.Run.SearchPath = append(m.Run.SearchPath, vendorFolder)
		}
	}
	return content, nil
}

func hasFolder(files []plugin.Source, folder string) bool {
	return slices.ContainsFunc(files, func(s plugin.Source) bool { return strings.HasPrefix(s.Path, folder+"/") })
}

// readPyproject reads what of PEP 621 goes into a manifest.
func readPyproject(text []byte) (metadata, error) {
	doc, err := toml.Parse(string(text))
	if err != nil {
		return metadata{}, fault.Invalidf("pyproject.toml, %s", fault.Public(err)).Because(err)
	}
	table, ok := doc["project"].(map[string]any)
	if !ok {
		return metadata{}, fault.Invalidf("pyproject.toml has no table [project] with name and version")
	}
	about := metadata{groups: map[string]map[string]string{}}
	for member, to := range map[string]*string{"name": &about.name, "version": &about.version, "description": &about.summary} {
		if v, ok := table[member]; ok {
			if *to, ok = v.(string); !ok {
				return metadata{}, fault.Invalidf("pyproject.toml: project.%s must be a string", member)
			}
		}
	}
	if urls, ok := table["urls"].(map[string]any); ok {
		for name, v := range urls {
			if url, ok := v.(string); ok && slices.Contains([]string{"source", "repository"}, strings.ToLower(name)) {
				about.source = url
			}
		}
	}
	if about.name == "" || about.version == "" {
		return metadata{}, fault.Invalidf("pyproject.toml: project.name and project.version must be written down; values that a build tool computes are not read")
	}
	if needs, ok := table["dependencies"].([]any); ok {
		for _, v := range needs {
			if need, ok := v.(string); ok {
				about.needs = append(about.needs, need)
			}
		}
	}
	groups, _ := table["entry-points"].(map[string]any)
	for _, group := range []string{manifest.GroupExtensions, manifest.GroupCLI} {
		points, ok := groups[group].(map[string]any)
		if !ok {
			continue
		}
		about.groups[group] = map[string]string{}
		for name, v := range points {
			ref, ok := v.(string)
			if !ok {
				return metadata{}, fault.Invalidf("pyproject.toml: entry point %q of %s must be a string", name, group)
			}
			about.groups[group][name] = strings.ReplaceAll(ref, " ", "")
		}
	}
	return about, nil
}

// into completes a manifest. What both say must agree.
func (a metadata) into(m manifest.Manifest) (manifest.Manifest, error) {
	for _, v := range []struct{ what, said, here string }{{"name", m.Name, plainName(a.name)}, {"version", m.Version, a.version}} {
		if v.said != "" && v.said != v.here {
			return m, fault.Invalidf("plugin.json says %s %q and the project says %q: let them agree, or leave it out of plugin.json", v.what, v.said, v.here)
		}
	}
	m.Name, m.Version = plainName(a.name), a.version
	if m.Summary == "" {
		m.Summary = a.summary
	}
	if m.Provenance == nil && a.source != "" {
		m.Provenance = &manifest.Provenance{Source: a.source}
	}
	m.Roles = slices.Clone(m.Roles)
	for _, g := range slices.Sorted(maps.Keys(a.groups)) {
		role := map[string]string{manifest.GroupExtensions: manifest.RoleExtension, manifest.GroupCLI: manifest.RoleCLI}[g]
		if !slices.Contains(m.Roles, role) {
			m.Roles = append(m.Roles, role)
		}
	}
	if len(a.groups) > 0 {
		m.EntryPoints = a.groups
	}
	return m, nil
}

// Undeclared is the manifest of a project that has no plugin.json: it offers its
// entry points, and what it does outside is not known.
func Undeclared(publisher string) manifest.Manifest {
	return manifest.Manifest{
		Schema: manifest.Schema, Publisher: publisher, Contract: manifest.ContractSallyport,
		HostAPI: manifest.Range{Min: manifest.HostAPI, Max: manifest.HostAPI},
		Effects: manifest.EffectsRemote, Revocation: manifest.Revocation{Needs: manifest.NeedsNone},
		Tier: manifest.TierFree, Audience: manifest.AudienceAny,
	}
}
