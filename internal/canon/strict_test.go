package canon_test

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/fault"
)

type order struct {
	Name  string         `json:"name"`
	Count int64          `json:"count,omitempty"`
	Big   uint64         `json:"big,string,omitempty"`
	Key   []byte         `json:"key,omitempty"`
	Parts []order        `json:"parts,omitempty"`
	Any   map[string]any `json:"any,omitempty"`
}

func TestStrict_Decodes(t *testing.T) {
	in := ` {"name":"a","count":7,"big":"18446744073709551615","key":"aGk=","parts":[{"name":"b"}],"any":{"x":[1,"2",null]}} `
	want := order{
		Name: "a", Count: 7, Big: math.MaxUint64, Key: []byte("hi"), Parts: []order{{Name: "b"}},
		Any: map[string]any{"x": []any{1.0, "2", nil}},
	}
	for name, decode := range map[string]func([]byte, int, int, any) error{"strict": canon.Strict, "lenient": canon.Lenient} {
		var got order
		if err := decode([]byte(in), len(in), 3, &got); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestStrict_RefusesHostileJSON(t *testing.T) {
	type test struct {
		in    string
		known bool // fine but for an unknown name: Lenient takes it
	}
	tests := map[string]test{
		"unknown name":          {in: `{"name":"a","extra":1}`, known: true},
		"name in another case":  {in: `{"Name":"a"}`, known: true},
		"nested unknown":        {in: `{"name":"a","parts":[{"nam":"b"}]}`, known: true},
		"duplicate in unknown":  {in: `{"name":"a","extra":{"x":1,"x":2}}`},
		"range in unknown":      {in: `{"name":"a","extra":1e400}`},
		"null":                  {in: ` null `},
		"wrong type":            {in: `{"name":1}`},
		"number as text":        {in: `{"name":"a","count":"7"}`},
		"integer overflow":      {in: `{"name":"a","count":9223372036854775808}`},
		"fraction":              {in: `{"name":"a","count":1.5}`},
		"depth":                 {in: `{"name":"a","any":{"x":[[1]]}}`},
		"size":                  {in: `{"name":"` + strings.Repeat("a", 1000) + `"}`},
		"depth by quoted quote": {in: `{"name":"\"","any":{"x":[[1]]}}`},
		"depth behind escapes":  {in: `{"name":"\\","any":{"x":[[1]]}}`},
		"depth behind more":     {in: `{"name":"a\\\"\\","any":{"x":[[1]]}}`},
		"range behind escapes":  {in: `{"name":"\\\"\\\\","any":{"x":1e400}}`},
	}
	for name, in := range refused {
		tests["as canonical: "+name] = test{in: `{"any":{"x":` + in + `}}`}
		tests["bare: "+name] = test{in: in}
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var got order
			if err := canon.Strict([]byte(tt.in), 600, 3, &got); !fault.Is(err, fault.Invalid) {
				t.Errorf("strict: got %+v, %v; want Invalid", got, err)
			}
			got = order{}
			err := canon.Lenient([]byte(tt.in), 600, 3, &got)
			if tt.known && err != nil {
				t.Errorf("lenient: %v", err)
			}
			if !tt.known && !fault.Is(err, fault.Invalid) {
				t.Errorf("lenient: got %+v, %v; want Invalid", got, err)
			}
		})
	}
}

func TestStrict_NamesThePlaceAndNoValue(t *testing.T) {
	const canary = "hunter2"
	for in, place := range map[string]string{
		`{"name":"a","parts":[{"count":"` + canary + `"}]}`: `"/parts/0/count"`,
		`{"name":"a","extra":"` + canary + `"}`:             `"/extra"`,
		`{"name":"` + canary + `","name":"b"}`:              "twice",
		`{"name":"` + canary + `"`:                          "well-formed",
	} {
		var got order
		err := canon.Strict([]byte(in), 1000, 9, &got)
		if text := fault.Public(err); !strings.Contains(text, place) || strings.Contains(text, canary) {
			t.Errorf("%s: %q, want mention of %s and no value", in, text, place)
		}
	}
}

func FuzzStrict(f *testing.F) {
	for _, in := range refused {
		f.Add([]byte(in))
	}
	f.Add([]byte(`{"name":"a","count":7,"big":"9","key":"aGk=","parts":[{"name":"b"}],"any":{"x":[1,"2",null]}}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		var strict, lenient order
		err := canon.Strict(in, 4096, 8, &strict)
		lax := canon.Lenient(in, 4096, 8, &lenient)
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatalf("%q: %v is not Invalid", in, err)
			}
			return
		}
		if diff := cmp.Diff(strict, lenient); lax != nil || diff != "" {
			t.Fatalf("%q: lenient differs: %v\n%s", in, lax, diff)
		}
		// Whatever was let in has one meaning: it has a canonical form, and the
		// lax standard decoder reads the same from it.
		form, err := canon.Transform(in)
		if err != nil {
			t.Fatalf("%q: strict took what has no canonical form: %v", in, err)
		}
		var std order
		if err := json.Unmarshal(form, &std); err != nil && !strings.Contains(string(in), `"big"`) {
			t.Fatalf("%q: %v", in, err)
		}
	})
}
