package kbs

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"

	pluginv1 "github.com/sallyport-project/sallyport/api/kbs/plugin/v1"
)

var update = flag.Bool("update", false, "write the vectors for the SDK in Python anew")

// vectors are what the tests of the SDK in Python read: what both must take, and
// what both must refuse, by the same check.
const vectors = "../../../python/kbs_plugin_sdk/tests/contexts.json"

type vector struct {
	Name     string   `json:"name"`
	Contexts []string `json:"contexts"`
	At       int64    `json:"at"`
	Request  *Request `json:"request"`
	Refused  string   `json:"refused,omitempty"` // by what is said
	Context  *Context `json:"context,omitempty"`
}

// TestVectors_AreWhatPythonReads: the file holds what this verifier says.
func TestVectors_AreWhatPythonReads(t *testing.T) {
	b := newBroker(t)
	keys, err := b.set(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all := append([]showing{
		{name: "a guest", contexts: []string{b.sign("one", nil)}},
		{name: "an administrator", contexts: []string{b.sign("one", func(_, claims map[string]any) {
			delete(claims, "guest")
			claims["caller"], claims["administrator"] = "administrator", "alice"
		})}},
		{name: "thirty seconds early", contexts: []string{b.sign("one", nil)}, at: -contextLeeway},
		{name: "names of two alphabets", contexts: []string{b.sign("one", func(_, claims map[string]any) {
			claims["request"] = (&showing{change: twoAlphabets}).digest()
		})}, change: twoAlphabets},
	}, refusals(t, b)...)
	var list []vector
	for _, s := range all {
		now := noon.Add(s.at)
		who, err := b.verifier(&now).check(shown(s.contexts...), s.request(), false)
		v := vector{Name: s.name, Contexts: append([]string{}, s.contexts...), At: now.Unix(), Request: s.request(), Context: who}
		if err != nil {
			v.Refused, _, _ = strings.Cut(err.Error(), ":")
		}
		list = append(list, v)
	}
	text, err := json.MarshalIndent(map[string]any{"audience": "models", "keys": json.RawMessage(keys), "vectors": list}, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	text = append(text, '\n')
	if *update {
		if err := os.WriteFile(vectors, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if kept, err := os.ReadFile(vectors); err != nil || !bytes.Equal(kept, text) {
		t.Errorf("%s differs from what this package says (%v): write it anew with -update", vectors, err)
	}
}

// twoAlphabets asks with names that have another order by UTF-16 than by bytes.
func twoAlphabets(r *Request) {
	r.Path, r.Query, r.Body = []string{"ä", "/"}, map[string]string{"\U0001F511": "1", "\uFF5E": "2", "": "3"}, []byte{0xff, 0}
}

func (s showing) digest() string {
	r := s.request()
	return pluginv1.RequestDigest(r.Method, r.Path, r.Query, r.Body)
}
