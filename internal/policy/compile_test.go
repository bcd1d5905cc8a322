package policy

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-project/sallyport/internal/fault"
)

func TestCompile_refusesBrokenDocuments(t *testing.T) {
	const pkg = "package sallyport\n"
	tests := []struct {
		name, text string
		kind       Kind
		line       int
		reason     string // part of it
	}{
		{"empty", "", Sallyport, 0, "empty"},
		{"syntax", pkg + "release := {", Sallyport, 2, "unexpected"},
		{"rules of the old language", pkg + "release = {\"allow\": false} { true }", Sallyport, 2, "`if` keyword is required"},
		{"unknown name", pkg + "release := {\"allow\": nobody}", Sallyport, 2, "nobody"},
		{"recursion", pkg + "release := {\"allow\": a}\na if b\nb if a", Sallyport, 3, "recursive"},
		{"wrong package", "package policy\nrelease := {\"allow\": false}", Sallyport, 1, "package sallyport"},
		{"package below", "package sallyport.team\nrelease := {\"allow\": false}", Sallyport, 1, "package sallyport"},
		{"no verb", pkg + "relaese := {\"allow\": false}", Sallyport, 1, "no rule answers a verb"},
		{"default", pkg + "default release := {\"allow\": false}", Sallyport, 2, "vetoes"},
		{"function", pkg + "release(x) := {\"allow\": false}", Sallyport, 2, "not a function"},
		{"set", pkg + "release contains {\"allow\": false}", Sallyport, 2, "one answer"},
		{"member alone", pkg + "release.allow := true", Sallyport, 2, "one answer"},
		{"member by key", pkg + "release[\"allow\"] := true", Sallyport, 2, "one answer"},
		{"boolean", pkg + "\nrelease if input.x", Sallyport, 3, "must answer an object"},
		{"computed number", pkg + "release := count([1])", Sallyport, 2, "must answer an object"},
		{"allow missing", pkg + "release := {\"reasons\": [\"x\"]} if input.x", Sallyport, 2, "member allow"},
		{"allow misspelt", pkg + "release := {\"allow\": false, \"reason\": [\"x\"]} if input.x", Sallyport, 2, "no member \"reason\""},
		{"allow a string", pkg + "release := {\"allow\": \"yes\", \"reasons\": [input.x]}", Sallyport, 2, "release.allow must be true or false"},
		{"in an else branch", pkg + "release := {\"allow\": false} if input.x else := {\"alow\": true}", Sallyport, 2, "no member \"alow\""},
		{"bounds misspelt", pkg + "release := {\"allow\": true, \"bounds\": {\"max_ttl\": 5, \"kind\": input.x}}", Sallyport, 2, "release.bounds has no member \"max_ttl\""},
		{"ttl too long", pkg + "release := {\"allow\": true, \"bounds\": {\"kind\": input.x, \"max_ttl_seconds\": 31536001}}", Sallyport, 2, "from 1 to 31536000"},
		{"release without an end", pkg + "release := {\"allow\": true, \"bounds\": {\"kind\": \"ssh-user-cert\"}}", Sallyport, 2, "max_ttl_seconds is missing"},
		{"release without a kind", pkg + "release := {\"allow\": true, \"bounds\": {\"max_ttl_seconds\": 5}}", Sallyport, 2, "kind is missing"},
		{"resource without allow", "package policy\nresult := true", KBSResource, 1, "defines the rule allow"},
		{"resource that answers a string", "package policy\nallow := \"yes\"", KBSResource, 2, "allow must be a boolean"},
		{"resource of the old language", "package policy\nallow { true }", KBSResource, 2, "`if` keyword is required"},
		{"appraisal without claims", "package policy\nallow := true", KBSAttestation, 1, "defines the rule trust_claims"},
		{"appraisal of a number", "package policy\ntrust_claims := 2", KBSAttestation, 2, "must answer an object"},
		{"reference values elsewhere", "package policy\nallow if query_reference_value(\"x\")", KBSResource, 2, "query_reference_value"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Compile([]Document{doc("fine", sshAllow), {Name: "bad", Version: 3, Kind: tt.kind, Source: tt.text}}, clock)
			if !fault.Is(err, fault.Invalid) {
				t.Fatalf("got %v, want Invalid", err)
			}
			found := Problems(err)
			if len(found) == 0 {
				t.Fatalf("no problems in %v", err)
			}
			p := found[0]
			if p.Document != "bad" || p.Line != tt.line || !strings.Contains(p.Reason, tt.reason) {
				t.Errorf("got %v, want line %d and %q", p, tt.line, tt.reason)
			}
			if !strings.Contains(fault.Public(err), p.String()) {
				t.Errorf("public text %q does not show %v", fault.Public(err), p)
			}
		})
	}
}

// What a document may not even name.
func TestCompile_refusesWhatLeavesTheSandbox(t *testing.T) {
	for _, call := range []string{
		`http.send({"method": "GET", "url": "http://127.0.0.1/"})`, `net.lookup_ip_addr("localhost")`,
		`net.cidr_expand("10.0.0.0/8")`, `net.cidr_merge(["10.0.0.0/8"])`, `opa.runtime()`, `io.jwt.decode("a.b.c")`, `crypto.sha256("x")`,
		`crypto.x509.parse_certificates("x")`, `rand.intn("x", 10)`, `uuid.rfc4122("x")`, `rego.parse_module("a", "b")`,
		`rego.metadata.rule()`, `trace("x")`, `providers.aws.sign_req({}, {}, 1)`,
		`json.match_schema({}, {"$ref": "http://127.0.0.1/"})`, `yaml.unmarshal("a: b")`, `bits.lsh(1, 100000000000)`,
		`strings.render_template("{{.}}", {})`, `graphql.is_valid("", "")`,
	} {
		t.Run(call, func(t *testing.T) {
			for _, k := range []Kind{Sallyport, KBSResource, KBSAttestation} {
				entry := map[Kind]string{Sallyport: "release := {\"allow\": false}", KBSResource: "allow := true", KBSAttestation: "trust_claims := {}"}[k]
				_, err := Compile([]Document{{Name: "bad", Version: 1, Kind: k, Source: "package " + packageOf(k) + "\n" + entry + " if {\n\t" + call + "\n}"}}, clock)
				if !fault.Is(err, fault.Invalid) || len(Problems(err)) == 0 {
					t.Errorf("%s: got %v, want Invalid", k, err)
				}
			}
		})
	}
}

// A name that the engine does not have would silently do nothing.
func TestSandbox_namesExist(t *testing.T) {
	if got, want := len(vocabulary(Sallyport).Builtins), len(allowed); got != want {
		t.Errorf("%d of %d names exist in the engine", got, want)
	}
	if got, want := len(vocabulary(KBSAttestation).Builtins), len(allowed)+1; got != want {
		t.Errorf("%d of %d names exist for attestation", got, want)
	}
	for _, b := range vocabulary(Sallyport).Builtins {
		if b.Nondeterministic && b.Name != "time.now_ns" {
			t.Errorf("%s is not repeatable", b.Name)
		}
	}
}

func TestCompile_refusesWrongSets(t *testing.T) {
	allow := func(name string) Document {
		return Document{Name: name, Version: 1, Kind: KBSResource, Source: resourceDenyAll}
	}
	many := make([]Document, 0, MaxDocuments+1)
	for i := range MaxDocuments + 1 {
		many = append(many, doc("d"+strings.Repeat("x", i%90)+string(rune('a'+i/90)), `release := {"allow": false}`))
	}
	tests := map[string][]Document{
		"same name twice":       {doc("a", sshAllow), doc("a", sshAllow)},
		"two resource policies": {allow("a"), allow("b")},
		"bad name":              {doc("a/b", sshAllow)},
		"name with a version":   {doc("a@1", sshAllow)},
		"empty name":            {doc("", sshAllow)},
		"hidden name":           {doc(".a", sshAllow)},
		"long name":             {doc(strings.Repeat("a", 97), sshAllow)},
		"no version":            {{Name: "a", Kind: Sallyport, Source: "package sallyport\n" + sshAllow}},
		"unknown kind":          {{Name: "a", Version: 1, Kind: "cel", Source: "x"}},
		"unknown state":         {{Name: "a", Version: 1, Kind: Sallyport, State: "paused", Source: "x"}},
		"too long":              {doc("a", sshAllow+"\n# "+strings.Repeat("x", MaxSource))},
		"not UTF-8":             {doc("a", sshAllow+"\n# \xff")},
		"too many":              many,
	}
	for name, documents := range tests {
		t.Run(name, func(t *testing.T) {
			if s, err := Compile(documents, clock); !fault.Is(err, fault.Invalid) || s != nil {
				t.Errorf("got %v, want Invalid", err)
			}
		})
	}
}

func TestCompile_leavesRemovedDocumentsOut(t *testing.T) {
	gone := doc("gone", `release := {"allow": false}`)
	gone.State = Removed
	s := mustCompile(t, gone, doc("a", sshAllow))
	if d := decide(t, s, "release", request()); !d.Allow {
		t.Errorf("a removed document voted: %+v", d)
	}
	if got := s.Documents(); len(got) != 1 || got[0].Name != "a" {
		t.Errorf("documents %v", got)
	}
}

func TestDocument_rows(t *testing.T) {
	d := Document{Name: "base", Version: 4, Kind: Sallyport, Source: "x", Author: "01J", At: time.UnixMicro(5)}
	if diff := cmp.Diff([]any{"base", int64(4), "sallyport", "x", "01J", int64(5), "active"}, d.Columns()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]any{"base@4", int64(1), "sallyport", "x", "01J", int64(5), "active"}, Edition{d}.Columns()); diff != "" {
		t.Error(diff)
	}
	if d.Table() != "policies" || (Edition{d}).Table() != "policy_versions" {
		t.Error("tables")
	}
}

func FuzzCompile(f *testing.F) {
	f.Add(baseText, 0)
	f.Add(exampleSSH, 0)
	f.Add(resourceText, 1)
	f.Add(defaultCPUText, 2)
	f.Add("package sallyport\nrelease[x][y] := z if some x, y, z in input", 0)
	f.Add("package sallyport\nrelease := {\"allow\": {}[input.x]} else := 3", 0)
	f.Add("# METADATA\n# schemas:\n#   - input: {$ref: \"http://127.0.0.1/\"}\npackage policy\nallow := x", 1)
	f.Fuzz(func(t *testing.T, text string, kind int) {
		kinds := []Kind{Sallyport, KBSResource, KBSAttestation}
		d := Document{Name: "fuzz", Version: 1, Kind: kinds[((kind%3)+3)%3], Source: text}
		s, err := Compile([]Document{d}, clock)
		if (s == nil) == (err == nil) {
			t.Fatal("neither a set nor an error")
		}
		if err != nil && !fault.Is(err, fault.Invalid) {
			t.Fatalf("got %v, want Invalid", err)
		}
	})
}
