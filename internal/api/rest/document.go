package rest

import (
	"bytes"
	"encoding/json"
	"net/http"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"unicode"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/yaml"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// document describes the API in OpenAPI 3.1, from the routes that serve it.
// The library reflects types into schemas and writes the document; it sees no
// request.
func document(routes []route, version string) *huma.OpenAPI {
	schemas := huma.NewMapRegistry("#/components/schemas/", schemaName)
	doc := &huma.OpenAPI{
		OpenAPI: "3.1.0",
		Info: &huma.Info{
			Title: "Sallyport", Version: version, License: &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"},
			Description: "Short-lived credentials and secrets for agents, machines and confidential workloads. See docs/api.md.",
		},
		Components: &huma.Components{Schemas: schemas, SecuritySchemes: map[string]*huma.SecurityScheme{
			"certificate": {Type: "mutualTLS", Description: "A client certificate of the server's authority."},
			"session":     {Type: "http", Scheme: "bearer", BearerFormat: "JWT", Description: "A session token, with the certificate it is bound to."},
			"delegated":   {Type: "http", Scheme: "dpop", Description: "A delegated session token, with a proof of possession in the header DPoP (RFC 9449)."},
		}},
	}
	for _, r := range routes {
		doc.AddOperation(describe(r, schemas))
	}
	// Requests are read strictly; answers may grow.
	for name, schema := range schemas.Map() {
		if closed, ok := schema.AdditionalProperties.(bool); ok && !closed && !strings.HasSuffix(name, "Body") {
			schema.AdditionalProperties = nil
		}
	}
	return doc
}

// documentJSON is the document as /openapi.json serves it.
func documentJSON(routes []route, version string) ([]byte, error) {
	data, err := json.Marshal(document(routes, version))
	if err != nil {
		return nil, fault.Wrap(err, "write API document")
	}
	return data, nil
}

// documentYAML is the document as api/openapi.yaml keeps it.
func documentYAML(routes []route, version string) ([]byte, error) {
	data, err := documentJSON(routes, version)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := yaml.Convert(&out, bytes.NewReader(data)); err != nil {
		return nil, fault.Wrap(err, "write API document")
	}
	return out.Bytes(), nil
}

func describe(r route, schemas huma.Registry) *huma.Operation {
	op := &huma.Operation{
		OperationID: r.id, Method: r.method, Path: strings.ReplaceAll(r.path, "...}", "}"), Summary: r.summary, Description: r.about,
		Tags: []string{r.tag}, Responses: map[string]*huma.Response{},
	}
	if !r.open {
		op.Security = []map[string][]string{{"certificate": {}}, {"certificate": {}, "session": {}}, {"delegated": {}}}
	} else {
		op.Security = []map[string][]string{{}}
	}
	for _, name := range pathNames(r.path) {
		op.Parameters = append(op.Parameters, &huma.Param{Name: name, In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString}})
	}
	for _, p := range r.query {
		op.Parameters = append(op.Parameters, &huma.Param{Name: p.name, In: "query", Description: p.about, Schema: p.schema()})
	}
	for _, p := range r.headers() {
		op.Parameters = append(op.Parameters, &huma.Param{Name: p.name, In: "header", Description: p.about, Schema: p.schema()})
	}
	op.RequestBody = requestBody(r, schemas)
	success := &huma.Response{Description: http.StatusText(r.status)}
	switch r.out {
	case reflect.TypeFor[none]():
	case reflect.TypeFor[text](), reflect.TypeFor[download]():
		kind, _, _ := strings.Cut(r.kind, ";")
		success.Content = map[string]*huma.MediaType{kind: {Schema: bytesSchema(kind)}}
	default:
		success.Content = map[string]*huma.MediaType{"application/json": {Schema: schemas.Schema(r.out, true, "")}}
	}
	op.Responses[strconv.Itoa(r.status)] = success
	op.Responses["default"] = &huma.Response{
		Description: "What went wrong, in kinds: invalid 400, unauthenticated 401, denied 403, not_found 404, conflict 409, exhausted 429, internal 500, unavailable 503.",
		Content:     map[string]*huma.MediaType{"application/problem+json": {Schema: schemas.Schema(reflect.TypeFor[problem](), true, "")}},
	}
	return op
}

func requestBody(r route, schemas huma.Registry) *huma.RequestBody {
	kind, schema := binaryKind, bytesSchema(binaryKind)
	switch r.in {
	case reflect.TypeFor[none](), reflect.TypeFor[struct{}]():
		return nil
	case reflect.TypeFor[form]():
		kind, schema = "multipart/form-data", formSchema()
	case reflect.TypeFor[blob](), reflect.TypeFor[stream]():
	default:
		kind, schema = "application/json", schemas.Schema(r.in, true, "")
	}
	return &huma.RequestBody{
		Required: !r.optional, Content: map[string]*huma.MediaType{kind: {Schema: schema}},
		Description: "At most " + strconv.FormatInt(r.limit, 10) + " bytes.",
	}
}

func formSchema() *huma.Schema {
	return &huma.Schema{
		Type: huma.TypeObject, Required: []string{formPackage},
		Properties: map[string]*huma.Schema{formPackage: {}, formCustomer: {Type: huma.TypeString}},
	}
}

// bytesSchema describes bytes that are not JSON; OpenAPI 3.1 leaves binary
// content without a schema type.
func bytesSchema(kind string) *huma.Schema {
	if kind == binaryKind {
		return &huma.Schema{}
	}
	return &huma.Schema{Type: huma.TypeString}
}

func (p param) schema() *huma.Schema {
	switch {
	case p.integer:
		return &huma.Schema{Type: huma.TypeInteger}
	case p.boolean:
		return &huma.Schema{Type: huma.TypeBoolean}
	}
	return &huma.Schema{Type: huma.TypeString}
}

var pathName = regexp.MustCompile(`\{([a-z_]+)(?:\.\.\.)?\}`)

func pathNames(path string) []string {
	var out []string
	for _, m := range pathName.FindAllStringSubmatch(path, -1) {
		out = append(out, m[1])
	}
	return out
}

// schemaName names a schema after the view: subjectView is Subject, and a page
// of them SubjectPage.
func schemaName(t reflect.Type, hint string) string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	name := t.Name()
	if name == "" {
		name = hint
	}
	if _, item, isPage := strings.Cut(name, "["); isPage {
		item = item[strings.LastIndexByte(item, '.')+1:]
		return capital(strings.TrimSuffix(strings.TrimSuffix(item, "]"), "View")) + "Page"
	}
	return capital(strings.TrimSuffix(name, "View"))
}

func capital(name string) string {
	for i, c := range name {
		return string(unicode.ToUpper(c)) + name[i+len(string(c)):]
	}
	return name
}
