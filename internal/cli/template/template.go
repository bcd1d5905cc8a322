// Package template has the projects that plugin init makes: small plugins that
// build, test and run at once, in Go and Python with the SDKs, and in Python for
// agentkms.plugin.v1 from the published proto alone.
//
// It makes texts and writes nothing. Every project has a unit test, a
// plugin.json, requests for plugin conformance, and a README with the way to a
// running plugin.
package template

import (
	"bytes"
	"embed"
	"encoding/json"
	"go/format"
	"slices"
	"strings"
	text "text/template"

	agentkms "github.com/sallyport-project/sallyport/api/agentkms/plugin/v1"
	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
)

//go:embed *.tmpl go/*.tmpl gosdk kbs python sdk
var source embed.FS

// The languages.
const (
	Go     = "go"
	Python = "python"
)

// Project says what to make. All members but Contract are required.
type Project struct {
	Name      string
	Publisher string
	Kind      string
	Language  string
	Roles     []string
	// Contract is the wire contract; empty chooses agentkms.plugin.v1 where a role
	// is one of its own, or a vender in Go has others beside it, kbs.plugin.v1 for role
	// kbs, else sallyport.plugin.v1.
	Contract string
}

// File is one file of a project.
type File struct {
	Path string // plain name
	Text []byte
}

// served are the roles that have a template in every language.
var served = []string{manifest.RoleVender, manifest.RoleValidator, manifest.RoleAnalyzer, manifest.RoleSerializer}

// Roles lists the roles that have a template.
func Roles() []string {
	out := slices.Clone(served)
	for _, r := range append(slices.Clone(sdkRoles), manifest.RoleKBS) {
		if !slices.Contains(out, r) {
			out = append(out, r)
		}
	}
	return out
}

// Files makes the files of a project, sorted by name. A fault is Invalid and
// says which member to change.
func (p Project) Files() ([]File, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	if p.bySDK() {
		files := p.sdkFiles
		if p.Language == Go {
			files = p.goFiles
		}
		out, err := files()
		slices.SortFunc(out, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
		return out, err
	}
	names := []string{"plugin.json.tmpl", "conformance.json.tmpl"}
	for _, name := range p.sources() {
		names = append(names, p.Language+"/"+name)
	}
	var out []File
	for _, name := range names {
		f, err := p.file(name)
		if err != nil {
			return nil, err
		}
		out = append(out, f)
	}
	if p.Language == Python {
		out = append(out, File{"plugin.proto", []byte(agentkms.Proto())})
	}
	slices.SortFunc(out, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return out, nil
}

func (p *Project) check() error {
	switch {
	case !manifest.ValidName(p.Name):
		return fault.Invalidf("the name of a plugin has lower-case letters, digits and inner hyphens, at most 64: give --name")
	case !manifest.ValidName(p.Publisher):
		return fault.Invalidf("the name of a publisher has lower-case letters, digits and inner hyphens, at most 64: give --publisher")
	case !manifest.ValidKind(p.Kind):
		return fault.Invalidf("a credential kind has lower-case letters, digits, dots and hyphens, at most 64: give --kind")
	case p.Language != Go && p.Language != Python:
		return fault.Invalidf("there are templates for --lang go and --lang python")
	case len(p.Roles) == 0:
		return fault.Invalidf("say what the plugin does: --role %s", strings.Join(served, ", "))
	}
	for i, r := range p.Roles {
		switch {
		case !slices.Contains(Roles(), r):
			return fault.Invalidf("there is no template for role %q; there are %s", r, strings.Join(Roles(), ", "))
		case slices.Contains(p.Roles[:i], r):
			return fault.Invalidf("role %s is given twice", r)
		}
	}
	return p.choose()
}

// choose fills in the contract, or checks that the roles are of it.
func (p *Project) choose() error {
	only := func(list []string) bool {
		return !slices.ContainsFunc(p.Roles, func(r string) bool { return !slices.Contains(list, r) })
	}
	own := only(sdkRoles) && (p.Language == Python || len(p.Roles) == 1 || only(goRoles))
	kbs := only([]string{manifest.RoleKBS})
	if p.Contract == "" {
		p.Contract = manifest.ContractAgentKMS
		switch {
		case own:
			p.Contract = manifest.ContractSallyport
		case kbs:
			p.Contract = manifest.ContractKBS
		}
	}
	switch {
	case p.Contract == manifest.ContractKBS && kbs:
	case p.Contract == manifest.ContractAgentKMS && only(served):
	case p.Contract == manifest.ContractSallyport && own:
	case p.Contract != manifest.ContractAgentKMS && p.Contract != manifest.ContractSallyport && p.Contract != manifest.ContractKBS:
		return fault.Invalidf("the contract is %s, %s or %s", manifest.ContractSallyport, manifest.ContractAgentKMS, manifest.ContractKBS)
	case p.Language == Go && only(sdkRoles):
		return fault.Invalidf("one template in Go has %s, each of the others stands alone: make several projects, or join them by hand", strings.Join(goRoles, ", "))
	default:
		return fault.Invalidf("roles %s are not of one contract that has a template; %s has %s, and %s stands alone",
			strings.Join(p.Roles, ", "), manifest.ContractAgentKMS, strings.Join(served, ", "), manifest.RoleKBS)
	}
	return nil
}

// sources are the files of the language that the roles need.
func (p Project) sources() []string {
	v := p.values()
	parts := map[string]bool{
		"scope": v.Own || v.Validator, "vender": v.Vender, "analyzer": v.Analyzer, "serializer": v.Serializer,
	}
	list := []string{"README.md.tmpl", "gitignore.tmpl"}
	if p.Language == Go {
		list = append(list, "go.mod.tmpl", "main.go.tmpl")
	} else {
		list = append(list, "main.py.tmpl", "refused.py.tmpl", "plugin_pb2.py", "requirements.lock")
	}
	for _, part := range []string{"scope", "vender", "analyzer", "serializer"} {
		switch {
		case !parts[part]:
		case p.Language == Go:
			list = append(list, part+".go.tmpl", part+"_test.go.tmpl")
		default:
			list = append(list, part+".py.tmpl", "test_"+part+".py.tmpl")
		}
	}
	return list
}

// values are what templates see. Own says that the contract is
// sallyport.plugin.v1; the roles are those of agentkms.plugin.v1.
type values struct {
	Project
	Summary, RoleList                            string
	Interpreted                                  bool
	Own, Validator, Analyzer, Serializer, Vender bool
}

func (p Project) values() values {
	list, err := json.Marshal(p.Roles)
	if err != nil {
		list = nil // unreachable: strings always encode
	}
	return values{
		Project:     p,
		Summary:     "Serves credentials of kind " + p.Kind + " as " + strings.Join(p.Roles, ", "),
		Interpreted: p.Language == Python,
		RoleList:    strings.ReplaceAll(string(list), ",", ", "),
		Own:         p.Contract == manifest.ContractSallyport,
		Validator:   slices.Contains(p.Roles, manifest.RoleValidator), Analyzer: slices.Contains(p.Roles, manifest.RoleAnalyzer),
		Serializer: slices.Contains(p.Roles, manifest.RoleSerializer), Vender: slices.Contains(p.Roles, manifest.RoleVender),
	}
}

// file renders one file. What does not end in .tmpl is copied.
func (p Project) file(name string) (File, error) { return render(name, p.values()) }

func render(name string, values any) (File, error) {
	data, err := source.ReadFile(name)
	if err != nil {
		return File{}, fault.Internalf("read template %s", name).Because(err)
	}
	path, isTemplate := strings.CutSuffix(name[strings.LastIndexByte(name, '/')+1:], ".tmpl")
	if path == "gitignore" {
		path = "." + path
	}
	if !isTemplate {
		return File{path, data}, nil
	}
	t, err := text.New(name).Delims("[[", "]]").Option("missingkey=error").Parse(string(data))
	if err != nil {
		return File{}, fault.Internalf("parse template %s", name).Because(err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, values); err != nil {
		return File{}, fault.Internalf("execute template %s", name).Because(err)
	}
	out := b.Bytes()
	if strings.HasSuffix(path, ".go") {
		if out, err = format.Source(out); err != nil {
			return File{}, fault.Internalf("format template %s", name).Because(err)
		}
	}
	return File{path, out}, nil
}
