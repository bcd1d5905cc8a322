package template

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
)

// sdkRoles are the roles of sallyport.plugin.v1.
var sdkRoles = []string{
	manifest.RoleVender, manifest.RoleRevoker, manifest.RoleNotifier, manifest.RoleVerifier, manifest.RoleExtension, manifest.RoleCLI,
}

// goRoles are those of one program in Go; a vender and a CLI plugin are programs of
// their own there.
var goRoles = []string{manifest.RoleRevoker, manifest.RoleNotifier, manifest.RoleVerifier, manifest.RoleExtension}

// bySDK reports whether a project is made by the templates of the SDKs. A vender in
// Go alone shares its template with agentkms.plugin.v1.
func (p Project) bySDK() bool {
	own := p.Contract == manifest.ContractSallyport
	return p.Contract == manifest.ContractKBS || own && (p.Language == Python || !slices.Contains(p.Roles, manifest.RoleVender))
}

// sdkValues are what the templates of the SDK see.
type sdkValues struct {
	Project
	Summary, RoleList, Imports, Objects            string
	Vender, Revoker, Notifier, Verifier, Extension bool
	CLI, Serves /* a server's role */, AboutKinds  bool
	KBS, Interpreted                               bool
	Parts                                          []string // of a program in Go, by the names of its files
}

// parts are the objects that main.py serves, and what it imports for each.
var parts = []struct{ role, object, imports string }{
	{manifest.RoleVender, "Tokens()", "Denied Issued Request Vender"},
	{manifest.RoleRevoker, "Revocations()", "Invalid Revocation Revoker"},
	{manifest.RoleNotifier, "People()", "Notification Notifier"},
	{manifest.RoleVerifier, "Judge()", "Check Denied Device Evidence Judgement Result Verifier"},
	{manifest.RoleExtension, "Routes()", "Event Extension"},
}

func (p Project) sdkValues() sdkValues {
	has := func(role string) bool { return slices.Contains(p.Roles, role) }
	list, err := json.Marshal(p.Roles)
	if err != nil {
		list = nil // unreachable: strings always encode
	}
	imports, objects := []string{"serve"}, []string{}
	for _, part := range parts {
		if has(part.role) {
			objects = append(objects, part.object)
			imports = append(imports, strings.Fields(part.imports)...)
		}
	}
	slices.Sort(imports)
	return sdkValues{
		Project: p, Summary: "Serves " + p.Name + " as " + strings.Join(p.Roles, ", "), RoleList: strings.ReplaceAll(string(list), ",", ", "),
		KBS: has(manifest.RoleKBS), Interpreted: p.Language == Python, Parts: p.Roles,
		Imports: strings.Join(slices.Compact(imports), ", "), Objects: strings.Join(objects, ", "),
		Vender: has(manifest.RoleVender), Revoker: has(manifest.RoleRevoker), Notifier: has(manifest.RoleNotifier),
		Verifier: has(manifest.RoleVerifier), Extension: has(manifest.RoleExtension), CLI: has(manifest.RoleCLI),
		Serves: len(objects) > 0 || has(manifest.RoleKBS), AboutKinds: has(manifest.RoleVender) || has(manifest.RoleRevoker),
	}
}

// sdkFiles makes a project in Python.
func (p Project) sdkFiles() ([]File, error) {
	v := p.sdkValues()
	names := []string{"sdk/plugin.json.tmpl", "sdk/pyproject.toml.tmpl", "sdk/README.md.tmpl", "python/gitignore.tmpl"}
	switch {
	case v.KBS:
		names = append(names, "kbs/main.py.tmpl", "kbs/test_plugin.py.tmpl")
	case v.Serves:
		names = append(names, "sdk/main.py.tmpl", "sdk/test_plugin.py.tmpl")
	default:
		names = append(names, "sdk/test_plugin.py.tmpl")
	}
	if v.CLI {
		names = append(names, "sdk/commands.py.tmpl")
	}
	if v.Vender {
		names = append(names, "conformance.json.tmpl")
	}
	var out []File
	for _, name := range names {
		f, err := render(name, v)
		if err != nil {
			return nil, err
		}
		out = append(out, f)
	}
	var lock []byte
	for name, wanted := range map[string]bool{"python/requirements.lock": v.Serves, "sdk/click.lock": v.CLI} {
		if !wanted {
			continue
		}
		text, err := source.ReadFile(name)
		if err != nil {
			return nil, fault.Internalf("read template %s", name).Because(err)
		}
		lock = append(lock, text...)
	}
	return append(out, File{"requirements.lock", lock}), nil
}

// goFiles makes a project in Go: a program that serves the roles, or the one of a
// role that is a program of its own.
func (p Project) goFiles() ([]File, error) {
	v := p.sdkValues()
	v.Objects = strings.Join(p.Roles, ", ")
	names := []string{"sdk/plugin.json.tmpl", "go/go.mod.tmpl", "go/gitignore.tmpl", "gosdk/README.md.tmpl"}
	if !v.CLI && !v.KBS {
		names = append(names, "gosdk/main.go.tmpl")
	}
	for _, r := range p.Roles {
		names = append(names, "gosdk/"+r+".go.tmpl", "gosdk/"+r+"_test.go.tmpl")
	}
	var out []File
	for _, name := range names {
		f, err := render(name, v)
		if err != nil {
			return nil, err
		}
		out = append(out, f)
	}
	return out, nil
}
