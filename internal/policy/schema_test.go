package policy

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
)

func schema(t testing.TB, name string) map[string]any {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "api", "schema", "policy-"+name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var s map[string]any
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return s
}

// conforms is the part of JSON Schema that our schemas use.
func conforms(s map[string]any, at string, v any) error {
	if enum, ok := s["enum"].([]any); ok && !slices.Contains(enum, v) {
		return fmt.Errorf("%s: %v is not one of %v", at, v, enum)
	}
	if kind, ok := s["type"].(string); ok && !isOf(kind, v) {
		return fmt.Errorf("%s: %v is no %s", at, v, kind)
	}
	if least, ok := s["minimum"].(float64); ok && v.(float64) < least {
		return fmt.Errorf("%s: below %v", at, least)
	}
	if most, ok := s["maximum"].(float64); ok && v.(float64) > most {
		return fmt.Errorf("%s: above %v", at, most)
	}
	if items, ok := s["items"].(map[string]any); ok {
		for i, one := range v.([]any) {
			if err := conforms(items, fmt.Sprintf("%s[%d]", at, i), one); err != nil {
				return err
			}
		}
	}
	required, _ := s["required"].([]any)
	properties, _ := s["properties"].(map[string]any)
	members, _ := v.(map[string]any)
	for _, r := range required {
		if _, ok := members[r.(string)]; !ok {
			return fmt.Errorf("%s: %s is missing", at, r)
		}
	}
	for k, one := range members {
		p, ok := properties[k].(map[string]any)
		if !ok {
			if s["additionalProperties"] == false {
				return fmt.Errorf("%s: %s is unknown", at, k)
			}
			continue
		}
		if err := conforms(p, at+"."+k, one); err != nil {
			return err
		}
	}
	return nil
}

func isOf(kind string, v any) bool {
	switch v := v.(type) {
	case map[string]any:
		return kind == "object"
	case []any:
		return kind == "array"
	case string:
		return kind == "string"
	case bool:
		return kind == "boolean"
	case float64:
		return kind == "number" || kind == "integer" && v == float64(int64(v))
	}
	return false
}

// plain is v as it comes out of JSON.
func plain(t testing.TB, v any) any {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var out any
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// The requests that the tests of this package ask are requests as the schemas
// describe them.
func TestSchema_describesRequests(t *testing.T) {
	in := request(object{
		"evidence": object{"kind": "join-token", "verified": true, "role": "deployer"},
		"signal":   object{"kind": "leak"}, "message": object{"method": "tools/call"},
	})
	for _, verb := range Verbs() {
		s := schema(t, verb)
		if err := conforms(s, "input", plain(t, in)); err != nil {
			t.Errorf("%s: %v", verb, err)
		}
		if s["$schema"] != "https://json-schema.org/draft/2020-12/schema" {
			t.Errorf("%s: dialect %v", verb, s["$schema"])
		}
		for _, r := range s["required"].([]any) {
			less := plain(t, in).(map[string]any)
			delete(less, r.(string))
			if conforms(s, "input", less) == nil {
				t.Errorf("%s: accepts an input without %s", verb, r)
			}
		}
		if conforms(s, "input", plain(t, request(object{"subject": object{"kind": "robot"}}))) == nil {
			t.Errorf("%s: accepts an unknown kind of subject", verb)
		}
	}
}

func TestSchema_describesAnswers(t *testing.T) {
	s := schema(t, "answer")
	e, err := withExample(t).Explain(t.Context(), "release", request())
	if err != nil {
		t.Fatal(err)
	}
	answered := 0
	for _, d := range e.Documents {
		if d.Answer == nil {
			continue
		}
		answered++
		if err := conforms(s, d.Document, plain(t, d.Answer)); err != nil {
			t.Error(err)
		}
	}
	if answered != 1 {
		t.Errorf("%d answers", answered)
	}
	for _, bad := range []object{{}, {"allow": "true"}, {"allow": true, "x": 1}, {"allow": true, "bounds": object{"max_ttl_seconds": 1.5}}, {"allow": true, "bounds": object{"max_ttl_seconds": 0}}} {
		if conforms(s, "answer", plain(t, bad)) == nil {
			t.Errorf("accepts %v", bad)
		}
	}
}

// A misspelt member in one of our own documents would be a condition that never
// holds.
func TestSchema_knowsWhatOurDocumentsRead(t *testing.T) {
	for name, text := range map[string]string{"base": baseText, "ssh": exampleSSH, "freeze": exampleFreeze} {
		module := ast.MustParseModule(text)
		ast.WalkRefs(module, func(r ast.Ref) bool {
			if !r[0].Equal(ast.InputRootDocument) {
				return false
			}
			known := false
			for _, verb := range Verbs() {
				known = known || reaches(schema(t, verb), r[1:])
			}
			if !known {
				t.Errorf("%s reads %s, which no schema has", name, r)
			}
			return false
		})
	}
}

func reaches(s map[string]any, path ast.Ref) bool {
	for _, step := range path {
		key, ok := step.Value.(ast.String)
		properties, _ := s["properties"].(map[string]any)
		next, found := properties[string(key)].(map[string]any)
		if !ok || !found {
			return false
		}
		s = next
	}
	return true
}
