package policy

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-project/sallyport/internal/fault"
)

func snpClaims() map[string]any { return submods("snp", "affirming") }

func submods(tee, status string) map[string]any {
	return object{"submods": object{"cpu0": object{
		"ear.status":                      status,
		"ear.veraison.annotated-evidence": object{tee: object{}, "report_data": "00"},
	}}}
}

func resource(text string) Document {
	return Document{Name: ResourceName, Version: 7, Kind: KBSResource, Source: text}
}

// A document as operators of Trustee write them: a default, the facts of the
// request below data, old-style assignment of a default.
const byPath = `package policy
import rego.v1

default allow = false

path := data["resource-path"]

allow if {
	data.plugin == "resource"
	count(path) == 3
	path[0] == "team-a"
	data.query.version == "1.0.0"
	some name, submod in input.submods
	startswith(name, "cpu")
	submod["ear.status"] in {"affirming", "warning"}
}`

func TestSet_ResourceAllowed(t *testing.T) {
	path := []string{"team-a", "key", "1"}
	version := map[string]string{"version": "1.0.0"}
	mixed := submods("snp", "affirming")
	mixed["submods"].(map[string]any)["gpu0"] = submods("sampledevice", "warning")["submods"].(map[string]any)["cpu0"]
	tests := []struct {
		name   string
		text   string
		plugin string
		path   []string
		query  map[string]string
		claims map[string]any
		want   bool
	}{
		{"path by its index", "package policy\nallow if data[\"resource-path\"][0] == \"team-a\"", "resource", path, nil, snpClaims(), true},
		{"path by another index", "package policy\nallow if data[\"resource-path\"][1] == \"team-a\"", "resource", path, nil, snpClaims(), false},
		{"path by an index beyond its end", "package policy\nallow if not data[\"resource-path\"][3]", "resource", path, nil, snpClaims(), true},
		{"default allows a real TEE", resourceText, "resource", path, nil, snpClaims(), true},
		{"default allows a warning", resourceText, "resource", path, nil, submods("snp", "warning"), true},
		{"default refuses what is contradicted", resourceText, "resource", path, nil, submods("snp", "contraindicated"), false},
		{"default refuses what has no status", resourceText, "resource", path, nil, object{"submods": object{"cpu0": object{"ear.veraison.annotated-evidence": object{"snp": object{}}}}}, false},
		{"default refuses a word that is no status", resourceText, "resource", path, nil, submods("snp", "none"), false},
		{"default refuses the sample TEE", resourceText, "resource", path, nil, submods("sample", "affirming"), false},
		{"default refuses a sample device beside a real TEE", resourceText, "resource", path, nil, mixed, false},
		{"default refuses other plugins", resourceText, "nebula-ca", path, nil, snpClaims(), false},
		{"default refuses the plugin's name in other letters", resourceText, "Resource", path, nil, snpClaims(), false},
		{"default refuses empty claims", resourceText, "resource", path, nil, object{}, false},
		{"default refuses no claims", resourceText, "resource", path, nil, nil, false},
		{"default refuses no submods", resourceText, "resource", path, nil, object{"submods": object{}}, false},
		{"default refuses submods that are a list", resourceText, "resource", path, nil, object{"submods": []any{"x"}}, false},
		{"default refuses a submod without evidence", resourceText, "resource", path, nil, object{"submods": object{"cpu0": object{"ear.status": "affirming"}}}, false},
		{"allow all allows", resourceAllowAll, "any", nil, nil, nil, true},
		{"deny all denies", resourceDenyAll, "resource", path, nil, snpClaims(), false},
		{"affirming allows", resourceAffirming, "resource", path, nil, submods("sample", "affirming"), true},
		{"affirming refuses a warning", resourceAffirming, "resource", path, nil, submods("snp", "warning"), false},
		{"affirming refuses one part of two", resourceAffirming, "resource", path, nil, mixed, false},
		{"affirming refuses no parts", resourceAffirming, "resource", path, nil, object{"submods": object{}}, false},
		{"a path and a query are seen", byPath, "resource", path, version, submods("snp", "warning"), true},
		{"a missing query is seen", byPath, "resource", path, nil, submods("snp", "warning"), false},
		{"a path has segments, not a prefix", byPath, "resource", []string{"team-a-secret", "key", "1"}, version, snpClaims(), false},
		{"a slash within a segment does not make two", byPath, "resource", []string{"team-a/key", "1", "2"}, version, snpClaims(), false},
		{"a deeper path is another path", byPath, "resource", []string{"team-a", "key", "1", "v1"}, version, snpClaims(), false},
		{"a string is not true", "package policy\nallow := \"true\" if input.submods\nallow := true if input.never", "resource", path, nil, snpClaims(), false},
		{"an object is not true", "package policy\nallow := x if { some x in [{\"a\": 1}, true]; is_object(x) }", "resource", path, nil, snpClaims(), false},
		{"a contradiction is not true", "package policy\nallow if input.submods\nallow := false if input.submods", "resource", path, nil, snpClaims(), false},
		{"claims cannot stand in for the request", "package policy\nallow if input.plugin == \"resource\"", "resource", path, nil, snpClaims(), false},
		{"the request cannot stand in for rules", "package policy\nallow if data.policy.allowed", "resource", path, map[string]string{"allowed": "true"}, snpClaims(), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := mustCompile(t, resource(tt.text))
			d, err := s.ResourceAllowed(context.Background(), ResourceRequest{tt.plugin, tt.path, tt.query, "GET"}, Claims{Members: tt.claims})
			if err != nil {
				t.Fatal(err)
			}
			if d.Allow != tt.want || (len(d.Reasons) == 0) != tt.want {
				t.Errorf("got %+v, want allow %v", d, tt.want)
			}
			if !cmp.Equal(d.Documents, []string{"resource-policy@7"}) {
				t.Errorf("documents %v", d.Documents)
			}
		})
	}
	t.Run("nothing is allowed without a document", func(t *testing.T) {
		if d, err := mustCompile(t).ResourceAllowed(context.Background(), ResourceRequest{Plugin: "resource", Path: path}, Claims{Members: snpClaims()}); err != nil || d.Allow {
			t.Errorf("got %+v, %v", d, err)
		}
	})
	t.Run("a document that does not end is unavailable", func(t *testing.T) {
		s := mustCompile(t, resource("package policy\nallow if { some a in numbers.range(1, 100000); some b in numbers.range(1, 100000); a * b == -1 }"))
		s.limit = Limit
		if d, err := s.ResourceAllowed(context.Background(), ResourceRequest{Plugin: "resource", Path: path}, Claims{Members: snpClaims()}); !fault.Is(err, fault.Unavailable) || d.Allow {
			t.Errorf("got %+v, %v", d, err)
		}
	})
}

// Each path has one document that decides: the most specific one, alone.
func TestSet_ResourceAllowed_ByScope(t *testing.T) {
	document := func(name, scope, condition string) Document {
		text := "package policy\nallow if " + condition
		if scope != "" {
			text += "\napplies_to := \"" + scope + "\""
		}
		return Document{Name: name, Version: 1, Kind: KBSResource, Source: text}
	}
	s := mustCompile(
		t, document("all", "", `data.plugin == "resource"`), document("team-a", "resource/team-a", "false"),
		document("a-keys", "resource/team-a/key", `data.method == "GET"`), document("vend", "external/credentials", "true"),
	)
	for _, c := range []struct {
		request  ResourceRequest
		document string
		allow    bool
	}{
		{ResourceRequest{Plugin: "resource", Path: []string{"team-b", "key", "1"}}, "all@1", true},
		{ResourceRequest{Plugin: "resource", Path: []string{"team-a", "image", "1"}}, "team-a@1", false},
		{ResourceRequest{Plugin: "resource", Path: []string{"team-a", "key", "1"}, Method: "GET"}, "a-keys@1", true},
		{ResourceRequest{Plugin: "resource", Path: []string{"team-a", "key", "1"}, Method: "DELETE"}, "a-keys@1", false},
		{ResourceRequest{Plugin: "resource", Path: []string{"team-a", "keys", "1"}, Method: "GET"}, "team-a@1", false}, // whole segments
		{ResourceRequest{Plugin: "resource", Path: []string{"team-a/key", "1", "2"}, Method: "GET"}, "all@1", true},
		{ResourceRequest{Plugin: "resource"}, "all@1", true},
		{ResourceRequest{Plugin: "external", Path: []string{"credentials", "x"}}, "vend@1", true},
		{ResourceRequest{Plugin: "external", Path: []string{"credentials2"}}, "all@1", false},
		{ResourceRequest{Plugin: "external"}, "all@1", false},
	} {
		d, err := s.ResourceAllowed(context.Background(), c.request, Claims{Members: snpClaims()})
		if err != nil || d.Allow != c.allow || !cmp.Equal(d.Documents, []string{c.document}) {
			t.Errorf("%+v: %+v %v", c.request, d, err)
		}
	}
	if _, err := Compile([]Document{document("a", "resource/x", "true"), document("b", "resource/x", "false")}, time.Now); !fault.Is(err, fault.Invalid) {
		t.Errorf("two documents for the same paths: %v", err)
	}
	for _, rule := range []string{
		`applies_to := ""`, `applies_to := "a//b"`, `applies_to := "/a"`, `applies_to := ["a"]`, `applies_to := input.x`, `applies_to := "a" if input.x`,
		"applies_to := \"a\"\napplies_to := \"b\"", `applies_to contains "a"`, `applies_to(x) := "a"`, `default applies_to := "a"`,
	} {
		d := Document{Name: "x", Version: 1, Kind: KBSResource, Source: "package policy\nallow if true\n" + rule}
		if _, err := Compile([]Document{d}, time.Now); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", rule, err)
		}
	}
}

type references map[string]any

func (r references) ReferenceValue(_ context.Context, id string) (any, bool, error) {
	if err, ok := r[id].(error); ok {
		return nil, false, err
	}
	v, ok := r[id]
	return v, ok, nil
}

func sampleEvidence(change object) map[string]any {
	in := object{
		"sample": object{
			"svn": "1", "launch_digest": "abcde", "platform_version": object{"major": 1, "minor": 4}, "debug": false,
			"report_data": "AA==",
		},
		"report_data": "00", "init_data": "",
	}
	merge(in, change)
	return in
}

func sampleReferences(without ...string) references {
	r := references{
		"launch_digest": []any{"abcde"}, "svn": []string{"1"}, "major_version": 1, "minimum_minor_version": 4,
	}
	for _, id := range without {
		delete(r, id)
	}
	return r
}

func TestSet_Appraise_default(t *testing.T) {
	tests := []struct {
		name                             string
		input                            map[string]any
		refs                             ReferenceValues
		hardware, executables, configure int
	}{
		{"affirms what matches", sampleEvidence(nil), sampleReferences(), 2, 3, 2},
		{"knows nothing without reference values", sampleEvidence(nil), references{}, 97, 33, 2},
		{"knows nothing without a source of values", sampleEvidence(nil), nil, 97, 33, 2},
		{"sees an unknown launch digest", sampleEvidence(object{"sample": object{"launch_digest": "x"}}), sampleReferences(), 2, 33, 2},
		{"sees an unknown svn", sampleEvidence(object{"sample": object{"svn": "0"}}), sampleReferences(), 97, 3, 2},
		{"sees an old minor version", sampleEvidence(object{"sample": object{"platform_version": object{"minor": 3}}}), sampleReferences(), 97, 3, 2},
		{"sees another major version", sampleEvidence(object{"sample": object{"platform_version": object{"major": 2}}}), sampleReferences(), 97, 3, 2},
		{"does not take a missing minimum as met", sampleEvidence(nil), sampleReferences("minimum_minor_version"), 97, 3, 2},
		{"does not take a version that is no number", sampleEvidence(object{"sample": object{"platform_version": object{"minor": "9"}}}), sampleReferences(), 97, 3, 2},
		{"sees debug mode", sampleEvidence(object{"sample": object{"debug": true}}), sampleReferences(), 2, 3, 36},
		{"sees a missing debug flag", sampleEvidence(object{"sample": object{"debug": nil}}), sampleReferences(), 2, 3, 36},
		{"recognises no other TEE", object{"unknown": object{}}, sampleReferences(), 97, 33, 36},
	}
	s := mustCompile(t, Installed(noon)...)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := s.Appraise(context.Background(), CPUName, tt.input, tt.refs)
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]int{
				"hardware": tt.hardware, "executables": tt.executables, "configuration": tt.configure, "file-system": 0,
				"instance-identity": 0, "runtime-opaque": 0, "storage-opaque": 0, "sourced-data": 0,
			}
			if diff := cmp.Diff(want, got.Claims); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestSet_Appraise_namesWhatInitialDataNames(t *testing.T) {
	s := mustCompile(t, Installed(noon)...)
	container := object{"OCI": object{
		"Annotations": object{"io.kubernetes.cri.image-name": "registry/app:1"},
		"Process":     object{"User": object{"UID": 1000}},
	}}
	in := sampleEvidence(object{"init_data_claims": object{"agent_policy_claims": object{"containers": []any{container}}}})
	got, err := s.Appraise(context.Background(), CPUName, in, sampleReferences())
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Extensions) != 1 || got.Extensions[0].Name != "ear.trustee.identifiers" || got.Extensions[0].Key != -18 {
		t.Fatalf("extensions %+v", got.Extensions)
	}
	validated := got.Extensions[0].Value.(map[string]any)["validated"].(map[string]any)
	if !cmp.Equal(validated["container_images"], []any{"registry/app:1"}) || validated["container_uids"] == nil {
		t.Errorf("identifiers %v", validated)
	}
}

func TestSet_Appraise_refusesWhatIsNoTrustVector(t *testing.T) {
	for _, answer := range []string{
		`{}`, `{"hardware": 128}`, `{"hardware": -129}`, `{"hardware": 1.5}`, `{"hardware": "2"}`, `{"hardwear": 2}`,
		`{"hardware": 2, 1: 2}`, `{"hardware": null}`, `{"hardware": to_number("x")}`,
		"{\"hardware\": 2}\nextensions := 1", "{\"hardware\": 2}\nextensions := [1]",
		"{\"hardware\": 2}\nextensions := [{\"name\": \"a\"}]", "{\"hardware\": 2}\nextensions := [{\"name\": \"\", \"value\": 1}]",
		"{\"hardware\": 2}\nextensions := [{\"name\": \"a\", \"key\": \"1\", \"value\": 1}]",
		"{\"hardware\": 2}\nextensions := [{\"name\": \"a\", \"value\": 1, \"x\": 1}]",
		"{\"hardware\": 2}\nextensions := [{\"name\": \"a\", \"value\": i} | some i in numbers.range(1, 100)]",
		"{\"hardware\": 2} if input.never",
	} {
		t.Run(answer, func(t *testing.T) {
			s := mustCompile(t, Document{Name: "p_cpu", Version: 1, Kind: KBSAttestation, Source: "package policy\ntrust_claims := " + answer})
			got, err := s.Appraise(context.Background(), "p_cpu", sampleEvidence(nil), nil)
			if !fault.Is(err, fault.Denied) || got.Claims != nil {
				t.Errorf("got %+v, %v; want Denied", got, err)
			}
		})
	}
}

func TestSet_Appraise_faults(t *testing.T) {
	s := mustCompile(t, Installed(noon)...)
	ctx := context.Background()
	if _, err := s.Appraise(ctx, "other_cpu", sampleEvidence(nil), nil); !fault.Is(err, fault.NotFound) {
		t.Errorf("unknown document: %v", err)
	}
	if _, err := s.Appraise(ctx, ResourceName, sampleEvidence(nil), nil); !fault.Is(err, fault.NotFound) {
		t.Errorf("document of another kind: %v", err)
	}
	broken := sampleReferences()
	broken["svn"] = errors.New("canary: the store is gone")
	_, err := s.Appraise(ctx, CPUName, sampleEvidence(nil), broken)
	if !fault.Is(err, fault.Unavailable) || strings.Contains(fault.Public(err), "canary") {
		t.Errorf("broken reference values: %v", err)
	}
}
