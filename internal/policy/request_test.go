package policy

import (
	"testing"
	"time"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func clock() time.Time { return noon }

func doc(name, body string) Document {
	return Document{Name: name, Version: 1, Kind: Sallyport, Source: "package sallyport\n" + body, At: noon}
}

// mustCompile makes a set that has time, so that a busy machine does not decide
// tests. What concerns Limit itself compiles by itself.
func mustCompile(t testing.TB, documents ...Document) *Set {
	t.Helper()
	s, err := Compile(documents, clock)
	if err != nil {
		t.Fatalf("compile: %v", err)
	}
	s.limit = TestLimit
	return s
}

// request is an input that fits every verb, changed by the given members of
// nested objects.
func request(change ...map[string]any) map[string]any {
	in := map[string]any{
		"subject": map[string]any{
			"id": "01J", "kind": "agent", "role": "deployer", "name": "ci", "state": "registered", "team": "core",
			"attributes": map[string]any{},
		},
		"session": map[string]any{"id": "01S", "delegated": false, "scopes": []any{}},
		"action":  "vend",
		"target":  map[string]any{"kind": "credential"},
		"request": map[string]any{
			"kind": "ssh-user-cert", "ttl_seconds": 600,
			"params": map[string]any{"principals": []any{"deploy"}},
		},
		"context": map[string]any{
			"time": "2026-03-01T12:00:00Z", "door": "rest", "address": "10.0.0.7", "method": "POST",
		},
	}
	for _, c := range change {
		merge(in, c)
	}
	return in
}

func merge(into, from map[string]any) {
	for k, v := range from {
		a, ok := into[k].(map[string]any)
		b, is := v.(map[string]any)
		if ok && is {
			merge(a, b)
			continue
		}
		into[k] = v
	}
}

type object = map[string]any
